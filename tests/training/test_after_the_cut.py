# yolo-prune, AGPL-3.0 license
"""How a run trains on once it is cut: its average, the images to a step of its optimizer, and its learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils.torch_utils import ModelEMA

from tests.helpers.runs import StoppedError, stop_in, train
from tests.helpers.small_models import small_with, untrained
from yolo_prune.host.cadence import Cadence
from yolo_prune.host.run import Run
from yolo_prune.training import recovery, session

SETTINGS: dict[str, Any] = {"prune": 0.5, "prune_start": 0.43, "prune_nbs": 4, "prune_ema": 0.2}
HOST: dict[str, Any] = {"epochs": 7, "nbs": 8, "warmup_epochs": 0, "val": False, "lr0": 0.01, "lrf": 0.1}


@pytest.mark.parametrize("age", [0.5, 0.1, 0.03])
def test_the_average_is_as_old_as_a_share_of_the_steps(age: float) -> None:
    """The host's own average of a weight that is n at step n."""
    model = nn.Linear(1, 1)
    run = Run(SimpleNamespace(ema=ModelEMA(model)))
    run.average_over(recovery.decay(age))
    ages = []
    for step in range(1, 201):
        nn.init.constant_(model.weight, step)
        run.trainer.ema.update(model)
        ages.append(step - float(run.average.weight))
    assert ages == pytest.approx([age * step for step in range(200)], rel=1e-3, abs=1e-3)


def test_the_hosts_average_takes_over_where_it_is_the_longer() -> None:
    ema = ModelEMA(nn.Linear(1, 1))
    host, run = ema.decay, Run(SimpleNamespace(ema=ema))
    for age in (0.5, 0.1):  # each replaces the one before
        run.average_over(recovery.decay(age))
    assert [ema.decay(n) for n in (1, 100)] == [host(1), 99 / 108]
    assert [ema.decay(n) for n in (50_000, 1_000_000)] == [host(50_000), 0.9999]
    run.average_over(None)
    assert ema.decay is host


def test_images_to_a_step_scale_weight_decay_as_the_host_does() -> None:
    weight, bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight], "weight_decay": 0.5}, {"params": [bias], "weight_decay": 0.0}]
    trainer = SimpleNamespace(
        args=SimpleNamespace(nbs=64, weight_decay=0.6),
        batch_size=24,
        accumulate=3,
        epochs=9,
        train_loader=range(50),
        optimizer=torch.optim.SGD(groups, 0.1),
        optimizer_step=lambda: None,
        add_callback=lambda *_: None,
    )
    cadence = Cadence(Run(trainer))
    seen = {}
    for images in (24, 40, 10, None):
        cadence.step_every(images)
        seen[images] = (trainer.accumulate, trainer.optimizer.param_groups[0]["weight_decay"])
    # 8.4.190, engine/trainer.py: weight_decay * batch_size * accumulate / nbs
    expected = {24: (1, 0.6), 40: (2, 0.6 * 48 / 40), 10: (1, 0.6 * 24 / 10), None: (3, 0.6 * 72 / 64)}
    assert {key: pytest.approx(value) for key, value in expected.items()} == seen
    assert trainer.optimizer.param_groups[1]["weight_decay"] == 0
    assert trainer.args.nbs == 64


def stand_in(optimizer: type[torch.optim.Optimizer], **more: Any) -> SimpleNamespace:
    """The part of a trainer that a cadence asks: four batches of 16 images to a step."""
    arguments = SimpleNamespace(nbs=64, weight_decay=0.0, task="detect", rect=False)
    weights = optimizer([nn.Parameter(torch.zeros(1))], 0.1)
    return SimpleNamespace(args=arguments, batch_size=16, accumulate=4, optimizer=weights, **more)


def test_the_batches_to_a_step_of_one_training_are_not_those_of_the_next() -> None:
    """An older host (8.4.0) hands the callbacks of a trainer on to the YOLO object, and so to its next training."""
    callbacks: list[Any] = []
    steps: list[str] = []
    trainers = [
        stand_in(
            torch.optim.SGD,
            epochs=9,
            train_loader=range(50),
            optimizer_step=lambda name=name: steps.append(name),
            add_callback=lambda _, callback: callbacks.append(callback),
        )
        for name in ("first", "second")
    ]
    cadence = Cadence(Run(trainers[0]))
    cadence.step_every(16)
    assert (trainers[0].accumulate, cadence.is_own) == (1, True)
    begin, end = callbacks
    for _ in range(3):
        begin(trainers[1])
        end(trainers[1])
    assert (trainers[1].accumulate, steps) == (4, [])


@pytest.mark.parametrize("went_back", [False, True])
def test_a_run_that_went_back_to_the_dense_model_steps_as_the_host_does(went_back: bool) -> None:
    trainer = stand_in(
        torch.optim.AdamW,
        epochs=30,
        train_loader=range(10),
        optimizer_step=lambda: None,
        add_callback=lambda *_: None,
        model=nn.Identity(),
        ema=ModelEMA(nn.Identity()),
        stride=32,
        preprocess_batch=lambda batch: batch,
    )
    run, host, stock = Run(trainer), trainer.ema.decay, trainer.preprocess_batch
    own = SimpleNamespace(nbs=None, ema=0.1, frames=True, restart_lr=False, regularize="none")
    cut: Any = SimpleNamespace(recipe=own, epochs=[2], done=1, unfinished=False, cadence=Cadence(run))
    recovery.follow(run, cut)
    assert (trainer.accumulate, trainer.ema.decay(100)) == (1, 99 / 108)
    assert trainer.preprocess_batch is not stock
    if went_back:
        cut.epochs, cut.done = [], 0
    recovery.follow(run, cut)
    assert (trainer.accumulate, trainer.ema.decay(100)) == ((4, host(100)) if went_back else (1, 99 / 108))
    assert (trainer.preprocess_batch is stock) == went_back


@pytest.mark.parametrize(
    ("batches", "given", "optimizer", "expected"),
    [
        (10, {}, torch.optim.AdamW, 16),  # 200 batches are left: each is a step
        (100, {}, torch.optim.AdamW, 32),  # 2,000 batches: two to each of 1,000 steps
        (200, {}, torch.optim.AdamW, None),  # 4,000: the host's four to a step do
        (10, {"nbs": 32}, torch.optim.AdamW, None),  # was given
        (10, {}, torch.optim.SGD, None),
    ],
)
def test_a_short_recovery_takes_fewer_images_to_a_step(
    batches: int, given: dict[str, int], optimizer: type[torch.optim.Optimizer], expected: int | None
) -> None:
    trainer = SimpleNamespace(
        args=SimpleNamespace(**{"nbs": 64, **given}),
        batch_size=16,
        epochs=30,
        train_loader=range(batches),
        optimizer=optimizer([nn.Parameter(torch.zeros(1))], 0.1),
    )
    recipe: Any = SimpleNamespace(nbs=None)
    assert recovery.images_to_a_step(Run(trainer), recipe, 10) == expected
    recipe.nbs = 48
    assert recovery.images_to_a_step(Run(trainer), recipe, 10) == 48


@pytest.mark.parametrize(
    ("batches", "given", "left"),
    [(4, {}, 80), (5, {}, None), (10, {"nbs": 64}, 50), (10, {"nbs": 32}, None)],  # 20 epochs of them
)
def test_few_steps_to_recover_in_are_told(
    batches: int, given: dict[str, int], left: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = SimpleNamespace(
        args=SimpleNamespace(nbs=64),
        batch_size=16,
        epochs=30,
        train_loader=range(batches),
        optimizer=torch.optim.AdamW([nn.Parameter(torch.zeros(1))], 0.1),
        model=nn.Module(),
    )
    trainer.model.model = [nn.Identity()]
    recipe = SimpleNamespace(nbs=given.get("nbs"), regularize="none")
    with caplog.at_level("WARNING"):
        recovery.say(Run(trainer), SimpleNamespace(recipe=recipe, epochs=[2, 10], unfinished=False))  # type: ignore[arg-type]
    assert ("to recover in, which is few" in caplog.text) is (left is not None)
    assert ("prune_nbs=16" in caplog.text) is (given.get("nbs") == 64), "it steps for four batches"
    assert left is None or f"about {left} steps of the optimizer are left to recover in" in caplog.text


@pytest.mark.parametrize(("head", "before"), [("Detect", [4]), ("v10Detect", [1])])
def test_an_end_to_end_head_takes_as_many_steps_before_the_cut(
    head: str, before: list[int], tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo, batches = YOLO(small_with(tmp_path / "model.yaml", head)), []
    yolo.add_callback("on_train_batch_end", lambda trainer: batches.append((trainer.epoch, trainer.accumulate)))
    settings: dict[str, Any] = {"batch": 2, "optimizer": "AdamW", "warmup_epochs": 0, "val": False, "epochs": 2}
    with caplog.at_level("INFO"):
        train(tiny_data, tmp_path, yolo, prune=0.3, prune_start=0.5, prune_reconstruct="none", **settings)
    assert [count for epoch, count in batches if epoch == 1] == [1] * 4
    assert sorted({min(count, 4) for epoch, count in batches if epoch == 0}) == before
    said = [line for line in caplog.text.splitlines() if "a step of the optimizer for every 2 images" in line]
    assert len(said) == 1
    assert f"about {8 if head == 'v10Detect' else 4} are left" in said[0]


def watch(yolo: YOLO) -> dict[int, dict[str, Any]]:
    """What each epoch of a training was trained with, as of its last batch."""
    seen: dict[int, dict[str, Any]] = {}
    handles: list[Any] = []

    def look(trainer: Any) -> None:
        row = seen[trainer.epoch] = {"rates": [], "start": trainer.ema.updates}

        def hook(optimizer: Any, *_: Any) -> None:
            row["rates"].append(optimizer.param_groups[0]["lr"])

        for handle in handles:
            handle.remove()
        handles[:] = [trainer.optimizer.register_step_pre_hook(hook)]

    def end(trainer: Any) -> None:
        decays = {group["weight_decay"] for group in trainer.optimizer.param_groups} - {0}
        seen[trainer.epoch] |= {"decays": decays, "average": trainer.ema.decay(8), "updates": trainer.ema.updates}

    yolo.add_callback("on_train_epoch_start", look)
    yolo.add_callback("on_train_epoch_end", end)
    return seen


def check(seen: dict[int, dict[str, Any]], epochs: range, first: int = 3) -> None:
    """Two batches of 4 images an epoch; the step comes before epoch 3 of 0 to 6."""
    for epoch in epochs:
        row, cut = seen[epoch], epoch >= first
        steps = 2 if cut else 1
        time = (epoch - first) / (7 - first)
        rate = 0.01 * (1 - 0.9 * (time if cut else epoch / 7))
        assert row["rates"] == pytest.approx([rate] * steps), epoch
        assert sorted(row["decays"]) == pytest.approx([0.0005]), epoch
        assert row["average"] == pytest.approx(7 / 11 if cut else 0.9999 * (1 - math.exp(-8 / 2000))), epoch
        assert row["updates"] == (2 * (epoch - first + 1) if cut else epoch + 1), epoch


def test_a_run_trains_on_as_asked_and_so_it_does_when_resumed_and_recovered(tiny_data: Path, tmp_path: Path) -> None:
    yolo = untrained()
    seen = watch(yolo)
    stop_in(yolo, 4, "on_train_epoch_end")
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, prune_restart_lr=True, **SETTINGS, **HOST)
    check(seen, range(5))
    resumed, poisoned = YOLO(tmp_path / "run" / "weights" / "last.pt"), []
    seen = watch(resumed)

    def poison(trainer: Any) -> None:
        if trainer.epoch == 5 and not poisoned:
            poisoned.append(trainer.epoch)
            trainer.loss = torch.tensor(math.nan)  # the host makes a new average of last.pt, and trains epoch 5 again

    resumed.add_callback("on_train_epoch_end", poison)
    resumed.train(resume=True)
    assert poisoned
    check(seen, range(4, 7))
    assert session.of(resumed.trainer).steps[0]["epoch"] == 4
