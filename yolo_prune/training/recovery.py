# yolo-prune, AGPL-3.0 license
"""How a run trains on once it is cut: learning rate, images to a step of the optimizer, canvas, average of weights.

Each is set anew when an epoch begins, from the recipe and the epoch alone: so a resumed run, one that goes back and one
that the host has recovered from NaN (whose average is another object) have them too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from yolo_prune.host import detection_head
from yolo_prune.host.cadence import Cadence
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import messages
from yolo_prune.training.session_data import Session

# Steps of the optimizer that a cut network is to have (docs/decisions/0020). With fewer, an adaptive optimizer takes
# fewer images to each; with others a step would have to be shorter, which is not measured.
ENOUGH = 1000
FEW = 100  # steps, within which a network that was fitted at its cut has been seen to get worse (docs/faq.md)
_LONGEST = 0.9999  # what the host's own average comes to (8.4.190, utils/torch_utils.py: `ModelEMA`)
_ADAPTIVE = (
    *(torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam),
    torch.optim.RMSprop,
)


def follow(run: Run, session: Session) -> None:
    """Set what the recipe asks for after a step, right after it and at the start of each epoch."""
    recipe, all_taken = session.recipe, not session.unfinished and session.done > 0
    _average_and_frames(run, recipe, session.done > 0)
    steps_often = all_taken or steps_often_from_the_start(run, session)
    images = images_to_a_step(run, recipe, session.epochs[-1]) if steps_often else None
    cadence = session.cadence
    if cadence is not None and (recipe.nbs is not None or images is not None or cadence.is_own):  # own, and went back
        cadence.step_every(images)
    if recipe.restart_lr and all_taken:
        session.actions.scale_learning_rate(_rate(run, session) / max(run.schedule(run.epoch), 1e-12))


def follow_dense(run: Run, recipe: Recipe, cadence: Cadence) -> None:
    """At the start of each epoch of a run that does not prune: train as if its model had been cut before the first.

    Args:
        recipe: as of a run that it is to be compared with. cadence: of this run.
    """
    _average_and_frames(run, recipe, True)
    images = images_to_a_step(run, recipe, 0)
    if images is not None:
        cadence.step_every(images)


def _average_and_frames(run: Run, recipe: Recipe, cut: bool) -> None:
    """cut: whether the model in training is one that was."""
    run.average_over(decay(recipe.ema) if recipe.ema and cut else None)
    run.train_in_frames(recipe.frames and cut)


def images_to_a_step(run: Run, recipe: Recipe, cut: int) -> int | None:
    """Images to a step of the optimizer after the last cut: as asked, or so few that about `ENOUGH` steps are left.

    Args:
        cut: the 0-based epoch of it.

    Returns:
        Images, of several processes together, a multiple of the batch where the recipe does not say it; None where the
        host's `nbs` stays: one that was given, one that leaves steps enough, and that of SGD and MuSGD.
    """
    if recipe.nbs is not None or run.has_own_nbs or not isinstance(run.optimizer, _ADAPTIVE):
        return recipe.nbs
    batches = min(max(_batches_left(run, cut) // ENOUGH, 1), run.batches_to_a_step)
    return None if batches == run.batches_to_a_step else batches * run.batch_size


def steps_often_from_the_start(run: Run, session: Session) -> bool:
    """Whether the steps that are left to the plugin come as often before the cut as after it: of an end-to-end head.

    Not beside a penalty, whose growth is reckoned in the host's steps.
    """
    own = session.recipe.nbs is None and session.recipe.regularize == "none"
    return own and bool(session.epochs) and detection_head.is_end_to_end(run.student)


def say_at_the_start(run: Run, session: Session) -> None:
    """Say, before the first epoch, where the optimizer steps more often than the host's would from there on."""
    if not session.done and steps_often_from_the_start(run, session):
        _say_more_steps(run, session, (run.epochs - run.start_epoch) * len(run.loader))


def say(run: Run, session: Session) -> None:
    """Say, right after the last step, where the optimizer steps more often than the host's would from now on, or where
    few of its steps are left whatever they are."""
    if session.unfinished:
        return
    left = _batches_left(run, session.epochs[-1])
    if session.recipe.nbs is None and not steps_often_from_the_start(run, session):
        _say_more_steps(run, session, left)
    images = images_to_a_step(run, session.recipe, session.epochs[-1])
    batches = run.batches_to_a_step if images is None else max(images // run.batch_size, 1)
    if left // batches < FEW:
        messages.few_steps(left // batches, run.batch_size if batches > 1 else None, left)


def _say_more_steps(run: Run, session: Session, left: int) -> None:
    """left: batches."""
    images = images_to_a_step(run, session.recipe, session.epochs[-1])
    if images is not None:
        messages.more_steps(images, left // (images // run.batch_size), left // run.batches_to_a_step)


def _batches_left(run: Run, cut: int) -> int:
    """Batches from the last cut, at the start of that epoch, to the end of the run; the same whenever it is asked."""
    return (run.epochs - cut) * len(run.loader)


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
    return lambda updates: min((updates - 1) / (updates + eta), _LONGEST)


def _rate(run: Run, session: Session) -> float:
    """What `lr0` is multiplied by in this epoch: from the last step to the end, one whole way down."""
    last = session.epochs[-1]
    time = (run.epoch - last) / max(run.epochs - last, 1)
    return run.schedule(time * run.epochs)
