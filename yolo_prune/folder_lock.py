# yolo-prune, AGPL-3.0 license
"""One run at a time in a folder: two with `exist_ok=True` would replace each other's checkpoints and records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

from yolo_prune.errors import PruneError

_NAME = ".running"  # in the run's folder `pruning`
_held: dict[Path, IO[Any]] = {}


def hold(save_dir: Path) -> None:
    """Hold a run's folder for this process, until `release` or its end, however it ends.

    Raises:
        PruneError: another process holds it, or it cannot be written.
    """
    path = Path(save_dir).resolve() / "pruning" / _NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = try_to_hold(path)
    except OSError as error:
        raise PruneError(f"{path.parent} cannot be written, which is to hold the record: {error.strerror}") from None
    if not free:
        raise PruneError(
            f"another run is training in {Path(save_dir)}: wait for it, or give this one another name= (or leave "
            "exist_ok= out)"
        )


def try_to_hold(path: Path) -> bool:
    """Lock a file for this process, until its end; it is made. False where another process holds it.

    Raises:
        OSError: it cannot be made.
    """
    if path in _held:
        return True
    while True:
        stream = path.open("a")
        if not _lock(stream):
            stream.close()
            return False
        if _is_still_there(stream, path):
            _held[path] = stream
            return True
        stream.close()  # who had it has removed it since it was opened


def _is_still_there(stream: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def release(save_dir: Path) -> None:
    """Let others have the folder."""
    let_go(Path(save_dir).resolve() / "pruning" / _NAME)


def let_go(path: Path) -> None:
    """Let others have a file that this process holds; it is removed."""
    stream = _held.pop(path, None)
    if stream is not None:
        path.unlink(missing_ok=True) if os.name != "nt" else None
        stream.close()


def _lock(stream: IO[Any]) -> bool:
    """Lock a file without waiting; True too where the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        # Of this process alone: `flock` would be held as well by worker processes that outlive a run that was killed.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
