# yolo-prune, AGPL-3.0 license
"""The choice of one pruning step: groups, scores, bounds, allocation. What both a training run and `apply` do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
from torch import nn

from yolo_prune.allocation import allocate, costs, not_slower
from yolo_prune.allocation.scopes import legal
from yolo_prune.allocation.units import Part, Unit
from yolo_prune.cost import model_size
from yolo_prune.cost.channel_steps import FINEST
from yolo_prune.errors import BoundError, PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.importance import gradients, scoring
from yolo_prune.importance.gradients import GRADIENT_IMPORTANCES
from yolo_prune.planning import candidates
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.bounds import BOUNDS
from yolo_prune.recipe.settings import Recipe

STAND_IN = "l2"  # for an importance of gradients where there are none
_LEAST = 8  # channels of a layer, where no recipe says min_channels (docs/decisions/0022)
_MUCH = 0.1  # of the convolution weights: as much that stays whole is named where a bound is out of reach


def wants_latency(recipe: Recipe) -> bool:
    """Whether a recipe cannot be followed without a device profile."""
    return recipe.latency is not None or recipe.scope == "latency"


def step_bounds(recipe: Recipe, baseline: Baseline, share: float = 1.0) -> dict[str, float]:
    """The bounds of a step: `share` of the way from the baseline to each of the recipe's bounds.

    Returns:
        "flops" (FLOPs), "params", "latency" (ms) and "size" (bytes) -> upper bound, for the bounds that the recipe has;
        a bound on latency without a profile is left out.
    """
    bounds = {key: getattr(recipe, key) for key in BOUNDS}
    upper = {}
    for key, full in baseline.figures().items():
        bound = bounds[key]
        if bound is not None:
            upper[key] = full - share * max(full - bound.limit(full), 0.0)
    if baseline.least is not None:
        full = baseline.size.flops
        upper["flops"] = full - share * max(full - baseline.least, 0.0)
    return upper


def _lowest(recipe: Recipe, original: Mapping[str, int]) -> dict[str, int]:
    """Group name -> the least count that a recipe lets stay of the original one."""
    return allocate.lowest_counts(original, min_channels=recipe.min_channels or _LEAST, max_cut=recipe.max_cut)


def least_flops(model: nn.Module, graph: channel_groups.ChannelGraph, recipe: Recipe) -> float | None:
    """FLOPs of the narrowest legal model, for a recipe with `max_drop` and no bound; None for any other."""
    if recipe.max_drop is None or recipe.sparsity or any(getattr(recipe, key) for key in BOUNDS):
        return None
    original = {group.name: group.size for group in graph.groups}
    lowest = _lowest(recipe, original)
    flat = {name: np.ones(size) for name, size in original.items()}
    cuttable = candidates.units(graph, flat, original, lowest)
    cost = model_size.flops_cost(graph, cuttable, model_size.size_of(model), math.inf)
    finest = recipe.round or FINEST
    narrowest = np.array([legal(unit.lowest, unit, finest) for unit in cuttable], dtype=float)
    return cost(narrowest) * (1 + 1e-6)


def multiples(recipe: Recipe, baseline: Baseline) -> list[int]:
    """What channel counts become multiples of: the recipe's, else the profile's, else what is known of the deployment.

    Where a recipe leaves it open, finer ones follow, for a bound that only they reach.
    """
    if recipe.round:
        return [recipe.round]
    first = baseline.multiple.channels if baseline.profile is None else baseline.profile.multiple
    return [first, *(finer for finer in (16, FINEST) if finer < first)]


def plan(
    model: nn.Module,
    graph: channel_groups.ChannelGraph,
    recipe: Recipe,
    baseline: Baseline,
    bounds: Mapping[str, float],
    scores: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, float] | None = None,
) -> allocate.PrunePlan:
    """Choose what stays so that every bound holds.

    Args:
        model: the stock model that the groups are of. bounds: as of `step_bounds`.
        scores: group name -> (size,) scores; None asks the recipe's importance, or l2 where that is of gradients.
        weights: group name -> how much the model suffers from a loss in it, where the baseline does not say.

    Raises:
        BoundError: a bound is out of reach of the legal widths.
    """
    if scores is None:
        recipe = by_weights(recipe)
        scores = scoring.score(graph, model, recipe.importance)
    first = baseline.first_names(graph)
    original = {group.name: baseline.channels.get(first[group.name], group.size) for group in graph.groups}
    lowest = _lowest(recipe, original)
    cuttable = candidates.units(graph, scores, original, lowest, _now_named(baseline.weights, first) or weights)
    parts = [
        *candidates.heads(cuttable, graph.heads, baseline.heads, recipe.heads),
        *candidates.blocks(graph, recipe.depth),
    ]
    profile, forecast = baseline.profile, None
    if profile is not None:
        forecast = model_size.latency_cost(graph, cuttable, model, profile, math.inf, parts)
    limited = _costs(model, graph, cuttable, parts, baseline, bounds, forecast)
    gone = baseline.blocks - len(graph.blocks)
    most = math.floor(recipe.depth * baseline.blocks + 1e-9) - gone

    def allocated(scope: str, multiple: int) -> allocate.PrunePlan:
        return allocate.allocate(
            cuttable,
            limited,
            scope=scope,
            multiple=multiple,
            parts=parts,
            most_blocks=max(most, 0),
            guide=forecast if scope == "latency" else None,
            forecast=forecast,
        )

    chosen, multiple = _first_in_reach(allocated, recipe.scope, multiples(recipe, baseline), graph)
    if profile is None or forecast is None or chosen.predicted is None:
        return chosen
    now = forecast(np.array([unit.size for unit in cuttable], dtype=float))
    dense = now if baseline.latency is None else min(baseline.latency, now)
    return _not_slower(chosen, dense, allocated, recipe.scope, multiple, math.lcm(multiple, profile.multiple))


def _now_named(of_first: Mapping[str, float], first: Mapping[str, str]) -> dict[str, float]:
    """What is known of groups by their first names, by the names that they have now."""
    return {now: of_first[name] for now, name in first.items() if name in of_first}


def _costs(
    model: nn.Module,
    graph: channel_groups.ChannelGraph,
    cuttable: Sequence[Unit],
    parts: Sequence[Part],
    baseline: Baseline,
    bounds: Mapping[str, float],
    forecast: costs.Latency | None,
) -> list[costs.Costing]:
    """What is bounded, each with its bound. forecast: the latency, without one."""
    size = model_size.size_of(model)

    def latency(limit: float) -> costs.Latency:
        if forecast is None:
            raise PruneError("a bound on latency, or the latency scope, needs a device profile")
        return replace(forecast, limit=limit)

    makers: dict[str, Callable[[float], costs.Costing]] = {
        "flops": lambda limit: model_size.flops_cost(graph, cuttable, size, limit, parts),
        "params": lambda limit: model_size.params_cost(graph, cuttable, size, limit, parts),
        "latency": latency,
        "size": lambda limit: model_size.size_cost(graph, cuttable, model, baseline.deployment, limit, parts),
    }
    return [makers[key](bound) for key, bound in bounds.items()]


Allocated = Callable[[str, int], allocate.PrunePlan]  # scope, channel multiple -> a plan under every bound


def _first_in_reach(
    allocated: Allocated, scope: str, among: Sequence[int], graph: channel_groups.ChannelGraph
) -> tuple[allocate.PrunePlan, int]:
    """The plan of the first multiple that reaches every bound, and that multiple."""
    for multiple in among[:-1]:
        with suppress(BoundError):
            return allocated(scope, multiple), multiple
    try:
        return allocated(scope, among[-1]), among[-1]
    except BoundError as error:
        raise _because(error, graph) from error


def _not_slower(
    plan: allocate.PrunePlan, dense: float, allocated: Allocated, scope: str, multiple: int, coarser: int
) -> allocate.PrunePlan:
    """A plan, or another one under the same bounds where it is predicted slower than that or than the dense model.

    Args:
        plan: of a scope and a multiple. dense: ms of the model before any cut, or as it is now.
        coarser: a multiple of both, the plan's and the device's.
    """
    plans = [plan]

    def taken(other: str) -> int | None:
        with suppress(BoundError):
            if (other, coarser) != (scope, multiple):
                plans.append(allocated(other, coarser))
        return not_slower.first([not_slower.Forecast(one.predicted or 0.0, one.lost) for one in plans], dense)

    number = taken(scope)
    if number is not None:
        return plans[number]
    number = taken("latency")
    fastest = min(plans, key=lambda one: one.predicted or 0.0)
    words = f"by scope {scope} the model is predicted at {plan.predicted:.2f} ms, slower than the dense {dense:.2f}; "
    if number is None:
        return replace(fastest, note=f"{words}the fastest plan under these bounds takes {fastest.predicted:.2f} ms")
    return replace(plans[number], note=f"{words}scope latency is taken, with {plans[number].predicted:.2f} ms")


def _because(error: BoundError, graph: channel_groups.ChannelGraph) -> BoundError:
    """An error of a bound that is out of reach, with what keeps layers whole where that is much."""
    reasons = {why: share for why, share in graph.reasons_kept_whole().items() if channel_groups.FROZEN not in why}
    if sum(reasons.values()) < _MUCH:
        return error
    words = str(error).partition("; raise the bound")[0]
    asked = sum(share for why, share in reasons.items() if channel_groups.PROTECTED in why)
    right = ["protect less"] if asked else []
    if sum(reasons.values()) - asked >= _MUCH:
        right += ["replace what stops it, or teach the block (yolo-prune help adding-a-block)"]
    return BoundError(
        f"{words}; of its convolution weights stay: {_listed(reasons, graph.untaught)}. Raise the bound, "
        f"{'or ' if len(right) == 1 and asked else ''}{', '.join(right)}"
    )


_LISTED = 3  # reasons in a message


def _listed(reasons: Mapping[str, float], blocks: Mapping[str, str]) -> str:
    """What keeps layers whole, the weightiest first.

    Args:
        reasons: why -> share of the weights. blocks: name -> class, of the blocks that are not known.
    """
    order = sorted(reasons, key=lambda why: -reasons[why])
    listed = []
    for why in order[:_LISTED]:
        kind = next((kind for name, kind in blocks.items() if f" {name}," in f"{why}," or f" {name} " in why), None)
        listed.append(f"{reasons[why]:.0%} {why}{f' ({kind})' if kind else ''}")
    return "; ".join(listed) + ("; ..." if len(order) > _LISTED else "")


def check_reachable(
    model: nn.Module, graph: channel_groups.ChannelGraph, recipe: Recipe, baseline: Baseline, slack: float = 1.0
) -> None:
    """Raise BoundError now, before any work, if the recipe's bounds, times `slack`, are out of reach."""
    flat = {group.name: np.ones(group.size) for group in graph.groups}
    bounds = {key: slack * bound for key, bound in step_bounds(recipe, baseline).items()}
    with _naming_what_is_frozen(model, graph, recipe, baseline, bounds):
        plan(model, graph, recipe, baseline, bounds, flat)


def choose(model: nn.Module, asked: StepRequest) -> tuple[channel_groups.ChannelGraph, allocate.PrunePlan]:
    """Trace and score a model and choose what stays; the model is not changed.

    Returns:
        The groups, without the copy they were traced on (it is as large as the model), and the plan.
    """
    recipe, baseline, bounds, scores_of = asked.recipe, asked.baseline, asked.bounds, asked.scores_of
    graph = asked.traced or channel_groups.build(model, recipe.protect, asked.avoid, asked.frozen)
    weights = None
    raw = scores_of(graph) if recipe.importance in GRADIENT_IMPORTANCES and scores_of is not None else None
    if raw:
        raw = _without_gaps(raw, graph, model)
        scores, weights = scoring.comparable(graph, raw), gradients.weights(raw, graph)
    else:
        recipe = by_weights(recipe)
        scores = scoring.score(graph, model, recipe.importance)
    graph = graph.without_trace()
    with _naming_what_is_frozen(model, graph, recipe, baseline, bounds):
        return graph, plan(model, graph, recipe, baseline, bounds, scores, weights)


def by_weights(recipe: Recipe) -> Recipe:
    """A recipe where weights are all there is: l2 in place of an importance of gradients.

    Then the same share of every layer leaves most (docs/decisions/0004), so channels go by it unless a scope was asked
    for: by an argument, in a recipe that was named, or in `Recipe(scope=...)`.
    """
    if recipe.importance not in GRADIENT_IMPORTANCES:
        return recipe
    scope = recipe.scope if "scope" in recipe.model_fields_set else "uniform"
    return recipe.model_copy(update={"importance": STAND_IN, "scope": scope})


def _without_gaps(
    raw: Mapping[str, np.ndarray], graph: channel_groups.ChannelGraph, model: nn.Module
) -> dict[str, np.ndarray]:
    """What channels are worth, of all groups: those that no gradient spoke of are typical, and l2 orders them."""
    if all(group.name in raw for group in graph.groups):
        return dict(raw)
    typical = float(np.median([values.mean() for values in raw.values()]))
    ordered = scoring.score(graph, model, STAND_IN)  # with mean 1
    return {group.name: raw.get(group.name, typical * ordered[group.name]) for group in graph.groups}


@contextmanager
def _naming_what_is_frozen(
    model: nn.Module,
    graph: channel_groups.ChannelGraph,
    recipe: Recipe,
    baseline: Baseline,
    bounds: Mapping[str, float],
) -> Iterator[None]:
    """Where a bound is out of reach that would not be if nothing were frozen, say so."""
    try:
        yield
    except BoundError as error:
        count = sum(channel_groups.FROZEN in reason for reason in graph.protected.values())
        if not count:
            raise
        free = channel_groups.build(model, recipe.protect)
        try:
            plan(model, free, recipe, baseline, bounds, {group.name: np.ones(group.size) for group in free.groups})
        except BoundError:
            raise error from None
        raise BoundError(
            f"{error}; it is out of reach because {count} layers are frozen and keep their channels: freeze fewer, or "
            "ask for less"
        ) from None
