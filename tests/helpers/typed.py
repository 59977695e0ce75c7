# yolo-prune, AGPL-3.0 license
"""What a user types at `yolo`, done in this process, where starting another one is not what is tested."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from pathlib import Path

import pytest
import ultralytics.cfg

from tests.helpers.environments import Done
from yolo_prune.host import console


def yolo(*words: str | Path, cwd: Path | None = None) -> Done:
    """Run the host's command with these words, and end it as the interpreter would: an error goes to its hook.

    Args:
        words: what is typed after `yolo`.
        cwd: where; where we are when None.
    """
    out, err = io.StringIO(), io.StringIO()
    lines = logging.StreamHandler(out)  # the host's handler keeps the stream that it found when it was made
    logger = logging.getLogger("ultralytics")
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        argv = ["yolo", *map(str, words)]
        patch.setattr(sys, "argv", argv)
        patch.setattr(
            ultralytics.cfg, "ARGV", argv
        )  # a copy that is made when it is imported (8.4.190, cfg/__init__.py)
        if cwd is not None:
            patch.chdir(cwd)
        logger.addHandler(lines)
        try:
            console.host_command()()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            code = 1
        finally:
            logger.removeHandler(lines)
    return Done(code, out.getvalue(), err.getvalue())
