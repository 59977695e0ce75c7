# yolo-prune, AGPL-3.0 license
"""The host's blocks that no tracer reads right: how each is lowered to plain layers, and which sizes stay tied.

A tracer sees `C2f.forward` call `chunk(2, 1)` on the output of `cv1` and cannot tell that both halves must keep equally
many channels. So the tracer is given a *lowered copy* in which `cv1` is two convolutions, one a half. The copy is
thrown away after the trace: nothing is ever raised from it. What it yields is written in names and positions of the
stock model, and the stock model is what gets cut.

Worked example, a `C2f` named `model.2` with `cv1` of 32 outputs (`c` = 16):

    stock                      lowered copy                    what `aliases` says
    model.2.cv1.conv (32 out)  model.2.first.conv  (16 out)    -> ("model.2.cv1.conv", offset 0)
                               model.2.second.conv (16 out)    -> ("model.2.cv1.conv", offset 16)

and `ties` says that the group of `model.2.first` and the group of `model.2.second` keep equal counts, because the stock
class halves whatever `cv1` gives. After a cut `settle` sets `c` to the new half, which `forward_split` reads.

Read in ultralytics 8.4.190: nn/modules/block.py (C2f), nn/modules/head.py (Detect).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import C2f, Conv, Detect


@dataclass
class Lowering:
    """What the lowered copy of a model means in terms of the stock model.

    Attributes:
        aliases: lowered module name -> (stock module name, first output channel there).
        ties: pairs of lowered convolution names whose outputs keep equal counts; the first is the stock block's name.
        protected: stock convolution name -> the reason why its outputs are fixed.
    """

    aliases: dict[str, tuple[str, int]] = field(default_factory=dict)
    ties: dict[str, tuple[str, str]] = field(default_factory=dict)
    protected: dict[str, str] = field(default_factory=dict)


class _LoweredC2f(nn.Module):
    """`C2f` with `cv1` as two convolutions, one for each half of the chunk."""

    def __init__(self, block: C2f):
        super().__init__()
        half = block.cv1.conv.out_channels // 2
        self.first = _output_slice(block.cv1, 0, half)
        self.second = _output_slice(block.cv1, half, 2 * half)
        self.m = block.m
        self.cv2 = block.cv2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = [self.first(x), self.second(x)]
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class _LoweredDetect(nn.Module):
    """`Detect` without its decoding: the raw outputs of every branch and level are the model's outputs."""

    def __init__(self, head: Detect):
        super().__init__()
        self.cv2 = head.cv2
        self.cv3 = head.cv3

    def forward(self, x: list[torch.Tensor]) -> list[torch.Tensor]:
        return [branch[i](feature) for i, feature in enumerate(x) for branch in (self.cv2, self.cv3)]


def _output_slice(block: Conv, start: int, stop: int) -> Conv:
    """A copy of a `Conv` block that computes output channels start:stop of it."""
    conv, bn = block.conv, block.bn
    part = Conv(conv.in_channels, stop - start, conv.kernel_size[0], conv.stride[0], act=block.act)
    part.conv.weight = nn.Parameter(conv.weight.detach()[start:stop].clone())
    for name in ("weight", "bias"):
        setattr(part.bn, name, nn.Parameter(getattr(bn, name).detach()[start:stop].clone()))
    part.bn.running_mean = bn.running_mean[start:stop].clone()
    part.bn.running_var = bn.running_var[start:stop].clone()
    part.bn.eps = bn.eps
    return part.to(conv.weight.device)


def _lower_c2f(name: str, block: C2f, lowering: Lowering) -> nn.Module:
    half = block.cv1.conv.out_channels // 2
    for part, offset in (("first", 0), ("second", half)):
        for layer in ("conv", "bn"):
            lowering.aliases[f"{name}.{part}.{layer}"] = (f"{name}.cv1.{layer}", offset)
    lowering.ties[name] = (f"{name}.first.conv", f"{name}.second.conv")
    return _LoweredC2f(block)


def _lower_detect(name: str, head: Detect, lowering: Lowering) -> nn.Module:
    for branch, what in (("cv2", "box distribution, 4 x reg_max"), ("cv3", "class scores, nc")):
        for i, tower in enumerate(getattr(head, branch)):
            lowering.protected[f"{name}.{branch}.{i}.{len(tower) - 1}"] = f"output of the head ({what})"
    lowering.protected[f"{name}.dfl.conv"] = "DFL: the fixed integral over reg_max bins"
    return _LoweredDetect(head)


# One entry a block class: adding support for a block is adding a line here.
LOWER: dict[type[nn.Module], Callable[..., nn.Module]] = {C2f: _lower_c2f, Detect: _lower_detect}


def lower(model: nn.Module) -> Lowering:
    """Replace, in place, every block of `model` that `LOWER` names; give it a copy, never the model itself.

    Args:
        model: a copy of a stock detection model, whose `.model` is the host's sequence of blocks.

    Returns:
        What the new names mean in the stock model.
    """
    lowering = Lowering()
    sequence: Any = model.model
    for index, block in enumerate(sequence):
        rule = LOWER.get(type(block))
        if rule is None:
            continue
        lowered: Any = rule(f"model.{index}", block, lowering)
        lowered.i, lowered.f, lowered.type = block.i, block.f, block.type  # what the host's forward reads
        sequence[index] = lowered
    return lowering


def settle(model: nn.Module) -> None:
    """After a cut, set the sizes that stock blocks keep beside their layers: `C2f.c`, and the count `np` of each."""
    for block in model.modules():
        if isinstance(block, C2f):
            block.c = block.cv1.conv.out_channels // 2
    for block in getattr(model, "model", ()):
        block.np = sum(p.numel() for p in block.parameters())
