# yolo-prune, AGPL-3.0 license
"""What is asked of a user's YOLO object: its network, its image size, its fitness; and what it is told after a cut.

Read in ultralytics 8.4.190, engine/model.py (`Model`).
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import ultralytics
from torch import nn
from ultralytics.engine.model import Model


def is_yolo(model: object) -> bool:
    """Whether this is a YOLO object of the host (YOLO, RTDETR, ...), and not a network alone."""
    return isinstance(model, Model)


def network_of(model: Any) -> Any:
    """The network of a YOLO object; what is none is returned as it is."""
    return model.model if is_yolo(model) else model


def name_of(model: Any) -> str:
    """How a message calls a model: its file, else the class of its network."""
    return str(getattr(model, "ckpt_path", None) or type(network_of(model)).__name__)


def of(weights: str | Path) -> Any:
    """The YOLO object of a checkpoint, or of a yaml of the host, which has random weights."""
    return ultralytics.YOLO(str(weights))


def open_with(path: Path, network: nn.Module) -> Any:
    """The YOLO object of a checkpoint that has been loaded already: its network is `network`."""
    model = ultralytics.YOLO(str(path))
    model.model = network
    return model


def image_size(model: Any) -> int | None:
    """The image size in pixels that a YOLO object was trained with, where it says."""
    size = (getattr(model, "overrides", None) or {}).get("imgsz")
    return int(size) if size else None


def fitness(model: Any, data: str | Path | None, imgsz: int | None) -> float | None:
    """Fitness of a YOLO object on a data set, as its trainer would say it; None without a data set.

    Its network is copied, because the host fuses what it validates.
    """
    if data is None:
        return None
    network = model.model
    model.model = deepcopy(network)
    try:
        size = {} if imgsz is None else {"imgsz": imgsz}
        return float(model.val(data=str(data), plots=False, verbose=False, **size).fitness)
    finally:
        model.model = network


def refresh(model: Any, network: nn.Module) -> None:
    """Tell a YOLO object that its network changed: a cached predictor and a checkpoint's EMA would be the old width."""
    if network is not model:
        model.predictor = None
        vars(model).pop("yolo_prune_stopped", None)  # yolo_methods.py: it is no longer what a stopped training left
        # Of an object without a checkpoint (from a yaml) the host's train() would take the yaml's name, and no weights.
        model.ckpt = {**(getattr(model, "ckpt", None) or {}), "ema": None, "model": network, "optimizer": None}
