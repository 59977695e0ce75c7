# yolo-prune, AGPL-3.0 license
"""What helps a model after a cut: a learning rate that comes back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from tests.helpers.runs import StoppedError, record_of, stop_in, train, widths
from tests.helpers.small_models import untrained
from yolo_prune.host.spec_key import SPEC_KEY
from yolo_prune.recipe.setting_names import REMOVED
from yolo_prune.training.warmup import Warmup

ONE_STEP: dict[str, Any] = {"prune": 0.5, "prune_steps": 1, "prune_start": 0.5, "prune_end": 0.5}


def rates(warmup: Warmup, count: int) -> list[float]:
    """The rate that each of so many steps was taken at, of an optimizer whose own rate is 1."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    optimizer.register_step_pre_hook(lambda *_: warmup.before(optimizer))
    optimizer.register_step_post_hook(lambda *_: warmup.after(optimizer))
    found = []
    for _ in range(count):
        weight.grad = torch.ones(1)
        before = float(weight.detach())
        optimizer.step()
        found.append(before - float(weight.detach()))
        assert optimizer.param_groups[0]["lr"] == 1.0  # what the host's schedule set is as it was
    return found


def test_the_rate_comes_back_in_a_straight_line_and_then_stays() -> None:
    assert rates(Warmup(3), 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert rates(Warmup(0), 2) == pytest.approx([1, 1])


def test_a_factor_stays() -> None:
    warmup = Warmup(1)
    warmup.factor = 2.0
    assert rates(warmup, 3) == pytest.approx([1, 2, 2])


def test_a_warm_up_goes_on_where_it_was_put_away() -> None:
    first, second = Warmup(3), Warmup()
    before = rates(first, 2)
    assert second.load_state(first.state())
    assert before + rates(second, 3) == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert not second.load_state({"steps": 2, "factor": 1.0, "taken": 9})


def seen_rates(yolo: YOLO) -> list[tuple[int, float]]:
    """Note (epoch, rate) at which every step of a training is taken, from its start."""
    seen: list[tuple[int, float]] = []
    handles: list[Any] = []

    def watch(trainer: Any) -> None:
        def hook(optimizer: Any, *_: Any) -> None:
            seen.append((trainer.epoch, optimizer.param_groups[0]["lr"]))

        for handle in handles:
            handle.remove()
        handles[:] = [trainer.optimizer.register_step_pre_hook(hook)]  # anew, to come after what a cut has put there

    yolo.add_callback("on_train_batch_start", watch)
    return seen


def of_epoch(seen: list[tuple[int, float]], epoch: int) -> list[float]:
    return [rate for at, rate in seen if at == epoch]


def test_a_run_warms_up_again_and_goes_through_the_schedule_once_more(tiny_data: Path, tmp_path: Path) -> None:
    stock, pruned = untrained(), untrained()
    plain, again = seen_rates(stock), seen_rates(pruned)
    settings = {"epochs": 8, "nbs": 4, "warmup_epochs": 0, "val": False}
    train(tiny_data, tmp_path / "a", stock, **settings)
    train(tiny_data, tmp_path / "b", pruned, prune_warmup=2, prune_restart_lr=True, **ONE_STEP, **settings)
    assert [of_epoch(again, epoch) for epoch in range(4)] == [of_epoch(plain, epoch) for epoch in range(4)]
    whole = [of_epoch(plain, epoch)[0] for epoch in range(8)]
    for epoch in range(6, 8):  # from step at 4 to the end at 8 the schedule from 0 to 8 passes
        assert of_epoch(again, epoch)[-1] == pytest.approx(whole[2 * (epoch - 4)])
    first = of_epoch(again, 4) + of_epoch(again, 5)
    assert len(first) == 4  # two batches an epoch: over two epochs the rate comes back
    assert first == pytest.approx([n / 5 * whole[2 * (n > 2)] for n in range(1, 5)])
    with (tmp_path / "b" / "run" / "results.csv").open() as file:
        logged = [float({key.strip(): value for key, value in row.items()}["lr/pg0"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([of_epoch(again, epoch)[-1] for epoch in range(8)], rel=1e-4)


def test_a_warm_up_goes_on_in_a_run_that_was_killed(tiny_data: Path, tmp_path: Path) -> None:
    settings = {"epochs": 5, "nbs": 4, "warmup_epochs": 0, "val": False, "prune_warmup": 3, **ONE_STEP}
    settings |= {"prune_start": 0.2, "prune_end": 0.2}

    whole, killed = untrained(), untrained()
    rates_of_all = seen_rates(whole)
    train(tiny_data, tmp_path / "whole", whole, **settings)
    stop_in(killed, 2, "on_train_epoch_start")
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path / "killed", killed, **settings)
    resumed = YOLO(tmp_path / "killed" / "run" / "weights" / "last.pt")
    rates_of_rest = seen_rates(resumed)
    resumed.train(resume=True)
    assert of_epoch(rates_of_all, 2)[0] < of_epoch(rates_of_all, 4)[0] * 2, "it is still coming back"
    for epoch in (2, 3, 4):
        assert of_epoch(rates_of_rest, epoch) == pytest.approx(of_epoch(rates_of_all, epoch))
    assert not list((tmp_path / "killed").rglob("resume-*.pt")), "nothing is kept once the rate has come back"


def test_a_run_of_before_settings_were_removed_is_resumed_and_its_model_trained_again(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it left names them: unset in the recipe of its record, and as limits of layers in its checkpoint."""
    killed = untrained()
    stop_in(killed, 2, "on_train_epoch_start")
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, killed, epochs=3, val=False, **{**ONE_STEP, "prune_start": 0.34, "prune_end": 0.34})
    last, path = tmp_path / "run" / "weights" / "last.pt", tmp_path / "run" / "pruning" / "record.json"
    record = json.loads(path.read_text())
    record["recipe"] |= {"layer_loss": None, "distill": 0.0}
    path.write_text(json.dumps(record))
    checkpoint = torch.load(last, weights_only=False)
    checkpoint["ema"].yaml[SPEC_KEY]["run"]["baseline"]["largest_cuts"] = {"model.0.conv": 0.5}
    torch.save(checkpoint, last)
    YOLO(last).train(resume=True)
    final = record_of(tmp_path / "run")
    assert [row["epoch"] for row in final["steps"]] == [2]
    assert not final["recipe"].keys() & REMOVED.keys()
    assert "another one than when this run began" not in caplog.text
    again = YOLO(last)
    before = widths(again.model)
    train(tiny_data, tmp_path / "again", again, epochs=1, val=False)
    assert widths(again.model) == before
