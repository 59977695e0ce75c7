# yolo-prune, AGPL-3.0 license
"""What a user types at `yolo` and `yolo-prune`, done in this process, where starting one is not what is tested."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ultralytics.cfg

from tests.helpers.environments import Done
from yolo_prune import cli
from yolo_prune.device import timing
from yolo_prune.host import console


def yolo(*words: str | Path, cwd: Path | None = None) -> Done:
    """Run the host's command with these words, and end it as the interpreter would: an error goes to its hook.

    Args:
        words: what is typed after `yolo`.
        cwd: where; where we are when None.
    """
    code = 0
    with pytest.MonkeyPatch.context() as patch, _listening() as (out, err):
        argv = ["yolo", *map(str, words)]
        patch.setattr(sys, "argv", argv)
        patch.setattr(
            ultralytics.cfg, "ARGV", argv
        )  # a copy that is made when it is imported (8.4.190, cfg/__init__.py)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            console.host_command()()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            code = 1
    return Done(code, out.getvalue(), err.getvalue())


def yolo_prune(*words: str | Path, cwd: Path) -> Done:
    """Run our command with these words, by the real clock.

    Args:
        words: what is typed after `yolo-prune`.
        cwd: where.
    """
    with pytest.MonkeyPatch.context() as patch, _listening() as (out, err):
        patch.chdir(cwd)
        patch.setattr(timing, "_clock", time.perf_counter)
        code = cli.main([*map(str, words)])
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _listening() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What is written to both streams meanwhile."""
    out, err = io.StringIO(), io.StringIO()
    lines = logging.StreamHandler(out)  # the host's handler keeps the stream that it found when it was made
    logger = logging.getLogger("ultralytics")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        logger.addHandler(lines)
        try:
            yield out, err
        finally:
            logger.removeHandler(lines)
