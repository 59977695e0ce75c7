# yolo-prune, AGPL-3.0 license
"""Running statistics of BatchNorm through a cut: moved by what the cut changed, on a few images, and by no more.

Images at hand are not what the running statistics were measured on, which were mosaics with other margins: with the
statistics of 128 plain images of BCCD in place of its own, a yolo26n that nothing was cut from has 0.529 mAP50-95 for
0.624 (docs/decisions/0025). So it is noted how the running statistics stand to those of the images before the cut, and
after it they are put where they stand so to the images again. Without a cut that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.graph.model_state import given, removed_after

_FAR = 10.0  # a mean square of what reaches a norm, by which running statistics are judged


@dataclass(frozen=True)
class Standing:
    """How running statistics stand to those of some images.

    Attributes:
        offset: (channels,) the running mean less that of the images. ratio: (channels,) of the variances.
    """

    offset: torch.Tensor
    ratio: torch.Tensor

    def of_rows(self, rows: np.ndarray | None) -> Standing:
        """Of the channels that stay; None: all."""
        if rows is None:
            return self
        places = torch.as_tensor(rows, device=self.offset.device)
        return Standing(self.offset[places], self.ratio[places])


def norms_of(model: nn.Module) -> dict[str, nn.Module]:
    """The norms that have running statistics, by name."""
    norms = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
    return {name: module for name, module in norms if module.running_mean is not None}


def standing(norm: Any, x: torch.Tensor) -> Standing:
    """How a norm's running statistics stand to those of what it reads; x: (n, channels, height, width)."""
    variance, mean = _statistics(x)
    return Standing(norm.running_mean - mean, (norm.running_var + norm.eps) / (variance + norm.eps))


def follow(norm: Any, x: torch.Tensor, before: Standing) -> None:
    """Put running statistics where they stand to what the norm reads now as they stood before."""
    variance, mean = _statistics(x)
    norm.running_mean.copy_(mean + before.offset.to(mean.device))
    norm.running_var.copy_((variance + norm.eps) * before.ratio.to(mean.device) - norm.eps).clamp_(min=0)


def untrue(model: nn.Module, images: torch.Tensor) -> list[str]:
    """The norms that read something whose mean square is far from 1 by their running statistics, or no number."""
    squares: list[tuple[str, torch.Tensor]] = []

    def looking(name: str) -> Callable[[Any, Any, Any], None]:
        def look(module: Any, args: Any, kwargs: Any) -> None:
            shape = (1, -1, 1, 1)
            middle, spread = module.running_mean.view(shape), (module.running_var + module.eps).view(shape)
            squares.append((name, ((given(args, kwargs).detach() - middle) ** 2 / spread).mean()))

        return look

    norms = norms_of(model).items()
    handles = [module.register_forward_pre_hook(looking(name), with_kwargs=True) for name, module in norms]
    with removed_after(handles):
        model(images)
    far = torch.stack([~(square < _FAR) for _, square in squares]).tolist() if squares else []
    return list(dict.fromkeys(name for (name, _), is_far in zip(squares, far, strict=True) if is_far))


def be_of_images(model: nn.Module, momentum: float, held: Collection[str] = ()) -> None:
    """Have norms use the statistics of the images of a pass, all others as in eval, and note them by `momentum`."""
    model.eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name not in held:
            module.train()
            module.momentum = momentum
            module.num_batches_tracked = None  # not counted


def _statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance and mean of each channel."""
    return torch.var_mean(x.detach().float(), (0, 2, 3), unbiased=False)
