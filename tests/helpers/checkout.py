# yolo-prune, AGPL-3.0 license
"""What is at hand on this machine: the checkout, shared weights and data sets, and arguments of the installed host."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared(name: str) -> Path | None:
    """Return `shared/<name>` of the nearest folder at or above the checkout that has it."""
    for folder in (ROOT, *ROOT.parents):
        found = folder / "shared" / name
        if found.exists():
            return found
    return None


def needs(argument: str) -> pytest.MarkDecorator:
    """Skip a test where the host has no such argument yet."""
    from ultralytics.utils import DEFAULT_CFG_DICT, __version__

    return pytest.mark.skipif(argument not in DEFAULT_CFG_DICT, reason=f"ultralytics {__version__} has no {argument}=")
