# yolo-prune, AGPL-3.0 license
"""The choice of a step on real models: it keeps bounds, multiples, floors and ties, and the best channels stay."""

from __future__ import annotations

import functools
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from yolo_prune.allocation import allocate
from yolo_prune.allocation.costs import Cost
from yolo_prune.allocation.scopes import SCOPES
from yolo_prune.allocation.units import Unit
from yolo_prune.cost import model_size
from yolo_prune.errors import BoundError
from yolo_prune.graph import channel_groups
from yolo_prune.importance import scoring
from yolo_prune.planning import candidates, choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.settings import Recipe
from yolo_prune.surgery import cut_channels


@functools.cache
def dense(scale: str) -> tuple[nn.Module, channel_groups.ChannelGraph, Baseline]:
    model = DetectionModel(f"yolov8{scale}.yaml", nc=3, verbose=False)
    found = channel_groups.build(model)
    return model, found, Baseline.of(model, found)


def asked(**settings: object) -> Recipe:
    wanted = from_arguments({f"prune_{key}": value for key, value in settings.items()})
    assert wanted is not None
    return wanted


def cut(scale: str, wanted: Recipe) -> tuple[nn.Module, Baseline]:
    model, _, baseline = dense(scale)
    small = deepcopy(model)
    cut_channels.apply(
        small, *choice.choose(small, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    )
    return small, baseline


@pytest.mark.parametrize(("scope", "scale"), [("uniform", "n"), ("global", "s")])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(percent=st.integers(25, 95))
def test_a_flops_bound_holds_and_is_undershot_by_at_most_two_points(scope: str, scale: str, percent: int) -> None:
    small, baseline = cut(scale, asked(flops=f"{percent}%", scope=scope))
    left = 100 * model_size.size_of(small).gflops / baseline.size.gflops
    assert percent - 2 <= left <= percent


@pytest.mark.parametrize("scope", ["uniform", "global"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(percent=st.integers(15, 95))
def test_a_params_bound_holds_and_is_undershot_by_at_most_two_points(scope: str, percent: int) -> None:
    small, baseline = cut("n", asked(params=f"{percent}%", scope=scope))
    left = 100 * model_size.size_of(small).params / baseline.size.params
    assert percent - 2 <= left <= percent


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_all_of_several_bounds_hold(scope: str) -> None:
    small, baseline = cut("n", asked(flops="4.0G", params="50%", scope=scope))
    size = model_size.size_of(small)
    assert size.gflops <= 4.0
    assert size.params <= 0.5 * baseline.size.params
    tight = max(size.gflops / 4.0, size.params / (0.5 * baseline.size.params))
    assert tight > 0.98


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    multiple=st.sampled_from([1, 4, 8, 16, 32]),
    scope=st.sampled_from(["uniform", "global"]),
    percent=st.integers(45, 90),
)
def test_counts_are_multiples_and_keep_their_floor(multiple: int, scope: str, percent: int) -> None:
    wanted = asked(flops=f"{percent}%", round=multiple, scope=scope, min_channels=16, max_cut=0.7)
    _, found, baseline = dense("n")
    model = dense("n")[0]
    try:
        plan = choice.plan(model, found, wanted, baseline, choice.step_bounds(wanted, baseline))
    except BoundError:
        assert multiple >= 32  # yolov8n has layers of 16 channels: coarse multiples leave little to cut
        return
    sizes = {group.name: group.size for group in found.groups}
    counts: dict[str, set[int]] = {}
    for group in found.groups:
        kept = len(plan.keep.get(group.name, range(group.size)))
        assert kept == sizes[group.name] or kept % multiple == 0
        assert kept >= min(group.size, 16)
        assert kept >= 0.3 * group.size - 1e-9
        counts.setdefault(group.tie or group.name, set()).add(kept)
    assert all(len(found_counts) == 1 for found_counts in counts.values())


def test_predicted_costs_are_the_hosts_own_counts() -> None:
    model, found, baseline = dense("n")
    wanted = asked(flops="60%", round=1)
    scores = scoring.score(found, model, "random")
    units = candidates.units(found, scores, baseline.channels, dict.fromkeys(baseline.channels, 1))
    costs = [
        model_size.flops_cost(found, units, baseline.size, 0.6 * baseline.size.flops),
        model_size.params_cost(found, units, baseline.size, float(baseline.size.params)),
    ]
    plan = allocate.allocate(units, costs, scope=wanted.scope, multiple=1)
    counts = np.array([len(plan.keep.get(unit.groups[0], range(unit.size))) for unit in units], dtype=float)
    small = deepcopy(model)
    cut_channels.apply(small, found, plan)
    size = model_size.size_of(small)
    assert costs[0](counts) == pytest.approx(size.flops, rel=1e-9)
    assert costs[1](counts) == pytest.approx(size.params, rel=1e-9)
    assert [cost.fixed for cost in costs] == pytest.approx([0, 0], abs=1)


def test_the_change_of_a_cost_is_exact() -> None:
    model, found, baseline = dense("n")
    units = candidates.units(
        found, scoring.score(found, model, "random"), baseline.channels, dict.fromkeys(baseline.channels, 1)
    )
    cost = model_size.flops_cost(found, units, baseline.size, 1.0)
    n = np.array([unit.size for unit in units], dtype=float)
    down = np.full(len(units), -8.0)
    change = cost.change(n, down)
    assert len(change) == len(units) > 30
    for u in range(len(units)):
        one = n.copy()
        one[u] -= 8
        assert change[u] == pytest.approx(cost(one) - cost(n), rel=1e-9)


def test_the_most_important_channels_stay() -> None:
    scores = np.array([[0.1, 5.0, 0.2, 4.0, 3.0, 0.3, 2.0, 0.4]])
    unit = Unit(("a",), 8, 8, 1, scores)
    one = np.ones(1)
    cost = Cost("params", 4.0, 0.0, one, 0 * one, 0 * one, one, np.ones((1, 1)), np.zeros((1, 1)))
    assert {"uniform", "global", "isomorphic", "latency"} <= set(SCOPES)
    for scope in SCOPES:
        plan = allocate.allocate([unit], [cost], scope=scope, multiple=1)
        assert plan.keep["a"].tolist() == [1, 3, 4, 6]


def test_a_met_bound_cuts_nothing() -> None:
    model, found, baseline = dense("n")
    wanted = asked(flops="99%")
    assert choice.plan(model, found, wanted, baseline, {"flops": baseline.size.flops}).keep == {}


def test_a_bound_out_of_reach_names_the_smallest_reachable() -> None:
    model, found, baseline = dense("n")
    wanted = asked(flops="1%")
    with pytest.raises(BoundError, match=r"out of reach.*narrowest legal widths.* have \d") as caught:
        choice.check_reachable(model, found, wanted, baseline)
    reachable = float(str(caught.value).split(" have ")[1].split("G")[0].split("M")[0])
    unit = 1e9 if "G" in str(caught.value).split(" have ")[1].split(";")[0] else 1e6
    choice.check_reachable(model, found, asked(flops=f"{reachable * unit * 1.02 / 1e9:.4f}G"), baseline)


def test_uniform_in_several_steps_ends_near_the_widths_of_one() -> None:
    model, _, baseline = dense("n")
    wanted = asked(flops="50%", scope="uniform")
    at_once, _ = cut("n", wanted)
    slowly = deepcopy(model)
    for share in (0.3, 0.5, 0.7, 0.85, 0.95, 1.0):
        cut_channels.apply(
            slowly, *choice.choose(slowly, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline, share)))
        )
    widths = [
        {name: m.out_channels for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
        for net in (at_once, slowly)
    ]
    furthest = max(abs(widths[0][name] - widths[1][name]) for name in widths[0])
    assert furthest <= 16, "only chunks that one step gave back and the other did not may differ"
