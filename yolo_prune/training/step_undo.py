# yolo-prune, AGPL-3.0 license
"""What a training was before a step, so that a step that does not come to its end leaves it so."""

from __future__ import annotations

from yolo_prune.host.run import Run
from yolo_prune.surgery.undo import Undo
from yolo_prune.training.session_data import Session


def keep(undo: Undo, run: Run, session: Session) -> None:
    """Have `undo` put back live model, average, optimizer, stopper, and what the session knows.

    Args:
        run: the training. session: what it knows.
    """
    undo.also(lambda: session.actions.resume(run.optimizer))
    for model in (run.model, run.average):
        undo.model(model)
    undo.optimizer(run.optimizer)
    undo.attributes(*run.parts, session, session.actions, *([session.cadence] if session.cadence else []))
    undo.contents(session.record)
    undo.contents(session.avoid)
    undo.also(session.actions.stop)
