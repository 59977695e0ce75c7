# yolo-prune, AGPL-3.0 license
"""Sparse training before the cut: a penalty that drives channels to zero which the task can do without.

    bn       L1 on the scales of BatchNorm: network slimming, Liu et al., arXiv 1708.06519
    group    group lasso over all weights of a channel, in every layer that is cut with it: DepGraph, Fang et al., arXiv
             2301.12900, and with its weighting: the least of a group are pressed up to 16 times as much as the most
    growing  L2 on the channels that the next step will take, growing from nothing until it does: growing
             regularisation, Wang et al., arXiv 2012.09243

The penalty acts on the weights after each step (a proximal step; Parikh and Boyd, "Proximal Algorithms", 2014), not
through the gradient: adaptive optimizers would divide it by the size of the gradient, and gradient clipping and AMP
would see it. Per step, at a learning rate r,

    a typical channel shrinks by the share  r * strength     (bn, group: by an amount, so that small ones reach 0)
    a doomed one, at the time t from 0 to 1, r * strength * t (growing)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.graph import ChannelGraph, ChannelGroup

KINDS = ("bn", "group", "growing")
STRENGTHS = {"bn": 0.5, "group": 0.5, "growing": 20.0}  # defaults; benchmarks/README.md has what they come to
_ALPHA = 4.0  # DepGraph: the least important channel of a group is pressed 2 ** 4 times as much as the most important
_DEAD = 0.01  # of a typical channel: what is smaller counts as gone in what is told


@dataclass(frozen=True)
class _Slice:
    """Where a group's channels stand in one tensor: `channels[i]` at `positions[i]` of dimension `axis`."""

    tensor: nn.Parameter
    axis: int
    positions: torch.Tensor
    channels: torch.Tensor


class Pressure:
    """Presses on the channels of a model in training.

    Args:
        found: its groups. model: the stock model in training. kind: one of `KINDS`. strength: see above.
        doomed: of growing, group name -> (size,) True where the next step will take the channel.
    """

    def __init__(
        self,
        found: ChannelGraph,
        model: nn.Module,
        kind: str,
        strength: float | None = None,
        doomed: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.kind, self.strength = kind, STRENGTHS[kind] if strength is None else strength
        self.time = 0.0
        modules = dict(model.named_modules())
        self._slices = {group.name: _slices(group, modules, kind == "bn") for group in found.groups}
        self._sizes = {group.name: group.size for group in found.groups}
        self._doomed = {name: torch.as_tensor(np.asarray(gone)) for name, gone in (doomed or {}).items()}
        # A typical channel, as it is now: what is pressed by must not fade with what is pressed.
        self._typical = {name: float(self._norms(name).median()) for name, slices in self._slices.items() if slices}

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: the penalty does not go through gradients."""

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Shrink channels by this step's share."""
        rate = self.strength * float(max(group["lr"] for group in optimizer.param_groups))
        for name, typical in self._typical.items():
            if self.kind == "growing":
                gone = self._doomed.get(name)
                if gone is None or not gone.any():
                    continue
                factor = torch.where(gone, 1 - min(rate * self.time, 1.0), 1.0)
            else:
                norms = self._norms(name)
                weight = _weighting(norms) if self.kind == "group" else 1.0
                factor = (1 - rate * typical * weight / norms.clamp_min(1e-12)).clamp_min(0)
            self._scale(name, factor)

    @torch.no_grad()
    def told(self) -> str:
        """What the penalty has come to, in a few words for the log."""
        sizes = {name: self._norms(name) / max(typical, 1e-12) for name, typical in self._typical.items()}
        if self.kind == "growing":
            sizes = {name: size[self._doomed[name]] for name, size in sizes.items() if name in self._doomed}
        every = torch.cat(list(sizes.values())) if sizes else torch.zeros(0)
        if not len(every):
            return f"sparse={self.kind}: no channel is pressed yet"
        whose = "of the channels that the next step will take, the" if self.kind == "growing" else "the"
        return (
            f"sparse={self.kind}, strength {self.strength:g}: {whose} median is {float(every.median()):.2f} of a "
            f"typical one at the start, {float((every < _DEAD).float().mean()):.1%} are below {_DEAD:g}"
        )

    def state(self) -> dict[str, Any]:
        """What it presses towards, of plain data and tensors on the CPU, for a checkpoint."""
        doomed = {name: gone.clone() for name, gone in self._doomed.items()}
        return {"kind": self.kind, "time": self.time, "typical": dict(self._typical), "doomed": doomed}

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave: by the typical channel of then, on the channels that were doomed then.

        Returns:
            Whether it is of this kind and of these groups; where not, nothing is taken over.
        """
        typical, doomed = state.get("typical", {}), state.get("doomed", {})
        fits = state.get("kind") == self.kind and set(typical) == set(self._typical)
        if not fits or any(len(gone) != self._sizes.get(name) for name, gone in doomed.items()):
            return False
        self.time, self._typical = float(state["time"]), {name: float(value) for name, value in typical.items()}
        self._doomed = {name: gone.bool().clone() for name, gone in doomed.items()}
        return True

    def _norms(self, name: str) -> torch.Tensor:
        """(size,) root mean square of what belongs to each channel."""
        total, numbers = torch.zeros(self._sizes[name]), torch.zeros(self._sizes[name])
        for one in self._slices[name]:
            rows = one.tensor.detach().float().movedim(one.axis, 0).flatten().view(one.tensor.shape[one.axis], -1)
            squares = rows.square().sum(1).index_select(0, one.positions.to(rows.device)).cpu()
            total.index_add_(0, one.channels, squares)
            numbers.index_add_(0, one.channels, torch.full_like(squares, rows.shape[1]))
        return (total / numbers.clamp_min(1)).sqrt()

    def _scale(self, name: str, factor: torch.Tensor) -> None:
        for one in self._slices[name]:
            whole = torch.ones(one.tensor.shape[one.axis])
            whole[one.positions] = factor[one.channels]
            shape = [1] * one.tensor.ndim
            shape[one.axis] = -1
            one.tensor.mul_(whole.to(one.tensor.device, one.tensor.dtype).view(shape))


def _weighting(norms: torch.Tensor) -> torch.Tensor:
    """(size,) from 1 for the most important channel of a group to 2 ** _ALPHA for the least."""
    most, least = norms.max(), norms.min()
    return 2 ** (_ALPHA * (most - norms) / (most - least).clamp_min(1e-12))


def _slices(group: ChannelGroup, modules: Mapping[str, nn.Module], norms_only: bool) -> list[_Slice]:
    """The tensors that hold a group's channels; of BatchNorm the scale, which alone says how large a channel is."""
    found = []
    for member in group.members:
        module: Any = modules.get(member.module)
        is_norm = isinstance(module, nn.BatchNorm2d)
        if member.side == "work" or not (is_norm or isinstance(module, _weighted())) or (norms_only and not is_norm):
            continue
        if not isinstance(module.weight, nn.Parameter) or not module.weight.requires_grad:
            continue
        axis = 0 if is_norm or (member.side == "out") != isinstance(module, nn.ConvTranspose2d) else 1
        if module.weight.shape[axis] <= int(np.max(member.positions)):
            continue  # depthwise: its inputs are its outputs
        positions, channels = torch.as_tensor(member.positions), torch.as_tensor(member.channels)
        found.append(_Slice(module.weight, axis, positions, channels))
    return found


def _weighted() -> tuple[type[nn.Module], ...]:
    return (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def doomed(found: ChannelGraph, keep: Mapping[str, Collection[int]]) -> dict[str, np.ndarray]:
    """Group name -> (size,) True for the channels that a plan takes.

    Args:
        found: the groups. keep: of the plan, group name -> the channels that stay; a group that is not named stays.
    """
    gone = {}
    for group in found.groups:
        if group.name in keep:
            gone[group.name] = ~np.isin(np.arange(group.size), list(keep[group.name]))
    return gone
