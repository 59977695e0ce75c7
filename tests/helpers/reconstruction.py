# yolo-prune, AGPL-3.0 license
"""A model, images and a cut for the tests of what makes up for one, and how far what a layer reads is from before."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.nn.tasks import ClassificationModel, DetectionModel

from tests.helpers.oracle import lively
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph import channel_groups
from yolo_prune.surgery import cut_channels, reconstruct


def small(name: str = "yolov8n", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    kind = ClassificationModel if name.endswith("-cls") else DetectionModel
    return lively(kind(f"{name}.yaml", nc=2, verbose=False)).eval()


def images(count: int = 24, side: int = 64, seed: int = 1) -> torch.Tensor:
    """Smooth noise: neighbours are alike, as in photographs."""
    torch.manual_seed(seed)
    coarse = torch.rand(count, 3, side // 4, side // 4)
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def raw(model: Any, x: torch.Tensor, at: int = -1) -> torch.Tensor:
    """What a layer reads, the last one unless another is said: (n, values)."""
    seen: list[torch.Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.extend(value.flatten(1) for value in (inputs[0] if isinstance(inputs[0], list) else inputs))

    handle = model.model[at].register_forward_pre_hook(look)
    with torch.no_grad():
        model(x)
    handle.remove()
    return torch.cat(seen, 1)


def away(model: nn.Module, other: nn.Module, x: torch.Tensor, at: int = -1) -> float:
    """How far what a layer reads is from what it reads in another model, as a share."""
    found, expected = raw(model, x, at), raw(other, x, at)
    return float((found - expected).norm() / expected.norm())


def settled(model: nn.Module) -> torch.Tensor:
    """Images whose statistics the model's norms now have."""
    x = images(48)
    reconstruct.restore(model, reconstruct.DenseOutputs({}), x, "bn")
    return x


def halves(found: channel_groups.ChannelGraph, names: set[str] | None = None) -> PrunePlan:
    """Every second channel of some groups, or of all."""
    wanted = [g for g in found.groups if names is None or g.name in names]
    return PrunePlan({group.name: np.arange(0, group.size, 2) for group in wanted})


def cut(model: nn.Module, part: str, x: torch.Tensor, names: set[str] | None = None, **options: Any) -> nn.Module:
    network = deepcopy(model)
    found = channel_groups.build(network)
    plan = halves(found, names)
    with reconstruct.reconstructed(network, found, plan, x, part, **options):
        cut_channels.apply(network, found, plan)
    return network
