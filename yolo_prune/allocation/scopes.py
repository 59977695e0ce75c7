# yolo-prune, AGPL-3.0 license
"""How a cut is spread over the units: the scopes. Pure: counts and costs in, counts out.

    uniform     the same share of every unit's original channels, as near as the channel multiple allows; so several
                steps end where one would, and small layers are not spared because every single step rounds to nothing.
    global      chunks of channels are ranked over the whole model by what they lose (units.loss) for the cost that they
                save, and the cheapest loss goes first: the greedy solution of the knapsack.
    latency     as global, but what is saved is always milliseconds on the measured device, whatever is bounded.
    isomorphic  units at the same place of like structures (convolutions of one kernel at one resolution) compete with
                one another for the same share of each kind (after arXiv 2407.04616).

global and latency then exchange: a chunk is given to one unit and what pays for it is taken from others, as long as
that loses less. HALP (arXiv 2110.10811) solves its knapsack with every layer's inputs held at full width; here a chunk
is priced with the model as it is at that moment, inputs and all. All end with a fill: what still fits is given back.

A new scope is a function here and a name in recipe/settings.py; one's own is registered (registry.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from yolo_prune.allocation.costs import Costing
from yolo_prune.allocation.units import Unit


@dataclass(frozen=True)
class Problem:
    """What a scope decides on.

    Attributes:
        units: what can be cut. costs: each with its bound. multiple: counts that change become multiples of it.
        guide: the cost whose saving is the price in the latency scope; None elsewhere.
        leaps: how many chunks may be taken at once; more than one where a single chunk can be too small to save
            anything, on a device that works in coarser steps.
    """

    units: Sequence[Unit]
    costs: Sequence[Costing]
    multiple: int
    guide: Costing | None = None
    leaps: tuple[int, ...] = (1,)

    def sizes(self) -> np.ndarray:
        """(units,) the counts as they are."""
        return np.array([u.size for u in self.units], dtype=float)

    def lowest(self) -> np.ndarray:
        """(units,) the least legal counts."""
        return np.array([legal(u.lowest, u, self.multiple) for u in self.units], dtype=float)

    def fits(self, n: np.ndarray) -> bool:
        """Whether every bound holds."""
        return fits(self.costs, n)

    def down(self, n: np.ndarray, chunks: int = 1) -> np.ndarray:
        """(units,) the step down of each by so many chunks, 0 or less; 0 where there are not so many."""
        return np.array([_down(int(c), u, self.multiple, chunks) - c for u, c in zip(self.units, n, strict=True)])

    def cheapest(
        self, n: np.ndarray, lost: Callable[[np.ndarray, np.ndarray], np.ndarray], spared: int | None = None
    ) -> tuple[int, float, float] | None:
        """The step that loses least for what it saves: (unit, channels, loss); None where no step is left.

        Args:
            lost: counts, steps -> (units,) losses. spared: a unit that is not to be touched.
        """
        best: tuple[int, float, float] | None = None
        dearest = np.inf
        for chunks in self.leaps:
            step = self.down(n, chunks)
            if spared is not None:
                step[spared] = 0
            loss = lost(n, step)
            price = np.where(step < 0, loss / np.maximum(self.saving(n, step), 1e-9), np.inf)
            unit = int(np.argmin(price))
            if price[unit] < dearest:
                dearest, best = float(price[unit]), (unit, float(step[unit]), float(loss[unit]))
        return best

    def up(self, n: np.ndarray) -> np.ndarray:
        """(units,) the next step up of each, 0 or more."""
        return np.array([_up(int(c), u, self.multiple) - c for u, c in zip(self.units, n, strict=True)])

    def saving(self, n: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(units,) what a step saves, each cost as a share of its bound and only while it is above it."""
        if self.guide is not None:
            return -self.guide.change(n, step)
        total = np.zeros(len(n))
        above = [cost for cost in self.costs if cost(n) > cost.limit] or self.costs
        for cost in above:
            total -= cost.change(n, step) / cost.limit
        return total


def uniform(problem: Problem) -> np.ndarray:
    """(units,) counts."""
    units, multiple = problem.units, problem.multiple

    def counts(share: float) -> np.ndarray:
        return np.array([legal(max(share * u.original, u.lowest), u, multiple) for u in units], dtype=float)

    low = _last_that_fits(problem, counts)
    original = np.array([u.original for u in units], dtype=float)

    def wanted(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return low - n / original  # the furthest below the common share first

    return _fill(problem, counts(low), wanted)


def isomorphic(problem: Problem) -> np.ndarray:
    """(units,) counts."""
    units, multiple = problem.units, problem.multiple
    kinds: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        kinds.setdefault(unit.kind, []).append(index)
    # (size,) of each unit, best first: what a channel holds beside the average one of its unit as it was
    gain = [np.diff(u.gain()) / max(u.gain()[-1], 1e-12) * u.size for u in units]

    def counts(share: float) -> np.ndarray:
        n = np.zeros(len(units))
        for members in kinds.values():
            stay = round(share * sum(units[i].original for i in members))
            best = np.argsort(-np.concatenate([gain[i] for i in members]), kind="stable")[:stay]
            owners = np.repeat(members, [len(gain[i]) for i in members])[best]
            for i in members:
                n[i] = legal(max(int((owners == i).sum()), units[i].lowest), units[i], multiple)
        return n

    low = _last_that_fits(problem, counts)

    def wanted(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return np.array([w[min(int(c), len(w) - 1)] for w, c in zip(gain, n, strict=True)])

    return _fill(problem, counts(low), wanted)


def greedy(problem: Problem) -> np.ndarray:
    """(units,) counts of the global and of the latency scope."""
    losses = [u.losses() for u in problem.units]

    def lost(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return np.array([g[int(a + b)] - g[int(a)] for g, a, b in zip(losses, n, step, strict=True)])

    def wanted(n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return -lost(n, step) / np.maximum(problem.saving(n, -step), 1e-12)

    n, floor = problem.sizes(), problem.lowest()
    while not problem.fits(n):
        best = problem.cheapest(n, lost)
        if best is None:
            return floor
        n[best[0]] += best[1]
    return _exchange(problem, _fill(problem, n, wanted), lost, wanted)


_ROUNDS = 40  # exchanges at most; yolov8n takes some ten


def _exchange(
    problem: Problem,
    n: np.ndarray,
    lost: Callable[[np.ndarray, np.ndarray], np.ndarray],
    wanted: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Give a chunk to one unit and take what pays for it from others, while the sum of losses falls."""
    for _ in range(_ROUNDS):
        up = problem.up(n)
        gain = -lost(n, up)
        best: tuple[float, np.ndarray] | None = None
        for unit in np.argsort(-gain)[:12]:
            if up[unit] <= 0:
                continue
            trial = n.copy()
            trial[unit] += up[unit]
            paid = _pay(problem, trial, int(unit), float(gain[unit]), lost)
            if paid is not None and (best is None or paid[0] < best[0]):
                best = paid
        if best is None:
            break
        n = _fill(problem, best[1], wanted)
    return n


def _pay(
    problem: Problem,
    n: np.ndarray,
    spared: int,
    gain: float,
    lost: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[float, np.ndarray] | None:
    """Take chunks from others than `spared` until every bound holds: (change of the loss, counts), None if too dear."""
    total = -gain
    while not problem.fits(n):
        best = problem.cheapest(n, lost, spared)
        if best is None:
            return None
        total += best[2]
        if total >= -1e-9:
            return None
        n[best[0]] += best[1]
    return total, n


SCOPES: dict[str, Callable[[Problem], np.ndarray]] = {
    "uniform": uniform,
    "global": greedy,
    "isomorphic": isomorphic,
    "latency": greedy,
}
BUILT_IN_SCOPES = frozenset(SCOPES)  # those that are registered later are checked more closely


def fits(costs: Sequence[Costing], n: np.ndarray) -> bool:
    """Whether every bound holds at these counts."""
    return all(cost(n) <= cost.limit * (1 + 1e-9) for cost in costs)


def legal(count: float, unit: Unit, multiple: int) -> int:
    """The legal count nearest to `count`: a multiple between the unit's lowest and its size, or the size itself."""
    lowest = min(-(-unit.lowest // multiple) * multiple, unit.size)
    nearest = int(count / multiple + 0.5) * multiple
    return int(min(max(nearest, lowest), unit.size))


def _last_that_fits(problem: Problem, counts: Callable[[float], np.ndarray]) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):  # the counts are steps of the share: bisection finds the last share that fits
        middle = (low + high) / 2
        low, high = (middle, high) if problem.fits(counts(middle)) else (low, middle)
    return low


def _fill(problem: Problem, n: np.ndarray, wanted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Give back chunks that still fit under every bound, the most wanted first."""
    n = n.copy()
    while True:
        step = problem.up(n)
        open_ = step > 0
        for cost in problem.costs:
            open_ &= cost(n) + cost.change(n, step) <= cost.limit * (1 + 1e-9)
        if not open_.any():
            return n
        best = int(np.argmax(np.where(open_, wanted(n, step), -np.inf)))
        n[best] += step[best]


def _down(count: int, unit: Unit, multiple: int, chunks: int = 1) -> int:
    below = ((count - 1) // multiple - chunks + 1) * multiple
    return below if below >= min(unit.lowest, unit.size) and below > 0 else count


def _up(count: int, unit: Unit, multiple: int) -> int:
    return min((count // multiple + 1) * multiple, unit.size)
