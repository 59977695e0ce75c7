# yolo-prune, AGPL-3.0 license
"""How much is cut, and where: scores, costs and bounds -> a PrunePlan. Pure: numpy in, numpy out.

Channels are chosen by a scope (scopes.py) so that every bound holds; what a chunk of channels saves is known before it
is cut (costs.py).

Whole parts (residual blocks, attention heads), where a recipe lets them go, compete with channels for the same budget:
they are ordered by what their removal loses for what it saves, and the first 0, 1, 2, ... of them are tried, each time
with the channels that the bound still asks for. What loses least in all is the plan. Losses are in one currency
(units.loss) of the share of importance that is left: a channel's of its group, a block's of the stream that it adds to,
a head's of its attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from yolo_prune.allocation.costs import Costing
from yolo_prune.allocation.scopes import BUILT_IN_SCOPES, SCOPES, Problem, fits, legal
from yolo_prune.allocation.units import Part, Unit, loss
from yolo_prune.errors import BoundError, PruneError


@dataclass(frozen=True)
class PrunePlan:
    """What stays, and what goes whole.

    Attributes:
        keep: group name -> sorted kept channel indices. Groups that are not named stay whole.
        blocks: residual blocks that are removed. heads: attention -> numbers of the heads that are removed; the groups
            of these heads keep nothing.
        lost: importance that goes, in the currency of units.loss. predicted: ms of what stays, where that is known.
        note: what is to be said of it in the log; mostly nothing.
    """

    keep: dict[str, np.ndarray] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    heads: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lost: float = 0.0
    predicted: float | None = None
    note: str = ""


def allocate(
    units: Sequence[Unit],
    costs: Sequence[Costing],
    *,
    scope: str,
    multiple: int,
    parts: Sequence[Part] = (),
    most_blocks: int = 0,
    guide: Costing | None = None,
    forecast: Costing | None = None,
) -> PrunePlan:
    """Choose what stays.

    Args:
        units: what can be cut. costs: every cost with its bound; all bounds hold in the result.
        scope: a name in `SCOPES`. multiple: counts that change become multiples of it.
        parts: what may go whole. most_blocks: how many blocks of them at most.
        guide: the latency of the model, for the latency scope. forecast: the same, to say what the plan takes.

    Returns:
        A plan under every bound, with counts >= `lowest` and no bound undershot by more than the smallest chunk that
        could be given back.

    Raises:
        BoundError: a bound is below the cost of the narrowest legal model; the message says the smallest reachable.
    """
    sizes = np.array([u.size for u in units], dtype=float)
    if fits(costs, sizes):
        return PrunePlan()
    losses = [u.losses() for u in units]
    steps = [cost.step for cost in (*costs, *([] if guide is None else [guide]))]
    leaps = tuple(range(1, max(-(-step // multiple) for step in steps) + 1))
    best: tuple[float, np.ndarray, list[Part], np.ndarray] | None = None
    gone: list[Part] = []
    now, misses = list(costs), 0
    for part in [None, *_by_price(units, costs, parts, most_blocks)]:
        if part is not None:
            gone.append(part)
            now = [cost.without(part.name) for cost in now]
            guide = guide and guide.without(part.name)
        live = np.any([cost.live() for cost in now], axis=0)
        n = _counts(Problem(units, now, multiple, guide if scope == "latency" else None, leaps), scope)
        if n is not None:
            lost = _loss_of_parts(gone) + sum(
                float(row[int(c)]) for row, c, lives in zip(losses, n, live, strict=True) if lives
            )
            misses += 1
            if best is None or lost < best[0]:
                best, misses = (lost, n, list(gone), live), 0
        if misses == _MISSES or (part is not None and n is not None and all(n == sizes)):
            break
    if best is None:
        _refuse(units, costs, multiple)
    assert best is not None
    lost, n, gone, live = best
    plan = _plan(units, np.where(live, n, sizes).astype(int), gone)
    for part in gone:
        forecast = forecast and forecast.without(part.name)
    return replace(plan, lost=lost, predicted=None if forecast is None else forecast(n))


_MISSES = 3  # so many longer lists of parts that lose more end the search


def _counts(problem: Problem, scope: str) -> np.ndarray | None:
    """The counts of the scope's choice; None where a bound is out of reach."""
    if not problem.fits(problem.lowest()):
        return None
    return problem.sizes() if problem.fits(problem.sizes()) else _checked(problem, scope)


def _checked(problem: Problem, scope: str) -> np.ndarray:
    """A scope's counts; what a registered one returns is made legal, and refused where it does not fit.

    Raises:
        PruneError: it returned something else than a count for each unit, or counts above a bound.
    """
    counts = SCOPES[scope](problem)
    if scope in BUILT_IN_SCOPES:
        return counts
    given = np.asarray(counts, dtype=float)
    if given.shape != (len(problem.units),) or not np.isfinite(given).all():
        raise PruneError(
            f"scope {scope!r} must return {len(problem.units)} counts, one a unit; returned shape {given.shape}"
        )
    n = np.array([legal(min(c, u.size), u, problem.multiple) for c, u in zip(given, problem.units, strict=True)])
    over = [cost for cost in problem.costs if cost(n) > cost.limit * (1 + 1e-9)]
    if over:
        raise PruneError(
            f"scope {scope!r} keeps {in_words(over[0](n), over[0].name)} where the bound of this step is "
            f"{in_words(over[0].limit, over[0].name)}"
        )
    return n.astype(float)


def _refuse(units: Sequence[Unit], costs: Sequence[Costing], multiple: int) -> None:
    floor = np.array([legal(u.lowest, u, multiple) for u in units], dtype=float)
    for cost in costs:
        if cost(floor) > cost.limit * (1 + 1e-9):
            raise BoundError(
                f"the bound of {in_words(cost.limit, cost.name)} is out of reach: the narrowest legal widths of this "
                f"model have {in_words(cost(floor), cost.name)}; raise the bound, or lower prune_round or "
                "prune_min_channels, or raise prune_max_cut. More: yolo-prune help faq"
            )


def _by_price(units: Sequence[Unit], costs: Sequence[Costing], parts: Sequence[Part], most_blocks: int) -> list[Part]:
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
    return float(sum(loss(1 - share) for share in shares.values()))


def plan_of(units: Sequence[Unit], counts: Sequence[int]) -> PrunePlan:
    """The plan that keeps the best channels of each unit, so many as `counts` says."""
    return _plan(units, np.array(counts, dtype=int), [])


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


def in_words(value: float, name: str, digits: int = 3) -> str:
    """A cost in words; latency and size have units of their own. digits: that are told."""
    if name == "latency":
        return f"{value:.{digits}g} ms"
    if name == "size":
        return f"{value / 1e6:.{digits}g} MB" if value >= 1e6 else f"{value / 1e3:.{digits}g} kB"
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.{digits}g}{letter} {name}"
    return f"{value:.{digits}g} {name}"


def lowest_counts(sizes: Mapping[str, int], *, min_channels: int, max_cut: float) -> dict[str, int]:
    """group name -> least count: never under `min_channels`, never more than `max_cut` of the original size gone."""
    stays = {name: int(np.ceil(size * (1 - max_cut) - 1e-9)) for name, size in sizes.items()}
    return {name: max(1, min(size, max(min_channels, stays[name]))) for name, size in sizes.items()}
