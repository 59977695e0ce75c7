# yolo-prune, AGPL-3.0 license
"""What a model of the host and its checkpoint say of themselves: task, class names, arguments of the training.

Older files, and models that a user built, may lack any of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def task_of(model: Any) -> str:
    """The task of a model, as the host names it."""
    return str(getattr(model, "task", "detect"))


def class_names(model: Any) -> list[str]:
    """The classes of a model in the order of their numbers; empty where it has no names."""
    names: Any = getattr(model, "names", None) or {}
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def train_arguments(ckpt: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the training that wrote a checkpoint; empty where it does not say them."""
    return ckpt.get("train_args") or {}
