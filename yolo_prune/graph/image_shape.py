# yolo-prune, AGPL-3.0 license
"""Which images a model takes: sides of multiples of its largest stride, as the host's `check_imgsz` rounds (8.4.190),
how many channels, and the small ones that it is tried on."""

from __future__ import annotations

from typing import Any

from torch import nn

from yolo_prune import log

_TRIED = (64, 192, 320, 640)  # pixels
# The queries of RT-DETR's decoder are chosen among the image's cells, all of them where there are fewer than 300.
_OF_QUERIES = 192
_LEAST = 32  # the host asks for multiples of 32 of a model whose largest stride is less


def step(model: nn.Module) -> int:
    """Pixels that the side of an image must be a multiple of."""
    stride: Any = getattr(model, "stride", None)
    return _LEAST if stride is None else max(int(stride.max()), _LEAST)


def rounded(model: nn.Module, imgsz: int) -> int:
    """The side of an image in pixels, rounded up to what the model takes."""
    size = step(model)
    return -(-int(imgsz) // size) * size


def said(model: nn.Module, imgsz: int) -> int:
    """As `rounded`; where that is another number than was given, it is said."""
    side = rounded(model, imgsz)
    if side != imgsz:
        log.warn(f"imgsz={imgsz} is not a multiple of {step(model)}: {side} is used")
    return side


def tried(model: nn.Module) -> tuple[int, ...]:
    """Sides in pixels of the images that a model is tried on, from the smallest that may do."""
    least = _OF_QUERIES if any(hasattr(module, "num_queries") for module in model.modules()) else _TRIED[0]
    return tuple(size for size in _TRIED if size >= least)


def channels(model: nn.Module) -> int:
    """How many channels the images of a model have: what its yaml says, which no weight does.

    Focus reads four pixels as one of four times the channels, and a grouped convolution's weight has fewer columns than
    inputs. A model without a yaml is taken to read what its first convolution does.
    """
    yaml = getattr(model, "yaml", None)
    if isinstance(yaml, dict):
        return int(yaml.get("channels") or yaml.get("ch") or 3)
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
