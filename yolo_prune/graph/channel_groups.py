# yolo-prune, AGPL-3.0 license
"""What must be cut together: a model -> its channel groups.

A `ChannelGroup` is a set of channels that live and die together in several layers. For `Conv2d(a) -> BN -> Conv2d(b)`
the group of `a` with 16 outputs has size 16 and three members:

    Member("a",  "out", positions 0..15, channels 0..15)    rows of a's weight
    Member("bn", "out", positions 0..15, channels 0..15)    entries of the BatchNorm's vectors
    Member("b",  "in",  positions 0..15, channels 0..15)    columns of b's weight

`positions` differ from `channels` behind a concatenation, and one channel has several positions where a tensor is
concatenated with itself (SPPF). Which channels belong together is what tracer.py found: those that stand in the same
places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from yolo_prune.allocation.units import Head
from yolo_prune.graph import blocks, equivalence, image_shape, model_parts, residual
from yolo_prune.graph.convolutions import is_depthwise
from yolo_prune.graph.equivalence import IdSet
from yolo_prune.graph.model_state import copy_of, release
from yolo_prune.graph.residual import ResidualBlock
from yolo_prune.graph.trace import LAYERS, Side, Trace, is_layer
from yolo_prune.graph.tracer import Known, follow

PROTECTED = "protected by the recipe"  # what such a reason begins with
FROZEN = "frozen: its weights are not trained (freeze=)"  # why a layer is protected
IMAGE = 640  # pixels: the size at which the host states GFLOPs


@dataclass(frozen=True)
class Member:
    """One layer's share in a group.

    Attributes:
        module: name of the layer (or of a vector parameter) in the stock model.
        side: "out" (rows of a weight, entries of a BatchNorm), "in" (columns of a weight), or "work" for what has no
            weights but is counted, one of attention's products.
        positions: (n,) positions along that side of the layer.
        channels: (n,) the group's channel at each position.
    """

    module: str
    side: Side
    positions: np.ndarray
    channels: np.ndarray


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together.

    Attributes:
        name: the first layer that makes these channels; of the form `model.2.cv1.conv[1/2]` where the group is the
            first of two parts of its outputs.
        size: number of channels.
        members: every layer that has these channels; the first is the layer of the name.
        tie: groups with the same tie keep one count, each `times` it; None for a free group.
        times: channels of this group for one of the tie's count; 1 but where it feeds several heads of an attention.
        head: whose head of an attention these are the keys or values, None where they are of none.
        folded: the modules of a copy of the model whose convolution weights carry their BatchNorm scales, by name: what
            importance/magnitude.py scores; None once scored.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    tie: str | None
    folded: Mapping[str, nn.Module] | None
    times: int = 1
    head: Head | None = None


@dataclass(frozen=True)
class Layer:
    """A layer and its measured output area, for counting.

    Attributes:
        name: stock name. kind: "conv" (transposed ones too), "depthwise", "linear", "norm", "vector" for a parameter of
            its own, or "product" for one of attention's matrix products, which has no weights.
        out, inp: channels. kernel: weights that an output of one channel reads of one input. bias: whether it has one.
        area: places at which its weights are applied in an image of 640 x 640; of a product, multiply-adds a channel.
        scaled: the same for the smallest image that the model takes, scaled to 640 x 640 by its pixels.
        scale: whether it is a norm with a scale of its own.
    """

    name: str
    kind: Literal["conv", "depthwise", "linear", "norm", "vector", "product"]
    out: int
    inp: int
    kernel: float
    bias: bool
    area: float
    scaled: float
    scale: bool = False

    @property
    def weights(self) -> int:
        """How many weights it has, without biases."""
        return round(self.out * (1 if self.kind == "depthwise" else self.inp) * self.kernel)

    @property
    def makes(self) -> bool:
        """Whether it is a convolution or a linear layer: what makes channels, and has rows in a record."""
        return self.kind in ("conv", "depthwise", "linear")


@dataclass(frozen=True)
class ChannelGraph:
    """All of a model that matters for choosing channels.

    Attributes:
        blocks: the residual blocks that can be removed whole. heads: attention -> how many heads it has.
        untaught: name -> class of each block with operations that nobody has taught the tool, so that what goes into
            them is protected; operations: what stops the tracer in each of them.
        groups: the prunable groups. protected: layer name -> why its outputs stay. native: those of the protected whose
            outputs stay by the model's nature and not by a recipe; they have the width of the stock model.
        layers: every layer, in the model's order. parts: of the model, as `protect` may name them.
    """

    groups: tuple[ChannelGroup, ...]
    protected: dict[str, str]
    native: frozenset[str]
    layers: tuple[Layer, ...]
    blocks: tuple[ResidualBlock, ...] = ()
    heads: dict[str, int] = field(default_factory=dict)
    untaught: dict[str, str] = field(default_factory=dict)
    operations: dict[str, str] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def reasons_kept_whole(self) -> dict[str, float]:
        """Why layers stay whole -> share of the convolution weights; but for what is an output of the model."""
        weights = {layer.name: layer.weights for layer in self.layers if layer.kind in ("conv", "depthwise")}
        shares: dict[str, float] = {}
        for name, why in self.protected.items():
            reason = why.rpartition(": ")[2] if why.startswith("tied to ") else why
            if not reason.startswith("output of the model"):
                shares[reason] = shares.get(reason, 0.0) + weights.get(name, 0) / max(sum(weights.values()), 1)
        return shares

    def prunable_share(self) -> float:
        """The share of the convolution weights that is in layers whose channels can be cut."""
        weights = {layer.name: layer.weights for layer in self.layers if layer.kind in ("conv", "depthwise")}
        return sum(n for name, n in weights.items() if name not in self.protected) / max(sum(weights.values()), 1)

    def without_trace(self) -> ChannelGraph:
        """The same groups without the copy whose weights are scored, which is as large as the model, and is emptied."""
        for folded in {id(group.folded): group.folded for group in self.groups if group.folded}.values():
            release(folded.values())
        return replace(self, groups=tuple(replace(group, folded=None) for group in self.groups))


def build(
    model: nn.Module,
    protect: tuple[str, ...] | list[str] = (),
    avoid: Mapping[str, str] | None = None,
    frozen: Collection[str] = (),
) -> ChannelGraph:
    """Trace a stock YOLO model into its channel groups.

    Args:
        model: a stock model, on any device, in any mode; it is not changed.
        protect: fnmatch patterns of layer names whose outputs are not to be cut, or names of parts of the model.
        avoid: name of a block or layer -> why no channel that goes into it, or that a layer in it makes or reads, is
            to be cut. A name that the model does not have changes nothing.
        frozen: names of layers that a training leaves as they are (see training/frozen.py): their outputs are not cut.

    Returns:
        The groups, the protected layers with reasons, and all layers with their areas. Every convolution and linear
        layer of the model either has channels in a group or is in `protected`.
    """
    shadow = _shadow(model)
    trace = follow(shadow, _known(shadow))
    modules = dict(shadow.named_modules())
    makers = {name for name, module in modules.items() if isinstance(module, LAYERS)}
    groups, ids = _groups(trace, makers, modules)
    fixed = _fixed_by_the_model(trace, groups, ids)
    native = _made(groups, fixed)
    parts = model_parts.of(model)
    _fix_what_was_asked(fixed, groups, protect, frozen, parts)
    for name, reason in (avoid or {}).items():
        around = trace.inside(name)
        for group in groups:
            if not around.isdisjoint(ids[group.name]):
                fixed.setdefault(group.name, reason)
    _spread(groups, fixed)
    free = {m.module for g in groups if g.name not in fixed for m in g.members if m.side == "out"}
    why = _made(groups, fixed)
    protected = {name: why.get(name, "not reached by the tracer") for name in modules if name in makers - free}
    made_by = {m.module: g.name for g in groups for m in g.members if m.side == "out" and m.module in makers}
    return ChannelGraph(
        tuple(group for group in groups if group.name not in fixed),
        protected,
        frozenset(name for name in protected if name in native or name not in why),
        _layers(trace, shadow),
        tuple(
            block
            for block in residual.find(trace, shadow, made_by)
            if not _holds(block.name, frozen)
            and not any(f"{block.name}.".startswith(f"{name}.") for name in avoid or {})
            and not _is_protected(block.name, makers, protect, parts)
        ),
        blocks.heads(shadow),
        {where: type(modules[where]).__name__ for where in trace.untaught if where in modules},
        dict(trace.untaught),
        parts,
    )


def _known(shadow: nn.Module) -> Known:
    """What graph/blocks.py knows of a model's blocks."""
    entries = {name: (block, blocks.entry_of(block)) for name, block in shadow.named_modules()}
    return Known(
        {block: entry.lesson for block, entry in entries.values() if entry.lesson is not None},
        tuple(blocks.vectors(shadow)),
        frozenset(name for name, (_, entry) in entries.items() if entry.set_sizes and not entry.own_forward),
        frozenset(name for name, (_, entry) in entries.items() if entry.uneven),
        frozenset(blocks.decoders(shadow)),
        f"model.{len(shadow.model) - 1}",  # type: ignore[arg-type]
        blocks.unlike_their_class(shadow),
    )


def _shadow(model: nn.Module) -> nn.Module:
    """A throw-away copy on the CPU for the tracer, with BatchNorm scales folded into the weights of `conv`.

    Folding makes magnitudes comparable: the split of a filter's size between convolution and BatchNorm is arbitrary.
    The BatchNorm itself stays, unchanged, for importances that read its scale.
    """
    shadow = copy_of(model).to(device="cpu", dtype=torch.float32).to(memory_format=torch.contiguous_format)
    for block in shadow.modules():
        conv, bn = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d) and bn.running_var is not None:
            if not is_layer(conv) or conv.out_channels != bn.num_features:
                continue
            scale = (1.0 if bn.weight is None else bn.weight.detach()) / torch.sqrt(bn.running_var + bn.eps)
            conv.weight.data.mul_(scale.view(-1, 1, 1, 1))
    return shadow


# From sets to groups -------------------------------------------------------------------------------------------------


def _groups(
    trace: Trace, makers: set[str], modules: Mapping[str, nn.Module]
) -> tuple[list[ChannelGroup], dict[str, Sequence[int]]]:
    """Every group in the model's order, fixed or not, and the ids of the channels of each."""
    alike, ties = equivalence.find(trace)
    groups: list[ChannelGroup] = []
    ids: dict[str, Sequence[int]] = {}
    for index, _, name, members in sorted(_named(alike, makers, list(modules)), key=lambda item: item[1]):
        own = alike[index].ids
        tie, times = ties.get(index, (None, 1))
        groups.append(ChannelGroup(name, len(own), members, tie, modules, times, trace.heads.get(own[0])))
        ids[name] = own
    return groups, ids


def _fixed_by_the_model(trace: Trace, groups: list[ChannelGroup], ids: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Group name -> why it stays whole by the model's nature."""
    fixed: dict[str, str] = {}
    for group in groups:
        reason = next((trace.fixed[i] for i in ids[group.name] if i in trace.fixed), None)
        if reason is None and all(member.side == "out" for member in group.members):
            reason = "nothing was seen to read it"
        if reason is not None:
            fixed[group.name] = reason
    _spread(groups, fixed)
    return fixed


def _fix_what_was_asked(
    fixed: dict[str, str],
    groups: list[ChannelGroup],
    protect: tuple[str, ...] | list[str],
    frozen: Collection[str],
    parts: model_parts.Parts,
) -> None:
    """Add the groups that a recipe protects, and those that frozen layers make."""
    for group in groups:
        made_by = [member.module for member in group.members if member.side == "out"]
        pattern = model_parts.first_match(made_by, protect, parts)
        if _makes(group.members, frozen):
            fixed.setdefault(group.name, FROZEN)
        elif pattern is not None:
            fixed.setdefault(group.name, f"{PROTECTED} ({pattern})")


def _made(groups: list[ChannelGroup], fixed: Mapping[str, str]) -> dict[str, str]:
    """Layer -> why its outputs stay, of the layers that make fixed groups."""
    return {m.module: fixed[g.name] for g in groups if g.name in fixed for m in g.members if m.side == "out"}


def _named(
    alike: list[IdSet], makers: set[str], order: list[str]
) -> list[tuple[int, tuple[int, int], str, tuple[Member, ...]]]:
    """(index of the set, sort key, name, members) of each set that a layer makes."""
    rank = {name: i for i, name in enumerate(order)}
    roots: dict[str, list[tuple[int, int]]] = defaultdict(list)  # layer -> (first position, index of the set)
    root_of: dict[int, str] = {}
    for index, one in enumerate(alike):
        made_by = [name for name, side in one.places if side == "out" and name in makers]
        if made_by:
            root = min(made_by, key=lambda name: rank[name])
            root_of[index] = root
            roots[root].append((min(position for _, position in one.places[root, "out"]), index))
    named = []
    for index, root in root_of.items():
        parts = sorted(roots[root])
        part = next(n for n, (_, other) in enumerate(parts, 1) if other == index)
        name = root if len(parts) == 1 else f"{root}[{part}/{len(parts)}]"
        named.append((index, (rank[root], part), name, _members(alike[index], root)))
    return named


def _members(one: IdSet, root: str) -> tuple[Member, ...]:
    """The layers of a set, that of its name first; channels are numbered by their position there."""
    number: dict[int, int] = {}
    for i, _ in sorted(one.places[root, "out"], key=lambda item: item[1]):
        number.setdefault(i, len(number))
    members = []
    for (module, side), where in sorted(one.places.items(), key=lambda item: item[0] != (root, "out")):
        positions = np.array([position for _, position in where])
        channels = np.array([number[i] for i, _ in where])
        order = np.argsort(positions)
        members.append(Member(module, side, positions[order], channels[order]))
    return tuple(members)


def _spread(groups: list[ChannelGroup], fixed: dict[str, str]) -> None:
    """Equal counts: where one of the tied groups stays whole, all do."""
    for group in groups:
        partners = [other.name for other in groups if group.tie and other.tie == group.tie and other.name in fixed]
        if partners:
            fixed.setdefault(group.name, f"tied to {partners[0]}: {fixed[partners[0]]}")


def _makes(members: tuple[Member, ...], names: Collection[str]) -> bool:
    return any(member.side == "out" and member.module in names for member in members)


def _holds(block: str, names: Collection[str]) -> bool:
    return any(name == block or name.startswith(f"{block}.") for name in names)


def _is_protected(block: str, makers: set[str], protect: Collection[str], parts: model_parts.Parts) -> bool:
    """Whether a recipe protects a layer of a block: then the block does not go whole either."""
    inside = [name for name in makers if name.startswith(f"{block}.")]
    return model_parts.first_match(inside, protect, parts) is not None


def _layers(trace: Trace, shadow: nn.Module) -> tuple[Layer, ...]:
    """Every layer, vectors of their own, and attention's products."""
    vectors = {name: shadow.get_parameter(name) for name in blocks.vectors(shadow)}
    side = image_shape.step(shadow)
    layers = []
    for name, m in shadow.named_modules():
        work = trace.area.get(name, [0.0, 0.0, 0.0])
        areas = _at(work, trace.sizes, IMAGE, 1), _at(work, trace.sizes, side, 1) * (IMAGE / side) ** 2
        if isinstance(m, nn.Linear):
            layers.append(Layer(name, "linear", m.out_features, m.in_features, 1, m.bias is not None, *areas))
        elif isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            deep = is_depthwise(m)
            kernel = m.kernel_size[0] * m.kernel_size[1] / (1 if deep else m.groups)
            kind: Literal["conv", "depthwise"] = "depthwise" if deep else "conv"
            layers.append(Layer(name, kind, m.out_channels, m.in_channels, kernel, m.bias is not None, *areas))
        elif isinstance(m, nn.BatchNorm2d):
            bias, scale = m.bias is not None, m.weight is not None
            layers.append(Layer(name, "norm", m.num_features, m.num_features, 0, bias, *areas, scale))
    layers += [Layer(n, "vector", len(p), len(p), 0, True, 0.0, 0.0) for n, p in vectors.items()]
    for name, (ids, work) in trace.products.items():
        areas = _at(work, trace.sizes, IMAGE, 2), _at(work, trace.sizes, side, 2) * (IMAGE / side) ** 2
        layers.append(Layer(name, "product", len(ids), len(ids), 0, False, *areas))
    return tuple(layers)


def _at(work: list[float], sizes: tuple[int, int, int], side: int, power: int) -> float:
    """What was seen at two sizes, at another one: a constant and a share of the pixels (of their square: power 2)."""
    small, _, large = work
    if sizes[2] == sizes[0]:  # the model takes one size alone
        return large * (side / sizes[2]) ** (2 * power)
    slope = (large - small) / (sizes[2] ** (2 * power) - sizes[0] ** (2 * power))
    return slope * side ** (2 * power) + small - slope * sizes[0] ** (2 * power)
