# yolo-prune, AGPL-3.0 license
"""Callbacks for every training of this process, those that do not prune among them: the host's default ones.

Read in ultralytics 8.4.190: utils/callbacks/base.py (`default_callbacks`, copied for each model and each trainer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultralytics.utils.callbacks import base


def add(event: str, callback: Callable[[Any], Any]) -> None:
    """Have every training that is begun from now on call this at an event; once, however often it is added.

    Args:
        event: a name of the host's. callback: a function of a module, which is given the trainer; the host copies it.
    """
    if callback not in base.default_callbacks[event]:
        base.default_callbacks[event].append(callback)
