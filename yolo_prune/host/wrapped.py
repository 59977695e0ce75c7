# yolo-prune, AGPL-3.0 license
"""Functions of the host that are wrapped carry a mark, so that a second install leaves them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def mark(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as ours."""
    function.yolo_prune = True  # type: ignore[attr-defined]
    return function


def marked(function: object) -> bool:
    """Whether a function is ours."""
    return hasattr(function, "yolo_prune")
