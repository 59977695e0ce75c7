# yolo-prune, AGPL-3.0 license
"""Blocks of users: each is cut rightly, or what goes into it stays and the block is named. The tracer never raises."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f, Detect, GhostConv, RepConv
from ultralytics.nn.modules.block import Attention
from ultralytics.nn.modules.conv import Conv2
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers import custom_blocks
from tests.helpers.oracle import assert_no_trace, flat, lively, random_plan
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost.model_size import flops_cost, params_cost, size_of
from yolo_prune.errors import PruneError
from yolo_prune.graph import blocks, channel_groups
from yolo_prune.planning import candidates
from yolo_prune.planning.baseline import Baseline
from yolo_prune.surgery import cut_channels, widths

BLOCK = 5  # its place in yaml_with


@pytest.fixture(autouse=True)
def _warnings() -> Iterator[None]:
    """What torch says of its own old functions is not ours."""
    custom_blocks.register()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def network(block: type[nn.Module]) -> Any:
    """A detector with the block in it, that answers to its input."""
    torch.manual_seed(0)
    model = DetectionModel(custom_blocks.yaml_with(block.__name__), verbose=False)
    return lively(model.eval())


def check(model: Any, found: channel_groups.ChannelGraph, seeds: int = 3, channels: int = 3) -> None:
    """Pruning dead channels changes nothing, in evaluation and in training mode."""
    x = torch.rand(2, channels, 64, 96, generator=torch.Generator().manual_seed(1))
    for seed in range(seeds):
        plan = random_plan(found, seed, 0.8)
        assert plan.keep
        assert_no_trace(deepcopy(model), found, plan, lambda dead: outputs(dead, x), 1e-3)


def outputs(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Of both modes, with the same random numbers."""
    given: list[torch.Tensor] = []
    for training in (False, True):
        for module in model.modules():
            steps = type(module).__name__ == "_SpectralNorm"  # of an iteration of its own at each call in training
            module.training = training and not steps and not isinstance(module, nn.BatchNorm2d)
        torch.manual_seed(3)
        with torch.no_grad():
            given += flat(model(x))
    return given


def held(found: channel_groups.ChannelGraph, name: str) -> bool:
    """Whether all outputs of a layer stay."""
    return name in found.protected


@pytest.mark.parametrize("block", custom_blocks.FOLLOWED, ids=lambda block: block.__name__)
def test_a_followed_block_is_cut_rightly(block: type[nn.Module]) -> None:
    model = network(block)
    found = channel_groups.build(model)
    assert found.untaught == {}
    assert not held(found, f"model.{BLOCK}.a.conv")
    assert not any(one.name.startswith(f"model.{BLOCK}.") for one in found.blocks)
    check(model, found)


@pytest.mark.parametrize("block", custom_blocks.NAMED, ids=lambda block: block.__name__)
def test_a_block_that_is_not_followed_stays_and_is_named(block: type[nn.Module]) -> None:
    model = network(block)
    found = channel_groups.build(model)
    inside = [name for name in found.untaught if name == f"model.{BLOCK}" or name.startswith(f"model.{BLOCK}.")]
    assert inside, found.untaught
    assert held(found, f"model.{BLOCK}.a.conv" if hasattr(model.model[BLOCK].a, "conv") else f"model.{BLOCK}.a")
    assert found.prunable_share() > 0.5  # the rest of the model is cut
    check(model, found)


@pytest.mark.parametrize("name", ["ScriptedModule", "OldWeightNormed", "Masked", "Unregistered", "SlopePerChannel"])
def test_a_model_with_such_a_block_is_pruned_around_it(name: str) -> None:
    model = DetectionModel(custom_blocks.yaml_with(name), verbose=False)
    told = yolo_prune.prune(model, flops="70%")
    assert told["final"]["gflops"] <= 0.705 * told["baseline"]["gflops"]
    for training in (False, True):
        model.train(training)(torch.rand(2, 3, 64, 64))


class Chunked(C2f):
    """A C2f whose forward is written out by a user; the host's exporter runs `forward_split` in its place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for m in self.m:
            parts.append(m(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


def test_a_cut_c2f_with_a_forward_of_its_own_runs_as_the_exporter_runs_it() -> None:
    model = network(custom_blocks.FOLLOWED[0])
    block = model.model[2]
    block.__class__ = Chunked
    found = channel_groups.build(model)
    assert not held(found, "model.2.cv1.conv")
    plan = random_plan(found, 0, 0.8)
    cut_channels.apply(model, found, plan)
    assert block.cv1.conv.out_channels < 32
    assert block.c == block.cv1.conv.out_channels // 2
    x = torch.rand(1, block.cv1.conv.in_channels, 8, 8)
    torch.testing.assert_close(block.forward_split(x), block(x))
    assert blocks.sizes(model)["model.2"] == {"c": block.c}, "a checkpoint carries it, for the class builds it wide"


class OfGhosts(C2f):
    """A C2f whose first part is another: what makes its halves is nowhere its entry looks."""

    def __init__(self, c: int) -> None:
        super().__init__(c, c, 1, True)
        self.cv1 = GhostConv(c, 2 * self.c)


class PlainQueries(Attention):
    """An attention whose queries come of a bare convolution."""

    def __init__(self, c: int) -> None:
        super().__init__(c, 4)
        self.qkv = nn.Conv2d(c, self.qkv.conv.out_channels, 1)


class OfConv2(C2f):
    """A C2f whose first part is a kind of Conv with a forward of its own."""

    def __init__(self, c: int) -> None:
        super().__init__(c, c, 1, True)
        self.cv1 = Conv2(c, 2 * self.c)


def test_a_subclass_with_a_kind_of_conv_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "OfConv2", OfConv2, raising=False)
    model = network(OfConv2)
    found = channel_groups.build(model)
    assert not found.operations
    assert not held(found, f"model.{BLOCK}.cv1.conv")
    told = yolo_prune.prune(model, flops="50%", round=4, min_channels=4)
    assert any(one["before"] > one["after"] for one in told["layers"] if one["name"] == f"model.{BLOCK}.cv1.conv")


@pytest.mark.parametrize(("block", "part"), [(OfGhosts, "cv1, a GhostConv"), (PlainQueries, "qkv, a Conv2d")])
def test_a_subclass_with_another_part_is_pruned_around_and_named(
    block: type[nn.Module], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, block.__name__, block, raising=False)
    model = network(block)
    assert channel_groups.build(model).operations == {f"model.{BLOCK}": part}
    told = yolo_prune.prune(model, flops="70%")
    assert told["final"]["gflops"] <= 0.705 * told["baseline"]["gflops"]
    assert all(one["before"] == one["after"] for one in told["layers"] if one["name"].startswith(f"model.{BLOCK}."))


def test_sizes_that_an_entry_cannot_set_protect_the_block(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def wrong(block: Any, kept: Any) -> None:
        block.c = len(kept["cv1.conv"]) if kept else block.c

    monkeypatch.setitem(blocks.BLOCKS, custom_blocks.Keywords, blocks.Entry(set_sizes=wrong))
    model = network(custom_blocks.Keywords)
    with caplog.at_level("INFO", logger="ultralytics"):
        told = yolo_prune.prune(model, flops="50%", round=4, min_channels=4)
    assert [line for line in caplog.messages if f"model.{BLOCK} (Keywords) cannot be cut" in line]
    assert told["final"]["gflops"] <= 0.505 * told["baseline"]["gflops"]


class RepX(RepConv):
    """A RepConv whose forward is written out by a user; the host fuses it all the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = 0 if self.bn is None else self.bn(x)
        return self.act(self.conv1(x) + self.conv2(x) + given)


class WithRep(custom_blocks.Between):
    """Between two convolutions a RepConv with an identity branch."""

    def make(self, c: int) -> None:
        self.m = RepConv(c, c, bn=True)

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return self.m(y)


@pytest.mark.parametrize(("kind", "deep"), [(RepConv, True), (RepX, False), (RepX, True)])
def test_a_cut_repconv_with_an_identity_branch_is_fused_by_the_host(
    kind: Any, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WithRep, "make", lambda self, c: setattr(self, "m", kind(c, c, g=c if deep else 1, bn=True)))
    monkeypatch.setattr(tasks, "WithRep", WithRep, raising=False)
    model = network(WithRep)
    found = channel_groups.build(model)
    cut_channels.apply(model, found, random_plan(found, 0, 0.8))
    assert model.model[BLOCK].m.conv1.conv.out_channels < 32
    x = torch.rand(1, 3, 64, 64)
    before = list(flat(model(x)))
    for was, now in zip(before, flat(model.fuse(verbose=False)(x)), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-3, atol=1e-2)


def test_a_users_own_head_is_no_decoder() -> None:
    class Mixing(Detect):
        """Swaps the halves of what it reads."""

        def forward(self, x: list[torch.Tensor]) -> Any:
            return super().forward([y.roll(y.shape[1] // 2, 1) for y in x])

    model = network(custom_blocks.Keywords)
    model.model[-1].__class__ = Mixing
    found = channel_groups.build(model)
    assert found.untaught[f"model.{len(model.model) - 1}"] == "Mixing"
    assert {"model.3.conv", "model.6.cv2.conv"} <= set(found.protected)
    check(model, found)


def test_what_a_forks_head_does_to_what_comes_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Normalizing(Detect):
        """A head of a fork, in the host's own package, that normalizes what it reads."""

        def forward(self, x: list[torch.Tensor]) -> Any:
            return super().forward([nn.functional.normalize(y, dim=1) for y in x])

    monkeypatch.setattr(Normalizing, "__module__", Detect.__module__)
    model = network(custom_blocks.Keywords)
    model.model[-1].__class__ = Normalizing
    found = channel_groups.build(model)
    assert found.operations == {f"model.{len(model.model) - 1}": "normalize"}
    assert "normalize" in found.protected["model.3.conv"]


@pytest.mark.parametrize("name", ["NoScale", "NoStatistics", "NeitherScaleNorStatistics", "NoShift"])
def test_a_norm_that_lacks_something_is_counted_cut_and_built_again(name: str) -> None:
    model = DetectionModel(custom_blocks.yaml_with(name), verbose=False)
    found = channel_groups.build(model)
    baseline = Baseline.of(model, found)
    names = [group.name for group in found.groups if group.name.startswith(f"model.{BLOCK}.")]
    sizes = {group.name: group.size for group in found.groups}
    units = candidates.units(found, {n: np.ones(size) for n, size in sizes.items()}, sizes, dict.fromkeys(sizes, 1))
    counts = np.array([8.0 if set(unit.groups) & set(names) else unit.size for unit in units])
    expected = [cost(found, units, baseline.size, 1.0)(counts) for cost in (flops_cost, params_cost)]
    plan = PrunePlan({name: np.arange(8) for name in names})
    cut_channels.apply(model, found, plan)
    size = size_of(model)
    assert names
    assert expected == pytest.approx([size.flops, size.params], rel=1e-6)
    widths.stamp(model, found.native)
    again = DetectionModel(deepcopy(model.yaml), verbose=False)
    again.load_state_dict(model.state_dict())
    norm = again.model[BLOCK].bn
    assert norm.num_features == 8
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(outputs(again, x), outputs(model, x))


def test_what_a_block_adds_behind_a_norm_without_scale_and_shift_is_weighed() -> None:
    model = network(custom_blocks.Keywords)
    norm = model.model[2].m[0].cv2.bn
    norm.reset_parameters()
    share = channel_groups.build(model).blocks[0].share
    model.model[2].m[0].cv2.bn = nn.BatchNorm2d(norm.num_features, affine=False)
    assert 0 < share < 1
    assert channel_groups.build(model).blocks[0].share == pytest.approx(share)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(32, track_running_stats=False), nn.GroupNorm(4, 32)])
def test_a_norm_that_the_host_cannot_fold_is_refused_before_anything_is_done(norm: nn.Module) -> None:
    model = network(custom_blocks.Keywords)
    model.model[BLOCK].a.bn = norm
    state = {key: value.clone() for key, value in model.state_dict().items()}
    words = rf"model\.{BLOCK}\.a is a Conv whose bn, a {type(norm).__name__}, has no running statistics"
    with pytest.raises(PruneError, match=words):
        yolo_prune.prune(model, flops="70%")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("block", [custom_blocks.followed.SlopePerChannel, custom_blocks.followed.Transposed])
def test_a_block_of_one_channel_is_built_again_and_cut_around(block: type[nn.Module]) -> None:
    model = network(block)
    found = channel_groups.build(model)
    plan = PrunePlan({group.name: np.arange(1) for group in found.groups if group.name.startswith(f"model.{BLOCK}.")})
    assert plan.keep
    for _ in range(2):
        cut_channels.apply(model, found, plan)
        widths.stamp(model, found.native)
        again = DetectionModel(deepcopy(model.yaml), verbose=False)
        again.load_state_dict(model.state_dict())
        x = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(outputs(again, x), outputs(model, x))
        found = channel_groups.build(model)
        plan = random_plan(found, 1, 0.8)


def test_a_block_that_stands_at_two_places_is_not_removed() -> None:
    spec = custom_blocks.yaml_with("Keywords")
    spec["backbone"][2] = [-1, 3, "C2f", [32, True]]
    spec["backbone"][4] = [-1, 3, "C3", [32, True]]
    model: Any = DetectionModel(spec, verbose=False)
    assert {"model.2.m.0", "model.4.m.2"} <= {block.name for block in channel_groups.build(model).blocks}
    model.model[2].m[1] = model.model[2].m[0]  # what the columns of a third are is not known then, either
    assert {block.name.rpartition(".m.")[0] for block in channel_groups.build(model).blocks} == {"model.4"}
    model.model[4].m[1].cv1 = model.model[4].m[0].cv1
    found = channel_groups.build(model)
    assert found.blocks == ()
    check(lively(model.eval()), found)
