# yolo-prune, AGPL-3.0 license
"""What a run writes and says of itself: sizes in the host's log, an epoch's fitness, the record, and the end."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from yolo_prune import log
from yolo_prune.cost.model_size import Size
from yolo_prune.host import checkpoint, foreign_code
from yolo_prune.host.run import Run
from yolo_prune.planning import unmet_requests
from yolo_prune.report import best_model, messages, pictures, record_files
from yolo_prune.report import record as records
from yolo_prune.surgery import masks
from yolo_prune.training import ddp, latency_of_run
from yolo_prune.training.session_data import Session


def log_size(run: Run, session: Session, size: Size) -> None:
    """Let every logger of the host see params, GFLOPs and the learning rates as they are."""
    figures = {"model/parameters": size.params, "model/GFLOPs": round(size.gflops, 4)}
    run.log_with(session.actions.rate, figures)


def note_before_checkpoint(run: Run, session: Session) -> None:
    """In the first process, before the last.pt of an epoch is put in place: its row is in the record already.

    After the last epoch a resume has nothing left to train, so what a kill left out would stay out.
    """
    if session.size is not None and run.epoch == session.epoch:  # not where it is saved as of the epoch before
        _note_fitness(run, session, session.size)
        record_files.write(session.record, run.folder)


def note_epoch(run: Run, session: Session, size: Size) -> None:
    """Note an epoch's fitness; the first one after a step completes that step's row."""
    if session.steps and session.steps[-1]["epoch"] == run.epoch + 1:
        run.tell_the_platform()
    _note_fitness(run, session, size)
    summary = session.actions.summary()
    if summary is not None:
        log.say(summary)
    ddp.by_first(lambda: _write(run, session))  # every epoch: a run that ends early has told what it did


def _note_fitness(run: Run, session: Session, size: Size) -> None:
    fitness = run.fitness
    session.fitness = fitness if fitness is not None else session.fitness
    history = session.record["history"]
    history[:] = [row for row in history if row["epoch"] != run.epoch + 1]
    history.append({"epoch": run.epoch + 1, "fitness": fitness, "params": size.params, "gflops": size.gflops})
    _complete_step(session, fitness, run.epoch + 1)
    kept = history if run.saves else history[-1:]  # the epochs that the file may be of
    best = run.best_fitness if run.saves and run.best_fitness is not None else fitness
    records.finish(session.record, session.baseline, run.student, size, best)
    session.record["best"] = best_model.of({**session.record, "history": kept})


def _write(run: Run, session: Session) -> None:
    session.raise_failed()  # since the last epoch began: here all hear of it
    record_files.write(session.record, run.folder)


def _complete_step(session: Session, fitness: float | None, epoch: int) -> None:
    """Fill in what came of the last step, where it is not known yet; epoch counts from 1."""
    steps = session.steps
    if not steps or steps[-1]["fitness_after"] is not None or fitness is None:
        return
    for row in steps:
        row["fitness_after"] = fitness if row["fitness_after"] is None else row["fitness_after"]
    messages.step_completed(steps[-1], len(session.epochs), epoch)


def finish(run: Run, session: Session) -> None:
    """At the end: count zeros, measure latency, draw the picture and say what came out."""
    record = session.record
    if session.pattern is not None:
        zeros = masks.count(run.average_student, session.pattern)
        record["sparsity"] = {"pattern": str(session.pattern), **asdict(zeros)}
        messages.zeros(zeros, session.pattern)
    latency_of_run.beside_dense(run, record, session.baseline, log.say)
    record_files.write(record, run.folder)
    path = run.folder / "pruning.png"
    pictures.picture(record, path)
    run.picture(path)
    for line in unmet_requests.not_removed(session.recipe, session.baseline, record["removed"]):
        log.warn(line)
    missing = len(session.epochs) - session.done
    messages.ended(record, missing, len(session.epochs), run.last)
    if best_model.gained_nothing(record):
        messages.gained_nothing(record)
    log.say(f"record {run.own_folder / 'record.json'}, picture {path}")


def say_next(run: Run, session: Session, trained: Path | None = None) -> None:
    """After a run that came to its end: the command that exports its model, where that was not done at once.

    Args:
        trained: the checkpoint of a second stage (qat.py), where there was one.
    """
    if session.unfinished or session.recipe.deploy or messages.all_undone(session.record):
        return
    dense = session.record.get("model")
    dense = dense if isinstance(dense, str) and Path(dense).is_file() else None  # of a resumed run it may be gone
    kind = session.baseline.deployment.format
    foreign = foreign_code.modules_of(run.student)
    words = [] if not foreign and checkpoint.restricted() else ["safe=False"]
    folders = foreign_code.folders_of(foreign)
    messages.what_next(trained or run.final_weights, dense, run.settings.get("data"), kind, words, folders)


def checkpoint_given(run: Run) -> str | None:
    """The checkpoint that a new run begins with, for the record: a resumed one has its own last.pt in its place."""
    given = Path(str(run.settings.get("model") or ""))
    return str(given.resolve()) if given.suffix == ".pt" and given.is_file() else None
