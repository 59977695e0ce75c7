# yolo-prune, AGPL-3.0 license
"""What a run writes and says of itself: sizes in the host's log, an epoch's fitness, the record, and the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.cost.model_size import Size
from yolo_prune.host import checkpoint, foreign_code
from yolo_prune.host.run import Run
from yolo_prune.planning import unmet_requests
from yolo_prune.report import messages, pictures, record_files
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
    best = fitness if run.best_fitness is None else run.best_fitness
    records.finish(session.record, session.baseline, run.student, size, best)
    session.record["best"] = _best(session.record)


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
    if _gained_nothing(record):
        messages.gained_nothing(record)
    log.say(f"record {run.own_folder / 'record.json'}, picture {path}")


def _latest_step(record: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the latest step that was not undone; empty where there is none."""
    return next((row for row in reversed(record["steps"]) if "undone" not in row), {})


def _best(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which epoch best.pt is of, from 1, and whether it is the model right after the cut, before that epoch's training.

    Of equals the last one, as the host saves them (8.4.190, engine/trainer.py: `save_model`). None where no epoch since
    the latest cut was validated, nor that cut.
    """
    step = _latest_step(record)
    first = max([step.get("epoch", 1), *(row.get("undone", 1) for row in record["steps"])])
    known = [(step.get("fitness_cut"), step.get("epoch"), True)] if step.get("epoch") == first else []
    known += [(row["fitness"], row["epoch"], False) for row in record["history"] if row["epoch"] >= first]
    known = [row for row in known if row[0] is not None]
    if not known:
        return None
    fitness, epoch, cut = max(reversed(known), key=lambda row: row[0])
    return {"epoch": epoch, "right_after_cut": cut, "fitness": fitness}


def _gained_nothing(record: Mapping[str, Any]) -> bool:
    """Whether epochs followed the latest cut, and none was better than the model right after it."""
    step = _latest_step(record)
    since = [row["fitness"] for row in record["history"] if row["epoch"] >= step.get("epoch", 0)]
    cut = step.get("fitness_cut")
    return cut is not None and bool(since) and all(fitness is not None and fitness <= cut for fitness in since)


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
