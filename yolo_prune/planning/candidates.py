# yolo-prune, AGPL-3.0 license
"""What can be cut, as the allocation sees it: channel groups -> units; residual blocks and heads -> parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from yolo_prune.allocation.units import Part, Unit
from yolo_prune.graph import channel_groups


def units(
    graph: channel_groups.ChannelGraph,
    scores: Mapping[str, np.ndarray],
    original: Mapping[str, int],
    lowest: Mapping[str, int],
    weights: Mapping[str, float] | None = None,
) -> list[Unit]:
    """Groups that are tied are one unit; every other group is its own.

    Args:
        scores, original, lowest, weights: of each group, by name; see Unit.
    """
    layers = {layer.name: layer for layer in graph.layers}
    together: dict[str, list[channel_groups.ChannelGroup]] = {}
    for group in graph.groups:
        together.setdefault(group.tie or group.name, []).append(group)
    return [
        Unit(
            tuple(group.name for group in groups),
            groups[0].size // groups[0].times,
            _original(groups, original),
            max(-(-lowest[group.name] // group.times) for group in groups),
            [scores[group.name] for group in groups],
            tuple(group.times for group in groups),
            tuple(group.head for group in groups),
            (weights or {}).get(groups[0].name, 1.0),
            _kind(groups[0], layers),
        )
        for groups in together.values()
    ]


def _original(groups: Sequence[channel_groups.ChannelGroup], original: Mapping[str, int]) -> int:
    """The count of a unit before the first cut: of a head, where it has one, for what feeds all of them loses some."""
    group = next((group for group in groups if group.head is not None), groups[0])
    return original[group.name] // group.times


def _kind(group: channel_groups.ChannelGroup, layers: Mapping[str, channel_groups.Layer]) -> str:
    """Where a group stands: kernel and resolution of every layer that makes or reads its channels."""
    kinds = {
        (member.side, layers[member.module].kind, layers[member.module].kernel, layers[member.module].area)
        for member in group.members
        if member.module in layers and layers[member.module].makes
    }
    return str(sorted(kinds))


def blocks(graph: channel_groups.ChannelGraph, depth: float) -> list[Part]:
    """The residual blocks that may go."""
    if depth == 0:
        return []
    return [Part(block.name, block.stream, block.share) for block in graph.blocks]


def heads(units: list[Unit], heads: Mapping[str, int], original_heads: Mapping[str, int], most: float) -> list[Part]:
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
        original = max(original_heads.get(attention, now) for attention in attentions)
        allowed = min(math.floor(most * original + 1e-9) - (original - now), now - 1)
        order: dict[str, list[int]] = {}  # attention -> its heads, the least important first
        for attention, number in sorted(values, key=lambda head: values[head]):
            order.setdefault(attention, []).append(number)
        total = sum(values.values())
        for gone in range(1, allowed + 1):
            leaving = tuple((attention, order[attention][gone - 1]) for attention in attentions)
            share = sum(values[head] for head in leaving) / max(total, 1e-12)
            name = f"{unit.groups[0]}#{gone}"
            parts.append(Part(name, unit.groups[0], share, leaving, unit.groups[0], 1 - gone / now))
    return parts
