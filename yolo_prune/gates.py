# yolo-prune, AGPL-3.0 license
"""What single channels are worth, from the gradients of the training itself, at no extra pass.

Imagine a gate on every channel that multiplies it by 1. Where a convolution with weights W reads the channel c,

    d loss / d gate = sum over o, k of W[o, c, k] * d loss / d W[o, c, k]

so the gradients that the optimizer is about to use say how the loss would move, and no activation need be kept. From
the derivative g of each batch (the sum over all who read the channel):

    taylor      mean of |g|                    Molchanov et al., arXiv 1611.06440 and 1906.10771
    fisher      mean of g * g / 2              Theis et al., arXiv 1801.05787
    obdc        mean of sum of (W dW)^2 / 2    the diagonal of the Hessian, C-OBD of Wang et al., arXiv 1905.05934
    activation  mean of |x|, of what is read   Hu et al., arXiv 1607.03250, without its threshold

A channel's figures are one float each: memory grows with channels, not with weights. Gradients are read in a hook
before the optimizer's step (ultralytics 8.4.190, engine/trainer.py, `optimizer_step`): there they are accumulated,
unscaled (AMP), clipped and averaged over processes (DDP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.graph import ChannelGraph, ChannelGroup

KINDS = ("activation", "fisher", "obdc", "taylor")
_LEAST = 0.05  # of the typical weight: what seems to cost nothing is not for free
_EVERY = 4  # of so many forward passes, the activations of one are looked at


@dataclass(frozen=True)
class _Share:
    """What one layer has of a group: the channel `channels[i]` stands at `positions[i]` of the layer's `side`."""

    module: str
    side: str
    positions: torch.Tensor
    channels: torch.Tensor


class Gates:
    """The derivatives at the gates of a model's channels, accumulated over a training.

    Args:
        found: the groups. model: the stock model in training that they are of. kind: one of `KINDS`.
    """

    def __init__(self, found: ChannelGraph, model: nn.Module, kind: str) -> None:
        self.kind = kind
        self.seen: float = 0
        self._modules = dict(model.named_modules())
        self._shares = {group.name: _shares(group, self._modules) for group in found.groups}
        self._sums = {group.name: torch.zeros(group.size) for group in found.groups}
        self._handles: list[Any] = []
        self._passes = 0
        self._always = False

    def attach(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Look at every batch until `detach`.

        Args:
            optimizer: of the training; None where there is none: then activations are looked at in eval mode too.
        """
        self._always = optimizer is None
        if self.kind != "activation" and optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(lambda *_: self.look()))
            return
        readers: dict[str, list[str]] = {}
        for name, shares in self._shares.items():
            if shares and shares[0].side == "in":
                readers.setdefault(shares[0].module, []).append(name)
        for number, (module, names) in enumerate(readers.items()):
            self._handles.append(self._modules[module].register_forward_pre_hook(self._looking(names, number == 0)))

    def detach(self) -> None:
        """Look no more; what was seen is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def fade(self) -> None:
        """Count what was seen until now half: called at each epoch, so that the latest say most."""
        self.seen /= 2
        self._sums = {name: total / 2 for name, total in self._sums.items()}

    @torch.no_grad()
    def look(self) -> None:
        """Add what the gradients say that the parameters hold now."""
        products: dict[tuple[str, str], torch.Tensor] = {}
        for name, shares in self._shares.items():
            total = None
            for share in shares:
                key = (share.module, share.side)
                if key not in products:
                    products[key] = self._product(*key)
                part = _spread(products[key], share, len(self._sums[name]))
                total = part if total is None else total + part
            if total is not None:
                self._add(name, total if self.kind == "obdc" else total.abs() if self.kind == "taylor" else total**2)
        self.seen += 1

    def fits(self, found: ChannelGraph) -> bool:
        """Whether something was seen, and of these groups."""
        return self.seen > 0 and {g.name: g.size for g in found.groups} == {n: len(v) for n, v in self._sums.items()}

    def scores(self) -> dict[str, np.ndarray]:
        """Group name -> (size,) the mean over what was seen; in the unit of the loss for all but activations.

        Raises:
            ValueError: nothing was seen (a fault of the caller, who asks `seen` first).
        """
        if not self.seen:
            raise ValueError("no batch has been seen")
        half = 0.5 if self.kind in ("fisher", "obdc") else 1.0
        return {name: half / self.seen * total.double().cpu().numpy() for name, total in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """What was seen until now, of plain data and tensors on the CPU, for a checkpoint."""
        sums = {name: total.detach().cpu().clone() for name, total in self._sums.items()}
        return {"kind": self.kind, "seen": self.seen, "passes": self._passes, "sums": sums}

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave.

        Returns:
            Whether it is of this kind and of groups of these sizes; where not, nothing is taken over.
        """
        sums = state.get("sums", {})
        sizes = {name: total.shape for name, total in self._sums.items()}
        if state.get("kind") != self.kind or {name: total.shape for name, total in sums.items()} != sizes:
            return False
        self.seen, self._passes = state["seen"], state["passes"]
        self._sums = {name: sums[name].to(total.device, torch.float32) for name, total in self._sums.items()}
        return True

    def _add(self, name: str, value: torch.Tensor) -> None:
        value = torch.nan_to_num(value.float(), nan=0.0, posinf=0.0)
        self._sums[name] = self._sums[name].to(value.device) + value

    def _product(self, name: str, side: str) -> torch.Tensor:
        """(positions,) of one layer: its weights times their gradients, summed over all but its inputs."""
        module = self._modules[name]
        weight: torch.Tensor = module.weight
        if weight.grad is None:  # frozen
            return torch.zeros(weight.shape[0 if side == "out" else _axis(module)], device=weight.device)
        product = weight.detach().float() * weight.grad.float()
        if side == "out":  # a norm: what follows is scaled by its scale and its shift together
            bias: torch.Tensor = module.bias
            other = bias.detach().float() * bias.grad.float() if bias.grad is not None else torch.zeros_like(product)
            return product**2 + other**2 if self.kind == "obdc" else product + other
        product = product**2 if self.kind == "obdc" else product
        return product.transpose(0, _axis(module)).flatten(1).sum(1)

    def _looking(self, names: list[str], first: bool) -> Any:
        """A hook that adds the mean size of what a layer reads to some groups."""

        @torch.no_grad()
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if not module.training and not self._always:
                return  # a validation
            if first:
                self._passes += 1
                self.seen += self._passes % _EVERY == 1
            if self._passes % _EVERY == 1:
                x = inputs[0].detach().float().abs()
                means = (
                    x.mean((0, 2, 3))
                    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
                    else x.flatten(0, -2).mean(0)
                )
                for name in names:
                    self._add(name, _spread(means, self._shares[name][0], len(self._sums[name])))

        return hook


def weights(worth: Mapping[str, np.ndarray], found: ChannelGraph) -> dict[str, float]:
    """How much the model suffers from a loss in each group, 1 for a typical one (units.Unit.weight).

    Scores are compared within a group; what they add up to, over groups that are decided together, compares the groups.

    Args:
        worth: group name -> (size,) as of `Gates.scores`. found: the groups.
    """
    units = {group.name: group.tie or group.name for group in found.groups}
    totals = dict.fromkeys(units.values(), 0.0)
    for name, unit in units.items():
        totals[unit] += float(worth[name].sum())
    typical = float(np.median(list(totals.values()))) if totals else 0.0
    return {name: max(totals[unit] / typical, _LEAST) if typical > 0 else 1.0 for name, unit in units.items()}


def _spread(values: torch.Tensor, share: _Share, size: int) -> torch.Tensor:
    """(size,) of a group from (positions,) of a layer: several positions of one channel add up."""
    found = torch.zeros(size, device=values.device, dtype=values.dtype)
    return found.index_add_(0, share.channels.to(values.device), values[share.positions.to(values.device)])


def _axis(module: nn.Module) -> int:
    """Which dimension of a layer's weight its inputs are."""
    return 0 if isinstance(module, nn.ConvTranspose2d) else 1


def _shares(group: ChannelGroup, modules: dict[str, nn.Module]) -> list[_Share]:
    """Where the gates of a group are: at all who read it, or at its norms where products alone read it."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    found = [
        _Share(member.module, member.side, torch.as_tensor(member.positions), torch.as_tensor(member.channels))
        for member in group.members
    ]
    readers = [s for s in found if s.side == "in" and isinstance(modules.get(s.module), kinds)]
    return readers or [s for s in found if s.side == "out" and isinstance(modules.get(s.module), nn.BatchNorm2d)]
