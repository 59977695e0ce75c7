# yolo-prune, AGPL-3.0 license
"""How the weight of a convolution is laid out: depthwise or not, and which of its dimensions the inputs are."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_depthwise(conv: Any) -> bool:
    """Whether each channel of a convolution has one filter of its own, so that its outputs are its inputs."""
    return bool(conv.groups == conv.in_channels == conv.out_channels > 1)


def inputs_first(module: nn.Module | None) -> bool:
    """Whether a weight is (inputs, outputs, ...), as a transposed convolution's is, and not (outputs, inputs, ...)."""
    return isinstance(module, nn.ConvTranspose2d) and not is_depthwise(module)
