# yolo-prune, AGPL-3.0 license
"""A run that is stopped by Ctrl-C, by a full or read-only disk, or in a worker, says in one line how to go on."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from yolo_prune import log
from yolo_prune.errors import PruneError
from yolo_prune.host.run import Run
from yolo_prune.training import folder_lock

_DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def said(run: Run) -> Iterator[None]:
    """Around a training.

    Raises:
        PruneError: in place of an error of the disk, and in the parent of a DDP run, of a worker that failed.
        KeyboardInterrupt: as it came.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        log.warn(f"stopped. {_how(run)}")
        error.yolo_prune_said = True  # type: ignore[attr-defined]
        raise
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = error.filename or run.folder
        raise PruneError(f"{where} cannot be written: {error.strerror}. Make room, then: {_how(run)}") from error
    except subprocess.CalledProcessError as error:  # the traceback of the parent says nothing of what happened
        raise PruneError(f"a process of this training failed; what it said stands above. {_how(run)}") from error
    finally:
        folder_lock.release(run.folder)


def _how(run: Run) -> str:
    if run.last.is_file() and run.has_begun:
        return f"To go on: yolo train resume model={run.last}"
    return "No epoch had ended, so there is nothing to resume: start it again"
