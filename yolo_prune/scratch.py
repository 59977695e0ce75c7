# yolo-prune, AGPL-3.0 license
"""Temporary folders that go whatever ends the process, SIGKILL apart: its end, an error, Ctrl-C, SIGTERM or SIGHUP.

Left alone, SIGTERM ends Python without its `finally` clauses. This module runs on devices too (see
device/probe_kit.py): Python 3.8, standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ENDINGS = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new empty folder that is removed with all that is in it when the block ends, however it ends."""
    path: str | None = None
    with unwinding():
        try:
            with _undisturbed():
                path = tempfile.mkdtemp(prefix="yolo-prune-")
            yield Path(path)
        finally:
            if path is not None:
                with _undisturbed():
                    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process as `sys.exit` does, with exit code 128 + their number, in this block.

    A handler that the program has set already stays. Signals reach the main thread alone: in others nothing is changed.
    """
    with _handled([number for number in _numbers(_ENDINGS) if signal.getsignal(number) == signal.SIG_DFL], _end):
        yield


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put signals off until the block has ended."""
    late: list[int] = []
    with _handled(_numbers(("SIGINT", *_ENDINGS)), lambda number, frame: late.append(number)):
        yield
    for number in late:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handled(numbers: list[int], handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    _BEFORE.append(before)
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield
    finally:
        _BEFORE.remove(before)
        for number, earlier in before.items():
            signal.signal(number, earlier)


_BEFORE: list[dict[int, Any]] = []  # of each block that is open, the outermost first: the handlers that it has replaced


def _restore() -> None:
    """Give a forked process the handlers that there were outside of all blocks: it has nothing here to clean up.

    With ours it could outlive SIGTERM. A fork that waits for a lock, such as the one that NNCF reports its use from
    where there is no network, never comes to run a handler of Python's, and its parent waits for it when it ends.
    """
    for before in reversed(_BEFORE):
        for number, earlier in before.items():
            signal.signal(number, earlier)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_restore)


def _numbers(names: tuple[str, ...]) -> list[int]:
    """The signals of this system whose handlers Python knows (one that C code set is None)."""
    numbers = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not None]
