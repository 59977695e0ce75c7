# yolo-prune, AGPL-3.0 license
"""Blocks that add to what flows past them: which can be removed whole, and how much each adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from yolo_prune.graph import blocks
from yolo_prune.graph.trace import Trace


@dataclass(frozen=True)
class ResidualBlock:
    """A block that adds to what flows past it and can be removed whole.

    Attributes:
        name: stock name; all of its layers have names below it.
        stream: the group that it adds to. share: its part in the energy of what is added up there, 0 to 1.
        consumer: the convolution that reads its output beside the block's input; "" where there is none.
        own, before: (n,) the consumer's columns that read the output, and those that read the input: without the block
            both would read the same, so the weights of the first are added to the second.
    """

    name: str
    stream: str
    share: float
    consumer: str = ""
    own: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    before: np.ndarray = field(default_factory=lambda: np.zeros(0, int))


def find(trace: Trace, shadow: nn.Module, makers: Mapping[str, str]) -> tuple[ResidualBlock, ...]:
    """The residual blocks of a model, each with the stream that it adds to.

    Args:
        trace: the trace of `shadow`. makers: name of each convolution and linear layer -> the group that it makes.
    """
    result = []
    for name, consumer in blocks.removable(shadow):
        if not consumer and name.rpartition(".")[0] not in trace.entered:
            continue  # its sequence is not run as one: the block that holds it may do more with the entries
        inside = [made for made in makers if made.startswith(f"{name}.")]
        outside = {group for made, group in makers.items() if not made.startswith(f"{name}.")}
        stream = next((makers[made] for made in inside if makers[made] in outside), None)
        if stream is None:
            continue  # what it adds to has a width of its own, which no layer makes
        energy = {made: _energy(shadow, made) for made, group in makers.items() if group == stream}
        share = sum(energy[made] for made in inside if made in energy) / max(sum(energy.values()), 1e-12)
        own = before = np.zeros(0, dtype=int)
        if consumer:
            own, before = _columns(trace, shadow, name)
        result.append(ResidualBlock(name, stream, min(share, 1.0), consumer, own, before))
    return tuple(result)


def _columns(trace: Trace, shadow: nn.Module, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The consumer's columns that read an entry's output and its input; cv1's come first, then each entry's."""
    owner = name.rpartition(".m.")[0]
    start = trace.channels[f"{owner}.cv1"]
    for key, _ in shadow.get_submodule(f"{owner}.m").named_children():
        width = trace.channels[f"{owner}.m.{key}"]
        if f"{owner}.m.{key}" == name:
            return np.arange(start, start + width), np.arange(start - width, start)
        start += width
    raise ValueError(f"{name} is no entry of {owner}.m")


def _energy(shadow: nn.Module, conv: str) -> float:
    """Mean square of what a convolution gives behind its BatchNorm and activation, by the BatchNorm's own statistics.

    Behind a BatchNorm of weight g and bias b a channel is near to a normal of mean b and deviation |g|. A layer
    without BatchNorm counts 1.
    """
    block = shadow.get_submodule(conv.rpartition(".")[0])
    bn, act = getattr(block, "bn", None), getattr(block, "act", None)
    if not isinstance(bn, nn.BatchNorm2d):
        return 1.0
    quantiles = torch.special.ndtri((torch.arange(33, dtype=torch.float64) + 0.5) / 33).float()
    one = torch.ones(bn.num_features)  # without a scale, and a shift, of its own it is 1, and 0
    scale = one if bn.weight is None else bn.weight.detach().abs()
    shift = 0 * one if bn.bias is None else bn.bias.detach()
    values = shift[:, None] + scale[:, None] * quantiles
    with torch.no_grad():
        values = act(values) if isinstance(act, nn.Module) else values
    return float(values.square().mean())
