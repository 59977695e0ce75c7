# yolo-prune, AGPL-3.0 license
"""The callbacks that are appended to the host's default ones: `CALLBACKS`. Each hands its event to the session.

What a session does at an event stands in training/session.py. Nothing of it is imported until a run asks for pruning.

They are functions of this module and no closures: the host deep-copies them for every model, compares the copies to
tell whether a user added callbacks, and from 8.4.140 on cloudpickles them into the workers of a DDP run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from yolo_prune.errors import HostError
from yolo_prune.host import arguments, releases, yolo_methods
from yolo_prune.host.spec_key import noted


def on_pretrain_routine_start(trainer: Any) -> None:
    """Forward to the session (rank -1 and 0 only, and before the trainer has its model)."""
    _forward("on_pretrain_routine_start", trainer)


def on_pretrain_routine_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_pretrain_routine_end", trainer)


def on_train_start(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_start", trainer)


def on_train_epoch_start(trainer: Any) -> None:
    """Forward to the session (it may come twice for one epoch)."""
    _forward("on_train_epoch_start", trainer)


def on_train_epoch_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_epoch_end", trainer)


def on_fit_epoch_end(trainer: Any) -> None:
    """Forward to the session (it comes once more after training)."""
    _forward("on_fit_epoch_end", trainer)


def on_train_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_end", trainer)


CALLBACKS: tuple[Callable[[Any], None], ...] = (
    on_pretrain_routine_start,
    on_pretrain_routine_end,
    on_train_start,
    on_train_epoch_start,
    on_train_epoch_end,
    on_fit_epoch_end,
    on_train_end,
)


def _concerns(event: str, trainer: Any) -> bool:
    """Whether an event is for the session: this run prunes, or its model has zeros to keep.

    What `attach` put on the trainer hands every event on by itself, of this training and of later ones.
    """
    asked = bool(arguments.plugin_arguments(vars(trainer.args))) or (event in _OF_ZEROS and _has_zeros(trainer))
    return asked and not yolo_methods.attached(trainer)


def _forward(event: str, trainer: Any) -> None:
    """Hand an event to the session, if it is for it; else cost nothing."""
    if _concerns(event, trainer):
        from yolo_prune.training import session

        session.HANDLERS[event](trainer)
    elif event == "on_pretrain_routine_end" and getattr(trainer, "resume", False) and _noted(trainer):
        from yolo_prune.training import session

        session.require_attached(trainer)


_OF_ZEROS = ("on_pretrain_routine_end", "on_train_epoch_start")


def _has_zeros(trainer: Any) -> bool:
    """Whether the model in training came with single weights that are to stay zero (`widths.sparsity`)."""
    return "sparsity" in _noted(trainer)


def _noted(trainer: Any) -> dict[str, Any]:
    """What the yaml of the model in training says of its pruning; empty where it says nothing."""
    model = getattr(trainer, "model", None)
    return noted(getattr(model, "module", model))


def install(base: ModuleType) -> None:
    """Append ours to the host's default callbacks, in place, so that they run after the host's own (8.4.190)."""
    known = base.default_callbacks
    missing = [callback.__name__ for callback in CALLBACKS if callback.__name__ not in known]
    if missing:
        raise HostError(f"ultralytics {releases.version()} changed: it has no event {', '.join(missing)} any more")
    for callback in CALLBACKS:
        if callback not in known[callback.__name__]:
            known[callback.__name__].append(callback)


def put_back(trainer: Any, event: str) -> None:
    """Where ours are missing of a run that they are for: behind the host's own, before loggers and what users added."""
    callback = next((one for one in CALLBACKS if one.__name__ == event), None)
    known = trainer.callbacks.get(event, [])
    if callback is None or callback in known or not _concerns(event, trainer):
        return
    first = sys.modules["ultralytics.utils.callbacks.base"].default_callbacks[event][:1]
    place = 1 if known[:1] == first else 0
    trainer.callbacks[event] = [*known[:place], callback, *known[place:]]
