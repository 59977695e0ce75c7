# yolo-prune, AGPL-3.0 license
"""Pruning dead channels changes nothing: the one property that finds nearly every fault of groups and surgery."""

from __future__ import annotations

import functools
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.oracle import assert_no_trace, random_plan
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph import channel_groups
from yolo_prune.surgery import cut_channels, widths

SCALES = ("n", "s", "m", "l")


@functools.cache
def lively(scale: str) -> tuple[nn.Module, channel_groups.ChannelGraph]:
    """A YOLOv8 in float64 whose BatchNorms are far from the identity, so that every index that is off shows."""
    torch.manual_seed(0)
    model = DetectionModel(f"yolov8{scale}.yaml", nc=5, verbose=False).double().eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.uniform_(0.5, 1.5)
            m.bias.data.uniform_(-0.5, 0.5)
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    return model, channel_groups.build(model)


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        decoded, raw = model(x)
    return [decoded, raw["boxes"], raw["scores"]] if isinstance(raw, dict) else [decoded, *raw]


@pytest.mark.parametrize("scale", SCALES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), hardest=st.floats(0.05, 1.0))
def test_pruning_dead_channels_changes_nothing(scale: str, seed: int, hardest: float) -> None:
    check_oracle(scale, seed, hardest)


def test_pruning_dead_channels_changes_nothing_in_the_largest_model() -> None:
    check_oracle("x", seed=1, hardest=0.8)  # the blocks of l, only wider: once is enough
    lively.cache_clear()


def check_oracle(scale: str, seed: int, hardest: float) -> None:
    model, found = lively(scale)
    plan = random_plan(found, seed, hardest)
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(seed % 2**31))
    assert len(assert_no_trace(deepcopy(model), found, plan, partial(outputs, x=x), 1e-9)) == 3


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_cut_model_can_be_traced_and_cut_again(seed: int) -> None:
    model, found = lively("n")
    dead = deepcopy(model)
    cut_channels.apply(dead, found, random_plan(found, seed, 0.5))
    again = channel_groups.build(dead)
    assert [group.name for group in again.groups] == [group.name for group in found.groups]
    plan = random_plan(again, seed + 1, 0.9)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert_no_trace(dead, again, plan, partial(outputs, x=x), 1e-9)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), classes=st.sampled_from([1, 5, 80]))
def test_a_stamped_yaml_builds_the_same_widths(seed: int, classes: int) -> None:
    model, found = lively("n")
    cut = deepcopy(model)
    cut_channels.apply(cut, found, random_plan(found, seed, 0.9))
    widths.stamp(cut, found.protected)
    from ultralytics.nn import tasks

    layers, _ = widths.build(
        getattr(tasks.parse_model, "__wrapped__", tasks.parse_model), {**deepcopy(cut.yaml), "nc": classes}, 3, False
    )
    built = {f"model.{name}": tuple(p.shape) for name, p in layers.named_parameters()}
    expected = {name: tuple(p.shape) for name, p in cut.named_parameters()}
    heads = {f"{name}.{kind}" for name in found.protected for kind in ("weight", "bias") if ".cv3." in name}
    assert set(built) == set(expected)
    for name, shape in built.items():
        assert shape == ((classes, *expected[name][1:]) if name in heads else expected[name]), name
    for block, twin in zip(layers, cut.model, strict=True):
        assert getattr(block, "c", None) == getattr(twin, "c", None)


def test_halves_of_one_channel_are_followed_and_keep_their_width() -> None:
    model, found = lively("n")
    cut = deepcopy(model)
    plan = PrunePlan({group.name: np.arange(1) for group in found.groups if group.name.startswith("model.2.")})
    cut_channels.apply(cut, found, plan)
    widths.stamp(cut, found.native)
    again = channel_groups.build(cut)
    assert again.operations == {}
    assert "model.2.cv1.conv" not in again.protected
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert_no_trace(cut, again, random_plan(again, 1, 0.9), partial(outputs, x=x), 1e-9)
    widths.stamp(cut, {*again.native, "model.2.cv1.conv"})  # as of a block that is not followed any more
    rebuilt = DetectionModel(deepcopy(cut.yaml), verbose=False).double().eval()
    rebuilt.load_state_dict(cut.state_dict())
    torch.testing.assert_close(outputs(rebuilt, x), outputs(cut, x))


def test_every_convolution_is_prunable_or_protected_with_a_reason() -> None:
    assert len(SCALES) >= 4
    for scale in SCALES:
        model, found = lively(scale)
        convolutions = {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
        produced = {m.module for g in found.groups for m in g.members if m.side == "out"} & convolutions
        assert produced | set(found.protected) == convolutions
        assert not produced & set(found.protected)
        assert all(len(reason) > 10 for reason in found.protected.values())
        last = len(model.model) - 1
        assert set(found.protected) == {f"model.{last}.cv{b}.{i}.2" for b in (2, 3) for i in range(3)} | {
            f"model.{last}.dfl.conv"
        }


def test_tracing_leaves_the_model_alone() -> None:
    model, _ = lively("n")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    model.train()
    channel_groups.build(model)
    assert model.training
    model.eval()
    assert flags == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("pattern", ["model.2.m.0.cv2", "model.2.cv1.conv", "model.4.*", "model.22.cv2.*", "model.0"])
def test_a_protected_name_keeps_its_channels_and_those_tied_to_it(pattern: str) -> None:
    model, whole = lively("n")
    found = channel_groups.build(model, [pattern])
    assert len(found.groups) < len(whole.groups)
    ties = [group.tie for group in found.groups if group.tie]
    assert all(ties.count(tie) == 2 for tie in ties)
    plan = random_plan(found, 3, 0.9)
    cut = deepcopy(model)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert_no_trace(cut, found, plan, partial(outputs, x=x), 1e-9)
    for name, reason in found.protected.items():
        layer, twin = model.get_submodule(name), cut.get_submodule(name)
        assert layer.out_channels == twin.out_channels, (name, reason)
    assert any("protected by the recipe" in reason for reason in found.protected.values())
