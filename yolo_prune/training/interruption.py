# yolo-prune, AGPL-3.0 license
"""A run that is stopped by Ctrl-C, by a full or read-only disk, or in a worker, says in one line how to go on."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolo_prune import files, folder_lock, log
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint, foreign_code
from yolo_prune.host.run import Run
from yolo_prune.report import messages, text

_FULL = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room"),
    errno.EROFS: "Make it writable",
}  # of writing alone
_CLOSED = (errno.EACCES, errno.EPERM)  # of reading and of writing; without a name they are no file's, but a socket's


@contextmanager
def said(run: Run, attached: bool = False) -> Iterator[None]:
    """Around a training.

    Args:
        attached: whether `attach` gave it its recipe, which no command can.

    Raises:
        PruneError: in place of an error of the disk, and in the parent of a DDP run, of a worker that failed.
        KeyboardInterrupt: as it came.
    """
    found = {path: _written(path) for path in (run.last, run.best)}  # an earlier run may have left them (exist_ok=True)
    try:
        yield
    except KeyboardInterrupt as error:
        log.warn(f"stopped. {_how(run, found, attached)}")
        error.yolo_prune_said = True  # type: ignore[attr-defined]
        raise
    except OSError as error:
        fault = _of_the_disk(error, run.folder)
        if fault is None:
            raise
        raise PruneError(f"{fault}. {_how(run, found, attached)}") from error
    except subprocess.CalledProcessError as error:  # the traceback of the parent says nothing of what happened
        if not run.starts_workers:
            raise
        failed = "a process of this training failed; what it said stands above"
        raise PruneError(f"{failed}. {_how(run, found, attached)}") from error
    finally:
        folder_lock.release(run.folder)


def _of_the_disk(error: OSError, folder: Path) -> str | None:
    """What cannot be read or written, why, and what helps; None where the error is of something else."""
    name = files.named_by(error)
    where = name or folder
    if error.errno in _FULL:
        return f"{where} cannot be written: {error.strerror}. {_FULL[error.errno]}"
    if error.errno == errno.EIO:
        which = "a disk" if name is None else where
        return f"{which} cannot be read or written: {error.strerror}. Look after the disk"
    if error.errno not in _CLOSED or name is None:
        return None
    if where.absolute().is_relative_to(folder.absolute()):
        return f"{where} cannot be written: {error.strerror}. Make it writable"
    return f"{where} cannot be opened: {error.strerror}. Allow it to be"


def _how(run: Run, found: dict[Path, int | None], attached: bool) -> str:
    """How to go on.

    Args:
        found: when each checkpoint had been written that lay there before; a resumed run goes on from its own.
        attached: as of `said`.
    """
    last, best = (path.is_file() and (run.is_resumed or _written(path) != when) for path, when in found.items())
    if last and best and _has_ended(run):
        return f"All epochs had been trained: the model is {run.best}"
    if last and attached:
        return f"To go on: {messages.resume_attached(run.last)}"
    if last:
        return f"To go on: {text.command(['yolo', 'train', 'resume', f'model={run.last}'], _folders(run))}"
    cut = f". What it had cut by then, untrained, is {run.best}" if best else ""
    return f"No epoch had been saved, so there is nothing to resume: start it again{cut}"


def _has_ended(run: Run) -> bool:
    """Whether last.pt is of the last epoch, so that the host refuses to resume it."""
    try:
        _, ckpt = checkpoint.load(run.last, safe=False)  # this run wrote it
    except PruneError:
        return False
    return not 0 <= int(ckpt.get("epoch", -1)) < run.epochs - 1


def _written(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _folders(run: Run) -> list[str]:
    """Where classes of the user's own lie, which last.pt is read with."""
    return foreign_code.folders_of(foreign_code.modules_of(run.student)) if run.has_model else []
