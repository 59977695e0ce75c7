# yolo-prune, AGPL-3.0 license
"""A data set of one image of noise: what the host calibrates INT8 on where only the time and size of a file count.

Where a network has its integers does not depend on the images, so neither does its time. Read in ultralytics 8.4.190:
engine/exporter.py, `get_int8_calibration_dataloader`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from torch import nn

from yolo_prune.errors import PruneError
from yolo_prune.graph import image_shape
from yolo_prune.host.model_facts import task_of
from yolo_prune.recipe import formats

_NONE = ("semantic", "depth")  # the host reads a mask beside each image of these


def arguments(network: nn.Module, kind: str, precision: str, folder: Path, imgsz: int) -> dict[str, Any]:
    """What an export is given beside its format and precision: in INT8 this data set, which is written now.

    Args:
        network: a stock model. kind: a name in formats.FORMATS. folder: where the data set may lie. imgsz: pixels.

    Raises:
        PruneError: the host calibrates models of this task on more than images.
    """
    if precision != "int8" or not formats.FORMATS[kind].calibrated:
        return {}
    task = task_of(network)
    if task in _NONE:
        raise PruneError(f"INT8 files of the task {task} are not measured by this version: write precision=fp32")
    return {"data": str(_write(network, task, folder / "noise", imgsz)), "batch": 1}


def _write(network: Any, task: str, folder: Path, imgsz: int) -> Path:
    """The yaml of the data set; of the task classify its folder."""
    channels = image_shape.channels(network)
    image = np.random.default_rng(0).integers(0, 256, (imgsz, imgsz, channels), dtype=np.uint8)
    if task == "classify":
        for split in ("train", "val"):
            _picture(folder / split / "0", image)
        return folder
    _picture(folder / "images", image)
    content: dict[str, Any] = {"path": str(folder.resolve()), "train": "images", "val": "images", "names": {0: "none"}}
    points = getattr(network, "kpt_shape", None) or getattr(network, "yaml", {}).get("kpt_shape")
    content |= {"channels": channels} | ({"kpt_shape": [int(n) for n in points]} if points else {})
    (folder / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "data.yaml"


def _picture(folder: Path, image: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if image.shape[2] in (1, 3):
        written, name = cv2.imencode(".png", image)[1], "noise.png"
    else:  # the host stacks the pages of a TIFF as channels
        pages = list(np.ascontiguousarray(image.transpose(2, 0, 1)))
        written, name = cv2.imencodemulti(".tiff", pages)[1], "noise.tiff"
    (folder / name).write_bytes(written.tobytes())
