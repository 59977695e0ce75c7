# yolo-prune, AGPL-3.0 license
"""Files that somebody else has put into the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class RunsCode:
    """Unpickled without restriction, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def plant(path: Path, mark: Path) -> None:
    """Put a file at `path` that leaves the file `mark` where it is loaded without restriction."""
    torch.save({"model": RunsCode(mark), "ema": None}, path)
    torch.load(path, weights_only=False)
    assert mark.exists(), "it would run"
    mark.unlink()
