# yolo-prune, AGPL-3.0 license
"""Running artifacts as the host does, and what it makes of their outputs: its backend, its NMS, its forms of a box.

Read in ultralytics 8.4.190: nn/autobackend.py (`AutoBackend`), utils/nms.py (`non_max_suppression`), utils/metrics.py
(`batch_probiou`), utils/ops.py (`xywh2xyxy`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.metrics import batch_probiou
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy

from yolo_prune.errors import PruneError, first_line
from yolo_prune.host import silence

NMS_IOU = 0.7  # the host's default `iou`
MAX_DET = 300  # the host's default `max_det`


def backend(artifact: Path, device: str) -> Any:
    """The host's own runtime of an artifact: a function of images (n, channels, height, width) on that device.

    Raises:
        PruneError: the host cannot open it.
    """
    try:
        return AutoBackend(str(artifact), device=torch.device(device), verbose=False)
    except Exception as error:  # every runtime has its own
        raise PruneError(f"{artifact.name} cannot be opened: {first_line(error)}") from error


def metadata(artifact: Path) -> dict[str, Any]:
    """What the host wrote into an artifact: task, end2end, imgsz, names and more."""
    with silence.quiet():
        opened: Any = backend(artifact, "cpu")
    inner = getattr(opened, "backend", opened)  # older releases have no backend in the backend
    return {**dict(getattr(inner, "metadata", None) or {}), "end2end": bool(getattr(opened, "end2end", False))}


def nms(output: Tensor, confidence: float, classes: int, rotated: bool) -> list[tuple[Tensor, Tensor]]:
    """Run the host's NMS on raw outputs (images, 4 + classes + more, anchors), which stay as they are.

    Returns:
        For each image, boxes (n, 6 + more) and their anchors (n,). Boxes are x1, y1, x2, y2, score, class, more;
        rotated ones x, y, w, h, score, class, angle.
    """
    boxes, anchors = non_max_suppression(
        output.clone(),
        confidence,
        NMS_IOU,
        nc=classes,
        rotated=rotated,
        max_det=MAX_DET,
        max_time_img=math.inf,  # on a slow machine it would stop half-way
        return_idxs=True,
    )
    return list(zip(boxes, anchors, strict=True))


def corners(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as x, y, w, h -> as x1, y1, x2, y2."""
    converted: Tensor = xywh2xyxy(boxes)
    return converted


def overlap_rotated(a: Tensor, b: Tensor) -> Tensor:
    """The host's measure of overlap of rotated boxes (n, 5) and (m, 5), each x, y, w, h, angle: (n, m)."""
    overlap: Tensor = batch_probiou(a, b)
    return overlap
