# yolo-prune, AGPL-3.0 license
"""When channels are cut: an epoch -> a share of the way to the target. Pure.

A worked example, five cubic steps from 0.1 to 0.4 of 30 epochs:

    epoch the step happens at   3      5      8      10     12     then 18 epochs of fine-tuning
    share of the way            0.488  0.784  0.936  0.992  1.0
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor
from typing import Protocol

from yolo_prune.errors import RecipeError
from yolo_prune.recipe.value_checks import shown

# Time passed, from 0 to 1 -> share of the way to the target, from 0 to 1. The values are exact at 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "oneshot": lambda time: 1.0,
    "linear": lambda time: time,
    "cubic": lambda time: 1 - (1 - time) ** 3,  # Zhu and Gupta, arXiv 1710.01878: much while the model is still wide
}

# Where a recipe leaves the start open: of a single step, and of the first of several (docs/decisions/0015); of a single
# step of a model that was trained on the classes of the data (docs/decisions/0024).
ALONE, FIRST, KNOWN = 0.3, 0.15, 0.0


class Timing(Protocol):
    """What this module reads of a `Recipe`."""

    @property
    def name(self) -> str: ...
    @property
    def schedule(self) -> str: ...
    @property
    def start(self) -> float | None: ...
    @property
    def end(self) -> float | None: ...
    @property
    def steps(self) -> int: ...


def share(schedule: str, step: int, steps: int) -> float:
    """Return the share of the way to the target after one step.

    Args:
        schedule: a name in `SCHEDULES`.
        step: which step, counted from 1.
        steps: how many there are.

    Returns:
        A share in (0, 1], growing with `step`; exactly 1.0 after the last.

    Raises:
        ValueError: `step` is not between 1 and `steps`, or the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r} is unknown; known are {', '.join(SCHEDULES)}")
    if not 1 <= step <= steps:
        raise ValueError(f"step {step} is not between 1 and {steps}")
    return SCHEDULES[schedule](step / steps)


_MOST = 10**9  # epochs: fractions of more are not exact, and no run has them


def step_epochs(recipe: Timing, epochs: int, known: bool = False) -> list[int]:
    """Return the epochs at whose start the pruning steps happen.

    The first step is at epoch floor(start * epochs), the last at floor(end * epochs), the others evenly between; none
    is later than the last epoch, so that at least one epoch of fine-tuning follows. A single step is at the start.
    Where that is left open, a model that must learn its classes is trained for an epoch first, if there is a second.
    Where start to end has fewer epochs than steps, every one of them has a step and there are that many steps: the last
    one still reaches the target.

    Args:
        recipe: what is asked for.
        epochs: how many epochs the run has.
        known: whether the model was trained on the classes of the data, for a single step whose start is left open.

    Returns:
        0-based epochs, strictly increasing, at most as many as the recipe's steps (1 for oneshot).

    Raises:
        RecipeError: `epochs` is no positive whole number, or there are more steps than epochs.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or not 1 <= epochs <= _MOST:
        raise RecipeError(
            f"epochs={shown(epochs)} cannot be pruned in: it must be a whole number of at least 1, and at most {_MOST}"
        )
    first, last = _window(recipe, epochs, KNOWN if known else ALONE)
    steps = 1 if recipe.schedule == "oneshot" else recipe.steps
    if steps > epochs:
        raise RecipeError(
            f"prune_steps={recipe.steps} (recipe {recipe.name}) with epochs={epochs}: more steps than epochs; write "
            f"prune_steps={epochs} or fewer, prune_schedule=oneshot, or train for at least {steps} epochs"
        )
    steps = min(steps, last - first + 1)
    if steps == 1:
        return [first]
    gaps = steps - 1
    return [first + (2 * i * (last - first) + gaps) // (2 * gaps) for i in range(steps)]  # rounded half up, in integers


def _window(recipe: Timing, epochs: int, alone: float) -> tuple[int, int]:
    """The first and the last epoch at which a step may happen; `alone` is the start that is left open."""
    start = alone if recipe.start is None else recipe.start
    end = start if recipe.end is None else recipe.end
    # 0.29 * 100 is 28.999…96 in floats: a hair is added before the floor
    first, last = (min(floor(part * epochs + 1e-9), epochs - 1) for part in (start, end))
    if recipe.start is None and alone > 0:  # what it must learn first takes an epoch at least
        first = min(max(first, 1), epochs - 1)
    return first, max(first, last)
