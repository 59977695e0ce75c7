# yolo-prune, AGPL-3.0 license
"""Which model best.pt is of, as the record tells, against answers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from yolo_prune.report import best_model

HISTORY = [{"epoch": n + 1, "fitness": value} for n, value in enumerate((0.5, 0.6, None, 0.3, 0.4))]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], (2, False, 0.6)),
        ([{"epoch": 3}], (5, False, 0.4)),
        ([{"epoch": 1, "fitness_cut": None}], (2, False, 0.6)),
        ([{"epoch": 6}], None),
        ([{"epoch": 3, "fitness_cut": 0.45}], (3, True, 0.45)),
        ([{"epoch": 3, "fitness_cut": 0.4}], (5, False, 0.4)),  # of equals the last
        ([{"epoch": 6, "fitness_cut": 0.2}], (6, True, 0.2)),
        ([{"epoch": 1, "fitness_cut": 0.9}, {"epoch": 4, "fitness_cut": 0.1}], (5, False, 0.4)),
        ([{"epoch": 1, "fitness_cut": 0.9}, {"epoch": 2, "fitness_cut": 0.8, "undone": 4}], (5, False, 0.4)),
        ([{"epoch": 1, "undone": 2}], (2, False, 0.6)),
    ],
)
def test_best_is_of_the_latest_cut_or_of_an_epoch_since(steps: list[dict[str, Any]], expected: Any) -> None:
    found = best_model.of({"steps": steps, "history": HISTORY})
    assert (found and tuple(found.values())) == expected


@pytest.mark.parametrize(
    ("back", "expected"), [(0.45, (4, True, 0.45)), (0.35, (5, False, 0.4)), (None, (5, False, 0.4))]
)
def test_best_may_be_the_model_that_was_put_back(back: float | None, expected: Any) -> None:
    stopped = {"epoch": 4, "fitness_back": back}
    steps = [{"epoch": 2, "fitness_cut": 0.8, "undone": 4}]
    found = best_model.of({"steps": steps, "history": HISTORY, "max_drop": stopped})
    assert found is not None
    assert tuple(found.values()) == expected


@pytest.mark.parametrize(
    ("epoch", "cut", "expected"), [(4, 0.4, True), (4, 0.39, False), (3, 0.9, False), (6, 0.9, False), (4, None, False)]
)
def test_training_gained_nothing_where_no_epoch_beats_the_cut(epoch: int, cut: float | None, expected: bool) -> None:
    record = {"steps": [{"epoch": epoch, "fitness_cut": cut}], "history": HISTORY}
    assert best_model.gained_nothing(record) == expected
