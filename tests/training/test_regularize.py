# yolo-prune, AGPL-3.0 license
"""Sparse training: each penalty presses on what it says, by what it says, and a run shows it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.oracle import lively
from tests.helpers.runs import record_of, train
from yolo_prune.errors import RecipeError
from yolo_prune.graph import channel_groups
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.settings import Settings
from yolo_prune.training import regularize

PENALTIES = [kind for kind in get_args(Settings.model_fields["regularize"].annotation) if kind != "none"]

RATE = 0.01


def pressed(kind: str, strength: float, doomed: Any = None) -> tuple[Any, dict[str, torch.Tensor], Any, Any]:
    """A model, its state before one step at the learning rate RATE, the pressure, and the groups."""
    torch.manual_seed(0)
    model = lively(DetectionModel("yolov8n.yaml", nc=2, verbose=False)).train()
    found = channel_groups.build(model)
    pressure = regularize.Pressure(found, model, kind, strength, doomed(found) if doomed else None)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    return model, before, pressure, found


def step(pressure: regularize.Pressure, model: nn.Module) -> None:
    pressure.after(torch.optim.SGD(model.parameters(), lr=RATE))


def test_l1_moves_every_scale_by_the_same_amount_towards_zero_and_nothing_else() -> None:
    model, before, pressure, found = pressed("bn", 10.0)
    name = "model.2.cv2.bn"  # one of the group model.2.cv2.conv, which this norm alone belongs to
    group = next(g for g in found.groups if g.name == "model.2.cv2.conv")
    assert [m.module for m in group.members if m.module.endswith(".bn")] == [name]
    was = before[f"{name}.weight"]
    typical = float(was.abs().median(dim=0).values)
    step(pressure, model)
    now = model.get_parameter(f"{name}.weight").detach()
    expected = was.sign() * (was.abs() - 10.0 * RATE * typical).clamp_min(0)
    assert torch.allclose(now, expected, atol=1e-6)
    for key, value in model.named_parameters():
        if not key.endswith("bn.weight"):
            assert torch.equal(value.detach(), before[key]), key


def test_l1_reaches_zero_and_stays() -> None:
    model, _, pressure, _ = pressed("bn", 30.0)
    for _ in range(12):
        step(pressure, model)
    scales = model.get_parameter("model.2.cv2.bn.weight").detach()
    assert (scales == 0).any()
    step(pressure, model)
    assert torch.isfinite(scales).all()
    assert (model.get_parameter("model.2.cv2.bn.weight").detach()[scales == 0] == 0).all()


def test_group_lasso_shrinks_whole_channels_and_the_least_most() -> None:
    model, before, pressure, found = pressed("group", 0.5)
    group = next(g for g in found.groups if g.name == "model.4.m.0.cv1.conv")
    step(pressure, model)
    rows = model.get_parameter("model.4.m.0.cv1.conv.weight").detach().flatten(1)
    was = before["model.4.m.0.cv1.conv.weight"].flatten(1)
    columns = model.get_parameter("model.4.m.0.cv2.conv.weight").detach().transpose(0, 1).flatten(1)
    columns_were = before["model.4.m.0.cv2.conv.weight"].transpose(0, 1).flatten(1)
    norm = lambda t: t.square().mean(1).sqrt()  # noqa: E731
    # cv1's rows belong to a second group as columns, and cv2's columns to another as rows: compare channels in a group
    ratios = norm(rows) / norm(was)
    assert (ratios < 1).all()
    assert group.size == len(ratios)
    assert float(torch.corrcoef(torch.stack([ratios, norm(columns) / norm(columns_were)]))[0, 1]) > 0.9


def test_the_least_of_a_group_is_pressed_sixteen_times_as_much_as_the_most() -> None:
    norms, owners = torch.tensor([1.0, 7.0, 2.0, 3.0, 5.0]), torch.tensor([0, 1, 0, 0, 1])
    weights = regularize._weighting(norms, owners, groups=2)
    assert weights.tolist() == pytest.approx([16, 1, 4, 1, 16])  # 2 ** (4 * (most - norm) / (most - least)), by group
    alone = regularize._weighting(torch.tensor([2.0, 2.0]), torch.tensor([0, 0]), groups=1)
    assert alone.tolist() == [1, 1]


def test_growing_presses_only_on_what_is_doomed_and_ever_more() -> None:
    def doomed(found: channel_groups.ChannelGraph) -> dict[str, np.ndarray]:
        return {g.name: np.arange(g.size) < 3 for g in found.groups if g.name == "model.2.cv2.conv"}

    model, before, pressure, _ = pressed("growing", 10.0, doomed)
    step(pressure, model)
    assert all(torch.equal(value.detach(), before[key]) for key, value in model.named_parameters())
    for time in (0.5, 1.0):
        pressure.time = time
        scales = model.get_parameter("model.2.cv2.bn.weight").detach().clone()
        step(pressure, model)
        now = model.get_parameter("model.2.cv2.bn.weight").detach()
        assert torch.allclose(now[:3], scales[:3] * (1 - 10.0 * RATE * time))
        assert torch.equal(now[3:], scales[3:])


def two_rates(model: nn.Module, norms: float, others: float, biases: float = 0.1) -> torch.optim.Optimizer:
    """An optimizer as the host's in its warm-up: one rate for norms, one for other weights, a high one for biases."""
    named = dict(model.named_parameters())
    bn = [value for name, value in named.items() if name.endswith("bn.weight")]
    bias = [value for name, value in named.items() if name.endswith("bias")]
    rest = [value for name, value in named.items() if not name.endswith(("bn.weight", "bias"))]
    groups = [{"params": bias, "lr": biases}, {"params": rest, "lr": others}, {"params": bn, "lr": norms}]
    return torch.optim.SGD(groups, lr=1.0)


def test_each_tensor_is_pressed_at_the_rate_of_its_own_parameter_group() -> None:
    def doomed(found: channel_groups.ChannelGraph) -> dict[str, np.ndarray]:
        return {g.name: np.arange(g.size) < 3 for g in found.groups if g.name == "model.2.cv2.conv"}

    model, before, pressure, _ = pressed("growing", 2.0, doomed)
    pressure.time = 0.5
    pressure.after(two_rates(model, norms=0.01, others=0.04))
    norm, weight = (model.get_parameter(f"model.2.cv2.{name}.weight").detach() for name in ("bn", "conv"))
    assert torch.allclose(norm[:3], before["model.2.cv2.bn.weight"][:3] * 0.99)  # 1 - 2 * 0.5 * 0.01
    assert torch.allclose(weight[:3], before["model.2.cv2.conv.weight"][:3] * 0.96)
    assert torch.equal(weight[3:], before["model.2.cv2.conv.weight"][3:])
    between = {name: value.detach().clone() for name, value in model.named_parameters()}
    pressure.after(two_rates(model, norms=0.02, others=0.0))  # the host makes a new one after running out of memory
    assert torch.allclose(norm[:3], between["model.2.cv2.bn.weight"][:3] * 0.98)
    assert torch.equal(weight, between["model.2.cv2.conv.weight"])


def test_musgd_presses_each_of_its_groups_at_its_own_rate() -> None:
    from ultralytics.optim import MuSGD

    model, before, pressure, _ = pressed("bn", 1.0)
    first, second = "model.2.cv2.bn.weight", "model.4.cv2.bn.weight"
    groups = [
        {"params": [model.get_parameter(first)], "lr": 0.01, "use_muon": False},
        {"params": [model.get_parameter(second)], "lr": 0.03, "use_muon": False},
    ]
    pressure.after(MuSGD(groups, muon=0.2, sgd=1.0))
    for name, rate in ((first, 0.01), (second, 0.03)):
        was = before[name]
        expected = was.sign() * (was.abs() - rate * was.abs().median()).clamp_min(0)
        assert torch.allclose(model.get_parameter(name).detach(), expected, atol=1e-6), name
    untouched = "model.6.cv2.bn.weight"  # of no group: not trained, so not pressed
    assert torch.equal(model.get_parameter(untouched).detach(), before[untouched])


@pytest.mark.parametrize("kind", PENALTIES)
def test_one_step_takes_a_tenth_of_a_typical_channel_at_most(kind: str) -> None:
    def doomed(found: channel_groups.ChannelGraph) -> dict[str, np.ndarray]:
        return {g.name: np.ones(g.size, dtype=bool) for g in found.groups}

    model, before, pressure, _ = pressed(kind, 1000.0, doomed if kind == "growing" else None)
    pressure.time = 1.0
    step(pressure, model)
    was, now = before["model.2.cv2.bn.weight"].abs(), model.get_parameter("model.2.cv2.bn.weight").detach().abs()
    lost = (was - now).max() / (was.median() if kind == "bn" else was.max())
    assert 0 < float(lost) <= 0.1 + 1e-5 or kind == "group"
    typical = float(was.median())
    assert float((now < 0.01 * typical).float().mean()) < 0.25


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_warm_up_of_the_biases_does_not_kill_channels(
    tiny_data: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {"prune": 0.5, "prune_steps": 1, "prune_start": 0.8, "prune_end": 0.8, "prune_regularize": kind}
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        train(tiny_data, tmp_path, epochs=5, lr0=0.01, warmup_epochs=3, batch=1, nbs=1, val=False, **arguments)
    told = [message for message in caplog.messages if f"regularize={kind}, strength" in message]
    assert len(told) >= 3
    dead = [float(message.rpartition(", ")[2].partition("%")[0]) for message in told]
    assert max(dead) < 5
    assert float(told[-1].partition("median is ")[2].partition(" ")[0]) < 1  # it does press


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_run_says_what_the_penalty_comes_to(
    tiny_data: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {"prune": 0.5, "prune_steps": 1, "prune_start": 0.7, "prune_end": 0.7, "prune_regularize": kind}
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        train(
            tiny_data, tmp_path, epochs=4, prune_regularize_strength=400.0, lr0=0.005, batch=1, nbs=1, warmup_epochs=0,
            **arguments,
        )  # fmt: skip
    told = [message for message in caplog.messages if f"regularize={kind}, strength 400" in message]
    assert len(told) == (1 if kind == "growing" else 2)  # epochs before the step; growing has gradients from the second
    shares = [float(message.rpartition(", ")[2].partition("%")[0]) for message in told]
    assert shares[-1] > (0 if kind != "growing" else -1)
    assert float(told[-1].partition("median is ")[2].partition(" ")[0]) < 1
    record = record_of(tmp_path / "run")
    assert record["recipe"]["regularize"] == kind
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"] * 1.001
    assert YOLO(tmp_path / "run" / "weights" / "best.pt").model is not None


def test_a_strength_without_a_penalty_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"prune_regularize_strength=0\.5 is of no penalty"):
        from_arguments({"prune": 0.5, "prune_regularize_strength": 0.5})


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_pressure_can_be_put_away_and_goes_on_by_what_was_typical_then(kind: str) -> None:
    def doomed(found: channel_groups.ChannelGraph) -> dict[str, np.ndarray]:
        return {g.name: np.arange(g.size) < 3 for g in found.groups}

    model, _, pressure, found = pressed(kind, 10.0, doomed if kind == "growing" else None)
    pressure.time = 0.5
    step(pressure, model)
    step(pressure, model)
    kept = pressure.state()
    again = {name: value.detach().clone() for name, value in model.named_parameters()}
    step(pressure, model)
    uninterrupted = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(again[name])
    resumed = regularize.Pressure(found, model, kind, 10.0)
    assert resumed.load_state(kept)
    step(resumed, model)
    assert all(torch.equal(value.detach(), uninterrupted[name]) for name, value in model.named_parameters())
    assert any(not torch.equal(value, uninterrupted[name]) for name, value in again.items())
    other = "bn" if kind != "bn" else "group"
    assert not regularize.Pressure(found, model, other, 10.0).load_state(kept)
