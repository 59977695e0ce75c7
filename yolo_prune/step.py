# yolo-prune, AGPL-3.0 license
"""The choice of one pruning step: groups, scores, bounds, allocation. What both a training run and `apply` do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from yolo_prune import allocate, graph, importance, measure
from yolo_prune.measure import Size
from yolo_prune.recipe import Recipe

_COSTS: dict[str, Callable[..., allocate.Cost]] = {"flops": measure.flops_cost, "params": measure.params_cost}


@dataclass(frozen=True)
class Baseline:
    """The model before its first cut.

    Attributes:
        size: params and GFLOPs. channels: group name -> channels; the floors of a recipe are shares of these.
        layers: convolution name -> output channels.
    """

    size: Size
    channels: dict[str, int]
    layers: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module, channel_graph: graph.ChannelGraph) -> Baseline:
        """Measure a model."""
        return cls(
            measure.size_of(model),
            {group.name: group.size for group in channel_graph.groups},
            {layer.name: layer.out for layer in channel_graph.layers},
        )


def limits(recipe: Recipe, baseline: Size, share: float = 1.0) -> dict[str, float]:
    """The bounds of a step: `share` of the way from the baseline to each of the recipe's bounds.

    Returns:
        "flops" (FLOPs) and "params" -> upper bound, for the bounds that the recipe has.
    """
    full = {"flops": baseline.flops, "params": float(baseline.params)}
    bounds = {"flops": recipe.flops, "params": recipe.params}
    return {
        key: full[key] - share * max(full[key] - bound.limit(full[key]), 0.0)
        for key, bound in bounds.items()
        if bound is not None
    }


def plan(
    model: nn.Module,
    channel_graph: graph.ChannelGraph,
    recipe: Recipe,
    baseline: Baseline,
    bounds: Mapping[str, float],
    scores: Mapping[str, np.ndarray] | None = None,
) -> allocate.PrunePlan:
    """Choose what stays so that every bound holds.

    Args:
        model: the stock model that the groups are of. bounds: as of `limits`.
        scores: group name -> (size,) scores; None asks the recipe's importance.

    Raises:
        BoundError: a bound is out of reach of the legal widths.
    """
    if scores is None:
        scores = importance.score(channel_graph, model, recipe.importance)
    lowest = allocate.lowest_counts(baseline.channels, min_channels=recipe.min_channels, max_cut=recipe.max_cut)
    units = _units(channel_graph, scores, baseline.channels, lowest)
    size = measure.size_of(model)
    costs = [_COSTS[key](channel_graph, units, size, bound) for key, bound in bounds.items()]
    return allocate.allocate(units, costs, scope=recipe.scope, multiple=recipe.round)


def check_reachable(
    model: nn.Module, channel_graph: graph.ChannelGraph, recipe: Recipe, baseline: Baseline, slack: float = 1.0
) -> None:
    """Raise BoundError now, before any work, if the recipe's bounds, times `slack`, are out of reach."""
    flat = {group.name: np.ones(group.size) for group in channel_graph.groups}
    bounds = {key: slack * bound for key, bound in limits(recipe, baseline.size).items()}
    plan(model, channel_graph, recipe, baseline, bounds, flat)


def choose(
    model: nn.Module, recipe: Recipe, baseline: Baseline, bounds: Mapping[str, float]
) -> tuple[graph.ChannelGraph, allocate.PrunePlan]:
    """Trace and score a model and choose what stays; the model is not changed.

    Returns:
        The groups, without the copy they were traced on (it is as large as the model), and the plan.
    """
    channel_graph = graph.build(model, recipe.protect)
    scores = importance.score(channel_graph, model, recipe.importance)
    channel_graph = channel_graph.without_trace()
    gc.collect()  # torch-pruning's graph refers to itself: without this the copy stays beside what comes next
    return channel_graph, plan(model, channel_graph, recipe, baseline, bounds, scores)


def _units(
    channel_graph: graph.ChannelGraph,
    scores: Mapping[str, np.ndarray],
    original: Mapping[str, int],
    lowest: Mapping[str, int],
) -> list[allocate.Unit]:
    """Groups that are tied are one unit; every other group is its own."""
    together: dict[str, list[graph.ChannelGroup]] = {}
    for group in channel_graph.groups:
        together.setdefault(group.tie or group.name, []).append(group)
    return [
        allocate.Unit(
            tuple(group.name for group in groups),
            groups[0].size,
            original[groups[0].name],
            max(lowest[group.name] for group in groups),
            np.stack([scores[group.name] for group in groups]),
        )
        for groups in together.values()
    ]
