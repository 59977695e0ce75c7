# yolo-prune, AGPL-3.0 license
"""What must be cut together: a model -> its channel groups. The only importer of torch_pruning.

A `ChannelGroup` is a set of channels that live and die together in several layers. For `Conv2d(a) -> BN -> Conv2d(b)`
the group of `a` with 16 outputs has size 16 and three members:

    Member("a",  "out", positions 0..15, channels 0..15)    rows of a's weight
    Member("bn", "out", positions 0..15, channels 0..15)    entries of the BatchNorm's vectors
    Member("b",  "in",  positions 0..15, channels 0..15)    columns of b's weight

`positions` differ from `channels` behind a concatenation, and one channel has several positions where a tensor is
concatenated with itself (SPPF). Names and positions are those of the *stock* model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Literal

import numpy as np
import torch
import torch_pruning as tp
from torch import nn

from yolo_prune import blocks

TRACE_SIZE = 64  # pixels; every stride of a YOLO divides it, so areas at any size follow exactly


@dataclass(frozen=True)
class Member:
    """One layer's share in a group.

    Attributes:
        module: name of the layer in the stock model.
        side: "out" (rows of a weight, entries of a BatchNorm) or "in" (columns of a weight).
        positions: (n,) positions along that side of the layer.
        channels: (n,) the group's channel at each position.
    """

    module: str
    side: Literal["out", "in"]
    positions: np.ndarray
    channels: np.ndarray


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together.

    Attributes:
        name: the first convolution that produces these channels; of the form `model.2.cv1.conv[1/2]` where the
            group is the first of two parts of its outputs.
        size: number of channels.
        members: every layer that has these channels.
        tie: groups with the same tie keep equal counts; None for a free group.
        traced: torch-pruning's own group on the lowered copy, which its importance classes read; None once scored.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    tie: str | None
    traced: tp.dependency.Group | None


@dataclass(frozen=True)
class Layer:
    """A convolution and its measured output area, for counting.

    Attributes:
        name: stock name; kernel: product of the kernel's sides; area: output pixels for one input pixel;
        bn: name of the BatchNorm behind it or None; depthwise groups are `groups`.
    """

    name: str
    out: int
    inp: int
    kernel: int
    groups: int
    bias: bool
    bn: str | None
    area: float


@dataclass(frozen=True)
class ChannelGraph:
    """All of a model that matters for choosing channels.

    Attributes:
        groups: the prunable groups. protected: convolution name -> why its outputs stay.
        layers: every convolution, in the model's order.
    """

    groups: tuple[ChannelGroup, ...]
    protected: dict[str, str]
    layers: tuple[Layer, ...]

    def without_trace(self) -> ChannelGraph:
        """The same groups without the lowered copy that they were traced on, which is as large as the model."""
        return replace(self, groups=tuple(replace(group, traced=None) for group in self.groups))


def build(model: nn.Module, protect: tuple[str, ...] | list[str] = ()) -> ChannelGraph:
    """Trace a stock YOLO model into its channel groups.

    Args:
        model: a stock detection model, on any device, in any mode; it is not changed.
        protect: fnmatch patterns of convolution names whose outputs are not to be cut.

    Returns:
        The groups, the protected convolutions with reasons, and the layers with their areas. Every convolution of the
        model is either a producer of at least one group or in `protected`.
    """
    shadow = _shadow(model)
    layers = _layers(shadow)
    convolutions = {layer.name for layer in layers}
    lowering = blocks.lower(shadow)
    dg = _trace(shadow)
    names = {module: name for name, module in shadow.named_modules()}
    reasons = dict(lowering.protected)
    groups: list[ChannelGroup] = []
    fixed: dict[str, str] = {}  # group name -> why it is protected
    seen: set[nn.Module] = set()
    for root in (m for m in shadow.modules() if isinstance(m, nn.Conv2d)):
        if root in seen or names[root] in lowering.protected:
            continue
        traced = dg.get_pruning_group(root, tp.prune_conv_out_channels, list(range(root.out_channels)))
        members, producers = _members(traced, dg, names, lowering)
        seen.update(producers)
        group = ChannelGroup(_group_name(members, lowering), root.out_channels, members, None, traced)
        groups.append(group)
        reason = _protected_by(members, lowering.protected, protect)
        if reason:
            fixed[group.name] = reason
    groups = _tie(groups, lowering)
    for group in groups:  # equal counts: where one of the tied groups stays whole, all do
        partners = [other.name for other in groups if group.tie and other.tie == group.tie and other.name in fixed]
        if partners:
            fixed.setdefault(group.name, f"tied to {partners[0]}: {fixed[partners[0]]}")
    covered: set[str] = set()
    for group in groups:
        outs = [m.module for m in group.members if m.side == "out" and m.module in convolutions]
        if group.name in fixed:
            reasons.update(dict.fromkeys(outs, fixed[group.name]))
        else:
            covered.update(outs)
    protected = {
        layer.name: reasons.get(layer.name, "not reached by the tracer")
        for layer in layers
        if layer.name not in covered
    }
    return ChannelGraph(tuple(g for g in groups if g.name not in fixed), protected, tuple(layers))


def _shadow(model: nn.Module) -> nn.Module:
    """A throw-away copy on the CPU for the tracer: every weight requires grad, BatchNorm scales are folded into `conv`.

    Folding makes magnitudes comparable: the split of a filter's size between convolution and BatchNorm is arbitrary.
    The BatchNorm itself stays, unchanged, for importances that read its scale.
    """
    criterion = model.__dict__.pop("criterion", None)  # the loss holds the model: copying it would copy all twice
    try:
        shadow = deepcopy(model)
    finally:
        if criterion is not None:
            model.criterion = criterion
    shadow = shadow.to(device="cpu", dtype=torch.float32).to(memory_format=torch.contiguous_format).eval()
    for p in shadow.parameters():
        p.requires_grad_(True)
    for block in shadow.modules():
        conv, bn = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d) and bn.running_var is not None:
            scale = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
            conv.weight.data.mul_(scale.view(-1, 1, 1, 1))
    return shadow


def _layers(shadow: nn.Module) -> list[Layer]:
    """Every convolution with its output area for one input pixel, seen in one forward pass of a small image."""
    areas: dict[nn.Module, float] = {}

    def see(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        areas[module] = output.shape[-2:].numel() / TRACE_SIZE**2

    convs = {name: m for name, m in shadow.named_modules() if isinstance(m, nn.Conv2d)}
    hooks = [m.register_forward_hook(see) for m in convs.values()]
    with torch.no_grad():
        shadow(_image(shadow))
    for hook in hooks:
        hook.remove()
    modules = dict(shadow.named_modules())
    layers = []
    for name, m in convs.items():
        bn = name[: -len("conv")] + "bn" if name.endswith(".conv") else ""
        layers.append(
            Layer(
                name=name,
                out=m.out_channels,
                inp=m.in_channels,
                kernel=m.kernel_size[0] * m.kernel_size[1],
                groups=m.groups,
                bias=m.bias is not None,
                bn=bn if isinstance(modules.get(bn), nn.BatchNorm2d) else None,
                area=areas.get(m, 0.0),
            )
        )
    return layers


def _image(model: nn.Module) -> torch.Tensor:
    first = next(p for p in model.parameters() if p.ndim == 4)
    return torch.zeros(1, first.shape[1], TRACE_SIZE, TRACE_SIZE)


def _trace(shadow: nn.Module) -> tp.DependencyGraph:
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch-pruning 1.6.1 warns of parameters that the small trace does not reach
        return tp.DependencyGraph().build_dependency(shadow, example_inputs=_image(shadow), verbose=False)


def _members(
    traced: tp.dependency.Group, dg: tp.DependencyGraph, names: dict[nn.Module, str], lowering: blocks.Lowering
) -> tuple[tuple[Member, ...], list[nn.Module]]:
    """torch-pruning's group, written in stock names and positions; and the convolutions that produce its channels."""
    members: list[Member] = []
    producers: list[nn.Module] = []
    for item in traced.items:
        module = item.dep.target.module
        if not isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            continue
        side: Literal["out", "in"] = "out" if dg.is_out_channel_pruning_fn(item.dep.handler) else "in"
        name, offset = names[module], 0
        if side == "out":
            name, offset = lowering.aliases.get(name, (name, 0))
            if isinstance(module, nn.Conv2d):
                producers.append(module)
        else:
            name = lowering.aliases.get(name, (name, 0))[0]
        member = Member(name, side, np.asarray(item.idxs) + offset, np.asarray(item.root_idxs))
        if name in {m.module for m in members if m.side == side and np.array_equal(m.positions, member.positions)}:
            continue  # both halves of a lowered convolution read the same columns of the one stock weight
        members.append(member)
    return tuple(members), producers


def _protected_by(
    members: tuple[Member, ...], fixed: dict[str, str], patterns: tuple[str, ...] | list[str]
) -> str | None:
    for member in members:
        if member.side != "out":
            continue
        if member.module in fixed:
            return f"shares its channels with {member.module}: {fixed[member.module]}"
        for pattern in patterns:
            if fnmatch(member.module, pattern) or fnmatch(member.module.removesuffix(".conv"), pattern):
                return f"protected by the recipe ({pattern})"
    return None


def _group_name(members: tuple[Member, ...], lowering: blocks.Lowering) -> str:
    """The producer's stock name, and which part of it where a block was lowered; the same after every cut."""
    root = members[0]
    offsets = sorted(offset for name, offset in lowering.aliases.values() if name == root.module)
    if not offsets:
        return root.module
    part = sum(offset <= int(root.positions.min()) for offset in offsets)
    return f"{root.module}[{part}/{len(offsets)}]"


def _tie(groups: list[ChannelGroup], lowering: blocks.Lowering) -> list[ChannelGroup]:
    """Mark the groups whose counts a stock block keeps equal."""
    ties: dict[int, str] = {}
    for block, halves in lowering.ties.items():
        for half in halves:
            name, offset = lowering.aliases[half]
            for i, group in enumerate(groups):
                if any(m.module == name and m.side == "out" and offset in m.positions for m in group.members):
                    ties[i] = block
    return [replace(group, tie=ties.get(i)) for i, group in enumerate(groups)]


def library(kind: str, **options: object) -> Callable[[tp.dependency.Group], torch.Tensor]:
    """One of torch-pruning's importance classes, reading convolution weights only (BatchNorm's for "bn").

    Args:
        kind: "magnitude", "bn", "lamp" or "fpgm". options: passed on, such as p=1.

    Returns:
        A function of a traced group -> (size,) scores.
    """
    classes = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "bn": tp.importance.BNScaleImportance,
        "lamp": tp.importance.LAMPImportance,
        "fpgm": tp.importance.FPGMImportance,
    }
    if kind != "lamp":  # scores are normalised once, by importance.py, which knows what to do where all are zero
        options["normalizer"] = None
    scorer = classes[kind](**options)
    if kind != "bn":  # the lowered weights carry the BatchNorm scales already: counting them again would square them
        scorer.target_types = [nn.modules.conv._ConvNd]
    return scorer
