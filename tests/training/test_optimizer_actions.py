# yolo-prune, AGPL-3.0 license
"""What acts between steps can be put into a checkpoint whole, and taken up from it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.oracle import lively
from yolo_prune.graph import channel_groups
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.training.optimizer_actions import OptimizerActions


def small() -> Any:
    torch.manual_seed(0)
    return lively(DetectionModel("yolov8n.yaml", nc=2, verbose=False)).train()


def take_steps(model: Any, optimizer: Any, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        raw = model(torch.rand(4, 3, 64, 64))
        (raw["boxes"].float().pow(2).mean() + raw["scores"].float().sigmoid().mean()).backward()
        optimizer.step()


def begin(model: Any, found: channel_groups.ChannelGraph, arguments: dict[str, Any]) -> tuple[OptimizerActions, Any]:
    recipe = from_arguments({"prune": 0.5, "prune_importance": "taylor", **arguments})
    assert recipe is not None
    actions, optimizer = OptimizerActions(recipe), torch.optim.SGD(model.parameters(), lr=0.01)
    actions.start(found, model, optimizer, 0)
    return actions, optimizer


def test_a_resumed_run_goes_on_as_the_other_would_have() -> None:
    arguments = {"prune_regularize": "growing", "prune_regularize_strength": 5.0, "prune_warmup": 2}
    model = small()
    found = channel_groups.build(model)
    keep = {group.name: range(group.size // 2) for group in found.groups}
    one, optimizer = begin(model, found, arguments)
    one.warm_up(4, 1)
    one.epoch(optimizer)
    take_steps(model, optimizer, (1, 2))
    one.epoch(optimizer)
    one.raise_pressure(1, 4, lambda: keep)
    take_steps(model, optimizer, (3,))
    buffer = io.BytesIO()
    torch.save({"state": one.state(), "weights": model.state_dict()}, buffer)
    buffer.seek(0)
    kept = torch.load(buffer, weights_only=True)  # nothing but plain data and tensors
    other_model = small()
    other_model.load_state_dict(kept["weights"])
    other, other_optimizer = begin(other_model, found, arguments)
    assert other.load_state(kept["state"])
    for actions, network, steps in ((one, model, optimizer), (other, other_model, other_optimizer)):
        actions.epoch(steps)
        actions.raise_pressure(2, 4, dict)
        take_steps(network, steps, (4, 5))
    assert other.rate == one.rate < 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other_model.parameters(), strict=True))
    assert one.gates is not None
    assert other.gates is not None
    theirs = other.gates.scores()
    assert all(value.any() and np.array_equal(value, theirs[name]) for name, value in one.gates.scores().items())


def test_state_of_other_widths_is_not_taken_over() -> None:
    model = small()
    found = channel_groups.build(model)
    one, _ = begin(model, found, {"prune_regularize": "bn"})
    fewer = channel_groups.build(small(), ["model.2.*"])
    other, _ = begin(small(), fewer, {"prune_regularize": "bn"})
    assert not other.load_state(one.state())
