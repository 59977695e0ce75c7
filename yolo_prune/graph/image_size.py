# yolo-prune, AGPL-3.0 license
"""Which image sizes a model takes: multiples of its largest stride, as the host's `check_imgsz` rounds (8.4.190)."""

from __future__ import annotations

from typing import Any

from torch import nn

_LEAST = 32  # the host asks for multiples of 32 of a model whose largest stride is less


def step(model: nn.Module) -> int:
    """Pixels that the side of an image must be a multiple of."""
    stride: Any = getattr(model, "stride", None)
    return _LEAST if stride is None else max(int(stride.max()), _LEAST)


def rounded(model: nn.Module, imgsz: int) -> int:
    """The side of an image in pixels, rounded up to what the model takes."""
    size = step(model)
    return -(-int(imgsz) // size) * size
