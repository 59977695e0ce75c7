# yolo-prune, AGPL-3.0 license
"""A training run of seconds by the host's real trainer, for the tests that need one."""

from __future__ import annotations

import json
import shutil
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


class StoppedError(Exception):
    """Stands for a kill: it ends a training where it is."""


def stop_in(
    yolo: YOLO, epoch: int, event: str = "on_train_batch_end", error: type[BaseException] = StoppedError
) -> None:
    """Have the next training end in this epoch, from 0, at the first of these events."""

    def stop(trainer: Any) -> None:
        if trainer.epoch == epoch:
            raise error

    yolo.add_callback(event, stop)


def keep_as_killed(yolo: YOLO, epoch: int, batch: int, folder: Path) -> None:
    """Have the next training copy its folder at the end of a batch, both from 0: what a kill there would leave of it.

    What it leaves is resumed where it lay, for its checkpoints name that place.
    """
    at = {"batch": -1}

    def begin(trainer: Any) -> None:
        at["batch"] = -1

    def keep(trainer: Any) -> None:
        at["batch"] += 1
        if (trainer.epoch, at["batch"]) == (epoch, batch):
            shutil.copytree(trainer.save_dir, folder)

    yolo.add_callback("on_train_epoch_start", begin)
    yolo.add_callback("on_train_batch_end", keep)


def record_of(run: Path) -> dict[str, Any]:
    """The record that a run left."""
    found: dict[str, Any] = json.loads((run / "pruning" / "record.json").read_text())
    return found


def widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Output and input channels of every convolution of a model."""
    return {n: (m.out_channels, m.in_channels) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
