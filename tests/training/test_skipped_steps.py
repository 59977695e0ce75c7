# yolo-prune, AGPL-3.0 license
"""A step that AMP skips counts nowhere: not in what gradients say, not in a penalty, not in a warm-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.test_optimizer_actions import begin, small
from yolo_prune.graph import channel_groups
from yolo_prune.importance import gradients
from yolo_prune.training.optimizer_actions import OptimizerActions
from yolo_prune.training.optimizer_hooks import StepHooks, skips


def backward(model: Any, optimizer: Any, scaler: Any = None, spoil: bool = False) -> None:
    """Gradients of one batch; with `spoil` one of them, of a bias that no channel is judged by, is infinite."""
    torch.manual_seed(1)
    optimizer.zero_grad()
    raw = model(torch.rand(2, 3, 64, 64))
    loss = raw["boxes"].float().pow(2).mean() + raw["scores"].float().sigmoid().mean()
    (loss if scaler is None else scaler.scale(loss)).backward()
    if spoil:
        model.get_parameter("model.22.cv3.0.2.bias").grad[0] = float("inf")


class StandIn(torch.optim.Optimizer):
    """Plain gradient descent that is told, as fused optimizers are, that its step is for nothing."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        if not bool(getattr(self, "found_inf", torch.zeros(()))):
            for group in self.param_groups:
                for value in group["params"]:
                    if value.grad is not None:
                        value.sub_(group["lr"] * value.grad)


def begun(optimizer_class: Any, **options: Any) -> tuple[Any, channel_groups.ChannelGraph, OptimizerActions, Any]:
    model = small()
    found = channel_groups.build(model)
    actions, _ = begin(model, found, {"prune_regularize": "bn", "prune_warmup": 2})
    optimizer = optimizer_class(model.parameters(), **options)
    actions.resume(optimizer)
    actions.warm_up(4, 1)
    return model, found, actions, optimizer


def all_of(model: nn.Module, actions: OptimizerActions) -> tuple[dict[str, torch.Tensor], float, float, dict[str, Any]]:
    assert actions.gates is not None
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return weights, actions.gates.seen, actions.rate, actions.gates.state()["sums"]


def same(one: Any, other: Any) -> bool:
    return (
        one[1:3] == other[1:3]
        and all(torch.equal(value, other[0][name]) for name, value in one[0].items())
        and all(torch.equal(value, other[3][name]) for name, value in one[3].items())
    )


def test_what_the_optimizer_is_told_is_read() -> None:
    optimizer = StandIn([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert not skips(optimizer)
    for value, skipped in ((torch.tensor(0.0), False), (torch.tensor([1.0]), True), (torch.tensor(2.0), True)):
        optimizer.found_inf = value
        assert skips(optimizer) is skipped


def test_a_skipped_step_changes_nothing_and_the_next_counts() -> None:
    model, _, actions, optimizer = begun(StandIn, lr=0.01)
    before = all_of(model, actions)
    backward(model, optimizer, spoil=True)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert same(all_of(model, actions), before)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01]
    del optimizer.found_inf
    backward(model, optimizer)
    optimizer.step()
    after = all_of(model, actions)
    assert after[1] == 1
    assert after[2] == pytest.approx(2 / 9 / 2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01]
    assert not same(after, before)


@pytest.mark.parametrize("fused", [True, False])
def test_with_the_scaler_of_the_cpu(fused: bool) -> None:
    model, _, actions, optimizer = begun(torch.optim.AdamW, lr=0.001, fused=fused)
    assert getattr(optimizer, "_step_supports_amp_scaling", False) is fused
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    before = all_of(model, actions)
    for spoil in (True, False):
        backward(model, optimizer, scaler, spoil)
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(
            model.parameters(), max_norm=10.0
        )  # as the host does: one inf makes all 0 or NaN
        scaler.step(optimizer)
        scaler.update()
        if spoil:
            assert same(all_of(model, actions), before)
    after = all_of(model, actions)
    assert after[1] == 1
    assert after[2] > 0
    assert actions.gates is not None
    assert all(np.isfinite(value).all() and value.any() for value in actions.gates.scores().values())


def test_gradients_that_are_no_numbers_do_not_count() -> None:
    """Without AMP a step is taken all the same; what it says of channels is nothing."""
    model = small()
    seen = gradients.Gates(channel_groups.build(model), model, "fisher")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen.attach(optimizer)
    backward(model, optimizer)
    optimizer.step()
    expected = seen.scores()
    model.get_parameter("model.4.cv1.conv.weight").grad[0, 0, 0, 0] = float("nan")
    optimizer.step()
    assert seen.seen == 1
    assert all(np.array_equal(value, expected[name]) for name, value in seen.scores().items())


def test_whoever_acts_is_called_around_steps_alone() -> None:
    calls: list[str] = []

    class Acting:
        def before(self, optimizer: Any) -> None:
            calls.append("before")

        def after(self, optimizer: Any) -> None:
            calls.append("after")

    steps, optimizer = StepHooks(), StandIn([nn.Parameter(torch.zeros(1))], lr=0.1)
    steps.acting = [Acting()]
    steps.follow(optimizer)
    optimizer.step()
    optimizer.found_inf = torch.ones(1)
    optimizer.step()
    assert calls == ["before", "after"]
