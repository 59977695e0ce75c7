# yolo-prune, AGPL-3.0 license
"""Every family and task: what can be cut, and that cutting dead channels changes nothing."""

from __future__ import annotations

import functools
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn.modules import RepConv
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from tests.helpers import small_models
from tests.helpers.oracle import assert_no_trace, flat, kill, lively, random_plan
from yolo_prune.cost import model_size
from yolo_prune.graph import channel_groups
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe import support
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.surgery import cut_channels, widths


@functools.cache
def model_of(name: str) -> tuple[nn.Module, channel_groups.ChannelGraph]:
    """A stock model in float64 with lively BatchNorms, and its groups; of yolov3u and yolov9e narrower ones."""
    torch.manual_seed(0)
    if name == "yolov3u.yaml":  # it has no smaller scale, and 100 million weights are slow
        network = DetectionModel({**yaml_model_load(name), "width_multiple": 0.25}, verbose=False)
    elif name == "yolov9e.yaml":  # nor has it
        network = DetectionModel(small_models.quarter(name), verbose=False)
    else:
        network = (RTDETR if "rtdetr" in name else YOLO)(name).model
    model = lively(network.double().eval())
    return model, channel_groups.build(model).without_trace()


def available(row: support.Row) -> Any:
    """The row as a parameter; skipped where this ultralytics does not have it."""
    try:
        missing = not yaml_model_load(row.file)
    except FileNotFoundError:
        missing = True
    return pytest.param(row, id=row.file, marks=[pytest.mark.skipif(missing, reason="not in this ultralytics")])


EVERY = [available(row) for row in support.ROWS]
# All rows are cut and compared here. Where each is also cut by a choice, trained or exported, which takes longer, every
# family and every task stands at least once, and of the newest family all tasks, whose heads are its own.
SMALLEST = {
    *("yolov3-tiny.yaml", "yolov5nu.yaml", "yolov6n.yaml", "yolov9t.yaml", "yolov10n.yaml", "yolov8n-rtdetr.yaml"),
    *("yolov8n-pose.yaml", "yolov8n-obb.yaml", "yolo11n-seg.yaml", "yolo12n-cls.yaml"),
    *(row.file for row in support.ROWS if row.family == "YOLO26"),
}
COVER = [available(row) for row in support.ROWS if row.file in SMALLEST]


def outputs(model: nn.Module, x: torch.Tensor, training: bool) -> list[torch.Tensor]:
    """All tensors that a model gives, in evaluation or as a training step sees them."""
    model.eval()
    if training:
        for module in model.modules():
            module.training = not isinstance(module, (nn.BatchNorm2d, nn.Dropout))
    with torch.no_grad():
        return list(flat(model(x)))


# (seed, the largest share of a group that goes, how likely a block goes, and the share of heads that may go)
PLANS = ((1, 0.9, 0.0), (2, 0.5, 0.5))


@pytest.mark.parametrize("row", EVERY)
def test_pruning_what_is_dead_changes_nothing(row: support.Row) -> None:
    model, found = model_of(row.file)
    assert found.groups
    modes = (False, True) if row.family != "RT-DETR" else (False,)
    for seed, hardest, whole in PLANS:
        plan = random_plan(found, seed, hardest, whole)
        assert plan.keep
        assert not plan.blocks or whole
        x = torch.rand(1, 3, 128, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

        def of_all_modes(model: nn.Module, x: torch.Tensor = x) -> list[torch.Tensor]:
            return [value for training in modes for value in outputs(model, x, training)]

        assert len(assert_no_trace(deepcopy(model), found, plan, of_all_modes, 1e-8)) >= len(modes)


@pytest.mark.parametrize("row", EVERY)
def test_the_oracle_would_see_it(row: support.Row) -> None:
    """The models of these tests answer to their input, or an index that is off could hide."""
    model, _ = model_of(row.file)
    images = torch.rand(2, 1, 3, 128, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = outputs(model, images[0], False), outputs(model, images[1], False)
    assert max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)) > 0.05


def test_a_block_with_an_identity_branch_is_fused_at_its_new_width() -> None:
    torch.manual_seed(0)
    model = YOLO("yolov8n.yaml").model
    stem = model.model[3]
    model.model[3] = nn.Sequential(stem, RepConv(64, 64, bn=True))
    model.model[3].i, model.model[3].f, model.model[3].type = stem.i, stem.f, stem.type
    lively(model.double().eval())
    found = channel_groups.build(model)
    plan = random_plan(found, 4, 0.6)
    assert len(plan.keep["model.3.0.conv"]) < 64
    kill(model, found, plan)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    before = outputs(model, x, False)
    cut_channels.apply(model, found, plan)
    for was, now in zip(before, outputs(model.fuse(verbose=False), x, False), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", EVERY)
def test_most_weights_are_prunable_and_the_rest_has_a_reason(row: support.Row) -> None:
    _, found = model_of(row.file)
    assert found.prunable_share() >= 0.9
    assert all(len(reason) > 10 for reason in found.protected.values())
    layers = {layer.name for layer in found.layers if layer.makes}
    cut = {member.module for group in found.groups for member in group.members if member.side == "out"}
    assert layers == (cut & layers) | set(found.protected)


@pytest.mark.parametrize("row", COVER)
def test_bounds_hold_as_the_host_counts_and_the_yaml_builds_the_same_widths(row: support.Row) -> None:
    model = deepcopy(model_of(row.file)[0]).float()
    wanted = from_arguments({"prune_flops": "50%"})
    assert wanted is not None
    baseline = Baseline.of(model, channel_groups.build(model))
    found, chosen = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    cut_channels.apply(model, found, chosen)
    size = model_size.size_of(model)
    assert 0.97 <= size.flops / (0.5 * baseline.size.flops) <= 1.005
    widths.stamp(model, found.native)
    rebuilt = type(model)(deepcopy(model.yaml), verbose=False)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    rebuilt.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    for was, now in zip(outputs(model, x, False), outputs(rebuilt, x, False), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", COVER)
def test_a_cut_model_can_be_traced_and_cut_again(row: support.Row) -> None:
    model, found = model_of(row.file)
    dead = deepcopy(model)
    cut_channels.apply(dead, found, random_plan(found, 1, 0.5))
    again = channel_groups.build(dead)
    assert [group.name for group in again.groups] == [group.name for group in found.groups]
    plan = random_plan(again, 2, 0.8)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert_no_trace(dead, again, plan, lambda model: outputs(model, x, False), 1e-8)
