# yolo-prune, AGPL-3.0 license
"""`prune_distill_outputs=`: after its first cut a model learns what it put out before, in place of a host's projector.

The average right before the first cut is the teacher. It stands in the loss that the host calls, and nowhere in the
model: so checkpoints, optimizer, average and DDP know nothing of it. Each process has one of its own, and the average's
loss on the validation images is the host's. For a resume it is kept as data, in pruning/outputs-teacher.pt.
"""

from __future__ import annotations

import operator
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from yolo_prune.errors import PruneError
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import detection_head
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import messages
from yolo_prune.training import ddp, kept_model
from yolo_prune.training.output_loss import Gains, distance
from yolo_prune.training.session_data import Session

_KEPT = "outputs-teacher.pt"  # in the run's folder `pruning`
_USE = "the dense model, whose outputs a resumed run learns"
_WITHOUT = {"classify": "scores of whole images", "semantic": "classes of pixels", "depth": "depths of pixels"}


class TaughtLoss:
    """The host's loss of a model, and what its outputs differ by from a teacher's.

    Args:
        own: the host's, which has all other attributes too. teacher: a stock model, evaluated. weight: of the
        difference. gains: of its parts.

    Attributes:
        seen: the sums over batches of difference and of the host's loss, until they are said; None then.
    """

    def __init__(self, own: Any, teacher: nn.Module, weight: float, gains: Gains) -> None:
        self.own, self.teacher, self.weight, self.gains = own, teacher, weight, gains
        self.seen: tuple[Any, Any] | None = (0.0, 0.0)

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """The host's losses and one more number behind them, each of the whole batch; the host's items as they are."""
        loss, items = self.own(preds, batch)
        if not torch.is_grad_enabled():
            return loss, items
        with torch.no_grad():
            taught = detection_head.branches(detection_head.raw(self.teacher, batch["img"]))
        reg_max = detection_head.of(self.teacher).reg_max
        term: Any = 0.0
        for name, outputs in detection_head.branches(preds).items():
            part = distance(outputs, taught[name], reg_max, self.gains)
            term = term + detection_head.share(self.own, name) * part
        term = self.weight * term * len(batch["img"])
        if self.seen is not None:
            self.seen = (self.seen[0] + term.detach(), self.seen[1] + loss.detach().sum())
        return torch.cat([loss.reshape(-1), term.reshape(1)]), items

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "own":
            raise AttributeError(name)
        return getattr(self.own, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> TaughtLoss:
        """Of a model's copy: the same teacher."""
        return TaughtLoss(deepcopy(self.own, memo), self.teacher, self.weight, self.gains)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file: the host's loss alone."""
        return operator.getitem, ((self.own,), 0)


def arrange(run: Run, recipe: Recipe) -> None:
    """Before the model is built, refuse what has no outputs to learn, or another teacher.

    Raises:
        PruneError: one of these.
    """
    if not recipe.distill_outputs:
        return
    given = f"prune_distill_outputs={recipe.distill_outputs:g}"
    task = run.arguments.task
    if task in _WITHOUT:
        raise PruneError(
            f"{given} learns a detection head's outputs, and task={task} has {_WITHOUT[task]}: leave it out"
        )
    other = getattr(run.arguments, "distill_model", None)
    if other is not None:
        raise PruneError(
            f"{given} and distill_model={other} name two teachers, the model before its first cut and this one: give "
            "one of them"
        )


def require(model: nn.Module, recipe: Recipe, name: str) -> None:
    """Refuse a model whose head does not put out boxes and scores of every place.

    Raises:
        PruneError: so it is.
    """
    if recipe.distill_outputs and detection_head.of(model) is None:
        raise PruneError(
            f"prune_distill_outputs={recipe.distill_outputs:g} learns boxes and scores of every place, and the head of "
            f"{name} ({type(model).__name__}) puts out none: leave it out"
        )


def take_over(run: Run, session: Session) -> None:
    """Right before the first cut: the average becomes the teacher.

    Raises:
        PruneError: it cannot be kept.
    """
    if not session.recipe.distill_outputs:
        return
    teacher = copy_of(run.average_student).float().eval().requires_grad_(False)
    ddp.same(teacher)
    ddp.by_first(lambda: kept_model.keep(run.own_folder / _KEPT, teacher, _USE))
    session.teacher = teacher


def resume(run: Run, session: Session) -> None:
    """Of a resumed run that has cut: read the teacher.

    Raises:
        PruneError: what was kept is gone, damaged, of another model, or more than plain data.
    """
    if session.recipe.distill_outputs and run.is_resumed and session.done:
        path = run.own_folder / _KEPT
        read = ddp.each(lambda: kept_model.read(path, run.built, _USE, run.student))
        session.teacher = read.to(run.device).requires_grad_(False)


def follow(run: Run, session: Session) -> None:
    """At the start of an epoch: let the loss learn from the teacher, or, of a run that went back to it, no more."""
    if not session.recipe.distill_outputs:
        return
    model = run.student
    loss = detection_head.loss_of(model)
    if not session.done:
        session.teacher = None
        if isinstance(loss, TaughtLoss):
            detection_head.put_loss(model, loss.own)
    elif session.teacher is not None and not isinstance(loss, TaughtLoss):
        gains = Gains(*(float(run.settings[name]) for name in Gains._fields))
        detection_head.put_loss(model, TaughtLoss(loss, session.teacher, session.recipe.distill_outputs, gains))


def say(run: Run, session: Session) -> None:
    """At the end of the first epoch after the first cut, say what the teacher's term came to."""
    loss = getattr(run.student, "criterion", None)
    if not isinstance(loss, TaughtLoss) or loss.seen is None:
        return
    if ddp.is_first() and session.steps and run.epoch + 1 == session.steps[0]["epoch"]:
        messages.taught(*(float(part) for part in loss.seen))
    loss.seen = None


def forget(run: Run, session: Session) -> None:
    """At the end of a run: nobody learns any more."""
    if session.recipe.distill_outputs:
        loss = getattr(run.student, "criterion", None)
        if isinstance(loss, TaughtLoss):
            detection_head.put_loss(run.student, loss.own)
        session.teacher = None
        if ddp.is_first():
            (run.own_folder / _KEPT).unlink(missing_ok=True)
