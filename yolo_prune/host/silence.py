# yolo-prune, AGPL-3.0 license
"""Keeping off the screen, and in a file, what the host and native code say while they work for us.

Read in ultralytics 8.4.190: utils/__init__.py (`LOGGER`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from ultralytics.utils import LOGGER


@contextlib.contextmanager
def noise_to(path: Path) -> Iterator[None]:
    """Let what `quiet` keeps off the screen go to a file, which is made when there is something to say.

    Args:
        path: the file; an older one is replaced. Where it cannot be written, what would be in it is lost.
    """
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    token = _NOISE.set(path)
    try:
        yield
    finally:
        _NOISE.reset(token)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


_NOISE: ContextVar[Path | None] = ContextVar("noise", default=None)


Aloud = Callable[[Callable[[], object]], None]


@contextlib.contextmanager
def quiet() -> Iterator[Aloud]:
    """Silence the host: while we export it would name files of our temporary folder.

    What it and native code say goes to the file of `noise_to`; without one it is lost, but for warnings where its
    handlers do not write to the terminal (a notebook's do not).

    Yields:
        What calls a function in the block so that what it logs and prints is seen all the same.
    """
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    with _elsewhere() as place, _no_output(place) as output:

        def aloud(act: Callable[[], object]) -> None:
            with output(), _logging(handlers, level, propagate):
                act()

        if _NOISE.get() is None:
            silent = _logging(handlers, logging.WARNING, propagate)
        else:  # in the file alone: the host's own handlers write to what stdout was, in a notebook too
            silent = _logging([logging.StreamHandler(place)], level, False)
        with silent:
            yield aloud


@contextlib.contextmanager
def _logging(handlers: list[logging.Handler], level: int, propagate: bool) -> Iterator[None]:
    """Let the host's log be like this in the block."""
    handlers_before, level_before, propagate_before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    LOGGER.handlers[:], LOGGER.propagate = handlers, propagate
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.handlers[:], LOGGER.propagate = handlers_before, propagate_before
        LOGGER.setLevel(level_before)


@contextlib.contextmanager
def _no_output(place: IO[str]) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Send what native code writes to standard output and standard error (pnnx prints pages to both) to a file.

    Yields:
        What gives a block in which both are what they were.
    """
    kept = {}
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # there is no such stream
            kept[stream] = os.dup(stream)

    def send(targets: Mapping[int, int]) -> None:
        sys.stdout.flush()  # what Python has held back belongs where it went until now
        sys.stderr.flush()
        for stream, target in targets.items():
            os.dup2(target, stream)

    @contextlib.contextmanager
    def as_before() -> Iterator[None]:
        send(kept)
        try:
            yield
        finally:
            send(dict.fromkeys(kept, place.fileno()))

    send(dict.fromkeys(kept, place.fileno()))
    try:
        yield as_before
    finally:
        send(kept)
        for copy in kept.values():
            os.close(copy)


def _elsewhere() -> IO[str]:
    """The file of `noise_to`, at its end; without one, nowhere."""
    path = _NOISE.get()
    with contextlib.suppress(OSError):
        if path is not None:
            return open(path, "a", encoding="utf-8")
    return open(os.devnull, "w", encoding="utf-8")
