# yolo-prune, AGPL-3.0 license
"""The lists of the blocks, a yaml with one of them, and what all of them have."""

from __future__ import annotations

from typing import Any

import ultralytics.nn.tasks as tasks
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

FOLLOWED: list[type[nn.Module]] = []
NAMED: list[type[nn.Module]] = []


def followed(block: Any) -> Any:
    """A block whose channels are cut: the convolution `a` in it has a group."""
    FOLLOWED.append(block)
    return block


def named(block: Any) -> Any:
    """A block that is protected, and said so: the convolution `a` in it keeps its channels."""
    NAMED.append(block)
    return block


def register() -> None:
    """Let the host's `parse_model` find the blocks by name."""
    for block in (*FOLLOWED, *NAMED):
        setattr(tasks, block.__name__, block)


def yaml_with(name: str, c: int = 32) -> dict[str, Any]:
    """A small detector with one such block in its backbone."""
    return {
        "nc": 3,
        "backbone": [
            *([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "C2f", [32, True]]),
            *([-1, 1, "Conv", [c, 3, 2]], [-1, 1, "Conv", [c, 3, 2]], [-1, 1, name, [c]], [-1, 1, "SPPF", [c, 5]]),
        ],
        "head": [[[3, 6], 1, "Detect", ["nc"]]],
    }


class Between(nn.Module):
    """Two convolutions and what a block does between them."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 1)
        self.c = c
        self.make(c)

    def make(self, c: int) -> None:
        """Further parts."""

    def between(self, y: Tensor) -> Tensor:
        """What is tried."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Convolution, what is tried, convolution."""
        return self.b(self.between(self.a(x)))
