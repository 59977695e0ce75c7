# yolo-prune, AGPL-3.0 license
"""The choice of one pruning step: groups, scores, bounds, allocation. What both a training run and `apply` do."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
        layers: name of each convolution and linear layer -> output channels.
        blocks: how many residual blocks can be removed whole. heads: attention -> its heads.
    """

    size: Size
    channels: dict[str, int]
    layers: dict[str, int]
    blocks: int = 0
    heads: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, channel_graph: graph.ChannelGraph) -> Baseline:
        """Measure a model."""
        return cls(
            measure.size_of(model),
            {group.name: group.size for group in channel_graph.groups},
            {layer.name: layer.out for layer in channel_graph.layers if layer.makes},
            len(channel_graph.blocks),
            dict(channel_graph.heads),
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
    original = {group.name: baseline.channels.get(group.name, group.size) for group in channel_graph.groups}
    lowest = allocate.lowest_counts(original, min_channels=recipe.min_channels, max_cut=recipe.max_cut)
    units = _units(channel_graph, scores, original, lowest)
    parts = [*_heads(units, channel_graph.heads, baseline, recipe.heads), *_blocks(channel_graph, recipe.depth)]
    size = measure.size_of(model)
    costs = [_COSTS[key](channel_graph, units, size, bound, parts) for key, bound in bounds.items()]
    gone = baseline.blocks - len(channel_graph.blocks)
    most = math.floor(recipe.depth * baseline.blocks + 1e-9) - gone
    return allocate.allocate(
        units, costs, scope=recipe.scope, multiple=recipe.round, parts=parts, most_blocks=max(most, 0)
    )


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
            groups[0].size // groups[0].times,
            original[groups[0].name] // groups[0].times,
            max(-(-lowest[group.name] // group.times) for group in groups),
            [scores[group.name] for group in groups],
            tuple(group.times for group in groups),
            tuple(group.head for group in groups),
        )
        for groups in together.values()
    ]


def _blocks(channel_graph: graph.ChannelGraph, depth: float) -> list[allocate.Part]:
    """The residual blocks that may go."""
    if depth == 0:
        return []
    return [allocate.Part(block.name, block.stream, block.share) for block in channel_graph.blocks]


def _heads(
    units: list[allocate.Unit], heads: Mapping[str, int], baseline: Baseline, most: float
) -> list[allocate.Part]:
    """The heads that may go: of each unit one of every attention at a time, the least important first.

    Attentions whose values feed one stream lose heads together, for they keep one count.
    """
    parts = []
    for unit in units if most else []:
        values = {
            (head.attention, head.number): float(scores.sum())
            for _, scores, _, head in unit.rows()
            if head is not None and head.side == "value"
        }
        attentions = sorted({attention for attention, _ in values})
        counts = {heads[attention] for attention in attentions}
        if len(counts) != 1:
            continue  # none, or attentions of unequal heads on one stream
        (now,) = counts
        original = max(baseline.heads.get(attention, now) for attention in attentions)
        allowed = min(math.floor(most * original + 1e-9) - (original - now), now - 1)
        order: dict[str, list[int]] = {}  # attention -> its heads, the least important first
        for attention, number in sorted(values, key=lambda head: values[head]):
            order.setdefault(attention, []).append(number)
        total = sum(values.values())
        for gone in range(1, allowed + 1):
            leaving = tuple((attention, order[attention][gone - 1]) for attention in attentions)
            share = sum(values[head] for head in leaving) / max(total, 1e-12)
            name = f"{unit.groups[0]}#{gone}"
            parts.append(allocate.Part(name, unit.groups[0], share, leaving, unit.groups[0], 1 - gone / now))
    return parts
