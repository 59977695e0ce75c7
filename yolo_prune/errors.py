# yolo-prune, AGPL-3.0 license
"""The errors that yolo-prune raises for a user's mistake: one clear line each, no traceback at the top level.

`PruneError` is a `ValueError`, so a training script can catch it as it catches the host's own argument errors. The
excepthook that `host.console` sets prints the message alone when nobody catches it.
"""

from __future__ import annotations

import re
from typing import Any

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class PruneError(ValueError):
    """A request that cannot be served: what was given, what is wrong, what would be right."""


class RecipeError(PruneError):
    """A plugin argument or a recipe file is wrong."""


class BoundError(PruneError):
    """A bound that no legal width of this model reaches."""


class HostError(PruneError):
    """The installed ultralytics, or a mode of it, cannot be pruned by this version."""


class VerifyError(PruneError):
    """An exported artifact is not what its model is, is slower than its parent, or could not be made."""


class NoisyError(PruneError):
    """The machine was too busy to say how fast a model is; everything else was done, and `record` says what."""

    def __init__(self, words: str, record: dict[str, Any] | None = None) -> None:
        super().__init__(words)
        self.record = record


class LayerError(ValueError):
    """A layer that cannot be cut: its name, and why. A trial on a copy finds it, and what goes into it is protected."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer = layer


def without_colors(text: str) -> str:
    """A text without the codes that colour it in a terminal."""
    return _COLORS.sub("", text)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its class where it says nothing."""
    return (without_colors(str(error)).strip() or type(error).__name__).partition("\n")[0]
