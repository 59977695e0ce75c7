# yolo-prune, AGPL-3.0 license
"""A PrunePlan applied to a model: rows, columns and vector entries of its tensors are kept or dropped, nothing else.

The model keeps its classes, dtypes, devices, memory formats and `requires_grad` flags. Every replaced parameter is
reported with the indices that were kept, so that optimizer state can follow (continuity.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from yolo_prune import blocks
from yolo_prune.allocate import PrunePlan
from yolo_prune.graph import ChannelGraph


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
    """An old parameter, the new one that stands in its place, and what was kept."""

    old: nn.Parameter
    new: nn.Parameter
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
    """
    keep = kept_positions(graph, plan)
    replaced: list[Replaced] = []
    for name, (rows, columns) in keep.items():
        module = model.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            replaced += cut_conv(module, rows, columns)
        elif isinstance(module, nn.BatchNorm2d):
            replaced += _cut_batchnorm(module, rows)
        else:
            raise ValueError(f"{name} is a {type(module).__name__}, which surgery does not know")
    blocks.settle(model)
    return replaced


def kept_positions(graph: ChannelGraph, plan: PrunePlan) -> dict[str, tuple[np.ndarray | None, np.ndarray | None]]:
    """For every layer that changes: the sorted positions kept along its outputs and its inputs (None: all)."""
    removed: dict[tuple[str, str], list[np.ndarray]] = {}
    counts: dict[str, set[int]] = {}
    sizes = {(layer.name, side): n for layer in graph.layers for side, n in (("out", layer.out), ("in", layer.inp))}
    sizes |= {(layer.bn, "out"): layer.out for layer in graph.layers if layer.bn}
    for group in graph.groups:
        kept = plan.keep.get(group.name)
        count = group.size if kept is None else len(kept)
        if group.tie:
            counts.setdefault(group.tie, set()).add(count)
        if kept is None or count == group.size:
            continue
        dropped = np.ones(group.size, dtype=bool)
        dropped[np.asarray(kept, dtype=np.int64)] = False
        for member in group.members:
            removed.setdefault((member.module, member.side), []).append(member.positions[dropped[member.channels]])
    for tie, found in counts.items():
        if len(found) > 1:
            raise ValueError(f"{tie} needs equal counts in its tied groups, the plan has {sorted(found)}")
    keep: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = {}
    for (module, side), positions in removed.items():
        left = np.setdiff1d(np.arange(sizes[module, side]), np.concatenate(positions))
        if not len(left):
            raise ValueError(f"the plan leaves {module} without {side}put channels")
        out, inp = keep.get(module, (None, None))
        keep[module] = (left, inp) if side == "out" else (out, left)
    return keep


def cut_conv(conv: nn.Conv2d, rows: np.ndarray | None, columns: np.ndarray | None) -> list[Replaced]:
    """Keep some outputs (`rows`) and inputs (`columns`) of a convolution, None keeping all; what was replaced."""
    if conv.groups != 1:
        raise ValueError("grouped convolutions are not cut by this version")
    kept = Kept(_index(rows), _index(columns))
    replaced = [_replace(conv, "weight", kept)]
    if conv.bias is not None and rows is not None:
        replaced.append(_replace(conv, "bias", Kept(kept.rows)))
    conv.out_channels, conv.in_channels = conv.weight.shape[0], conv.weight.shape[1]
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
