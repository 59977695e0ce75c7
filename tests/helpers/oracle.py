# yolo-prune, AGPL-3.0 license
"""The oracle's parts: a model whose every index shows, a random plan, and channels that compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph import channel_groups, image_shape
from yolo_prune.graph.convolutions import inputs_first
from yolo_prune.surgery import cut_channels


def lively(model: nn.Module) -> nn.Module:
    """Make an untrained model answer to its input, in place: BatchNorms far from the identity, but calibrated.

    With the statistics that a fresh BatchNorm has, activations fade to a millionth on their way to the head, and an
    index that is off would hardly show there.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        if norm.affine:
            norm.weight.data.uniform_(0.5, 1.5)
        if norm.bias is not None:
            norm.bias.data.uniform_(-0.5, 0.5)
    for m in model.modules():
        if isinstance(getattr(m, "gamma", None), nn.Parameter):
            m.gamma.data.uniform_(0.5, 1.5)
        if isinstance(m, nn.Linear) and not m.weight.any():  # RT-DETR's boxes start as its anchors
            m.weight.data.normal_(std=0.05)
    momentum = [norm.momentum for norm in norms]
    training = model.training
    for norm in norms:
        norm.train().momentum = 1.0
    side = 128 if any(hasattr(m, "num_queries") for m in model.modules()) else 64
    dtype = next(p.dtype for p in model.parameters() if p.ndim == 4)
    with torch.no_grad():
        model(torch.rand(4, image_shape.channels(model), side, side, dtype=dtype))
    for norm, was in zip(norms, momentum, strict=True):
        norm.momentum = was
        if norm.affine and norm.running_mean is not None:  # else what goes in of a dead channel would not be 0
            norm.running_mean.add_(torch.randn_like(norm.running_mean) * 0.1)
    return model.train(training)


def random_plan(found: channel_groups.ChannelGraph, seed: int, hardest: float, whole: float = 0.0) -> PrunePlan:
    """Any counts from 1 to all, any channels; tied groups get one count, times their factor, and their own channels.

    Args:
        whole: how likely each residual block goes, and the share of heads that may go.
    """
    rng = np.random.default_rng(seed)
    blocks = tuple(block.name for block in found.blocks if rng.random() < whole)
    gone = {tie: rng.random() * whole for tie in {group.tie for group in found.groups if group.tie}}
    heads = {}
    for group in found.groups:
        if group.head is not None and group.head.side == "value":
            attention, count = group.head.attention, found.heads[group.head.attention]
            dropped = min(int(gone[group.tie or ""] * (count + 1)), count - 1)
            heads[attention] = tuple(sorted(np.random.default_rng([seed, count]).choice(count, dropped, replace=False)))
    counts: dict[str, int] = {}
    keep = {}
    for group in found.groups:
        size = group.size // group.times
        count = counts.setdefault(group.tie or group.name, max(1, round(size * (1 - hardest * rng.random()))))
        count *= group.times
        if group.head is not None and group.head.number in heads[group.head.attention]:
            count = 0
        elif group.head is None and group.tie:
            count = round(count * (1 - cut_channels.gone_share(found, PrunePlan({}, (), heads), group.tie)))
        if count < group.size:
            keep[group.name] = np.sort(rng.choice(group.size, count, replace=False))
    return PrunePlan(keep, blocks, {name: dropped for name, dropped in heads.items() if dropped})


def kill(model: nn.Module, found: channel_groups.ChannelGraph, plan: PrunePlan) -> None:
    """Make what the plan drops compute 0 everywhere: what makes and shifts it becomes 0.

    A block is dead where it adds 0 to its stream.
    """
    modules = dict(model.named_modules())
    for group in found.groups:
        if group.name not in plan.keep:
            continue
        dropped = np.setdiff1d(np.arange(group.size), plan.keep[group.name])
        deaf = any(_speaks_of_nothing(modules.get(member.module)) for member in group.members)
        for member in group.members:
            where = torch.as_tensor(member.positions[np.isin(member.channels, dropped)])
            if member.side == "out":
                _silence(model, member.module, modules.get(member.module), where)
            elif deaf and member.side == "in":
                weight = modules[member.module].weight.data
                weight.index_fill_(0 if inputs_first(modules[member.module]) else 1, where, 0)
    for block in found.blocks:
        if block.name in plan.blocks:
            for name in _last_layers(model, block.name):
                module = model.get_submodule(name)
                _silence(model, name, module, torch.arange(len(module.weight)))


def assert_no_trace(
    model: nn.Module,
    found: channel_groups.ChannelGraph,
    plan: PrunePlan,
    outputs: Callable[[nn.Module], Sequence[torch.Tensor]],
    tolerance: float,
) -> Sequence[torch.Tensor]:
    """The oracle: make what a plan drops dead, cut it, in place, and hold the outputs to what they were before the cut.

    Returns:
        What it put out before the cut.
    """
    kill(model, found, plan)
    before = outputs(model)
    cut_channels.apply(model, found, plan)
    after = outputs(model)
    assert len(before) > 0
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(now, was, rtol=tolerance, atol=tolerance)
    return before


def _last_layers(model: nn.Module, name: str) -> list[str]:
    """The BatchNorms behind which a residual block adds."""
    block = model.get_submodule(name)
    if isinstance(block, nn.Sequential):
        return [last for key, _ in block.named_children() for last in _last_layers(model, f"{name}.{key}")]
    endings = {"PSABlock": ("attn.proj", "ffn.1"), "ABlock": ("attn.proj", "mlp.1")}
    endings["CIB"] = (f"cv1.{len(getattr(block, 'cv1', ())) - 1}",) if type(block).__name__ == "CIB" else ()
    return [f"{name}.{ending}.bn" for ending in endings.get(type(block).__name__, ("cv2",))]


def _speaks_of_nothing(module: nn.Module | None) -> bool:
    """Whether a layer makes something of a 0 that nothing in it turns off: then its readers must not listen."""
    return isinstance(module, nn.BatchNorm2d) and module.bias is None


def _silence(model: nn.Module, name: str, module: nn.Module | None, where: torch.Tensor) -> None:
    if module is None:
        model.get_parameter(name).data[where] = 0
    elif module.weight is None:
        return
    elif inputs_first(module):
        module.weight.data[:, where] = 0
    else:
        module.weight.data[where] = 0
    if getattr(module, "bias", None) is not None:
        module.bias.data[where] = 0


def flat(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a model's outputs, but the features that a head hands through to its loss."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            if key != "feats":
                yield from flat(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)
