# yolo-prune, AGPL-3.0 license
"""Exporting through the host, in a folder of our own and without what else the host's exporter does to a process.

Read in ultralytics 8.4.190: engine/exporter.py. It writes beside the .pt file, sets torch's threads, and installs what
it misses unless YOLO_AUTOINSTALL is off.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG_DICT, checks

from yolo_prune import files, scratch
from yolo_prune.errors import PruneError, first_line
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import checkpoint, noise_data, silence
from yolo_prune.recipe import formats

# What a runtime opens of an artifact that is a folder.
_OPENED = {"openvino": "*.xml", "ncnn": "*.param"}


def require(kind: str, precision: str = "fp32") -> None:
    """Raise PruneError with the pip command unless the host can export to a format."""
    packages = formats.missing(kind, precision, run=False)
    if packages:
        raise PruneError(f"exporting to {kind} needs {', '.join(packages)}: pip install {' '.join(packages)}")


def export(network: nn.Module, folder: Path, kind: str, *, imgsz: int, precision: str = "fp32") -> Path:
    """Export a stock model for its time or size.

    Args:
        network: it is not changed. folder: where to; it is made. kind: "onnx", "openvino" or "ncnn".
        imgsz: pixels. precision: "fp32", "fp16" or "int8", which is calibrated on noise: such a file is as fast as one
            to deploy, and no good otherwise.

    Returns:
        The .onnx, .xml or .param file.

    Raises:
        PruneError: a package is missing, or the host could not export.
    """
    require(kind, precision)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / "model.pt"
    checkpoint.write(staged, copy_of(network), {"train_args": {"imgsz": imgsz}})
    try:
        with scratch.folder() as place:
            more = noise_data.arguments(network, kind, precision, place, imgsz)
            return opened(by_host(staged, network, kind, precision, imgsz=imgsz, **more), kind)
    except OSError as error:
        raise PruneError(f"ultralytics could not export the model to {kind}: {first_line(error)}") from error
    finally:
        staged.unlink(missing_ok=True)


def by_host(staged: Path, network: nn.Module, kind: str, precision: str, **arguments: Any) -> Path:
    """Have the host export a checkpoint that lies in a folder of ours.

    Args:
        staged: the .pt file; what comes of it lies beside it. network: that the file holds, to know its class.
        kind: a name in formats.FORMATS. precision: "fp32", "fp16" or "int8". arguments: more of the host's.

    Returns:
        The artifact, a file or a folder.

    Raises:
        PruneError: the host could not, in its own words. OSError: a file beside `staged` could not be written.
    """
    options: dict[str, Any] = {"format": kind, "device": 0 if formats.FORMATS[kind].gpu else "cpu"}
    options |= {**_precision(precision), **arguments}
    try:
        with restrained(), silence.quiet(), _untouched(), _without_mnn_log():
            artifact = Path(str(checkpoint.family(network)(str(staged)).export(**options)))
    except Exception as error:  # the host's exporter raises anything, down to AssertionError
        if files.is_of_writing(error, staged.parent):
            raise  # a disk without room is not the exporter's fault
        words = first_line(error)
        raise PruneError(f"ultralytics could not export the model to {kind}: {words}") from error
    if not artifact.exists():
        raise PruneError(f"ultralytics exported the model to {kind} and left no file of it")
    return artifact


def takes(kind: str, argument: str) -> bool:
    """Whether the host's exporter takes an argument for a format: it refuses the others (8.4.190, `validate_args`)."""
    from ultralytics.engine.exporter import export_formats  # some seconds

    table = export_formats()
    taken = dict(zip(table["Argument"], table.get("Arguments", ()), strict=False))
    return argument in taken.get(kind, (argument,))


def opened(artifact: Path, kind: str) -> Path:
    """The file of an artifact that its runtime opens."""
    return next(iter(sorted(artifact.glob(_OPENED[kind]))), artifact) if kind in _OPENED else artifact


def default(argument: str) -> object:
    """The host's default of an argument: what an export does that says nothing of it."""
    return DEFAULT_CFG_DICT.get(argument)


def _precision(precision: str) -> dict[str, Any]:
    """The host's argument: `quantize` in newer releases, `half` and `int8` in older ones (8.4.0)."""
    if precision == "fp32":
        return {}
    bits = {"fp16": 16, "int8": 8}[precision]
    return {"quantize": bits} if "quantize" in DEFAULT_CFG_DICT else {{16: "half", 8: "int8"}[bits]: True}


@contextlib.contextmanager
def restrained(safe: bool | None = None) -> Iterator[None]:
    """Let the host load checkpoints in its restricted way only, and install nothing (8.4.190, YOLO_AUTOINSTALL).

    Args:
        safe: False for a model that the user trusts, or that is in this process already: what we wrote of it may hold
            classes of any package. None: as in the block around this one, and safe where there is none.
    """
    safe = _SAFE.get() if safe is None else safe
    before = {(module, name): getattr(module, name) for module, name in _SWITCHES if hasattr(module, name)}
    token = _SAFE.set(safe)
    for module, name in before:
        setattr(module, name, safe if name == "SAFE_LOAD" else False)
    try:
        yield
    finally:
        _SAFE.reset(token)
        for (module, name), value in before.items():
            setattr(module, name, value)


_SAFE = ContextVar("safe", default=True)
_SWITCHES = ((tasks, "SAFE_LOAD"), (checks, "AUTOINSTALL"))  # 8.4.0 has no SAFE_LOAD: it loads without restriction


@contextlib.contextmanager
def _without_mnn_log() -> Iterator[None]:
    """Keep MNN's converter from reporting to its makers.

    Its `MNN.tools.utils.log` (3.6.1), where it can be imported, runs `pip install -U aliyun-log-python-sdk`, which
    puts a protobuf in place that onnx cannot use, and sends word of each conversion. The converter does without it.
    """
    name = "MNN.tools.utils.log"
    there = name in sys.modules
    if not there:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say: not to be imported
    try:
        yield
    finally:
        if not there:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Give back torch's threads, the environment and every random state: a training may go on after us."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
