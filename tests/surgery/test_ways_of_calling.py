# yolo-prune, AGPL-3.0 license
"""Layers that a block calls by the names of their arguments, or on one vector at a time: whoever looks at them can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.custom_blocks import Between, yaml_with
from tests.helpers.oracle import lively, random_plan
from yolo_prune.cost import layer_shapes
from yolo_prune.graph import channel_groups
from yolo_prune.importance import gradients
from yolo_prune.surgery import cut_channels, reconstruct

BLOCK = "model.5"  # in yaml_with


class ByName(Between):
    def make(self, c: int) -> None:
        self.conv, self.bn = nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)

    def between(self, y: Tensor) -> Tensor:
        return self.bn(input=self.conv(input=y)).relu()


class OneVector(Between):
    """A linear layer that is called once an image."""

    def make(self, c: int) -> None:
        self.gate = nn.Linear(c, c)

    def between(self, y: Tensor) -> Tensor:
        return y * torch.stack([self.gate(one.mean((1, 2))) for one in y])[:, :, None, None].sigmoid()


@pytest.fixture(params=[ByName, OneVector])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tasks, request.param.__name__, request.param, raising=False)
    torch.manual_seed(0)
    return lively(DetectionModel(yaml_with(request.param.__name__), verbose=False).eval())


@pytest.mark.parametrize("method", ["bias", "weights"])
def test_a_cut_is_made_up_for(model: Any, method: str) -> None:
    found = channel_groups.build(model)
    plan = random_plan(found, 0, 0.5)
    assert any(name.startswith(f"{BLOCK}.a.") for name in plan.keep)
    x = torch.rand(4, 3, 64, 64)
    for momentum in (0.1, 1.0):  # early in a training, and by statistics of these images
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = momentum
        model.train()(x)
        model.eval()
        with reconstruct.reconstructed(model, found, plan, x, method):
            cut_channels.apply(model, found, plan)
        found = channel_groups.build(model)
        plan = random_plan(found, 1, 0.5)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def test_activations_are_looked_at(model: Any) -> None:
    found = channel_groups.build(model)
    gates = gradients.Gates(found, model, "activation")
    gates.attach(None)
    model(torch.rand(2, 3, 64, 64))
    gates.detach()
    assert gates.seen > 0
    assert all(bool(scores.any()) for name, scores in gates.scores().items() if name.startswith(f"{BLOCK}."))


def test_a_layer_that_is_called_by_name_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ByName", ByName, raising=False)
    model = DetectionModel(yaml_with("ByName"), verbose=False).eval()
    areas = {layer.name: layer.area for layer in channel_groups.build(model).layers}
    assert areas[f"{BLOCK}.conv"] == areas[f"{BLOCK}.a.conv"] > 0
    assert f"{BLOCK}.conv" in [layer.name for layer in layer_shapes.layers_of(model, 64)]
