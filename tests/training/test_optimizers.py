# yolo-prune, AGPL-3.0 license
"""Trainers with optimizers of one's own train on after a cut, whatever these keep of a parameter."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from tests.helpers.runs import ANY_CHOICE, SMALL, record_of, train
from tests.helpers.small_models import SMALL_MODEL
from yolo_prune.errors import PruneError
from yolo_prune.host import console
from yolo_prune.recipe.arguments import ARGUMENTS

# Not those that the host cannot step either: LBFGS wants a closure, SparseAdam sparse gradients, Muon matrices alone.
CANNOT = {"LBFGS": "LBFGS needs a closure", "SparseAdam": "SparseAdam needs sparse gradients"}
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
    arguments |= {"prune": 0.5, "prune_schedule": "oneshot", "prune_start": 0.5, **ANY_CHOICE}
    trainer = Own(overrides={"model": str(SMALL_MODEL), **arguments})
    trainer.add_callback("on_train_epoch_end", after)
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        trainer.train()
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    assert seen == [True]
    said = [line for line in caplog.messages if "has another shape than they" in line]
    assert len(said) == (kind == "Adafactor")


@pytest.mark.parametrize("kind", CANNOT)
def test_an_optimizer_that_the_host_cannot_step_is_refused_before_the_first_epoch(
    kind: str, tiny_data: Path, tmp_path: Path
) -> None:
    class Own(DetectionTrainer):
        def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(torch.optim, kind)([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    arguments = {**SMALL, "data": str(tiny_data), "project": str(tmp_path), "name": "run", "epochs": 2, "prune": 0.5}
    trainer = Own(overrides={"model": str(SMALL_MODEL), **arguments})
    with pytest.raises(PruneError, match=f"^{CANNOT[kind]}.*such as torch.optim.AdamW") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "results.csv").exists()


def test_a_name_that_is_no_optimizer_is_said_in_one_line(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotImplementedError) as caught:
        train(tiny_data, tmp_path, epochs=1, prune=0.5, optimizer="Foo")
    monkeypatch.setattr(sys, "argv", ["yolo", "train", "prune=0.5", "optimizer=Foo"])
    line = console.host_fault(caught.value, caught.tb, ARGUMENTS) or ""
    assert line.startswith("optimizer=Foo: Optimizer ")
    assert "\n" not in line
