# yolo-prune, AGPL-3.0 license
"""Trainers with optimizers of one's own train on after a cut, whatever these keep of a parameter."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from tests.helpers.runs import SMALL, record_of

# Not those that the host cannot step either: LBFGS wants a closure, SparseAdam sparse gradients, Muon matrices alone.
KINDS = ["ASGD", "Adadelta", "Adafactor", "Adagrad", "Rprop", "Adamax", "NAdam", "RAdam"]


@pytest.mark.parametrize("kind", [name for name in KINDS if hasattr(torch.optim, name)])
def test_an_optimizer_of_ones_own_trains_on_after_a_cut(
    kind: str, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(DetectionTrainer):
        def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(torch.optim, kind)([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    seen: list[bool] = []

    def after(trainer: Any) -> None:
        if trainer.epoch == 1:
            live = [p for p in trainer.model.parameters() if p.requires_grad]
            seen.append(all(len(trainer.optimizer.state[p]) for p in live))

    arguments = {**SMALL, "data": str(tiny_data), "project": str(tmp_path), "name": "run", "epochs": 2, "nbs": 4}
    arguments |= {"prune": 0.5, "prune_schedule": "oneshot", "prune_start": 0.5}
    trainer = Own(overrides={"model": "yolov8n.yaml", **arguments})
    trainer.add_callback("on_train_epoch_end", after)
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        trainer.train()
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    assert seen == [True]
    said = [line for line in caplog.messages if "has another shape than they" in line]
    assert len(said) == (kind == "Adafactor")
