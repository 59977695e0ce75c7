# yolo-prune, AGPL-3.0 license
"""A run that was killed and resumed is the run that was not: in widths, and where it can be seen to the last bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from tests.helpers.runs import StoppedError, keep_as_killed, record_of, stop_in, train, widths
from tests.helpers.small_models import untrained
from yolo_prune.host import cadence
from yolo_prune.host.run import Run

# The default recipe with its step late enough that an epoch lies before it, and what makes a state hard to carry over:
# gradients that wait across epochs (nbs=64), a warm-up, mosaics drawn from images that were loaded before.
DEFAULT: dict[str, Any] = {"prune": 0.5, "prune_start": 0.6, "epochs": 5, "batch": 3}
RECIPES: dict[str, dict[str, Any]] = {
    "default": DEFAULT,
    "steps": {
        **DEFAULT,
        "prune_schedule": "linear",
        "prune_steps": 3,
        "prune_start": 0.2,
        "prune_end": 0.8,
        "prune_regularize": "growing",
        "optimizer": "AdamW",
        "nbs": 9,
    },
    "max_drop": {**DEFAULT, "prune_max_drop": 0.9, "prune_regularize": "group", "nbs": 3},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_and_resumed_run_takes_the_steps_of_one_that_was_not(
    name: str, tiny_data: Path, tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", untrained()
    keep_as_killed(whole, 2, 1, tmp_path / "killed")
    train(tiny_data, tmp_path, whole, **RECIPES[name])
    run.rename(tmp_path / "whole")
    (tmp_path / "killed").rename(run)
    assert len(list((run / "pruning").glob("resume-*.pt"))) == 1
    assert [row["epoch"] for row in record_of(run)["history"]] == [1, 2]
    resumed = YOLO(run / "weights" / "last.pt")
    resumed.train(resume=True)
    expected, found = record_of(tmp_path / "whole"), record_of(run)
    assert [row["params"] for row in found["steps"]] == [row["params"] for row in expected["steps"]]
    assert found["layers"] == expected["layers"]
    assert widths(resumed.model) == widths(whole.model)
    assert [row["epoch"] for row in found["history"]] == [1, 2, 3, 4, 5]
    one, other = (trainer.trainer.ema.ema.state_dict() for trainer in (whole, resumed))
    if name != "max_drop":  # the state is kept until all widths are decided, and here the last epochs come after that
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert not list((run / "pruning").glob("resume-*.pt")), "no more is to be decided"


def test_a_checkpoint_that_was_copied_away_is_resumed_with_a_word(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo = untrained()
    stop_in(yolo, 2)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, **DEFAULT)
    for path in (tmp_path / "run" / "pruning").glob("resume-*.pt"):
        path.unlink()
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        YOLO(tmp_path / "run" / "weights" / "last.pt").train(resume=True)
    assert "nothing is kept beside" in caplog.text
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]


class Trainer:
    """The part of the host's loop that decides when to step, word for word (8.4.190, engine/trainer.py)."""

    def __init__(self) -> None:
        self.accumulate = 4
        self.stepped: list[int] = []
        self.callbacks: dict[str, Any] = {}
        self.ni = 0

    def add_callback(self, event: str, callback: Any) -> None:
        self.callbacks[event] = callback

    def optimizer_step(self) -> None:
        self.stepped.append(self.ni)

    def run(self, first: int, last: int) -> None:
        last_opt_step = -1
        for self.ni in range(first, last):
            self.callbacks["on_train_batch_start"](self)
            self.accumulate = min(4, 1 + self.ni // 3)
            if self.ni - last_opt_step >= self.accumulate:
                self.optimizer_step()
                last_opt_step = self.ni
            self.callbacks["on_train_batch_end"](self)


@pytest.mark.parametrize("at", range(1, 20))
def test_a_resumed_optimizer_steps_at_the_batches_of_one_that_was_not_interrupted(at: int) -> None:
    whole, first, second = Trainer(), Trainer(), Trainer()
    cadence.Cadence(Run(whole))
    before, after = cadence.Cadence(Run(first)), cadence.Cadence(Run(second))
    whole.run(0, 40)
    first.run(0, at)
    after.resume(before.waiting)
    second.run(at, 40)
    assert first.stepped + second.stepped == whole.stepped
    assert len(whole.stepped) > 9
