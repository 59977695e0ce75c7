# yolo-prune, AGPL-3.0 license
"""How a run that prunes begins: what can be refused early, what the session knows, and what is set up once."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from yolo_prune import files, folder_lock, log
from yolo_prune.cost import model_size
from yolo_prune.cost.channel_steps import OPEN
from yolo_prune.device import quick_look
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import atomic_saving, checkpoint, known_classes, trainable_check
from yolo_prune.host.cadence import Cadence
from yolo_prune.host.run import Run, student_of
from yolo_prune.importance import scoring
from yolo_prune.planning import choice, dry_cut, unmet_requests
from yolo_prune.recipe import schedule
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import parse
from yolo_prune.report import messages
from yolo_prune.report import record as records
from yolo_prune.surgery import widths
from yolo_prune.training import (
    ddp,
    deployment,
    frozen,
    latency_of_run,
    optimizer_state,
    preflight,
    qat,
    recovery,
    resume,
    resume_state,
    run_record,
    teacher,
)
from yolo_prune.training.optimizer_actions import OptimizerActions
from yolo_prune.training.session_data import Session


def require(run: Run, recipe: Recipe) -> None:
    """Check everything that can be checked before data and model are read, and take the run's folder.

    Raises:
        RecipeError: an argument or the recipe file is wrong. HostError: a mode that cannot be pruned.
    """
    preflight.modes(run.settings)
    if run.is_resumed:
        trainable_check.require_file(run.arguments.model)
    schedule.step_epochs(recipe, run.epochs)  # there are epochs enough
    if not run.is_resumed:  # else its folder has what was read
        preflight.measurements(recipe)
    preflight.max_drop(run.settings, recipe)
    qat.require(run.settings, recipe)
    deployment.require(run.settings, recipe)
    teacher.arrange(run, recipe)
    scoring.require(recipe.importance)
    for name in ("prune", "prune_profile", "prune_sensitivity"):  # a resumed run may start in another folder
        given = getattr(run.arguments, name, None)
        if given is not None and Path(str(given)).is_file():
            setattr(run.arguments, name, str(Path(given).resolve()))
    folder_lock.hold(run.folder)


def session_of(run: Run, recipe: Recipe) -> tuple[Session, channel_groups.ChannelGraph]:
    """The session of a run whose model has been built, its earlier part taken up where it is resumed.

    Returns:
        The session, and the channel graph of the model, without the blocks in which a cut fails.

    Raises:
        PruneError: the model is of another family or cannot be saved, its optimizer cannot be stepped, a bound is out
            of reach, or the folder cannot be written.
    """
    model, frozen_layers = run.student, frozen.frozen_layers(run.student)
    checkpoint.require_supported(model, str(run.arguments.model))
    trainable_check.require_savable(model)
    teacher.require(model, recipe, str(run.arguments.model))
    optimizer_state.require_steppable(run.optimizer)
    graph = channel_groups.build(model, recipe.protect, frozen=frozen_layers).without_trace()
    if not run.is_resumed:
        unmet_requests.require_protected(graph, recipe.protect)
    noted = widths.run_of(model) if run.is_resumed else None
    ddp.by_first(lambda: _make_folder(run))
    device = ddp.from_first(lambda: latency_of_run.profile_of_run(run, model, recipe, log.say))
    known = device is not None or noted  # a profile, or the earlier part of a resumed run, says it
    multiple = ddp.from_first(lambda: OPEN if known else quick_look.of_deployment(recipe, log.say))
    baseline = resume.baseline(noted, model, graph, recipe, device, run.image_size, multiple)
    graph, avoid = ddp.from_first(lambda: dry_cut.rehearse(model, graph, recipe, baseline, frozen_layers))
    epochs = schedule.step_epochs(recipe, run.epochs, ddp.from_first(lambda: _cuts_at_once(run, recipe, noted)))
    session = Session(recipe, baseline, epochs, {}, OptimizerActions(recipe), avoid=avoid)
    session.size = model_size.size_of(model)
    sparsity = recipe.sparsity or widths.sparsity(model)
    session.pattern = None if sparsity is None else parse(sparsity)
    _take_up(run, session, session.size, noted)
    return session, graph


def _cuts_at_once(run: Run, recipe: Recipe, noted: Mapping[str, Any] | None) -> bool:
    """Whether a single step whose start is open is before the first epoch: the model knows the classes of its data.

    Args:
        noted: what the checkpoint of a resumed run carries, whose cut stays where it was.
    """
    if recipe.start is not None or recipe.regularize != "none":  # a penalty acts in the epochs before a cut
        return False
    if run.is_resumed:
        return bool(noted and noted["steps"] and noted["steps"][0]["epoch"] == 1)
    return known_classes.knows_its_classes(run)


def _make_folder(run: Run) -> None:
    try:
        run.own_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PruneError(f"{run.own_folder} cannot be made, which is to hold the record: {error}") from None


def _take_up(run: Run, session: Session, size: model_size.Size, noted: Mapping[str, Any] | None) -> None:
    """Begin the record, or go on with that of the earlier part of a resumed run.

    Args:
        size: of the model now. noted: what the checkpoint of a resumed run carries; None where nothing has been cut.
    """
    earlier = ddp.from_first(lambda: resume.earlier_record(run)) if run.is_resumed else {}
    fitness = (noted or earlier.get("baseline", {})).get("fitness")
    record = session.record = records.new(session.recipe, session.baseline, fitness, run.settings.get("task"))
    record["model"] = earlier.get("model") if run.is_resumed else run_record.checkpoint_given(run)
    if noted:
        session.done = noted["done"]
        record["steps"] = deepcopy(noted["steps"])
    record["history"] = earlier.get("history") or (deepcopy(noted["history"]) if noted else [])
    if run.is_resumed:
        resume.complete_record(run, record, size)
    stopped = noted.get("max_drop") if noted else resume.went_back(run, earlier)
    if stopped is not None:  # a step was undone before this resume: it was the last
        record["max_drop"] = stopped
        record["steps"] = record["steps"] or deepcopy(earlier["steps"])
        session.epochs = session.epochs[: session.done]
    validated = [row["fitness"] for row in record["history"] if row["fitness"] is not None]
    session.fitness = validated[-1] if validated else None


def start(run: Run, session: Session, graph: channel_groups.ChannelGraph) -> None:
    """Set up what lasts for the whole run, say what is about to happen, and begin to look and press.

    Args:
        run, session, graph: as of `session_of`.
    """
    if not run.is_resumed:
        for item in (run.model, run.average):
            widths.forget_run(student_of(item))
            widths.forget_run(item)
    session.cadence = Cadence(run)
    ddp.by_first(lambda: _protect_files(run, session))
    _say_plan(run, session, graph)
    side = run.validate_on_both_canvases() if session.sets_out_to_cut else None
    if side is not None and run.chooses_best:
        messages.both_canvases(side, session.recipe.frames)
    recovery.say_at_the_start(run, session)
    ddp.by_first(lambda: deployment.say_missing(session.recipe, session.baseline.deployment.precision))
    session.say_frozen(run)
    teacher.resume(run, session)
    if run.is_resumed and resume_state.is_kept_after(session, run.start_epoch - 1, run.epochs):
        session.resumed = ddp.each(lambda: resume.restore_kept(run))
        avoid = dict((session.resumed or {}).get("avoid", {}))
        if avoid.keys() - session.avoid.keys():
            session.avoid.update(avoid)
            frozen_layers = frozen.frozen_layers(run.student)
            graph = channel_groups.build(run.student, session.recipe.protect, session.avoid, frozen_layers)
    session.start_actions(run, graph)
    if session.resumed is not None:
        session.actions.load_state(session.resumed["actions"])
    session.hold_zeros(run)


def _protect_files(run: Run, session: Session) -> None:
    """Have files of the run replaced whole, and what a killed run left half-written removed."""
    for folder in (run.folder, run.own_folder, run.last.parent):
        files.sweep(folder)

    def beside() -> resume_state.ResumeFile:
        run_record.note_before_checkpoint(run, session)
        return resume_state.ResumeFile(run, resume_state.state_to_keep(run, session))

    atomic_saving.protect(run, beside, session.put_off)
    if run.is_resumed:
        atomic_saving.trim_results(run.results, run.start_epoch)


def _say_plan(run: Run, session: Session, graph: channel_groups.ChannelGraph) -> None:
    """Say what this run is about to do; where it is nothing, it takes no step."""
    recipe, baseline = session.recipe, session.baseline
    if baseline.meets(choice.step_bounds(recipe, baseline)) and recipe.sparsity is None:
        session.epochs = []
        messages.nothing_to_do(baseline.size, [f"prune_{bound}" for bound in recipe.bounds_in_words()])
    else:
        messages.plan(recipe, baseline, graph, session.epochs, session.done)
        if session.done == 0 and session.epochs and session.epochs != schedule.step_epochs(recipe, run.epochs):
            messages.cut_at_once()
