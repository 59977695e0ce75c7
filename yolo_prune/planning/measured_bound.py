# yolo-prune, AGPL-3.0 license
"""A bound on latency that is measured: the plan that was chosen is timed, and chosen again where it does not hold.

A profile predicts what a plan takes, mostly to a few percent, but an allocation finds the places where the model of
latency is too hopeful (docs/decisions/0012), and a profile may be of a busy hour. So what the plan really makes is
timed beside the dense model. What it took over what was predicted is a factor that the next prediction is divided by:
the bound of the prediction is tightened, or loosened where the plan is faster than it need be, twice at most.

A worked example. The bound is 50% of 20 ms, and the plan predicted at 10 ms takes 54% of the dense model's time. The
factor is 0.54 / 0.50, so the choice is made again for 10 / 1.08 = 9.26 ms.

How a plan is timed is none of this module's business: see device/plan_timer.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import BoundError, PruneError, first_line
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.planning import dry_cut
from yolo_prune.planning.step_request import ScoresOf, StepRequest

CORRECTIONS = 2  # choices after the first
EXACT = 0.01  # of the bound: a plan that takes more than that above it is chosen again
TOLERANCE = 0.02  # of the bound: what two timings of one model differ by on a quiet machine is no miss
LOOSE = 0.03  # a plan is chosen again, wider, where the prediction was so much too high
_APART = 0.005  # two bounds that differ by less choose the same plan, or as good as

Chosen = tuple[ChannelGraph, PrunePlan]
Timed = Callable[[ChannelGraph, PrunePlan], "Measured"]
Timer = Callable[[], AbstractContextManager[Timed]]  # what it holds for the tries of one choice goes with the block


class Measured(NamedTuple):
    """What a plan's model takes of the dense model's time, timed in turns with it: 0.5 is half.

    Attributes:
        share: the median. low, high: the interval that holds the true one. known: whether that is narrow.
        ms: milliseconds of the plan's model alone.
    """

    share: float
    low: float
    high: float
    known: bool
    ms: float


class Try(NamedTuple):
    """One choice: the bound that its prediction had to hold, what was predicted (ms both), and what was measured."""

    bound: float
    predicted: float
    measured: Measured


@dataclass(frozen=True)
class Check:
    """What came of it.

    Attributes:
        tries: choices that were timed, in their order. taken: the number of the one that was taken.
        bound: of the recipe, in ms of the profile. dense: ms of the dense model by the profile.
        kept: whether the bound holds as measured; None where that is not known. note: why it is not, or does not.
    """

    tries: tuple[Try, ...]
    taken: int
    bound: float
    dense: float
    kept: bool | None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the record: shares of the dense model's time."""
        return {
            "bound": round(self.bound / self.dense, 4),
            "kept": self.kept,
            "note": self.note,
            "taken": self.taken,
            "tries": [
                {
                    "bound": round(one.bound / self.dense, 4),
                    "predicted": round(one.predicted / self.dense, 4),
                    "measured": round(one.measured.share, 4),
                    "interval": [round(end, 4) if end < NEVER else None for end in one.measured[1:3]],
                }
                for one in self.tries
            ],
        }


NEVER = 1e6  # an end of an interval that is not known


def choose(
    model: nn.Module, asked: StepRequest, timer: Timer | None = None
) -> tuple[ChannelGraph, PrunePlan, Check | None]:
    """What `dry_cut.choose` chooses, held to the bound on latency as measured where plans can be timed.

    Args:
        model, asked: see `dry_cut.choose`.
        timer: gives what times choices; None where nothing can be timed.

    Returns:
        The groups, a plan after which the model runs, and what was measured.

    Raises:
        BoundError, PruneError: as of `dry_cut.choose`.
    """
    bounds, wanted, dense = asked.bounds, asked.recipe.latency, asked.baseline.latency
    if timer is None or "latency" not in bounds or dense is None:
        return *dry_cut.choose(model, asked), None
    asked = replace(asked, scores_of=asked.scores_of and _once(asked.scores_of))
    graphs = [] if asked.traced is None else [asked.traced]

    def within(limit: float) -> Chosen:
        traced = graphs.pop() if graphs else None  # the first choice empties it
        return dry_cut.choose(model, replace(asked, bounds={**bounds, "latency": limit}, traced=traced))

    absolute = wanted is not None and wanted.kind == "absolute"
    with timer() as timed:
        chosen, check = hold(within, timed, bounds["latency"], dense, absolute)
    return *chosen, check


def _once(scores_of: ScoresOf) -> ScoresOf:
    """The same scores for the same groups: to gather them takes passes over images."""
    known: dict[tuple[str, ...], dict[str, np.ndarray]] = {}

    def scores(graph: ChannelGraph) -> dict[str, np.ndarray]:
        names = tuple(group.name for group in graph.groups)
        if names not in known:
            known[names] = scores_of(graph)
        return known[names]

    return scores


def hold(
    choose: Callable[[float], Chosen],
    timed: Timed,
    bound: float,
    dense: float,
    absolute: bool = False,
) -> tuple[Chosen, Check | None]:
    """Choose, time what was chosen, and choose again until the bound holds as measured.

    Args:
        choose: ms that are predicted at most -> a choice. timed: a choice -> what it takes.
        bound, dense: see `Check`. absolute: whether the bound was asked for in milliseconds: then a plan that takes no
            more of them now holds it as well, whatever its share.

    Returns:
        The choice that loses least of those that hold, else the last one that may, else the fastest; and what was
        measured, None where nothing was to be cut.

    Raises:
        BoundError: the bound itself is out of reach as predicted; and whatever else `choose` raises at first.
    """

    def within(one: Try, more: float) -> bool:
        most = (1 + more) * bound
        return one.measured.share <= most / dense or (absolute and one.measured.ms <= most)

    def holds(one: Try) -> bool:
        return within(one, EXACT)

    limit, note = bound, ""
    choices: list[Chosen] = [choose(bound)]
    tries: list[Try] = []
    while True:
        predicted = choices[-1][1].predicted
        if predicted is None:
            return choices[-1], None
        try:
            measured = timed(*choices[-1])
        except (PruneError, OSError, RuntimeError) as error:
            note = f"it could not be timed: {first_line(error)}"
            break
        tries.append(Try(limit, predicted, measured))
        if not measured.known:
            note = "the machine is too busy to tell"
            break
        limit = _next(tries, holds, bound, dense) or 0.0
        if not limit or len(tries) > CORRECTIONS:
            break
        try:
            chosen = choose(limit)
        except BoundError as error:
            note = f"a tighter choice is out of reach: {first_line(error)}"
            break
        if chosen[1].predicted in (None, predicted):
            break  # no chunk of channels lies between the two bounds; or the model is below the new one already
        choices.append(chosen)
    taken, kept = _taken(tries, holds, len(choices))
    if kept is False:
        kept = within(tries[taken], TOLERANCE)
    return choices[taken], Check(tuple(tries), taken, bound, dense, kept, "" if kept else note)


def _next(tries: list[Try], holds: Callable[[Try], bool], bound: float, dense: float) -> float | None:
    """The bound that the next choice is predicted to hold, None where the last one is right.

    It lies between the loosest that held and the tightest that did not.
    """
    last = tries[-1]
    factor = last.measured.share / (last.predicted / dense)
    if holds(last) and factor > 1 - LOOSE:
        return None
    limit = bound / max(factor, 1e-9)
    held = max((one.bound for one in tries if holds(one)), default=0.0)
    failed = min((one.bound for one in tries if not holds(one)), default=dense)
    return limit if held * (1 + _APART) < limit < failed * (1 - _APART) else None


def _taken(tries: list[Try], holds: Callable[[Try], bool], choices: int) -> tuple[int, bool | None]:
    """Which choice is taken, and whether the bound is held with it; the last of the choices may be without a try."""
    known = [number for number, one in enumerate(tries) if one.measured.known]
    held = [number for number in known if holds(tries[number])]
    if held:
        return max(held, key=lambda number: tries[number].predicted), True
    if len(known) < choices:
        return choices - 1, None
    return min(known, key=lambda number: tries[number].measured.share), False
