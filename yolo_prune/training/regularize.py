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

where r is the rate of the parameter group that the tensor is in. Groups differ: the host's warm-up drives that of the
biases from `warmup_bias_lr` (0.1) down, while those of the weights come from 0 (ultralytics 8.4.190, engine/trainer.py,
`_do_train`), and its MuSGD has a group at three times the rate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.channel_vector import LayerChannels, LayerPositions, VectorLayout, along
from yolo_prune.graph.convolutions import inputs_first

_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
STRENGTHS = {"bn": 0.5, "group": 0.5, "growing": 20.0}  # defaults, chosen by hand, not measured
_ALPHA = 4.0  # DepGraph: the least important channel of a group is pressed 2 ** 4 times as much as the most important
_MOST = 0.1  # of a typical channel, is what one step takes at most, however high the rate: gradients are to have a say
_DEAD = 0.01  # of a typical channel: what is smaller counts as gone in what is told


@dataclass(frozen=True)
class _Pressed:
    """A tensor that holds channels along a dimension."""

    tensor: nn.Parameter
    axis: int

    def squares(self) -> torch.Tensor:
        """(length of that dimension,) sums of squares."""
        return along(self.tensor.detach().float().square(), self.axis)

    def scale(self, factors: torch.Tensor) -> None:
        """Multiply by (length of that dimension,)."""
        shape = [1] * self.tensor.ndim
        shape[self.axis] = -1
        self.tensor.mul_(factors.to(self.tensor.dtype).view(shape))


class Pressure:
    """Presses on the channels of a model in training.

    Args:
        graph: its groups. model: the stock model in training. kind: of `STRENGTHS`. strength: see above.
        doomed: of growing, group name -> (size,) True where the next step will take the channel.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        kind: str,
        strength: float | None = None,
        doomed: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.kind, self.strength = kind, STRENGTHS[kind] if strength is None else strength
        self.time = 0.0
        self._layout = VectorLayout({group.name: group.size for group in graph.groups})
        held = _holders(graph, model, kind == "bn")
        self._pressed, shares = [one for one, _ in held], [some for _, some in held]
        lengths = [one.tensor.shape[one.axis] for one in self._pressed]
        self._places = LayerPositions(self._layout, lengths, shares)
        device = self._pressed[0].tensor.device if self._pressed else torch.device("cpu")
        self._owners = self._layout.owners().to(device)
        weights = [float(one.tensor.numel() // n) for one, n in zip(self._pressed, lengths, strict=True)]
        numbers = [torch.full((n,), w, device=device) for n, w in zip(lengths, weights, strict=True)]
        self._numbers = self._places.collect(numbers).to(device).clamp_min(1)  # weights of each channel
        # A typical channel, as it is now: what is pressed by must not fade with what is pressed.
        norms, named = self._layout.split(self._norms().cpu()), {share.group for some in shares for share in some}
        self._take({name: float(norms[name].median()) for name in self._layout.sizes if name in named}, doomed or {})

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: the penalty does not go through gradients."""

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Shrink channels by this step's share, what is in each tensor at the rate of the tensor's parameter group."""
        rates = {id(tensor): float(group["lr"]) for group in optimizer.param_groups for tensor in group["params"]}
        mine = [rates.get(id(one.tensor), 0.0) for one in self._pressed]  # what no group has is not trained
        strength = self.strength * (self.time if self.kind == "growing" else 1.0)
        norms = self._norms()
        for rate in {rate for rate in mine if rate * strength > 0}:
            factors = self._places.spread(self._factor(rate * strength, norms), 1.0)
            for one, its_rate, factor in zip(self._pressed, mine, factors, strict=True):
                if its_rate == rate:
                    one.scale(factor)

    def _factor(self, share: float, norms: torch.Tensor) -> torch.Tensor:
        """(channels of all groups,) what they are multiplied by, where a typical one is to lose this share."""
        if self.kind == "growing":
            return torch.where(self._gone, 1 - min(share, _MOST), 1.0)
        weight = (
            _weighting(norms, self._owners, len(self._layout.sizes)) if self.kind == "group" else torch.ones_like(norms)
        )
        amount = (share * weight).clamp_max(_MOST) * self._reference
        return (1 - amount / norms.clamp_min(1e-12)).clamp_min(0)

    @torch.no_grad()
    def summary(self) -> str:
        """What the penalty has come to, in a few words for the log."""
        norms = self._layout.split(self._norms().cpu())
        sizes = {name: norms[name] / max(typical, 1e-12) for name, typical in self._typical.items()}
        if self.kind == "growing":
            sizes = {name: size[self._doomed[name]] for name, size in sizes.items() if name in self._doomed}
        every = torch.cat(list(sizes.values())) if sizes else torch.zeros(0)
        if not len(every):
            return f"regularize={self.kind}: no channel is pressed yet"
        whose = "of the channels that the next step will take, the" if self.kind == "growing" else "the"
        return (
            f"regularize={self.kind}, strength {self.strength:g}: {whose} median is {float(every.median()):.2f} of a "
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
        if not fits or any(len(gone) != self._layout.sizes.get(name) for name, gone in doomed.items()):
            return False
        self.time = float(state["time"])
        self._take({name: float(value) for name, value in typical.items()}, doomed)
        return True

    def _take(self, typical: dict[str, float], doomed: Mapping[str, np.ndarray | torch.Tensor]) -> None:
        """Press by these typical channels, on these doomed ones."""
        device = self._owners.device
        self._typical = typical
        self._doomed = {name: torch.as_tensor(np.asarray(gone), dtype=torch.bool) for name, gone in doomed.items()}
        reference = torch.tensor([typical.get(name, 0.0) for name in self._layout.sizes])
        self._reference = reference.to(device)[self._owners]
        nothing = {name: torch.zeros(size, dtype=torch.bool) for name, size in self._layout.sizes.items()}
        gone = [self._doomed.get(name, none) for name, none in nothing.items()]
        self._gone = torch.cat([torch.zeros(0, dtype=torch.bool), *gone]).to(device)

    def _norms(self) -> torch.Tensor:
        """(channels of all groups,) root mean square of what belongs to each."""
        total = self._places.collect([one.squares() for one in self._pressed])
        return (total / self._numbers).sqrt()


def _weighting(norms: torch.Tensor, owners: torch.Tensor, groups: int) -> torch.Tensor:
    """(channels of all groups,) from 1 for the most important of a group to 2 ** _ALPHA for the least."""
    most, least = (
        torch.zeros(groups, device=norms.device).scatter_reduce(0, owners, norms, how, include_self=False)[owners]
        for how in ("amax", "amin")
    )
    return 2 ** (_ALPHA * (most - norms) / (most - least).clamp_min(1e-12))


def _holders(graph: ChannelGraph, model: nn.Module, norms_only: bool) -> list[tuple[_Pressed, list[LayerChannels]]]:
    """The tensors that hold channels, and which; of BatchNorm the scale, which alone says how large a channel is."""
    modules = dict(model.named_modules())
    held: dict[tuple[int, int], tuple[_Pressed, list[LayerChannels]]] = {}
    for group in graph.groups:
        for member in group.members:
            module: Any = modules.get(member.module)
            is_norm = isinstance(module, nn.BatchNorm2d)
            if member.side == "work" or not (is_norm or isinstance(module, _WEIGHTED)) or (norms_only and not is_norm):
                continue
            if not isinstance(module.weight, nn.Parameter) or not module.weight.requires_grad:
                continue
            axis = 0 if is_norm or (member.side == "out") != inputs_first(module) else 1
            if module.weight.shape[axis] <= int(np.max(member.positions)):
                continue  # depthwise: its inputs are its outputs
            share = LayerChannels(group.name, member.positions, member.channels)
            held.setdefault((id(module.weight), axis), (_Pressed(module.weight, axis), []))[1].append(share)
    return list(held.values())


def doomed(graph: ChannelGraph, keep: Mapping[str, Collection[int]]) -> dict[str, np.ndarray]:
    """Group name -> (size,) True for the channels that a plan takes.

    Args:
        graph: the groups. keep: of the plan, group name -> the channels that stay; a group that is not named stays.
    """
    gone = {}
    for group in graph.groups:
        if group.name in keep:
            gone[group.name] = ~np.isin(np.arange(group.size), list(keep[group.name]))
    return gone
