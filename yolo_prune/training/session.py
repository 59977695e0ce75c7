# yolo-prune, AGPL-3.0 license
"""One training run that prunes: what happens at each of the host's callbacks.

Each callback is given the host's trainer and hands it on as a `Run`. What happens stands in the modules that it calls:
begin.py, step.py, max_drop.py, run_record.py.

Read in ultralytics 8.4.190: engine/trainer.py (`_setup_train`, `_do_train`, `save_model`, `_handle_nan_recovery`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yolo_prune import folder_lock, log
from yolo_prune.errors import PruneError
from yolo_prune.host.run import Run, network_in_parent
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import parse
from yolo_prune.report import messages
from yolo_prune.surgery import widths
from yolo_prune.training import (
    begin,
    deployment,
    max_drop,
    optimizer_actions,
    preflight,
    qat,
    recovery,
    resume,
    roll_back,
    run_record,
    step,
    teacher,
)
from yolo_prune.training.session_data import Session

# Attributes of the host's trainer, which lives as long as the run:
_ATTRIBUTE = "yolo_prune_session"  # the session, from `on_pretrain_routine_end` on
_RECIPE = "yolo_prune_recipe"  # the recipe, from `on_pretrain_routine_start` on
_HELD = "yolo_prune_held"  # the hooks that keep the zeros of a sparse model, in a run that prunes nothing


def of(trainer: Any) -> Session | None:
    """The session of a trainer, or None where nothing is pruned."""
    return getattr(trainer, _ATTRIBUTE, None)


def on_pretrain_routine_start(trainer: Any, attached: Recipe | None = None) -> None:
    """Check everything that can be checked before data and model are read. Of several processes, the first is asked.

    Args:
        trainer: the host's trainer. attached: a recipe from `attach`; None reads the run's arguments.

    Raises:
        RecipeError: an argument or the recipe file is wrong. HostError: a mode that cannot be pruned.
    """
    run = Run(trainer)
    recipe = attached or resume.recipe_of(run)
    if recipe is not None:
        begin.require(run, recipe)
        setattr(trainer, _RECIPE, recipe)


def check_in_parent(trainer: Any, attached: Recipe | None) -> None:
    """What the parent of a DDP run can refuse before its workers start; it runs no callback of its own.

    Args:
        trainer: the parent's trainer; its `model` is the network, or a file's name where the workers will read it.
        attached: the recipe of an `attach`, or None.

    Raises:
        PruneError: as in `on_pretrain_routine_start`, and another family or a bound out of reach.
    """
    on_pretrain_routine_start(trainer, attached)
    run = Run(trainer)
    folder_lock.release(run.folder)  # for the first of the workers
    recipe: Recipe | None = getattr(trainer, _RECIPE, None)
    if recipe is not None and not run.is_resumed:
        freeze = getattr(run.arguments, "freeze", None)
        imgsz = preflight.side_of(run.settings.get("imgsz"))
        preflight.model(network_in_parent(trainer), recipe, str(run.arguments.model), freeze=freeze, imgsz=imgsz)


def on_pretrain_routine_end(trainer: Any, attached: Recipe | None = None) -> None:
    """The model is built: see that the bounds can be reached, pick up a resumed run, and begin.

    Args:
        trainer: the host's trainer. attached: a recipe from `attach`; of several processes only the first had the event
            before this one.
    """
    run = Run(trainer)
    recipe: Recipe | None = getattr(trainer, _RECIPE, None) or attached
    if recipe is None and run.is_further_worker:
        recipe = resume.recipe_of(run)
    if recipe is None:
        if run.is_resumed:
            require_attached(trainer)
        _hold_zeros(trainer)
        return
    session, graph = begin.session_of(run, recipe)
    setattr(trainer, _ATTRIBUTE, session)
    begin.start(run, session, graph)


def require_attached(trainer: Any) -> None:
    """Refuse to go on without the recipe that `attach` gave: no argument of the checkpoint has it.

    Args:
        trainer: of a resumed run whose arguments do not ask for pruning.

    Raises:
        PruneError: nothing was attached.
    """
    run = Run(trainer)
    was_cut = widths.run_of(run.student) is not None  # in this run, or in an earlier one that its model comes from
    if was_cut and run.is_first and not hasattr(trainer, _RECIPE) and resume.has_pruned(run):
        raise PruneError(
            f"resume: {run.last} is of a run that attach() gave its recipe, which no checkpoint holds. Write "
            f"{messages.resume_attached(run.last)}"
        )


def _hold_zeros(trainer: Any) -> None:
    """Nothing is pruned; where the model came with zeros, they are kept while it trains."""
    run = Run(trainer)
    sparsity = widths.sparsity(run.student)
    if sparsity is not None:
        log.say(f"the zeros of this model ({sparsity}) are kept while it trains")
        held = optimizer_actions.hold_what_is_sparse(run.student, parse(sparsity), run.optimizer)
        setattr(trainer, _HELD, held)


def on_train_start(trainer: Any) -> None:
    """Where the first step comes before the first validation, validate the dense model once, for the record."""
    session, run = of(trainer), Run(trainer)
    if session is None or session.done or not session.epochs or session.epochs[0] != run.start_epoch:
        return
    if run.start_epoch == 0:
        session.fitness = session.record["baseline"]["fitness"] = run.validate()


def on_train_epoch_start(trainer: Any) -> None:
    """Take the step of this epoch, once: the host may start an epoch again after running out of memory or NaN."""
    session, run = of(trainer), Run(trainer)
    if session is None:
        if hasattr(trainer, _HELD):
            getattr(trainer, _HELD).follow(run.optimizer)
        return
    if session.sets_out_to_cut:
        run.validate_on_both_canvases()  # the loaders are others where the host ran out of memory
    resume.begin_epoch(run, session)
    session.epoch = run.epoch
    session.actions.epoch(run.optimizer)
    while session.unfinished and session.epochs[session.done] <= run.epoch:
        if max_drop.judge(run, session):
            step.take(run, session)
    if run.epoch == max_drop.last_judged(session, run.epochs):
        max_drop.judge(run, session)
    recovery.follow(run, session)
    teacher.follow(run, session)
    if session.unfinished:
        session.actions.raise_pressure(run.epoch, session.epochs[session.done], lambda: step.next_plan(run, session))


def on_train_epoch_end(trainer: Any) -> None:
    """Let every logger of the host see params and GFLOPs, and keep early stopping away while steps are to come."""
    session, run = of(trainer), Run(trainer)
    if session is None or session.size is None:
        return
    session.actions.stop()  # where the host recovers from NaN it copies the model, and hooks cannot be saved
    run_record.log_size(run, session, session.size)
    teacher.say(run, session)
    if max_drop.undecided_after(session, run.epoch, run.epochs):
        run.do_not_stop_early()


def on_fit_epoch_end(trainer: Any) -> None:
    """Note the epoch's fitness, and write the record."""
    session, run = of(trainer), Run(trainer)
    if session is None or session.size is None or run.epoch != session.epoch:
        return  # the host calls this once more after training, for best.pt
    session.epoch = -1  # 8.4.0 and 8.4.30 call it with the last epoch's number then
    run_record.note_epoch(run, session, session.size)


def on_train_end(trainer: Any) -> None:
    """Judge, measure, draw and write what came out."""
    session, run = of(trainer), Run(trainer)
    if session is None or "final" not in session.record:
        return
    session.raise_failed()
    max_drop.judge_the_end(session)
    if session.recipe.max_drop is not None:
        roll_back.forget(run)
    session.actions.stop()
    teacher.forget(run, session)
    run_record.finish(run, session)
    session.is_ended = True


def after_training(trainer: Any) -> None:
    """Once the host's loggers and loaders are closed: QAT and files where the recipe asks for them; what is next."""
    session, run = of(trainer), Run(trainer)
    if session is None or not session.is_ended:
        return
    trained = qat.at_end(run, session)
    deployment.at_end(run, session.recipe, session.baseline.deployment.precision, trained)
    run_record.say_next(run, session, trained)


HANDLERS: dict[str, Callable[[Any], None]] = {
    "on_pretrain_routine_start": on_pretrain_routine_start,
    "on_pretrain_routine_end": on_pretrain_routine_end,
    "on_train_start": on_train_start,
    "on_train_epoch_start": on_train_epoch_start,
    "on_train_epoch_end": on_train_epoch_end,
    "on_fit_epoch_end": on_fit_epoch_end,
    "on_train_end": on_train_end,
}
