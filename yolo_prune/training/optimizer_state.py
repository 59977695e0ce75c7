# yolo-prune, AGPL-3.0 license
"""The plan that cut the model, applied to what trains it: the optimizer's state, and the projectors of a distillation.

Optimizer state follows the channels that stay: momentum buffers and Adam moments are sliced, not dropped, and every
parameter keeps its place in its group, so that the next step is the step of a model that was always this small. This
holds for any optimizer whose per-parameter state has the parameter's shape: SGD, Adam and its kin, RMSprop and the
host's MuSGD (ultralytics 8.4.190, optim/muon.py). State of another shape (Adafactor's rows and columns) cannot follow:
it is dropped, and the optimizer makes it anew at its next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host.run import student_of
from yolo_prune.surgery import cut_channels
from yolo_prune.surgery.cut_channels import Replaced


def cut(model: nn.Module, channel_graph: ChannelGraph, plan: PrunePlan) -> list[Replaced]:
    """Cut a model, and where it is a student the inputs of the projectors that compare it with its teacher.

    Args:
        model: a stock model, or the host's DistillationModel around one. channel_graph, plan: of the stock model.

    Returns:
        Every parameter that was replaced.
    """
    replaced = cut_channels.apply(student_of(model), channel_graph, plan)
    for projector, columns in _projectors(model, channel_graph, plan):
        replaced += cut_channels.cut_conv(projector, None, columns)
    return replaced


def _projectors(model: nn.Module, channel_graph: ChannelGraph, plan: PrunePlan) -> list[tuple[nn.Conv2d, Any]]:
    """The first convolution of each projector with the positions that it keeps; it reads what the head reads."""
    wrapper: Any = model
    if student_of(model) is model:
        return []
    kept = cut_channels.kept_positions(channel_graph, plan)
    head = wrapper.student_model.model[wrapper.feats_idx[-1]]
    inputs = []
    for level, projector in enumerate(wrapper.projector):
        _, columns = kept.get(f"model.{head.i}.cv2.{level}.0.conv", (None, None))
        if columns is not None:
            inputs.append((projector[0], columns))
    return inputs


def carry_optimizer(optimizer: torch.optim.Optimizer, replaced: Sequence[Replaced]) -> int:
    """Put the new parameters where the old ones stood, and slice their state.

    Args:
        optimizer: the optimizer of the model that was cut.
        replaced: what `cut` returned for that model.

    Returns:
        Of how many parameters the state was dropped, for it has another shape than they and cannot be sliced.
    """
    new_of = {item.old: item for item in replaced}
    for group in optimizer.param_groups:
        now = [new_of[p].new if p in new_of else p for p in group["params"]]
        group["params"] = [p for p in now if p is not None]
    dropped = 0
    for old, item in new_of.items():
        state = optimizer.state.pop(old, None)
        if state is None or item.new is None:
            continue
        tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
        if any(value.numel() > 1 and value.shape != old.shape for value in tensors):
            dropped += 1
            continue
        optimizer.state[item.new] = {
            key: item.kept.of(value) if isinstance(value, torch.Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
    return dropped
