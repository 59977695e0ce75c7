# yolo-prune, AGPL-3.0 license
"""Which images a model takes: sides of multiples of its largest stride, as the host's `check_imgsz` rounds (8.4.190),
and how many channels."""

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


def channels(model: nn.Module) -> int:
    """How many channels the images of a model have: what its yaml says, which no weight does.

    Focus reads four pixels as one of four times the channels, and a grouped convolution's weight has fewer columns than
    inputs. A model without a yaml is taken to read what its first convolution does.
    """
    yaml = getattr(model, "yaml", None)
    if isinstance(yaml, dict):
        return int(yaml.get("channels") or yaml.get("ch") or 3)
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
