# yolo-prune, AGPL-3.0 license
"""Single weights that are zero and stay zero: unstructured magnitude sparsity, and n of every m (2:4).

A worked example, 2:4: of the weights [0.9, -0.1, 0.2, 0.5] that one output reads from four neighbouring inputs, the
two smallest become 0: [0.9, 0, 0, 0.5]. NVIDIA's sparse tensor cores (Ampere and newer) and TensorRT want this along
the input channels, for each output and each place of the kernel by itself (TensorRT's developer guide, "Structured
sparsity": of every four values along C of the KCRS filter two are zero; Mishra et al., arXiv 2104.08378).

Unstructured, the weights of all layers are compared by their LAMP score (Lee et al., arXiv 2010.07611), which keeps
some of every layer and has nothing to tune: w^2 over the sum of the squares in its layer that are not smaller.

Masks are of the weights before BatchNorm is folded in; folding scales whole rows, so zeros stay zeros in an export.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from yolo_prune.host.memory import precise
from yolo_prune.recipe.sparsity_pattern import Pattern


def layers(model: nn.Module, pattern: Pattern, frozen: Collection[str] = ()) -> dict[str, nn.Conv2d]:
    """The convolutions that a pattern is for: not frozen, not depthwise, with inputs that divide into groups of m."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and ".dfl." not in name
        and name not in frozen
        and module.in_channels >= (pattern.of or 2)
        and module.in_channels % (pattern.of or 1) == 0
    }


@torch.no_grad()
def choose(
    model: nn.Module, pattern: Pattern, progress: float = 1.0, frozen: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Masks of a model, the smallest weights first.

    Args:
        model: a stock model. pattern: what it comes to.
        progress: how far to go, above 0 up to 1: of n:m, that share of the weights that will go (the smallest of them,
            by layers); of a share, that share of it.
        frozen: layers that a training leaves as they are.

    Returns:
        Name of the convolution -> mask of its weight's shape, True where a weight stays.
    """
    convolutions = layers(model, pattern, frozen)
    if pattern.of is None:
        return _by_lamp(convolutions, pattern.share * progress)
    return {name: _n_of_m(module.weight, pattern, progress) for name, module in convolutions.items()}


def _by_lamp(convolutions: Mapping[str, nn.Conv2d], share: float) -> dict[str, torch.Tensor]:
    scores = {}
    for name, module in convolutions.items():
        squares, order = precise(module.weight.detach()).flatten().square().sort()
        remaining = squares.flip(0).cumsum(0).flip(0)
        scores[name] = torch.empty_like(squares).scatter_(0, order, squares / remaining.clamp_min(1e-300))
    if not scores:
        return {}
    every = torch.cat(list(scores.values()))
    gone = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    gone[every.argsort(stable=True)[: int(share * len(every))]] = True
    parts = gone.split([len(score) for score in scores.values()])
    pairs = zip(parts, convolutions.items(), strict=True)
    return {name: ~part.view_as(module.weight).to(module.weight.device) for part, (name, module) in pairs}


def _n_of_m(weight: torch.Tensor, pattern: Pattern, progress: float) -> torch.Tensor:
    if pattern.of is None or pattern.keep is None:
        raise ValueError(f"{pattern} is no n:m")
    size = weight.detach().float().abs()
    grouped = size.permute(0, 2, 3, 1).reshape(-1, pattern.of)  # neighbours along the inputs stand in one row
    leaving = grouped.argsort(dim=1, stable=True)[:, : pattern.of - pattern.keep]
    candidates = grouped.gather(1, leaving)
    count = round(progress * candidates.numel())
    gone = torch.zeros(candidates.numel(), dtype=torch.bool, device=weight.device)
    gone[candidates.flatten().argsort(stable=True)[:count]] = True
    mask = torch.ones_like(grouped, dtype=torch.bool).scatter_(1, leaving, ~gone.view_as(candidates))
    out, inp, high, wide = weight.shape
    return mask.view(out, high, wide, inp).permute(0, 3, 1, 2).contiguous()


def from_zeros(model: nn.Module, pattern: Pattern) -> dict[str, torch.Tensor]:
    """The masks that a sparse model already has: its zeros. Layers without one have none."""
    nonzero = {name: module.weight.detach() != 0 for name, module in layers(model, pattern).items()}
    return {name: mask for name, mask in nonzero.items() if not mask.all()}


@torch.no_grad()
def apply(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Make the masked weights of a model 0."""
    modules: dict[str, Any] = dict(model.named_modules())
    for name, mask in masks.items():
        modules[name].weight.mul_(mask.to(modules[name].weight.device))


class Masks:
    """Holds the masked weights of a model in training at 0, through momentum and weight decay.

    Args:
        model: the stock model in training. masks: as of `choose`.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
        modules: dict[str, Any] = dict(model.named_modules())
        self._pairs = [(modules[name].weight, mask.to(modules[name].weight.device)) for name, mask in masks.items()]

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Do nothing: masked weights are set to zero after the step, whatever their gradients are."""

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo what the step did to masked weights. The average of zeros, which follows, is 0."""
        for weight, mask in self._pairs:
            weight.mul_(mask)


@dataclass(frozen=True)
class Zeros:
    """What a model has of zeros.

    Attributes:
        share: zeros among all weights of convolutions. fitting, layers: how many convolutions that the pattern is for
            have it, and how many there are. bytes, compressed: size of all tensors in half precision, as they lie in a
            checkpoint, and after zlib (level 6), as a zip or a download compresses them.
    """

    share: float
    fitting: int
    layers: int
    bytes: int
    compressed: int


@torch.no_grad()
def count(model: nn.Module, pattern: Pattern) -> Zeros:
    """Count zeros and measure what they save on disk."""
    convolutions = layers(model, pattern)
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    raw = b"".join(value.detach().half().cpu().numpy().tobytes() for value in model.state_dict().values())
    fitting = sum(_fits(module.weight, pattern) for module in convolutions.values())
    return Zeros(zeros / max(total, 1), fitting, len(convolutions), len(raw), len(zlib.compress(raw, 6)))


def _fits(weight: torch.Tensor, pattern: Pattern) -> bool:
    if pattern.of is None or pattern.keep is None:
        return bool((weight == 0).any())
    rows = (weight != 0).permute(0, 2, 3, 1).reshape(-1, pattern.of)
    return bool((rows.sum(1) <= pattern.keep).all())
