# yolo-prune, AGPL-3.0 license
"""The schedules: exact numbers first, then what must hold for any."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_prune.errors import RecipeError
from yolo_prune.recipe.arguments import load
from yolo_prune.recipe.schedule import SCHEDULES, share, step_epochs
from yolo_prune.recipe.settings import Recipe

fractions = st.floats(0, 1, allow_nan=False)
names = st.sampled_from(sorted(SCHEDULES))


def recipe(schedule: str = "linear", start: float = 0.0, end: float = 1.0, steps: int = 5) -> Recipe:
    asked: dict[str, Any] = {"flops": "50%", "schedule": schedule, "start": start, "end": end, "steps": steps}
    return Recipe(name="mine", **asked)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("oneshot", [1.0]),
        ("linear", [0.25, 0.5, 0.75, 1.0]),
        ("cubic", [0.578125, 0.875, 0.984375, 1.0]),
    ],
)
def test_share_is_exact(schedule: str, shares: list[float]) -> None:
    assert [share(schedule, step + 1, len(shares)) for step in range(len(shares))] == shares


@pytest.mark.parametrize(("step", "steps"), [(0, 4), (5, 4), (-1, 4)])
def test_share_refuses_a_step_that_there_is_not(step: int, steps: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} is not between 1 and {steps}"):
        share("linear", step, steps)


def test_share_refuses_an_unknown_schedule() -> None:
    with pytest.raises(ValueError, match="'square' is unknown; known are oneshot, linear, cubic"):
        share("square", 1, 1)


@given(names, st.integers(1, 500))
def test_share_grows_from_above_0_to_exactly_1(schedule: str, steps: int) -> None:
    shares = [share(schedule, step, steps) for step in range(1, steps + 1)]
    assert shares[0] > 0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    if schedule == "linear":
        assert len(set(shares)) == steps


@pytest.mark.parametrize(
    ("schedule", "start", "end", "steps", "epochs", "expected"),
    [
        ("cubic", 0.05, 0.4, 5, 30, [1, 4, 7, 9, 12]),
        ("cubic", 0.05, 0.4, 5, 100, [5, 14, 23, 31, 40]),
        ("cubic", 0.05, 0.4, 5, 10, [0, 1, 2, 3, 4]),
        ("linear", 0.0, 1.0, 3, 10, [0, 5, 9]),  # the last step leaves epoch 9 to fine-tune
        ("linear", 0.0, 1.0, 4, 4, [0, 1, 2, 3]),
        ("linear", 0.29, 0.57, 2, 100, [29, 57]),  # 0.29 * 100 and 0.57 * 100 are below 29 and 57 in floats
        ("linear", 0.3, 0.9, 1, 10, [3]),
        ("linear", 1.0, 1.0, 1, 10, [9]),
        ("oneshot", 0.0, 0.0, 1, 1, [0]),
        ("oneshot", 0.5, 0.5, 1, 7, [3]),
    ],
)
def test_step_epochs_are_exact(
    schedule: str, start: float, end: float, steps: int, epochs: int, expected: list[int]
) -> None:
    assert step_epochs(recipe(schedule, start, end, steps), epochs) == expected


@pytest.mark.parametrize(
    ("epochs", "known", "expected"), [(1, False, 0), (2, False, 1), (3, False, 1), (10, False, 3), (10, True, 0)]
)
def test_a_start_that_is_left_open_lets_a_model_learn_its_classes_first(
    epochs: int, known: bool, expected: int
) -> None:
    assert step_epochs(Recipe(name="mine", flops="50%"), epochs, known) == [expected]


@pytest.mark.parametrize(("known", "expected"), [(False, [3]), (True, [0])])
def test_an_open_start_goes_by_what_the_model_knows(known: bool, expected: list[int]) -> None:
    def single(start: float | None) -> Recipe:
        return Recipe(name="mine", flops="50%", start=start)

    assert step_epochs(single(None), 10, known) == expected
    assert step_epochs(single(0.5), 10, known) == [5]
    assert step_epochs(Recipe(name="mine", flops="50%", steps=2, start=None), 10, known) == [1, 6]


def room(asked: Recipe, epochs: int) -> int:
    """The number of epochs from start to end, both included."""
    first, last = (min(int(part * epochs + 1e-9), epochs - 1) for part in (asked.start, asked.end))
    return last - first + 1


@given(names, fractions, fractions, st.integers(1, 60), st.integers(1, 1000))
def test_step_epochs_increase_within_the_run_or_fail_clearly(
    schedule: str, one: float, other: float, steps: int, epochs: int
) -> None:
    asked = recipe(schedule, min(one, other), max(one, other), 1 if schedule == "oneshot" else steps)
    if asked.steps > epochs:
        with pytest.raises(
            RecipeError, match=rf"^prune_steps={asked.steps} .* epochs={epochs}: more steps than epochs"
        ):
            step_epochs(asked, epochs)
        return
    at = step_epochs(asked, epochs)
    assert len(at) == min(asked.steps, room(asked, epochs))
    assert all(earlier < later for earlier, later in pairwise(at))
    assert at[0] >= 0
    assert at[-1] <= epochs - 1
    assert at[0] <= asked.start * epochs + 1e-6
    assert at[-1] <= asked.end * epochs + 1e-6


def test_more_steps_than_epochs() -> None:
    with pytest.raises(RecipeError) as caught:
        step_epochs(recipe(steps=40), 30)
    assert str(caught.value) == (
        "prune_steps=40 (recipe mine) with epochs=30: more steps than epochs; write prune_steps=30 or fewer, "
        "prune_schedule=oneshot, or train for at least 40 epochs"
    )
    step_epochs(load("oneshot"), 1)


def test_where_start_to_end_is_short_every_epoch_of_it_has_a_step() -> None:
    assert step_epochs(recipe(start=0.1, end=0.4), 8) == [0, 1, 2, 3]
    assert step_epochs(recipe(start=0.1, end=0.4), 5) == [0, 1, 2]


@pytest.mark.parametrize("epochs", [0, -3, 2.0, True, None])
def test_epochs_that_are_none(epochs: object) -> None:
    with pytest.raises(RecipeError, match=rf"epochs={epochs} .*whole number of at least 1"):
        step_epochs(recipe(), epochs)  # type: ignore[arg-type]
