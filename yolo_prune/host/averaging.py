# yolo-prune, AGPL-3.0 license
"""The host's average of the weights (EMA), which is what it validates and saves.

Read in ultralytics 8.4.190: utils/torch_utils.py (`ModelEMA`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_HOST = "yolo_prune_host_decay"  # attribute of a decay of ours: the host's, in whose place it stands


def restart(ema: Any) -> None:
    """After its module was cut, let a ModelEMA average the new tensors, from near at first.

    The host pairs the tensors of average and model once and keeps the pairs (`ModelEMA._pairs`); without a new pairing
    it would go on averaging tensors that no model uses any more. The ramp of its decay starts anew because the average
    remembers a model that is gone.

    Args:
        ema: the trainer's ModelEMA, whose `.ema` has been cut.
    """
    ema._pairs = None  # older hosts do not have it and do not read it
    ema.updates = 0


def keep_more(ema: Any, decay: Callable[[int], float] | None) -> None:
    """Let a ModelEMA keep more of itself at an update than by the host's decay, where `decay` says more.

    The host asks its function `decay` at every update, and makes another ModelEMA, with a decay of its own, where it
    recovers from NaN or resumes; `updates` goes on from the checkpoint (engine/trainer.py: `_load_checkpoint_state`).

    Args:
        ema: the trainer's ModelEMA. decay: of the number of updates since the average began anew, from 1; None for the
            host's alone.
    """
    host = getattr(ema.decay, _HOST, ema.decay)
    ema.decay = host
    if decay is None:
        return

    def longer(updates: int) -> float:
        return max(host(updates), decay(updates))

    setattr(longer, _HOST, host)
    ema.decay = longer
