# yolo-prune, AGPL-3.0 license
"""With a device profile no plan is taken that is predicted slower than the dense model, where there is another."""

from __future__ import annotations

from copy import deepcopy

import pytest

from tests.helpers.made_up_device import made_up
from tests.planning.test_choice import asked, dense
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost import model_size
from yolo_prune.cost.latency_model import ChannelGrain
from yolo_prune.errors import BoundError
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.surgery import cut_channels


def test_multiples_that_a_device_is_slower_with_are_not_taken() -> None:
    model, found, _ = dense("n")
    device = made_up(ChannelGrain(32, 1, 0.5))  # 24 channels take longer than 32
    baseline = Baseline.of(model, found, device)
    assert baseline.latency is not None
    wanted = asked(flops="85%", round=8, scope="uniform")
    bounds = choice.step_bounds(wanted, baseline)
    careless = choice.plan(model, found, wanted, Baseline.of(model, found), bounds)
    chosen = choice.plan(model, found, wanted, baseline, bounds)
    milliseconds = []
    for plan in (careless, chosen):
        small = deepcopy(model)
        cut_channels.apply(small, found, plan)
        assert model_size.size_of(small).flops <= bounds["flops"]
        milliseconds.append(model_size.latency_of(small, device))
    assert milliseconds[0] > 1.1 * baseline.latency, "the device that is made up makes no plan slower"
    assert milliseconds[1] < 0.95 * baseline.latency
    assert chosen.predicted == pytest.approx(milliseconds[1], rel=1e-9)
    assert chosen.note == ""
    counts = {len(rows) for rows in chosen.keep.values()}
    assert all(count % 32 == 0 for count in counts), "a multiple of both 8 and what the device works in"


def plan(ms: float, lost: float) -> PrunePlan:
    return PrunePlan(lost=lost, predicted=ms)


@pytest.mark.parametrize(
    ("first", "others", "taken", "words"),
    [
        (plan(8, 1), {}, 8, ""),
        (plan(8, 2), {("global", 32): plan(7, 1)}, 7, ""),
        (plan(8, 1), {("global", 32): plan(7, 2)}, 8, ""),
        (plan(12, 1), {("latency", 32): plan(9, 3)}, 9, "scope latency is taken, with 9.00 ms"),
        (plan(12, 1), {("global", 32): plan(11, 2), ("latency", 32): plan(9, 3)}, 9, "predicted at 12.00 ms"),
        (plan(12, 1), {("global", 32): plan(11, 2)}, 11, "slower than the dense 10.00; the fastest plan"),
        (plan(12, 1), {}, 12, "the fastest plan under these bounds takes 12.00 ms"),
    ],
)
def test_where_a_plan_is_slower_another_one_is_taken_and_said(
    first: PrunePlan, others: dict[tuple[str, int], PrunePlan], taken: float, words: str
) -> None:
    def allocated(scope: str, multiple: int) -> PrunePlan:
        if (scope, multiple) not in others:
            raise BoundError("out of reach")
        return others[scope, multiple]

    chosen = choice._not_slower(first, 10.0, allocated, "global", 8, 32)
    assert chosen.predicted == taken
    assert words in chosen.note
    assert bool(words) == bool(chosen.note)
