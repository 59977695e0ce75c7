# yolo-prune, AGPL-3.0 license
"""`prune_max_drop=`: fitness, once recovered, stays within it of the dense model's; else the run goes back a step.

Before each step, and once after the last, the fitness that came back since the latest step is judged. Where it is not
enough, the training is put back to before that step (roll_back.py), and no step follows.
"""

from __future__ import annotations

from collections.abc import Sequence

from yolo_prune.cost import model_size
from yolo_prune.host.run import Run
from yolo_prune.report import best_model, messages, record_files
from yolo_prune.report import record as records
from yolo_prune.surgery import widths
from yolo_prune.training import ddp, roll_back
from yolo_prune.training.session_data import Session


def check_epoch(epochs: Sequence[int], last: int) -> int | None:
    """When the last step is judged: half of the way from it to the end, so that going back has epochs left.

    Args:
        epochs: 0-based epochs of the steps. last: how many epochs the run has.

    Returns:
        A 0-based epoch; None where no epoch is left after the last step.
    """
    if not epochs or epochs[-1] >= last - 1:
        return None
    return epochs[-1] + (last - epochs[-1] + 1) // 2


def judge(run: Run, session: Session) -> bool:
    """Before a step: keep the state of the training, or, where fitness dropped too far, go back to before the last.

    Returns:
        Whether the run may go on to the next step.
    """
    if session.recipe.max_drop is None:
        return True
    session.actions.stop()  # its hooks are not to be kept
    try:
        if _is_too_low(session):
            _go_back(run, session)
            return False
        if session.unfinished:
            roll_back.keep(run)
        return True
    finally:
        session.actions.resume(run.optimizer)


def last_judged(session: Session, epochs: int) -> int | None:
    """The epoch, from 0, in which the last step of a run is judged; None where nothing is.

    Args:
        epochs: how many the run has.
    """
    return None if session.recipe.max_drop is None else check_epoch(session.epochs, epochs)


def undecided_after(session: Session, epoch: int, epochs: int) -> bool:
    """Whether widths are still to be decided after an epoch: a step is to come, or the last one to be judged.

    Args:
        session: of the run. epoch: 0-based. epochs: of the run.
    """
    if (session.record.get("max_drop") or {}).get("undone"):
        return False  # no step follows one that was taken back
    judged = last_judged(session, epochs)
    return session.unfinished or (judged is not None and epoch < judged)


def judge_the_end(session: Session) -> None:
    """Note the final drop of fitness of a run with `prune_max_drop`; warn where it is larger than allowed."""
    allowed, dense, final = session.recipe.max_drop, session.dense_fitness, session.record["final"]["fitness"]
    if allowed is None:
        return
    entry = session.record.setdefault("max_drop", {"allowed": allowed, "dense": dense, "undone": None})
    entry["final"], entry["kept"] = final, dense is None or final is None or final >= dense - allowed
    if not entry["kept"]:
        messages.max_drop_exceeded(entry)


def _is_too_low(session: Session) -> bool:
    """Whether the fitness that came back since the last step is more than `prune_max_drop` below the dense one."""
    if not session.done or "undone" in session.steps[-1]:
        return False
    return ddp.from_first(lambda: _dropped_too_far(session))


def _dropped_too_far(session: Session) -> bool:
    dense, now, allowed = session.dense_fitness, _recovered(session), session.recipe.max_drop
    return dense is not None and now is not None and allowed is not None and now < dense - allowed


def _recovered(session: Session) -> float | None:
    """The fitness of best.pt, which is that of the latest cut or of an epoch since."""
    best = best_model.of(session.record)
    return None if best is None else best["fitness"]


def _go_back(run: Run, session: Session) -> None:
    """Undo the last step, and take no other."""
    row = session.steps[-1]
    fitness = _recovered(session)
    roll_back.go_back(run)
    session.done -= 1
    session.epochs = session.epochs[: session.done]
    row["undone"] = run.epoch + 1
    session.size = model_size.size_of(run.model)
    session.record["max_drop"] = {
        "allowed": session.recipe.max_drop,
        "dense": session.dense_fitness,
        "undone": {"step": row["step"], "gflops": row["gflops"], "fitness": fitness},
        "epoch": run.epoch + 1,
    }
    run.forget_the_best()
    if run.chooses_best:
        session.record["max_drop"]["fitness_back"] = run.count_as_best()
    for item in (run.model, run.average):
        widths.note_run(item, done=session.done, steps=session.steps, max_drop=session.record["max_drop"])
    session.start_actions(run, None)
    session.hold_zeros(run)
    records.finish(session.record, session.baseline, run.student, session.size, None)
    # Of a dense model, last.pt does not say that it went back: the record does, which is there before it.
    ddp.by_first(lambda: record_files.write(session.record, run.folder))
    session.save_now(run)
    messages.step_undone(row, fitness, session.record, session.size)
