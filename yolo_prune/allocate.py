# yolo-prune, AGPL-3.0 license
"""How much is cut, and where: scores, costs and bounds -> a PrunePlan. Pure: numpy in, numpy out.

Costs are exact, not estimated. A convolution costs `unit * out * in` and a normalisation `unit * out`, where `out` and
`in` are sums of the kept counts of groups; so every cost is a bilinear form of the counts, and the saving of a chunk of
channels is known before it is cut.

Two scopes:
    uniform   the same share of every group's original channels, as near as the channel multiple allows; so several
              steps end where one would, and small layers are not spared because every single step rounds to nothing.
    global    chunks of channels are ranked over the whole model by importance lost for cost saved, and the cheapest
              loss goes first: the greedy solution of the knapsack (as in HALP, arXiv 2110.10811, with FLOPs or params
              in place of latency). The loss of a chunk is the log of the share of its unit's importance that is left:
              layers follow one another, so what they keep multiplies, and a layer gets dearer the narrower it is.
              (A plain sum is what empties single layers: on yolov8n it takes stages of 32 channels down to 8.)
Both end with a fill: what still fits under the bound is given back, most wanted first.

Whole parts (residual blocks, attention heads), where a recipe lets them go, compete with channels for the same budget:
they are ordered by what their removal loses for what it saves, and the first 0, 1, 2, ... of them are tried, each time
with the channels that the bound still asks for. What loses least in all is the plan. Losses are in one currency, the
log of the share of importance that is left: a channel's of its group, a block's of the stream that it adds to, a head's
of its attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from yolo_prune.errors import BoundError


@dataclass(frozen=True)
class PrunePlan:
    """What stays, and what goes whole.

    Attributes:
        keep: group name -> sorted kept channel indices. Groups that are not named stay whole.
        blocks: residual blocks that are removed. heads: attention -> numbers of the heads that are removed; the groups
            of these heads keep nothing.
    """

    keep: dict[str, np.ndarray] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    heads: dict[str, tuple[int, ...]] = field(default_factory=dict)


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
    """

    groups: tuple[str, ...]
    size: int
    original: int
    lowest: int
    scores: Sequence[np.ndarray] | np.ndarray
    times: tuple[int, ...] = ()
    heads: tuple[Head | None, ...] = ()

    def rows(self) -> Iterator[tuple[str, np.ndarray, int, Head | None]]:
        """Name, scores, times and head of each group."""
        count = len(self.groups)
        return zip(self.groups, self.scores, self.times or (1,) * count, self.heads or (None,) * count, strict=True)

    def gain(self) -> np.ndarray:
        """(size + 1,) importance that is kept when the best 0..size (times its `times`) channels of each group stay."""
        best = [-np.sort(-scores).reshape(self.size, times).sum(axis=1) for _, scores, times, _ in self.rows()]
        return np.concatenate([[0.0], np.cumsum(np.sum(best, axis=0))])


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


@dataclass(frozen=True)
class Effect:
    """What the removal of a part does to a cost: see Cost.

    Attributes:
        layers: (layers,) 0 for a layer that goes, 1 for one that stays. columns: (units,) factor on a unit's channels.
        ins: (layers, units) and in0: (layers,) what is added to the cost's own, for a reader of a part's output.
    """

    layers: np.ndarray
    columns: np.ndarray
    ins: np.ndarray
    in0: np.ndarray


@dataclass(frozen=True)
class Cost:
    """A cost of a model as a function of the counts n of its units.

    cost(n) = fixed + sum_l unit_l * out_l(n) * in_l(n) + sum_l out_unit_l * out_l(n),
    out_l(n) = out0_l + outs_l . n and in_l(n) = in0_l + ins_l . n

    Attributes:
        name: "FLOPs" or "params". limit: the bound, in the cost's own unit. fixed: what no count changes.
        unit, out_unit, out0, in0: (layers,). outs, ins: (layers, units), how often a unit's channels appear there.
        parts: name of a part -> what its removal does.
    """

    name: str
    limit: float
    fixed: float
    unit: np.ndarray
    out_unit: np.ndarray
    out0: np.ndarray
    in0: np.ndarray
    outs: np.ndarray
    ins: np.ndarray
    parts: Mapping[str, Effect] = field(default_factory=dict)

    def without(self, part: str) -> Cost:
        """The cost of the model without a part."""
        effect = self.parts[part]
        return replace(
            self,
            unit=self.unit * effect.layers,
            out_unit=self.out_unit * effect.layers,
            outs=self.outs * effect.columns,
            ins=(self.ins + effect.ins) * effect.columns,
            in0=self.in0 + effect.in0,
        )

    def __call__(self, n: np.ndarray) -> float:
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        return float(self.fixed + self.unit @ (out * inp) + self.out_unit @ out)

    def change(self, n: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(units,) the change of the cost when unit u alone goes from n[u] to n[u] + step[u]; exact."""
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        slope = self.outs.T @ (self.unit * inp + self.out_unit) + self.ins.T @ (self.unit * out)
        bend = (self.unit[:, None] * self.outs * self.ins).sum(axis=0)
        return slope * step + bend * step**2


def allocate(
    units: Sequence[Unit],
    costs: Sequence[Cost],
    *,
    scope: str,
    multiple: int,
    parts: Sequence[Part] = (),
    most_blocks: int = 0,
) -> PrunePlan:
    """Choose what stays.

    Args:
        units: what can be cut. costs: every cost with its bound; all bounds hold in the result.
        scope: a name in `SCOPES`. multiple: counts that change become multiples of it.
        parts: what may go whole. most_blocks: how many blocks of them at most.

    Returns:
        A plan under every bound, with counts >= `lowest` and no bound undershot by more than the smallest chunk that
        could be given back.

    Raises:
        BoundError: a bound is below the cost of the narrowest legal model; the message says the smallest reachable.
    """
    if _fits(costs, np.array([u.size for u in units], dtype=float)):
        return PrunePlan()
    best: tuple[float, np.ndarray, list[Part], np.ndarray] | None = None
    gone: list[Part] = []
    now, misses = list(costs), 0
    for part in [None, *_by_price(units, costs, parts, most_blocks)]:
        if part is not None:
            gone.append(part)
            now = [cost.without(part.name) for cost in now]
        live = np.any([(cost.outs + cost.ins).T @ (cost.unit + cost.out_unit) > 0 for cost in now], axis=0)
        n = _counts(units, now, scope, multiple)
        if n is not None:
            loss = _loss_of_parts(gone) + sum(
                _loss(u, int(c)) for u, c, lives in zip(units, n, live, strict=True) if lives
            )
            misses += 1
            if best is None or loss < best[0]:
                best, misses = (loss, n, list(gone), live), 0
        if misses == _MISSES or (part is not None and n is not None and all(n == [u.size for u in units])):
            break
    if best is None:
        _refuse(units, costs, multiple)
    assert best is not None
    _, n, gone, live = best
    return _plan(units, np.where(live, n, [u.size for u in units]).astype(int), gone)


_MISSES = 3  # so many longer lists of parts that lose more end the search


def _counts(units: Sequence[Unit], costs: Sequence[Cost], scope: str, multiple: int) -> np.ndarray | None:
    """The counts of the scope's choice; None where a bound is out of reach."""
    size = np.array([u.size for u in units], dtype=float)
    floor = np.array([_legal(u.lowest, u, multiple) for u in units], dtype=float)
    if not _fits(costs, floor):
        return None
    return size if _fits(costs, size) else SCOPES[scope](units, costs, size, floor, multiple)


def _refuse(units: Sequence[Unit], costs: Sequence[Cost], multiple: int) -> None:
    floor = np.array([_legal(u.lowest, u, multiple) for u in units], dtype=float)
    for cost in costs:
        if cost(floor) > cost.limit * (1 + 1e-9):
            raise BoundError(
                f"the bound of {_human(cost.limit)} {cost.name} is out of reach: the narrowest legal widths of this "
                f"model have {_human(cost(floor))}; raise the bound, or lower prune_round or "
                "prune_min_channels, or raise prune_max_cut"
            )


def _by_price(units: Sequence[Unit], costs: Sequence[Cost], parts: Sequence[Part], most_blocks: int) -> list[Part]:
    """Parts in the order in which they would go, least loss for what is saved first."""
    size = np.array([u.size for u in units], dtype=float)
    above = [cost for cost in costs if cost(size) > cost.limit]
    prices: list[tuple[float, Part]] = []
    dearest: dict[str, float] = {}  # a second head never goes before the first
    for part in parts:
        saved = sum((cost(size) - cost.without(part.name)(size)) / cost.limit for cost in above)
        price = _loss_of_parts([part]) / max(saved, 1e-12)
        if part.heads:
            price = dearest[part.pool] = max(price, dearest.get(part.pool, 0.0))
        prices.append((price, part))
    ordered = [part for _, part in sorted(prices, key=lambda item: item[0])]
    blocks = [part.name for part in ordered if not part.heads][:most_blocks]
    return [part for part in ordered if part.heads or part.name in blocks]


def _loss_of_parts(parts: Sequence[Part]) -> float:
    shares: dict[str, float] = {}
    for part in parts:
        shares[part.pool] = shares.get(part.pool, 0.0) + part.share
    return sum(-math.log(max(1 - share, 1e-12)) for share in shares.values())


def _loss(unit: Unit, count: int) -> float:
    gain = unit.gain()
    return -math.log(max(gain[count], 1e-12) / max(gain[-1], 1e-12))


def _plan(units: Sequence[Unit], counts: np.ndarray, gone: Sequence[Part]) -> PrunePlan:
    left: dict[str, float] = {}  # of which unit, how much of its heads stays
    dropped: dict[str, tuple[int, ...]] = {}
    for part in gone:
        for attention, number in part.heads:
            dropped[attention] = (*dropped.get(attention, ()), number)
        if part.heads:
            left[part.unit] = part.left
    keep = {}
    for unit, count in zip(units, counts.tolist(), strict=True):
        for name, scores, times, head in unit.rows():
            stays = count * times
            if head is not None and head.number in dropped.get(head.attention, ()):
                stays = 0
            elif head is None:
                stays = round(stays * left.get(unit.groups[0], 1.0))
            if stays < len(scores):
                keep[name] = np.sort(np.argsort(-scores, kind="stable")[:stays])
    return PrunePlan(keep, tuple(part.name for part in gone if not part.heads), dropped)


def _uniform(
    units: Sequence[Unit], costs: Sequence[Cost], size: np.ndarray, floor: np.ndarray, multiple: int
) -> np.ndarray:
    def counts(share: float) -> np.ndarray:
        return np.array([_legal(max(share * u.original, u.lowest), u, multiple) for u in units], dtype=float)

    low, high = 0.0, 1.0
    for _ in range(40):  # the counts are steps of the share: bisection finds the last share that fits
        middle = (low + high) / 2
        low, high = (middle, high) if _fits(costs, counts(middle)) else (low, middle)
    n = counts(low)
    original = np.array([u.original for u in units], dtype=float)

    def wanted(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return low - n / original  # the furthest below the common share first

    return _fill(units, costs, n, multiple, wanted)


def _global(
    units: Sequence[Unit], costs: Sequence[Cost], size: np.ndarray, floor: np.ndarray, multiple: int
) -> np.ndarray:
    gains = [np.log(np.maximum(u.gain(), 1e-12)) for u in units]

    def loss(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return np.array([abs(g[int(a)] - g[int(a + b)]) for g, a, b in zip(gains, n, step, strict=True)])

    n = size.copy()
    while not _fits(costs, n):
        step = np.array([_down(int(c), u, multiple) - c for u, c in zip(units, n, strict=True)])
        price = loss(n, step) / np.maximum(_saving(costs, n, step), 1e-12)
        price[step == 0] = np.inf
        best = int(np.argmin(price))
        n[best] += step[best]

    def wanted(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return loss(n, step) / np.maximum(_saving(costs, n, -step), 1e-12)

    return _fill(units, costs, n, multiple, wanted)


SCOPES: dict[str, Callable[..., np.ndarray]] = {"uniform": _uniform, "global": _global}


def _fill(
    units: Sequence[Unit],
    costs: Sequence[Cost],
    n: np.ndarray,
    multiple: int,
    wanted: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Give back chunks that still fit under every bound, the most wanted first."""
    n = n.copy()
    while True:
        step = np.array([_up(int(c), u, multiple) - c for u, c in zip(units, n, strict=True)])
        fits = step > 0
        for cost in costs:
            fits &= cost(n) + cost.change(n, step) <= cost.limit * (1 + 1e-9)
        if not fits.any():
            return n
        want = np.where(fits, wanted(n, step), -np.inf)
        best = int(np.argmax(want))
        n[best] += step[best]


def _saving(costs: Sequence[Cost], n: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(units,) cost saved by a step, each cost as a share of its bound and only while it is above it."""
    total = np.zeros(len(n))
    above = [cost for cost in costs if cost(n) > cost.limit] or costs
    for cost in above:
        total -= cost.change(n, step) / cost.limit
    return total


def _fits(costs: Sequence[Cost], n: np.ndarray) -> bool:
    return all(cost(n) <= cost.limit * (1 + 1e-9) for cost in costs)


def _legal(count: float, unit: Unit, multiple: int) -> int:
    """The legal count nearest to `count`: a multiple between the unit's lowest and its size, or the size itself."""
    lowest = min(-(-unit.lowest // multiple) * multiple, unit.size)
    rounded = int(count / multiple + 0.5) * multiple
    return int(min(max(rounded, lowest), unit.size))


def _down(count: int, unit: Unit, multiple: int) -> int:
    below = (count - 1) // multiple * multiple
    return below if below >= min(unit.lowest, unit.size) and below > 0 else count


def _up(count: int, unit: Unit, multiple: int) -> int:
    return min((count // multiple + 1) * multiple, unit.size)


def _human(value: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def lowest_counts(sizes: Mapping[str, int], *, min_channels: int, max_cut: float) -> dict[str, int]:
    """group name -> least count: never under `min_channels`, never more than `max_cut` of the original size gone."""
    return {
        name: max(1, min(size, max(min_channels, int(np.ceil(size * (1 - max_cut)))))) for name, size in sizes.items()
    }
