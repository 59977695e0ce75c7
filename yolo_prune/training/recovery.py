# yolo-prune, AGPL-3.0 license
"""How a run trains on once it is cut: learning rate, images to a step of the optimizer, and the average.

Each is set anew when an epoch begins, from the recipe and the epoch alone: so a resumed run, one that goes back and one
that the host has recovered from NaN (whose average is another object) have them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from yolo_prune.host.run import Run
from yolo_prune.training.session_data import Session


def follow(run: Run, session: Session) -> None:
    """Set what the recipe asks for after a step, right after it and at the start of each epoch."""
    recipe, all_taken = session.recipe, not session.unfinished and session.done > 0
    if recipe.ema and session.steps:  # also of a step that was undone: the average began anew there
        run.average_with(decay(recipe.ema))
    if recipe.nbs is not None and session.cadence is not None:
        session.cadence.step_every(recipe.nbs if all_taken else None)
    if recipe.restart_lr and all_taken:
        session.actions.scale_learning_rate(_rate(run, session) / max(run.schedule(run.epoch), 1e-12))


def decay(age: float) -> Callable[[int], float]:
    """What the average keeps of itself at its n-th update, so that its mean age is always a share of the updates.

    The polynomial-decay average of Shamir and Zhang (arXiv 1212.1824): (n - 1) / (n + eta) gives update i of n a
    weight that grows as i^eta, and a mean age of exactly (n - 1) / (eta + 2). It needs no knowledge of how many steps
    are left: at the end of a run it is that share of all steps since the cut. Lengths relative to the training are what
    carries over between trainings of different length (Karras et al., arXiv 2312.02696).

    Args:
        age: above 0, up to 0.5, which is the plain mean.
    """
    eta = 1 / age - 2
    return lambda updates: (updates - 1) / (updates + eta)


def _rate(run: Run, session: Session) -> float:
    """What `lr0` is multiplied by in this epoch: from the last step to the end, one whole way down."""
    last = session.epochs[-1]
    time = (run.epoch - last) / max(run.epochs - last, 1)
    if session.recipe.restart_lr == "cosine":
        lowest = float(run.arguments.lrf)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * time)) / 2
    return run.schedule(time * run.epochs)
