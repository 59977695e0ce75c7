# yolo-prune, AGPL-3.0 license
"""A PrunePlan applied to a model: rows, columns and vector entries of its tensors are kept or dropped, nothing else.

The model keeps its classes, dtypes, devices, memory formats and `requires_grad` flags. Every replaced parameter is
reported with the indices that were kept, so that optimizer state can follow (training/optimizer_state.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import LayerError, first_line
from yolo_prune.graph import blocks
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.convolutions import inputs_first, is_depthwise


@dataclass(frozen=True)
class Kept:
    """What is kept of one tensor: positions along dimension 0 and 1, None where the whole dimension stays."""

    rows: torch.Tensor | None
    columns: torch.Tensor | None = None

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The kept part of a tensor of the old shape, in its memory format."""
        new = tensor.detach()
        if self.rows is not None:
            new = new.index_select(0, self.rows.to(new.device))
        if self.columns is not None:
            new = new.index_select(1, self.columns.to(new.device))
        if new.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
            return new.contiguous(memory_format=torch.channels_last)
        return new.contiguous()


@dataclass(frozen=True)
class Replaced:
    """An old parameter, the new one that stands in its place (None: it is gone with its block), and what was kept."""

    old: nn.Parameter
    new: nn.Parameter | None
    kept: Kept


def apply(model: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> list[Replaced]:
    """Cut a stock model in place.

    Args:
        model: the model that `graph` was built of, or one of the same architecture (its EMA).
        graph: the channel groups.
        plan: which channels of each group stay.

    Returns:
        Every parameter that was replaced; empty for an empty plan.

    Raises:
        ValueError: the plan empties a layer or the halves of a tied block differ (a fault of the caller).
        LayerError: a layer cannot be cut; the model is then half cut.
    """
    keep = kept_positions(graph, plan)
    replaced = _remove_blocks(model, graph, plan)
    modules = dict(model.named_modules())
    keep = {name: kept for name, kept in keep.items() if name in modules or name.rpartition(".")[0] in modules}
    for attention, dropped in plan.heads.items():
        if attention in modules:
            blocks.remove_heads(modules[attention], len(dropped))
    for name, (rows, columns) in keep.items():
        try:
            replaced += _cut(modules, name, rows, columns)
        except Exception as error:  # torch has many for a weight that is no parameter of its own (weight_norm, masks)
            raise LayerError(name, first_line(error)) from error
    blocks.set_sizes(model, {name: rows for name, (rows, _) in keep.items() if rows is not None})
    return replaced


def _cut(
    modules: Mapping[str, nn.Module], name: str, rows: np.ndarray | None, columns: np.ndarray | None
) -> list[Replaced]:
    module = modules.get(name)
    if module is None:  # a parameter that is a vector of its own
        block, _, vector = name.rpartition(".")
        return [_replace(modules[block], vector, Kept(_index(rows)))]
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return cut_conv(module, rows, columns)
    if isinstance(module, nn.Linear):
        return _cut_linear(module, rows, columns)
    if isinstance(module, nn.BatchNorm2d):
        return _cut_batchnorm(module, rows)
    raise ValueError(f"{name} is a {type(module).__name__}, which surgery does not know")


def _remove_blocks(model: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> list[Replaced]:
    """Take whole blocks out, the last first; who read a block's output reads its input twice, so its weights add up."""
    replaced = []
    for block in reversed([block for block in graph.blocks if block.name in plan.blocks]):
        if block.consumer:
            weight = model.get_parameter(f"{block.consumer}.weight")
            weight.data[:, block.before] += weight.data[:, block.own]
        replaced += [Replaced(old, None, Kept(None)) for old in model.get_submodule(block.name).parameters()]
        blocks.remove(model, block.name)
    return replaced


def kept_positions(graph: ChannelGraph, plan: PrunePlan) -> dict[str, tuple[np.ndarray | None, np.ndarray | None]]:
    """For every layer that changes: the sorted positions kept along its outputs and its inputs (None: all)."""
    _check_ties(graph, plan)
    removed: dict[tuple[str, str], list[np.ndarray]] = {}
    sizes = {(layer.name, side): n for layer in graph.layers for side, n in (("out", layer.out), ("in", layer.inp))}
    for block in graph.blocks:
        if block.name in plan.blocks and block.consumer:
            removed.setdefault((block.consumer, "in"), []).append(block.own)
    for group in graph.groups:
        kept = plan.keep.get(group.name)
        if kept is None or len(kept) == group.size:
            continue
        dropped = np.ones(group.size, dtype=bool)
        dropped[np.asarray(kept, dtype=np.int64)] = False
        for member in group.members:
            if member.side == "work":
                continue
            removed.setdefault((member.module, member.side), []).append(member.positions[dropped[member.channels]])
    keep: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = {}
    for (module, side), positions in removed.items():
        left = np.setdiff1d(np.arange(sizes[module, side]), np.concatenate(positions))
        if not len(left):
            raise ValueError(f"the plan leaves {module} without {side}put channels")
        out, inp = keep.get(module, (None, None))
        keep[module] = (left, inp) if side == "out" else (out, left)
    return keep


def _check_ties(graph: ChannelGraph, plan: PrunePlan) -> None:
    """Raise ValueError unless tied groups keep one count, each `times` it, and removed heads nothing."""
    counts: dict[str, set[float]] = {}
    for group in graph.groups:
        count = len(plan.keep.get(group.name, range(group.size)))
        if group.head is not None and group.head.number in plan.heads.get(group.head.attention, ()):
            if count:
                raise ValueError(f"{group.name} belongs to a head that the plan removes, and keeps {count} channels")
        elif group.tie:
            gone = 0.0 if group.head is not None else gone_share(graph, plan, group.tie)
            counts.setdefault(group.tie, set()).add(round(count / group.times / (1 - gone), 6))
    for tie, counts_of_tie in counts.items():
        if len(counts_of_tie) > 1:
            raise ValueError(f"{tie} needs equal counts in its tied groups, the plan has {sorted(counts_of_tie)}")


def gone_share(graph: ChannelGraph, plan: PrunePlan, tie: str) -> float:
    """The share of its heads that a plan removes of the attentions that a tie belongs to, one share for all of them.

    Raises:
        ValueError: the attentions lose unequal shares.
    """
    attentions = {group.head.attention for group in graph.groups if group.tie == tie and group.head is not None}
    shares = {len(plan.heads.get(name, ())) / graph.heads[name] for name in attentions}
    if len(shares) > 1:
        raise ValueError(f"{tie} needs the same share of heads removed from {', '.join(sorted(attentions))}")
    return shares.pop() if shares else 0.0


def cut_conv(
    conv: nn.Conv2d | nn.ConvTranspose2d, rows: np.ndarray | None, columns: np.ndarray | None
) -> list[Replaced]:
    """Keep some outputs (`rows`) and inputs (`columns`) of a convolution, None keeping all; what was replaced.

    A depthwise convolution has one filter a channel: its rows are its inputs too.

    Raises:
        ValueError: a convolution of several groups that is not depthwise (the tracer protects those).
    """
    deep = is_depthwise(conv)
    if conv.groups != 1 and (not deep or columns is not None):
        raise ValueError("grouped convolutions that are not depthwise are not cut")
    out, inp = _index(rows), _index(columns)
    replaced = [_replace(conv, "weight", Kept(inp, out) if inputs_first(conv) else Kept(out, inp))]
    if conv.bias is not None and rows is not None:
        replaced.append(_replace(conv, "bias", Kept(out)))
    if rows is not None:
        conv.out_channels = len(rows)
        if deep:
            conv.in_channels = conv.groups = len(rows)
    if columns is not None:
        conv.in_channels = len(columns)
    return replaced


def _cut_linear(linear: nn.Linear, rows: np.ndarray | None, columns: np.ndarray | None) -> list[Replaced]:
    replaced = [_replace(linear, "weight", Kept(_index(rows), _index(columns)))]
    if linear.bias is not None and rows is not None:
        replaced.append(_replace(linear, "bias", Kept(_index(rows))))
    linear.out_features, linear.in_features = linear.weight.shape
    return replaced


def _cut_batchnorm(bn: nn.BatchNorm2d, rows: np.ndarray | None) -> list[Replaced]:
    kept = Kept(_index(rows))
    for name in ("running_mean", "running_var"):
        buffer = getattr(bn, name)
        if buffer is not None:
            setattr(bn, name, kept.of(buffer))
    replaced = [_replace(bn, name, kept) for name in ("weight", "bias") if getattr(bn, name) is not None]
    if rows is not None:
        bn.num_features = len(rows)
    return replaced


def _replace(module: nn.Module, name: str, kept: Kept) -> Replaced:
    # A new Parameter rather than new .data: autograd keeps the old shape in the node that accumulates gradients.
    old = getattr(module, name)
    new = nn.Parameter(kept.of(old), requires_grad=old.requires_grad)
    if old.grad is not None:
        new.grad = kept.of(old.grad)
    setattr(module, name, new)
    return Replaced(old, new, kept)


def _index(positions: np.ndarray | None) -> torch.Tensor | None:
    return None if positions is None else torch.as_tensor(positions, dtype=torch.long)
