# yolo-prune, AGPL-3.0 license
"""Ids that stand in the same places, and which of these sets keep equal counts: what a Trace says of groups."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_prune.graph.trace import NONE, Side, Trace


@dataclass
class IdSet:
    """Ids that stand in the same places: `places` is (module, side) -> for each use, the (ids, positions) there."""

    ids: list[int]
    places: dict[tuple[str, Side], list[tuple[int, int]]]


def find(trace: Trace) -> tuple[list[IdSet], dict[int, tuple[str, int]]]:
    """Group ids by their places, so that what must keep equal counts are whole sets; index of a set -> (tie, times)."""
    for _ in range(4):  # a set is parted where its partner comes in parts; each round may part the next one's partner
        sets, of = _sets_by_place(trace)
        if not _split_as_partner(trace, sets, of):
            break
    ties: list[tuple[str, dict[int, int]]] = []  # name, index of a set -> times
    for name, parts in trace.equal:
        lists = [(_sets_of(part, of), times) for part, times in parts]
        sizes = {None if one is None else tuple(len(sets[s].ids) / times for s in one) for one, times in lists}
        if None in sizes or len(sizes) > 1:
            for part, _ in parts:
                trace.fix(part, f"{name} splits it into parts that cannot be kept equally wide")
            continue
        for column in range(len(lists[0][0] or ())):
            wanted = {one[column]: times for one, times in lists if one is not None}
            joined = _joined(ties, name, wanted)
            if joined is None:
                for part, _ in parts:
                    trace.fix(part, f"{name} wants counts that another block's cannot be kept equal to")
            else:
                ties = joined
    return sets, {s: (name, times) for name, members in ties for s, times in members.items()}


def _joined(
    ties: list[tuple[str, dict[int, int]]], name: str, wanted: dict[int, int]
) -> list[tuple[str, dict[int, int]]] | None:
    """The ties with one more, made one with those that share a set with it; None where their factors disagree."""
    apart = []
    for other, members in ties:
        shared = [s for s in members if s in wanted]
        if not shared:
            apart.append((other, members))
            continue
        common = math.lcm(members[shared[0]], wanted[shared[0]])
        up, mine = common // members[shared[0]], common // wanted[shared[0]]
        if any(members[s] * up != wanted[s] * mine for s in shared):
            return None
        wanted = {s: times * up for s, times in members.items()} | {s: times * mine for s, times in wanted.items()}
        name = min(name, other)
    return [*apart, (name, wanted)]


def _sets_by_place(trace: Trace) -> tuple[list[IdSet], dict[int, int]]:
    places: dict[int, list[tuple[tuple[str, Side], int]]] = defaultdict(list)
    for key, ids in trace.uses.items():
        for position, i in enumerate(ids.tolist()):
            if i != NONE:
                places[i].append((key, position))
    by_signature: dict[Any, IdSet] = {}
    of: dict[int, int] = {}
    index: dict[Any, int] = {}
    for i, where in places.items():
        signature = (tuple(key for key, _ in where), tuple(sorted(trace.tags.get(i, ()))))
        one = by_signature.setdefault(signature, IdSet([], defaultdict(list)))
        of[i] = index.setdefault(signature, len(index))
        for key, position in where:
            one.places[key].append((i, position))
        one.ids.append(i)
    return list(by_signature.values()), of


def _sets_of(part: np.ndarray, of: dict[int, int]) -> list[int] | None:
    """The sets that a part is made of, in order; None where a channel of it belongs to none."""
    if any(i not in of for i in part.tolist()):
        return None
    return list(dict.fromkeys(of[i] for i in part.tolist()))


def _split_as_partner(trace: Trace, sets: list[IdSet], of: dict[int, int]) -> bool:
    """Deal a set into as many parts as its partner has, where the sizes allow; whether anything was dealt."""
    dealt = False
    for name, parts in trace.equal:
        lists = [_sets_of(part, of) for part, _ in parts]
        most = max((len(one) for one in lists if one is not None), default=0)
        for (part, _), one in zip(parts, lists, strict=True):
            if one is not None and len(one) == 1 < most and len(part) % most == 0:
                for number, share in enumerate(np.split(part, most)):
                    trace.tag(share, f"{name}|share of {most}", number)
                dealt = True
    return dealt
