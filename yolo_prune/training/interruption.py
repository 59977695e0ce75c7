# yolo-prune, AGPL-3.0 license
"""A run that is stopped from outside, by Ctrl-C or by a full or read-only disk, says in one line how to go on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.errors import PruneError
from yolo_prune.training import exclusive

_DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def said(trainer: Any) -> Iterator[None]:
    """Around a training.

    Raises:
        PruneError: in place of an error of the disk. KeyboardInterrupt: as it came.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        log.warn(f"stopped. {_how(trainer)}")
        error.yolo_prune_said = True  # type: ignore[attr-defined]
        raise
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = error.filename or trainer.save_dir
        raise PruneError(f"{where} cannot be written: {error.strerror}. Make room, then: {_how(trainer)}") from error
    finally:
        exclusive.release(Path(trainer.save_dir))


def _how(trainer: Any) -> str:
    last = Path(trainer.last)
    if last.is_file() and getattr(trainer, "epoch", None) is not None:
        return f"To go on: yolo train resume model={last}"
    return "No epoch had ended, so there is nothing to resume: start it again"
