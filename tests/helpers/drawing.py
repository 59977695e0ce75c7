# yolo-prune, AGPL-3.0 license
"""pruning.png and export.png: empty files in most tests, for a picture takes as long as an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from yolo_prune.export import picture
from yolo_prune.report import pictures

_PRUNING, _EXPORT = pictures.picture, picture.content


@contextmanager
def left_out() -> Iterator[None]:
    """Let both be empty."""

    def empty(record: Any, path: Path) -> None:
        path.write_bytes(b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "picture", empty)
        patch.setattr(picture, "content", lambda record: b"")
        yield


@contextmanager
def drawn() -> Iterator[None]:
    """Let both be drawn, inside of `left_out`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "picture", _PRUNING)
        patch.setattr(picture, "content", _EXPORT)
        yield
