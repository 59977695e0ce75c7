# yolo-prune, AGPL-3.0 license
"""What was asked for and is not done: patterns that mean no layer, whole parts that nothing was removed of."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from yolo_prune.allocation.allocate import PrunePlan, in_words
from yolo_prune.cost import model_size
from yolo_prune.cost.model_size import Size
from yolo_prune.errors import PruneError
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.model_parts import first_match
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.settings import Recipe

_DIGITS = 6  # two figures that are told beside each other differ
_ROUNDING = 0.01  # of a latency, by widths that are rounded where heads go


def require_protected(graph: ChannelGraph, patterns: Sequence[str]) -> None:
    """Raise where a pattern protects nothing: what it was to protect would be cut.

    Args:
        graph: the groups of the model. patterns: of layer names.

    Raises:
        PruneError: names every such pattern, with the nearest names.
    """
    layers = [layer.name for layer in graph.layers if layer.kind != "product"]
    faults = []
    for pattern in patterns:
        if first_match(layers, [pattern], graph.parts) is not None:
            continue
        names = [name.removesuffix(".conv") for name in layers]
        blocks = sorted({".".join(name.split(".")[:end]) for name in names for end in (2, 3)})
        known = [*graph.parts, *dict.fromkeys(names), *(f"{block}.*" for block in blocks)]
        near = difflib.get_close_matches(pattern, known, n=2)
        right = f"did you mean {' or '.join(near)}?" if near else f"a layer is called as {names[0]}, a block model.2.*"
        faults.append(f"{pattern} ({right})")
    if faults:
        raise PruneError(
            f"protect: {', '.join(patterns)}: no layer of this model is called {'; or '.join(faults)}. "
            "See all names: yolo-prune inspect model=..."
        )


def not_removed(recipe: Recipe, baseline: Baseline, removed: Mapping[str, Any]) -> list[str]:
    """A line each for `depth` and `heads` that were asked for, where nothing went.

    Args:
        recipe: what was asked for. baseline: the model before its first cut. removed: of the record.
    """
    lines = []
    several = sum(count > 1 for count in baseline.heads.values())
    for name, share, there, what, gone in (
        ("depth", recipe.depth, baseline.blocks, "residual blocks", removed["blocks"]),
        ("heads", recipe.heads, several, "attentions of several heads", removed["heads"]),
    ):
        if not share or gone:
            continue
        if not there:
            why = f"this model has no {what} that can go whole"
        else:
            why = f"none of its {there} {what} had something removed: to cut channels costs less"
            most = share * (baseline.blocks if name == "depth" else max(baseline.heads.values()))
            if most < 1:
                why = f"{share:g} of its {there} {what} is less than one, so none may go: raise it"
        lines.append(f"{name}={share:g} removed nothing: {why}")
    return lines


def above_bounds(model: nn.Module, size: Size, baseline: Baseline, bounds: Mapping[str, float]) -> str:
    """Which bounds a cut model is above, in words, by what the host counts; empty where it keeps them.

    Args:
        size: of the model as it is. baseline: before its first cut. bounds: as of `choice.step_bounds`; latency, which
            a profile predicts, is not looked at.
    """
    figures: dict[str, tuple[str, float]] = {"flops": ("FLOPs", size.flops), "params": ("params", size.params)}
    if "size" in bounds:
        figures["size"] = "size", model_size.deployed_size(model, baseline.deployment).bytes or 0
    over = [(*figures[key], bound) for key, bound in bounds.items() if key in figures]
    return ", ".join(
        f"{in_words(value, name, _DIGITS)} where at most {in_words(bound, name, _DIGITS)} were asked for"
        for name, value, bound in over
        if value > bound * (1 + 1e-9)
    )


def slower_than_predicted(model: nn.Module, baseline: Baseline, plan: PrunePlan) -> list[str]:
    """A line where a cut model is predicted slower than its plan was before the cut: a bound may not hold then."""
    if baseline.profile is None or plan.predicted is None:
        return []
    now = model_size.latency_of(model, baseline.profile)
    if now <= plan.predicted * (1 + _ROUNDING):
        return []
    return [f"the cut model is predicted at {now:.3g} ms, where its plan was at {plan.predicted:.3g} ms"]
