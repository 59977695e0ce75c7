# yolo-prune, AGPL-3.0 license
"""Exporting through the host, in a folder of our own and without what else the host's exporter does to a process.

Read in ultralytics 8.4.190: engine/exporter.py. It writes beside the .pt file, sets torch's threads, and installs what
it misses unless YOLO_AUTOINSTALL is off.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, checks

from yolo_prune.errors import PruneError, first_line
from yolo_prune.shapes import copy_of

# What the host's exporter imports for a format (and would try to install): module -> what pip calls it.
_NEEDED = {
    "onnx": {"onnx": "onnx", "onnxslim": "onnxslim"},
    "openvino": {"openvino": "openvino"},
    "ncnn": {"pnnx": "pnnx", "ncnn": "ncnn"},
}
_FILES = {"onnx": "*.onnx", "openvino": "*_openvino_model/*.xml", "ncnn": "*_ncnn_model/*.param"}


def missing(kind: str) -> list[str]:
    """What pip must install before the host can export to a format."""
    return [package for module, package in _NEEDED[kind].items() if find_spec(module) is None]


def export(network: nn.Module, folder: Path, kind: str, *, imgsz: int, precision: str = "fp32") -> Path:
    """Export a stock model.

    Args:
        network: it is not changed. folder: where to; it is made. kind: "onnx", "openvino" or "ncnn".
        imgsz: pixels. precision: "fp32" or "fp16".

    Returns:
        The .onnx, .xml or .param file.

    Raises:
        PruneError: a package is missing, or the host could not export.
    """
    packages = missing(kind)
    if packages:
        raise PruneError(f"exporting to {kind} needs {', '.join(packages)}: pip install {' '.join(packages)}")
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / "model.pt"
    torch.save(
        {"model": copy_of(network).cpu().half(), "ema": None, "train_args": {"imgsz": imgsz}, "epoch": -1}, staged
    )
    options: dict[str, Any] = {"format": kind, "imgsz": imgsz, "device": "cpu", **_precision(precision)}
    try:
        with restrained(), quiet(), _untouched():
            YOLO(str(staged)).export(**options)
    except Exception as error:  # the host's exporter raises anything, down to AssertionError
        words = first_line(error)
        raise PruneError(f"ultralytics could not export the model to {kind}: {words}") from error
    finally:
        staged.unlink(missing_ok=True)
    artifacts = sorted(folder.glob(_FILES[kind]))
    if not artifacts:
        raise PruneError(f"ultralytics exported the model to {kind} and left no file of it")
    return artifacts[0]


def _precision(precision: str) -> dict[str, Any]:
    """The host's argument: `quantize` in newer releases, `half` in older ones (8.4.0)."""
    if precision == "fp32":
        return {}
    return {"quantize": 16} if "quantize" in DEFAULT_CFG_DICT else {"half": True}


@contextlib.contextmanager
def restrained() -> Iterator[None]:
    """Let the host load checkpoints in its restricted way only, and install nothing (8.4.190, YOLO_AUTOINSTALL)."""
    safe, install = tasks.SAFE_LOAD, checks.AUTOINSTALL
    tasks.SAFE_LOAD, checks.AUTOINSTALL = True, False
    try:
        yield
    finally:
        tasks.SAFE_LOAD, checks.AUTOINSTALL = safe, install


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the host below warnings: while we export it would name files of our temporary folder."""
    level = LOGGER.level
    LOGGER.setLevel("WARNING")
    try:
        with _no_output():
            yield
    finally:
        LOGGER.setLevel(level)


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Send what native code writes to standard output (pnnx prints pages) to nowhere."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


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
