# yolo-prune, AGPL-3.0 license
"""A training run of seconds by the host's real trainer, for the tests that need one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO

from tests.helpers.small_models import untrained

SMALL: dict[str, Any] = {
    "imgsz": 64,
    "batch": 4,
    "workers": 0,
    "device": "cpu",
    "plots": False,
    "amp": False,
    "seed": 0,
    "optimizer": "SGD",
    "verbose": False,
}
# Of a run of which it does not matter which channels go, nor whether others make up for them: the quickest of all.
ANY_CHOICE: dict[str, Any] = {"prune_importance": "l2", "prune_reconstruct": "none"}


def train(data: Path, folder: Path, model: YOLO | None = None, **arguments: Any) -> YOLO:
    """Train into folder/run, the small model from random weights unless a model is given."""
    yolo = model or untrained()
    yolo.train(data=str(data), project=str(folder), name="run", exist_ok=True, **{**SMALL, **arguments})
    return yolo


def record_of(run: Path) -> dict[str, Any]:
    """The record that a run left."""
    found: dict[str, Any] = json.loads((run / "pruning" / "record.json").read_text())
    return found


def widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Output and input channels of every convolution of a model."""
    return {n: (m.out_channels, m.in_channels) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
