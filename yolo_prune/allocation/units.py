# yolo-prune, AGPL-3.0 license
"""What allocation decides about: units of channels, and parts that go whole. Pure: numpy alone.

Losses of all of them are on one scale. A unit, a stream or an attention that keeps the share s of its importance loses

    (s ** -STEEPNESS - 1) / STEEPNESS

which is 0 at s = 1 and grows faster the smaller s is, because in layers that follow one another the narrowest limits
the model. Two other losses are worse: with 1 - s some layers lose nearly all of their channels, and with -log(s), which
is the limit for STEEPNESS towards 0, so do layers whose channels cost much, while cheap ones are kept whole
(docs/decisions/0004 and 0012).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

STEEPNESS = 4.0


def loss(share: np.ndarray | float) -> np.ndarray:
    """What keeping a share (0 to 1) of the importance loses; same shape."""
    kept = np.maximum(np.asarray(share, dtype=float), 1e-3)
    lost: np.ndarray = (kept**-STEEPNESS - 1) / STEEPNESS
    return lost


class Head(NamedTuple):
    """One head of an attention: its keys (with the queries, one width) or its values."""

    attention: str
    number: int
    side: Literal["key", "value"]


@dataclass(frozen=True)
class Unit:
    """Groups whose counts are equal by construction, decided together; most units are one group.

    Attributes:
        groups: their names. size: the count now. original: the count before the first cut.
        lowest: the least count that may stay.
        scores: for each group (times * size,) importance of every channel.
        times: for each group, its channels for one of the count; empty where that is 1 for all.
        heads: for each group, the head that it belongs to, or None; empty where none does.
        weight: how much the model suffers from a loss here, 1 for a typical unit (planning/sensitivity.py measures it).
        kind: units of one kind have the same place in like structures; what the isomorphic scope compares.
    """

    groups: tuple[str, ...]
    size: int
    original: int
    lowest: int
    scores: Sequence[np.ndarray] | np.ndarray
    times: tuple[int, ...] = ()
    heads: tuple[Head | None, ...] = ()
    weight: float = 1.0
    kind: str = ""

    def rows(self) -> Iterator[tuple[str, np.ndarray, int, Head | None]]:
        """Name, scores, times and head of each group."""
        count = len(self.groups)
        return zip(self.groups, self.scores, self.times or (1,) * count, self.heads or (None,) * count, strict=True)

    def gain(self) -> np.ndarray:
        """(size + 1,) importance that is kept when the best 0..size (times its `times`) channels of each group stay."""
        best = [-np.sort(-scores).reshape(self.size, times).sum(axis=1) for _, scores, times, _ in self.rows()]
        return np.concatenate([[0.0], np.cumsum(np.sum(best, axis=0))])

    def losses(self) -> np.ndarray:
        """(size + 1,) what is lost when the best 0..size of each group stay, since before the first cut.

        What earlier cuts took is not known any more; it is counted as if the channels had been alike.
        """
        gain = self.gain()
        return self.weight * loss(gain / max(gain[-1], 1e-12) * self.size / max(self.original, 1))


@dataclass(frozen=True)
class Part:
    """Something that can go whole: a residual block, or one more head of each attention of a unit.

    Attributes:
        name: its name, of a block the stock one. pool: what it is a share of. share: of the pool's importance, 0 to 1.
        heads: (attention, number) of the heads that go; empty for a block. unit: name of the first group of the unit
            that these heads belong to. left: share of the heads that are left once this and all before it are gone.
    """

    name: str
    pool: str
    share: float
    heads: tuple[tuple[str, int], ...] = ()
    unit: str = ""
    left: float = 1.0
