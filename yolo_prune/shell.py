# yolo-prune, AGPL-3.0 license
"""Commands to paste into a terminal. Standard library alone."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence


def command(words: Sequence[str], folders: Sequence[str] = ()) -> str:
    """A command as a shell reads it, on Windows cmd.exe.

    Args:
        words: the program and its arguments. folders: of modules of the user's own, which it has to find.
    """
    windows = os.name == "nt"
    line = " ".join(map(_for_cmd, words)) if windows else shlex.join(words)
    if not folders:
        return line
    path = os.pathsep.join(folders)
    return f'set "PYTHONPATH={path}" && {line}' if windows else f"PYTHONPATH={shlex.quote(path)} {line}"


def _for_cmd(word: str) -> str:
    """A word as cmd.exe hands it on: `list2cmdline` knows blanks alone, and a & would end the command."""
    made = subprocess.list2cmdline([word])
    return f'"{made}"' if not made.startswith('"') and set(made) & set("&|<>^()%!") else made
