# yolo-prune, AGPL-3.0 license
"""Lines in the host's log, each under `prune:`, as the host marks its own.

It goes into the kit of a device (device/probe_kit.py) too: the standard library alone, written for Python 3.8.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("ultralytics")  # LOGGING_NAME, read in ultralytics 8.4.190, utils/__init__.py


def mark(word: str) -> str:
    """The word that a line begins with, in blue, as the host's `colorstr` makes it."""
    return f"\033[34m\033[1m{word}\033[0m"


_MARK = mark("prune:")
_OURS = "of_yolo_prune"  # an attribute of our entries of the log


def say(line: str) -> None:
    """One line for who watches a run."""
    _LOGGER.info(f"{_MARK} {line}", extra={_OURS: True})


def warn(line: str) -> None:
    """One line that must not be missed."""
    _LOGGER.warning(f"{_MARK} {line}", extra={_OURS: True})


def show(text: str) -> None:
    """A table, or what a command answers, as it stands."""
    _LOGGER.info(text, extra={_OURS: True})


@contextmanager
def aloud() -> Iterator[None]:
    """Let our lines through in the block where the host's log is silent, and leave the host's own away.

    YOLO_VERBOSE=False makes it so (8.4.190, utils/__init__.py, `set_logging`): a command would answer nothing.
    """
    places: list[logging.Logger | logging.Handler] = [_LOGGER]
    places += _LOGGER.handlers
    levels = [one.level for one in places]
    least = max(levels)

    def ours(entry: logging.LogRecord) -> bool:
        return entry.levelno >= least or hasattr(entry, _OURS)

    _LOGGER.addFilter(ours)
    for one in places:
        one.setLevel(min(one.level, logging.INFO))
    try:
        yield
    finally:
        _LOGGER.removeFilter(ours)
        for one, level in zip(places, levels):  # noqa: B905 (Python 3.8 has no strict)
            one.setLevel(level)


def to_go(began: float, share: float) -> str:
    """What a line of progress ends with: ", about 40 s to go"; nothing at the ends.

    Args:
        began: `time.monotonic()` of the beginning. share: of the work that is done.
    """
    if not 0 < share < 1:
        return ""
    return f", about {(time.monotonic() - began) * (1 / share - 1):.0f} s to go"


class Progress:
    """Lines for what takes long: one every few seconds, with the time that is left. What is quick has none."""

    EVERY = 5.0  # seconds

    def __init__(self, what: str, total: int, say: Callable[[str], None] = say) -> None:
        self.what, self.total, self.done, self.say = what, total, 0, say
        self.began = self.said = time.monotonic()

    def one(self) -> None:
        """One more of all is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= self.EVERY and self.done < self.total:
            self.said = now
            self.say(f"{self.what}: {self.done} of {self.total}{to_go(self.began, self.done / self.total)}")


@contextmanager
def without(words: str) -> Iterator[None]:
    """Leave words out of what the host logs: the name of a file that is about to be renamed helps nobody."""

    def shorten(entry: logging.LogRecord) -> bool:
        entry.msg = str(entry.msg).replace(words, "")
        return True

    _LOGGER.addFilter(shorten)
    try:
        yield
    finally:
        _LOGGER.removeFilter(shorten)
