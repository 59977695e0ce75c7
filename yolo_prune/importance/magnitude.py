# yolo-prune, AGPL-3.0 license
"""Scores of weights, by torch-pruning's importance classes. The only importer of torch_pruning.

They read the copy of a model whose convolution weights carry their BatchNorm scales (`ChannelGroup.folded`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from yolo_prune.graph.channel_groups import ChannelGroup


def _form(channel_group: ChannelGroup) -> tp.dependency.Group:
    """A group in torch-pruning's own form, for its importance classes."""
    group = tp.dependency.Group()
    for member in channel_group.members:
        module = (channel_group.folded or {}).get(member.module)
        handler = _handler(module, member.side)
        if handler is None:
            continue
        node = tp.dependency.Node(module, None, member.module)
        item = tp._helpers.GroupItem(tp.dependency.Dependency(handler, handler, node, node), member.positions.tolist())
        item.root_idxs = member.channels.tolist()
        group._group.append(item)
    return group


def _handler(module: nn.Module | None, side: str) -> Callable[..., Any] | None:
    out = side == "out"
    if isinstance(module, nn.BatchNorm2d):
        return tp.prune_batchnorm_out_channels
    if isinstance(module, nn.Linear):
        return tp.prune_linear_out_channels if out else tp.prune_linear_in_channels
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups == 1:
        return tp.prune_conv_out_channels if out else tp.prune_conv_in_channels
    return None  # one weight a channel, depthwise or a vector: torch-pruning 1.6.1 does not score them


def importance(kind: str, **options: object) -> Callable[[ChannelGroup], torch.Tensor | None]:
    """One of torch-pruning's importance classes, reading weights of convolutions and linear layers ("bn": BatchNorms).

    Args:
        kind: "magnitude", "bn", "lamp" or "fpgm". options: passed on, such as p=1.

    Returns:
        A function of a group -> scores, one a row of its first layer; None where no layer is of a kind it reads.
    """
    classes = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "bn": tp.importance.BNScaleImportance,
        "lamp": tp.importance.LAMPImportance,
        "fpgm": tp.importance.FPGMImportance,
    }
    if kind != "lamp":  # scores are normalised once, by scoring.py, which knows what to do where all are zero
        options["normalizer"] = None
    scorer = classes[kind](**options)
    if kind != "bn":  # the folded weights carry the BatchNorm scales already: counting them again would square them
        scorer.target_types = [nn.modules.conv._ConvNd, nn.Linear]
    return lambda group: scorer(_form(group))
