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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from yolo_prune.errors import BoundError


@dataclass(frozen=True)
class PrunePlan:
    """Which channels stay: group name -> sorted kept channel indices. Groups that are not named stay whole."""

    keep: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """Groups whose counts are equal by construction, decided together; most units are one group.

    Attributes:
        groups: their names. size: channels in each now. original: channels before the first cut.
        lowest: the least count that may stay.
        scores: (groups, size) importance of every channel.
    """

    groups: tuple[str, ...]
    size: int
    original: int
    lowest: int
    scores: np.ndarray

    def order(self) -> np.ndarray:
        """(groups, size) channel indices, the most important first."""
        return np.argsort(-self.scores, axis=1, kind="stable")

    def gain(self) -> np.ndarray:
        """(size + 1,) importance that is kept when the best 0..size channels of each group stay."""
        best = -np.sort(-self.scores, axis=1)
        return np.concatenate([[0.0], np.cumsum(best.sum(axis=0))])


@dataclass(frozen=True)
class Cost:
    """A cost of a model as a function of the counts n of its units.

    cost(n) = fixed + sum_l unit_l * out_l(n) * in_l(n) + sum_l out_unit_l * out_l(n),
    out_l(n) = out0_l + outs_l . n and in_l(n) = in0_l + ins_l . n

    Attributes:
        name: "FLOPs" or "params". limit: the bound, in the cost's own unit. fixed: what no count changes.
        unit, out_unit, out0, in0: (layers,). outs, ins: (layers, units), how often a unit's channels appear there.
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

    def __call__(self, n: np.ndarray) -> float:
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        return float(self.fixed + self.unit @ (out * inp) + self.out_unit @ out)

    def change(self, n: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(units,) the change of the cost when unit u alone goes from n[u] to n[u] + step[u]; exact."""
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        slope = self.outs.T @ (self.unit * inp + self.out_unit) + self.ins.T @ (self.unit * out)
        bend = (self.unit[:, None] * self.outs * self.ins).sum(axis=0)
        return slope * step + bend * step**2


def allocate(units: Sequence[Unit], costs: Sequence[Cost], *, scope: str, multiple: int) -> PrunePlan:
    """Choose the channels that stay.

    Args:
        units: what can be cut. costs: every cost with its bound; all bounds hold in the result.
        scope: a name in `SCOPES`. multiple: counts that change become multiples of it.

    Returns:
        A plan under every bound, with counts >= `lowest` and no bound undershot by more than the smallest chunk that
        could be given back.

    Raises:
        BoundError: a bound is below the cost of the narrowest legal model; the message says the smallest reachable.
    """
    size = np.array([u.size for u in units], dtype=float)
    floor = np.array([_legal(u.lowest, u, multiple) for u in units], dtype=float)
    for cost in costs:
        if cost(floor) > cost.limit * (1 + 1e-9):
            raise BoundError(
                f"the bound of {_human(cost.limit)} {cost.name} is out of reach: the narrowest legal widths of this "
                f"model have {_human(cost(floor))}; raise the bound, or lower prune_round or "
                "prune_min_channels, or raise prune_max_cut"
            )
    n = SCOPES[scope](units, costs, size, floor, multiple) if not _fits(costs, size) else size
    keep = {}
    for unit, count in zip(units, n.astype(int), strict=True):
        if count < unit.size:
            for name, order in zip(unit.groups, unit.order(), strict=True):
                keep[name] = np.sort(order[:count])
    return PrunePlan(keep)


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
