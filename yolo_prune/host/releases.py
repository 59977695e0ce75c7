# yolo-prune, AGPL-3.0 license
"""The releases of ultralytics that we work with, and which one is here."""

from __future__ import annotations

import re

LOWEST = "8.4.0"  # the range is stated in pyproject.toml too; tests/test_install.py compares the two
BELOW = "8.5"


def version() -> str:
    """Return the version of the imported ultralytics."""
    import ultralytics

    return str(ultralytics.__version__)


def supported(given: str) -> bool:
    """Tell whether `given` (such as "8.4.190") lies in LOWEST <= version < BELOW."""
    return _numbers(LOWEST) <= _numbers(given) < _numbers(BELOW)


def _numbers(text: str) -> tuple[int, ...]:
    """Read the leading numbers of a version: "8.4.190rc1" -> (8, 4, 190)."""
    head = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in head[0].split(".")) if head else (0,)
