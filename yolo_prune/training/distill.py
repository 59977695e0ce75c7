# yolo-prune, AGPL-3.0 license
"""`prune_distill=`: a pruned model learns from what it was before its first cut, through the host's DistillationModel.

The host wraps model and teacher before it makes optimizer and average (ultralytics 8.4.190, engine/trainer.py), so it
does here too, with the model's own file as a teacher whose loss counts nothing. Right before the first cut the average
of the dense model takes the teacher's place, and the loss counts. For a resume it is kept twice: as data in
pruning/teacher-kept.pt, and as pruning/teacher.pt, which the host reads and which is written anew of the first before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_prune.errors import HostError, PruneError
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import checkpoint
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Recipe
from yolo_prune.training import ddp, kept_model

_TEACHER, _KEPT = "teacher.pt", "teacher-kept.pt"  # in the run's folder `pruning`
_USE = "the teacher, which a resumed run learns from"


def arrange(run: Run, recipe: Recipe) -> None:
    """Have the host build its DistillationModel; called before it builds the model, also in the parent of a DDP run.

    Raises:
        PruneError: another teacher is named as well, or the model is no trained file. HostError: this host cannot.
    """
    if recipe.distill and run.is_resumed:
        _write_anew(run)
    if not recipe.distill or run.is_resumed:
        return
    given = f"prune_distill={recipe.distill:g}"
    if run.arguments.task == "classify":
        raise PruneError(f"{given} learns what a detection head sees, and task=classify has none: leave it out")
    if not hasattr(run.arguments, "distill_model"):
        raise HostError(f"{given} needs an ultralytics that has distill_model=")
    if run.arguments.distill_model == str(run.arguments.model):
        return  # the parent of a DDP run has said it
    if run.arguments.distill_model is not None:
        raise PruneError(
            f"{given} and distill_model={run.arguments.distill_model} name two teachers, the model before its first "
            "cut and this one: give one of them"
        )
    if Path(str(run.arguments.model)).suffix != ".pt":
        raise PruneError(
            f"{given} with model={run.arguments.model}: only a trained model, such as model=best.pt, has something to "
            "teach; leave prune_distill= out"
        )
    run.arguments.distill_model = str(run.arguments.model)


def _write_anew(run: Run) -> None:
    """Before the host loads the teacher of a resumed run, which runs what a pickle names: write it of plain data.

    Raises:
        PruneError: what was kept is gone, damaged, or holds more than plain data.
    """
    named = Path(str(run.arguments.distill_model))
    if named.parts[-2:] != (_path(run).parent.name, _TEACHER):
        return  # nothing was cut yet, or the user names another teacher beside resume
    own = run.model_of_checkpoint()
    teacher = kept_model.read(run.own_folder / _KEPT, kept_model.built_as(own), _USE, own)
    _write(run, teacher)
    run.arguments.distill_model = str(_path(run))  # the folder may have moved


def _write(run: Run, teacher: Any) -> None:
    try:
        checkpoint.write(_path(run), teacher, {"train_args": run.settings})
    except PruneError as error:
        raise PruneError(f"{error} ({_USE})") from None


def begin(wrapper: Any, recipe: Recipe, cut: bool) -> None:
    """Let the loss count nothing until the first cut, or, of a resumed run that has cut, what was asked for."""
    if recipe.distill and hasattr(wrapper, "student_model"):
        wrapper.dis = recipe.distill if cut else 0.0


def take_over(run: Run, recipe: Recipe) -> None:
    """Right before the first cut: the average becomes the teacher, and its loss counts.

    Args:
        run: whose model is the wrapper.

    Raises:
        HostError: the host's DistillationModel is not what it was. PruneError: the teacher cannot be kept.
    """
    wrapper = run.model
    if not recipe.distill or not hasattr(wrapper, "student_model"):
        return
    teacher: Any = copy_of(run.average_student).float().eval()
    ddp.same(teacher)
    try:
        wrapper._remove_feature_hooks()
        wrapper.teacher_model = teacher.to(run.device)
        wrapper._freeze_teacher()
        wrapper._register_feature_hooks()
    except AttributeError as error:
        raise HostError(f"this ultralytics keeps its teacher in another way than yolo-prune knows: {error}") from error
    wrapper.dis = recipe.distill
    ddp.by_first(lambda: _keep(run, teacher))
    run.arguments.distill_model = str(_path(run))  # what a resumed run reads: it is saved with every checkpoint


def _keep(run: Run, teacher: Any) -> None:
    kept_model.keep(run.own_folder / _KEPT, teacher, _USE)
    _write(run, copy_of(teacher))


def forget(run: Run, recipe: Recipe) -> None:
    """Remove the teacher that was kept: a run that has ended is not resumed."""
    if recipe.distill and ddp.is_first():
        for path in (_path(run), run.own_folder / _KEPT):
            path.unlink(missing_ok=True)


def _path(run: Run) -> Path:
    return run.own_folder / _TEACHER
