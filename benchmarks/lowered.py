# yolo-prune, AGPL-3.0 license
"""YOLOv8 as torch-pruning's own pruners can read it, without chunk and decoding; for comparisons alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import C2f, Conv, Detect


class LoweredC2f(nn.Module):
    """`C2f` with `cv1` as two convolutions, one for each half of the chunk."""

    def __init__(self, block: C2f):
        super().__init__()
        half = block.cv1.conv.out_channels // 2
        self.first, self.second = output_slice(block.cv1, 0, half), output_slice(block.cv1, half, 2 * half)
        self.m, self.cv2 = block.m, block.cv2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = [self.first(x), self.second(x)]
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class LoweredDetect(nn.Module):
    """`Detect` without its decoding: the raw outputs of every branch and level are the model's outputs."""

    def __init__(self, head: Detect):
        super().__init__()
        self.cv2, self.cv3 = head.cv2, head.cv3

    def forward(self, x: list[torch.Tensor]) -> list[torch.Tensor]:
        return [branch[i](feature) for i, feature in enumerate(x) for branch in (self.cv2, self.cv3)]


def output_slice(block: Conv, start: int, stop: int) -> Conv:
    """A copy of a `Conv` block that computes output channels start:stop of it."""
    conv, bn = block.conv, block.bn
    part = Conv(conv.in_channels, stop - start, conv.kernel_size[0], conv.stride[0], act=block.act)
    part.conv.weight = nn.Parameter(conv.weight.detach()[start:stop].clone())
    for name in ("weight", "bias"):
        setattr(part.bn, name, nn.Parameter(getattr(bn, name).detach()[start:stop].clone()))
    part.bn.running_mean, part.bn.running_var = bn.running_mean[start:stop].clone(), bn.running_var[start:stop].clone()
    part.bn.eps = bn.eps
    return part


def lower(model: Any) -> list[nn.Module]:
    """Lower a YOLOv8 detection model in place.

    Returns:
        The layers whose outputs must not be cut: the last ones of the head.
    """
    for index, block in enumerate(model.model):
        rule = {C2f: LoweredC2f, Detect: LoweredDetect}.get(type(block))
        if rule is not None:
            lowered: Any = rule(block)
            lowered.i, lowered.f, lowered.type = block.i, block.f, block.type  # what the host's forward reads
            model.model[index] = lowered
    head = model.model[-1]
    return [tower[-1] for branch in (head.cv2, head.cv3) for tower in branch]
