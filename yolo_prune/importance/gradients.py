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
unscaled (AMP), clipped and averaged over processes (DDP). A step that AMP is about to skip does not count.

Where a reader is frozen its weights have no gradient, and what it says of a channel is not 0 but nothing. Then the
norms of those who make the channel say it, scale and shift together; where these are frozen too, there is no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.graph.channel_groups import ChannelGraph, ChannelGroup
from yolo_prune.graph.channel_vector import LayerChannels, LayerPositions, VectorLayout, along
from yolo_prune.graph.convolutions import inputs_first
from yolo_prune.graph.model_state import given
from yolo_prune.host.memory import precise

GRADIENT_IMPORTANCES = ("activation", "fisher", "obdc", "taylor")
_LEAST_WEIGHT = 0.05  # of the typical weight: what seems to cost nothing is not for free
_PASSES_PER_LOOK = 4  # of so many forward passes, the activations of one are looked at
_LOOKS_PER_EPOCH = 64  # are enough: where an epoch has more steps, some are passed over

Source = tuple[str, str]  # a layer, and its side


@dataclass(frozen=True)
class _Live:
    """What has gradients at a look: which layers to ask, where their values go, and which groups they speak of."""

    key: tuple[bool, ...]
    sources: list[Source]
    places: LayerPositions
    groups: torch.Tensor  # (groups + 1,) 1 where a group is spoken of; the last is 1


class Gates:
    """The derivatives at the gates of a model's channels, accumulated over a training.

    Args:
        graph: the groups. model: the stock model in training that they are of.
        kind: one of `GRADIENT_IMPORTANCES`.
        steps: of the optimizer in an epoch; where these are many, some of them are looked at. 0 looks at each.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module, kind: str, steps: int = 0) -> None:
        self.kind = kind
        self._modules = dict(model.named_modules())
        self._layout = VectorLayout({group.name: group.size for group in graph.groups})
        self._readers = {group.name: _shares(group, self._modules, "in") for group in graph.groups}
        self._norms = {group.name: _shares(group, self._modules, "out") for group in graph.groups}
        shares = (*self._readers.values(), *self._norms.values())
        self._candidates = sorted({source for some in shares for source in some})
        self._live: _Live | None = None
        self._sums = torch.zeros(self._layout.size)
        self._counts = torch.zeros(len(self._layout.sizes) + 1)  # looks of each group; the last is all looks
        self._handles: list[Any] = []
        self._every = max(1, steps // _LOOKS_PER_EPOCH)
        self._steps = self._passes = 0
        self._always = False

    @property
    def seen(self) -> float:
        """Looks until now, the earlier ones for less (see `fade`)."""
        return float(self._counts[-1])

    def attach(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Look at batches until `detach`.

        Args:
            optimizer: of the training; None where there is none: then activations are looked at in eval mode too.
        """
        self._always = optimizer is None
        if self.kind != "activation" and optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._before_a_step))
            return
        readers: dict[str, list[LayerChannels]] = {}
        for shares in self._readers.values():
            for (module, _), share in list(shares.items())[:1]:  # all who read a channel read the same
                readers.setdefault(module, []).append(share)
        for number, (module, some) in enumerate(readers.items()):
            hook = self._looking(self._modules[module], some, number == 0)
            self._handles.append(self._modules[module].register_forward_pre_hook(hook, with_kwargs=True))

    def detach(self) -> None:
        """Look no more; what was seen is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def fade(self) -> None:
        """Count what was seen until now half: called at each epoch, so that the latest say most."""
        self._counts /= 2
        self._sums /= 2

    @torch.no_grad()
    def look(self, skipped: torch.Tensor | None = None) -> None:
        """Add what the gradients say that the parameters hold now; nothing where they hold an inf or NaN.

        Args:
            skipped: not 0 where the step that these gradients are for is not taken; it stays on its device.
        """
        live = self._now()
        if not live.sources:
            return
        total = live.places.collect([self._product(*source) for source in live.sources])
        value = total if self.kind == "obdc" else total.abs() if self.kind == "taylor" else total**2
        fine = value.isfinite().all()
        if skipped is not None:
            fine = fine & (skipped == 0).all().to(fine.device)
        self._follow(value.device)
        self._sums += torch.where(fine, value, torch.zeros_like(value))
        self._counts += live.groups.to(value.device) * fine

    def fits(self, graph: ChannelGraph) -> bool:
        """Whether something was seen, and of these groups.

        Not where a block was found at fault since: what led to a cut that failed is not asked again.
        """
        return self.seen > 0 and {g.name: g.size for g in graph.groups} == self._layout.sizes

    def scores(self) -> dict[str, np.ndarray]:
        """Group name -> (size,) the mean over what was seen; in the unit of the loss for all but activations.

        A group that nothing was seen of, because all who could say something are frozen, is not among them.

        Raises:
            ValueError: nothing was seen (a fault of the caller, who asks `seen` first).
        """
        if not self.seen:
            raise ValueError("no batch has been seen")
        half = 0.5 if self.kind in ("fisher", "obdc") else 1.0
        sums, counts = self._layout.split(precise(self._sums).cpu()), self._counts.tolist()
        looks = {name: counts[number] for name, number in self._layout.number.items()}
        return {name: half / looks[name] * total.numpy() for name, total in sums.items() if looks[name]}

    def state(self) -> dict[str, Any]:
        """What was seen until now, of plain data and tensors on the CPU, for a checkpoint."""
        sums = {name: total.clone() for name, total in self._layout.split(self._sums.detach().cpu()).items()}
        counts = self._counts.cpu().clone()
        return {"kind": self.kind, "sums": sums, "counts": counts, "passes": self._passes, "steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave.

        Returns:
            Whether it is of this kind and of groups of these sizes; where not, nothing is taken over.
        """
        sums, counts = state.get("sums", {}), state.get("counts")
        fits = (
            state.get("kind") == self.kind and {name: len(total) for name, total in sums.items()} == self._layout.sizes
        )
        if not fits or counts is None or counts.shape != self._counts.shape:
            return False
        device = self._sums.device
        self._sums = torch.cat([torch.zeros(0), *(sums[name].float() for name in self._layout.sizes)]).to(device)
        self._counts = counts.clone().float().to(device)
        self._passes, self._steps = state["passes"], state["steps"]
        return True

    def _before_a_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._steps += 1
        if (self._steps - 1) % self._every == 0:
            self.look(getattr(optimizer, "found_inf", None))  # see training/optimizer_hooks.py, skips

    def _follow(self, device: torch.device) -> None:
        if self._sums.device != device:
            self._sums, self._counts = self._sums.to(device), self._counts.to(device)

    def _now(self) -> _Live:
        """What has gradients now: nearly always the same as at the last look."""
        key = tuple(_has_gradients(self._modules[name]) for name, _ in self._candidates)
        if self._live is not None and self._live.key == key:
            return self._live
        alive = {source for source, has in zip(self._candidates, key, strict=True) if has}
        shares_of: dict[Source, list[LayerChannels]] = {}
        groups = torch.zeros(len(self._counts))
        groups[-1] = 1
        for name, number in self._layout.number.items():
            live = _live_sources(self._readers[name], self._norms[name], alive)
            groups[number] = bool(live)
            for source, share in live.items():
                shares_of.setdefault(source, []).append(share)
        sources = list(shares_of)
        lengths = [_length(self._modules[name], side) for name, side in sources]
        device = self._modules[sources[0][0]].weight.device if sources else torch.device("cpu")
        places = LayerPositions(self._layout, lengths, list(shares_of.values()))
        self._live = _Live(key, sources, places, groups.to(device))
        return self._live

    def _product(self, name: str, side: str) -> torch.Tensor:
        """(positions,) of one layer: its weights times their gradients, summed over all but its inputs."""
        module = self._modules[name]
        product = module.weight.detach().float() * module.weight.grad.float()
        if side == "out":  # a norm: what follows is scaled by its scale and its shift together
            bias = module.bias
            silent = bias is None or bias.grad is None
            other = torch.zeros_like(product) if silent else bias.detach().float() * bias.grad.float()
            return product**2 + other**2 if self.kind == "obdc" else product + other
        product = product**2 if self.kind == "obdc" else product
        return along(product, _axis(module))

    def _looking(self, module: nn.Module, shares: list[LayerChannels], first: bool) -> Any:
        """A hook that adds the mean size of what a layer reads to some groups."""
        places = LayerPositions(self._layout, [_length(module, "in")], [shares])
        groups = torch.zeros(len(self._counts))
        groups[[self._layout.number[share.group] for share in shares]] = 1
        groups[-1] = first

        @torch.no_grad()
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            nonlocal groups
            if not module.training and not self._always:
                return  # a validation
            self._passes += first
            if (self._passes - 1) % (_PASSES_PER_LOOK * self._every) == 0:
                x = given(args, kwargs).detach().float().abs()
                conv = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
                means = x.mean((0, 2, 3)) if conv else x.reshape(-1, x.shape[-1]).mean(0)
                value = places.collect([torch.nan_to_num(means, nan=0.0, posinf=0.0)])
                self._follow(value.device)
                groups = groups.to(value.device)
                self._sums += value
                self._counts += groups

        return hook


def weights(scores: Mapping[str, np.ndarray], graph: ChannelGraph) -> dict[str, float]:
    """How much the model suffers from a loss in each group, 1 for a typical one (units.Unit.weight).

    Scores are compared within a group; what they add up to, over groups that are decided together, compares the groups.

    Args:
        scores: group name -> (size,) as of `Gates.scores`. graph: the groups.
    """
    units = {group.name: group.tie or group.name for group in graph.groups}
    totals = dict.fromkeys(units.values(), 0.0)
    for name, unit in units.items():
        totals[unit] += float(scores[name].sum())
    typical = float(np.median(list(totals.values()))) if totals else 0.0
    return {name: max(totals[unit] / typical, _LEAST_WEIGHT) if typical > 0 else 1.0 for name, unit in units.items()}


def _has_gradients(module: Any) -> bool:
    """Whether a layer has weights of its own that this step moves."""
    return isinstance(module.weight, nn.Parameter) and module.weight.grad is not None


def _live_sources(
    readers: Mapping[Source, LayerChannels], norms: Mapping[Source, LayerChannels], alive: set[Source]
) -> dict[Source, LayerChannels]:
    """Who says what a group's channels are worth: all readers, else the norms of its makers, else the readers left."""
    live_readers = {source: share for source, share in readers.items() if source in alive}
    live_norms = {source: share for source, share in norms.items() if source in alive}
    if readers and len(live_readers) == len(readers):
        return live_readers
    return live_norms if live_norms and len(live_norms) == len(norms) else live_readers or live_norms


def _axis(module: nn.Module) -> int:
    """Which dimension of a layer's weight its inputs are."""
    return 0 if inputs_first(module) else 1


def _length(module: Any, side: str) -> int:
    """How many inputs a layer has, or a norm outputs."""
    return int(module.weight.shape[0 if side == "out" else _axis(module)])


def _shares(group: ChannelGroup, modules: dict[str, nn.Module], side: str) -> dict[Source, LayerChannels]:
    """Where the gates of a group can be: "in", at those who read it, or "out", at the norms of those who make it."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear) if side == "in" else (nn.BatchNorm2d,)
    return {
        (member.module, side): LayerChannels(group.name, member.positions, member.channels)
        for member in group.members
        if member.side == side and isinstance(modules.get(member.module), kinds)
    }
