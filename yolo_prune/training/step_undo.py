# yolo-prune, AGPL-3.0 license
"""What a training was before a step, so that a step that does not come to its end leaves it so."""

from __future__ import annotations

from typing import Any

from ultralytics.utils.torch_utils import unwrap_model

from yolo_prune.surgery.undo import Undo


def keep(undo: Undo, trainer: Any, session: Any) -> None:
    """Have `undo` put back live model, average, optimizer, stopper, and what the session knows.

    Args:
        trainer: the host's. session: session.Session.
    """
    live: Any = unwrap_model(trainer.model)
    undo.also(lambda: session.actions.resume(trainer.optimizer))
    if hasattr(live, "student_model"):  # its hooks stand at the teacher, which a first step replaces
        undo.also(live._register_feature_hooks)
    for model in (live, trainer.ema.ema):
        undo.model(model)
    undo.optimizer(trainer.optimizer)
    undo.attributes(trainer, trainer.args, trainer.ema, trainer.stopper, session, session.actions)
    undo.contents(session.record)
    undo.contents(session.avoid)
    if hasattr(live, "student_model"):
        undo.also(live._remove_feature_hooks)
    undo.also(session.actions.stop)
