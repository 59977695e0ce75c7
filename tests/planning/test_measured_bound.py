# yolo-prune, AGPL-3.0 license
"""A bound on latency as measured: known answers on made-up machines, which are slower or faster than their profile."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import BoundError, PruneError
from yolo_prune.planning import measured_bound
from yolo_prune.planning.measured_bound import Check, Measured

DENSE, BOUND = 20.0, 10.0  # ms by the profile
GRAPH: Any = object()


def choose(limit: float) -> tuple[Any, PrunePlan]:
    """The widest plan of a model that can be cut by tenths of a millisecond, down to 5 ms."""
    ms = np.floor(limit * 10 + 1e-6) / 10
    if ms < 5:
        raise BoundError("the bound is out of reach; raise the bound")
    return GRAPH, PrunePlan({"group": np.arange(round(10 * ms))}, predicted=float(ms))


def machine(*factors: float, known: bool = True, faster: float = 1.0) -> Callable[[Any, PrunePlan], Measured]:
    """A machine on which the first plan takes so many times what is predicted, the next the second of them, and so on.

    Args:
        known: whether the last of these timings is. faster: than at the time of the profile, the dense model too.
    """
    left = list(factors)

    def timed(graph: Any, plan: PrunePlan) -> Measured:
        assert graph is GRAPH
        assert plan.predicted is not None
        last = len(left) == 1
        factor = left[0] if last else left.pop(0)
        share = factor * plan.predicted / DENSE
        wide = 0.01 if known or not last else 0.3
        return Measured(share, share * (1 - wide), share * (1 + wide), wide < 0.03, share * DENSE / faster)

    return timed


def held(timed: Any, **options: Any) -> tuple[float, Check]:
    """What is predicted of the plan that is taken, and the check."""
    (_, plan), check = measured_bound.hold(choose, timed, BOUND, DENSE, **options)
    assert plan.predicted is not None
    assert check is not None
    assert len(plan.keep["group"]) == round(10 * plan.predicted)
    return plan.predicted, check


@pytest.mark.parametrize(
    ("factors", "taken", "bounds"),
    [
        ((1.0,), 10.0, [10]),
        ((1.009,), 10.0, [10]),  # as much as a median of pairs is known to
        ((1.08,), 9.2, [10, 10 / 1.08]),
        ((1.08, 1.25), 8.0, [10, 10 / 1.08, 10 / 1.25]),  # what the second plan took counts, not the first
        ((0.98,), 10.0, [10]),  # two percent are not worth another choice
        ((0.9,), 11.1, [10, 10 / 0.9]),  # the profile was too pessimistic: a wider plan holds the bound
        ((0.9, 0.95), 10.5, [10, 10 / 0.9, 10 / 0.95]),  # too wide: the next lies between the two
        ((0.9, 1.1), 10.0, [10, 10 / 0.9]),  # a narrower one than the first need not be tried
        ((1.08, 0.9), 9.2, [10, 10 / 1.08]),  # nor a wider one
    ],
)
def test_the_widest_plan_that_holds_as_measured_is_taken(
    factors: tuple[float, ...], taken: float, bounds: list[float]
) -> None:
    predicted, check = held(machine(*factors))
    assert [one.bound for one in check.tries] == pytest.approx(bounds, rel=1e-9)
    assert (predicted, check.kept, check.note) == (pytest.approx(taken), True, "")
    assert check.tries[check.taken].predicted == predicted
    assert check.tries[check.taken].measured.share <= BOUND / DENSE * 1.01


def test_after_two_corrections_the_fastest_plan_is_taken_and_the_bound_is_not_kept() -> None:
    predicted, check = held(machine(1.1, 1.3, 1.6, 9.9))
    assert [one.predicted for one in check.tries] == [10.0, 9.0, 7.6]
    assert (predicted, check.taken, check.kept) == (10.0, 0, False)  # 55%, 58.5% and 60.8% of the dense model
    predicted, check = held(machine(1.2, 1.3, 1.35))
    assert (predicted, check.taken, check.kept) == (7.6, 2, False)  # 60%, 53.95% and 51.3%
    predicted, check = held(machine(1.2, 1.3, 1.33))
    assert (predicted, check.taken, check.kept) == (7.6, 2, True)  # 50.54%: two timings of one model differ by as much


def test_what_holds_is_taken_though_a_later_choice_does_not() -> None:
    """At first 2.5% too slow; the second choice holds and is much faster than predicted; the third is not tried."""
    predicted, check = held(machine(1.025, 0.8))
    assert (predicted, check.kept, len(check.tries)) == (9.7, True, 2)


@pytest.mark.parametrize(
    ("factors", "taken", "kept"),
    [((1.0,), 10.0, None), ((1.08, 1.0), 9.2, None), ((0.9, 1.0), 10.0, True)],
)
def test_a_machine_that_is_too_busy_to_tell_ends_the_search(
    factors: tuple[float, ...], taken: float, kept: bool | None
) -> None:
    """At first the choice is the profile's; after a miss a narrower one is likelier; what was known to hold, holds."""
    predicted, check = held(machine(*factors, known=False))
    assert (predicted, check.kept, len(check.tries)) == (taken, kept, len(factors))
    assert check.note == ("" if kept else "the machine is too busy to tell")


def test_a_tighter_choice_that_is_out_of_reach() -> None:
    predicted, check = held(machine(2.1))
    assert (predicted, check.kept) == (10.0, False)
    assert check.note == "a tighter choice is out of reach: the bound is out of reach; raise the bound"
    with pytest.raises(BoundError):
        measured_bound.hold(choose, machine(1.0), 4.0, DENSE)


def test_a_plan_that_cannot_be_timed_is_taken_as_predicted() -> None:
    def fails(graph: Any, plan: PrunePlan) -> Measured:
        raise PruneError("no exporter\nhere")

    predicted, check = held(fails)
    assert (predicted, check.kept, check.tries, check.note) == (10.0, None, (), "it could not be timed: no exporter")


def test_a_bound_in_milliseconds_holds_where_those_are_measured() -> None:
    """The machine is now a tenth faster than at the time of its profile."""
    slow = machine(1.09, faster=1.1)
    assert held(slow, absolute=True)[0] == 10.0
    assert held(slow)[0] == 9.1


def test_where_nothing_is_cut_nothing_is_timed() -> None:
    whole = (GRAPH, PrunePlan())
    assert measured_bound.hold(lambda limit: whole, lambda *_: pytest.fail("timed"), BOUND, DENSE) == (whole, None)


def test_a_choice_that_stays_the_same_is_not_timed_again() -> None:
    coarse = {10.0: 10.0, 10 / 0.9: 10.0}  # no chunk of channels is as small as the difference

    def one_of_few(limit: float) -> tuple[Any, PrunePlan]:
        return GRAPH, PrunePlan({"group": np.arange(1)}, predicted=coarse[limit])

    def below_already(limit: float) -> tuple[Any, PrunePlan]:
        return choose(limit) if limit <= BOUND else (GRAPH, PrunePlan())  # an earlier step cut it to less than that

    for some in (one_of_few, below_already):
        (_, plan), check = measured_bound.hold(some, machine(0.9), BOUND, DENSE)
        assert check is not None
        assert (plan.predicted, len(check.tries), check.kept) == (10.0, 1, True)


def test_the_record_has_shares_and_their_intervals() -> None:
    _, check = held(machine(1.08))
    assert check.as_dict() == {
        "bound": 0.5,
        "kept": True,
        "note": "",
        "taken": 1,
        "tries": [
            {"bound": 0.5, "predicted": 0.5, "measured": 0.54, "interval": [0.5346, 0.5454]},
            {"bound": 0.463, "predicted": 0.46, "measured": 0.4968, "interval": [0.4918, 0.5018]},
        ],
    }
    assert pickle.loads(pickle.dumps(check)) == check  # the first of several processes hands it to the others
    never = Measured(0.5, 0.0, float("inf"), False, 10.0)
    assert held(lambda *_: never)[1].as_dict()["tries"][0]["interval"] == [0.0, None]
