# yolo-prune, AGPL-3.0 license
"""What torch and an artifact of it put out for the same images, in one form.

Torch runs the model as the host's exporter prepares it (ultralytics 8.4.190, engine/exporter.py, "Update model"):
fused, with the head's `export` set, so that its outputs are those of the artifact. Artifacts run in
device/runtimes.py, told how precisely to compute; engines, on a GPU, in the host's own backend.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolo_prune.cost.layer_shapes import deployed
from yolo_prune.device import runtimes
from yolo_prune.errors import PruneError, first_line
from yolo_prune.export import prove
from yolo_prune.host import exporter, inference
from yolo_prune.host.model_facts import task_of

Call = Callable[[Tensor], list[Tensor]]  # a batch (n, channels, height, width) -> its outputs, each (n, ...)


def of_torch(network: nn.Module, end2end: bool, side: int, kind: str = "torchscript") -> Call:
    """A copy of a stock model, as the exporter makes it.

    Args:
        network: it is not changed. end2end: whether a head that has final boxes puts them out. side: pixels.
        kind: the format, for heads that put out other things in some: classes in place of logits, for one.
    """
    model: Any = deployed(network, end2end)
    head = model.model[-1]
    head.export, head.format = True, kind
    if hasattr(head, "max_det"):
        places = sum(int(side / stride) ** 2 for stride in model.stride.tolist())
        head.max_det = min(int(head.max_det), int(getattr(head, "num_queries", places)))

    @torch.inference_mode()
    def call(images: Tensor) -> list[Tensor]:
        return _as_list(model(images))

    return call


def of_artifact(artifact: Path, kind: str, precision: str, threads: int) -> Call:
    """An artifact in its runtime.

    Raises:
        PruneError: the runtime cannot open it, or fails on an image.
    """
    if kind == "engine":
        backend = inference.backend(artifact, "cuda:0")
        return lambda images: [output.cpu() for output in _as_list(backend(images.cuda()))]
    run = runtimes.runner(exporter.opened(artifact, kind), kind, threads, precision)
    scale = _scale(artifact) if kind == "litert" else None

    def call(images: Tensor) -> list[Tensor]:
        try:
            outputs = [torch.from_numpy(np.asarray(one)) for one in run(np.ascontiguousarray(images.numpy()))]
        except Exception as error:  # every runtime has its own
            raise PruneError(f"{artifact.name} fails on an image in {kind}: {first_line(error)}") from error
        return [scale(one, images.shape) for one in outputs] if scale else outputs

    return call


def _scale(artifact: Path) -> Callable[[Tensor, torch.Size], Tensor] | None:
    """Undo what the host does to LiteRT files alone: boxes and keypoints as shares of the image.

    As nn/backends/litert.py does (8.4.190).
    """
    metadata = inference.metadata(artifact)
    if (
        metadata.get("end2end")
        or metadata.get("head") == "RTDETRDecoder"
        or metadata.get("task") in {"classify", "semantic", "depth"}
    ):
        return None
    classes, points = len(metadata["names"]), metadata.get("kpt_shape")

    def undo(output: Tensor, shape: torch.Size) -> Tensor:
        if output.ndim != 3:
            return output
        output = output.clone()
        height, width = shape[2:]
        output[:, [0, 2]] *= width
        output[:, [1, 3]] *= height
        if points:
            output[:, 4 + classes :: points[1]] *= width
            output[:, 5 + classes :: points[1]] *= height
        return output

    return undo


def view(network: nn.Module, end2end: bool, side: int) -> prove.View:
    """How the outputs of a stock model are to be read, as `of_torch` makes them."""
    model: Any = network
    head = model.model[-1]
    task = task_of(model)
    if type(head).__name__ == "RTDETRDecoder":
        return prove.View("queries", None if hasattr(head, "postprocess") else int(head.nc), side=side)  # 8.4.0 has not
    if task in {"classify", "semantic", "depth"}:
        return prove.View({"classify": "classes", "semantic": "pixels"}.get(task, "map"))
    return prove.View("final" if end2end else "raw", int(head.nc), task == "obb" and not end2end, side)


def _as_list(output: Any) -> list[Tensor]:
    """The tensors of an output that may be one, or a tuple."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, np.ndarray):
        return [torch.from_numpy(output)]
    return [one for part in output for one in _as_list(part)]
