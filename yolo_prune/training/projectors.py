# yolo-prune, AGPL-3.0 license
"""The projectors that compare a student with its teacher, in the host's DistillationModel, cut with the student.

A projector reads what the detection head reads (8.4.190, nn/distill_model.py), so its inputs follow the same plan.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host.run import student_of
from yolo_prune.surgery import cut_channels
from yolo_prune.surgery.cut_channels import Replaced


def cut_inputs(model: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> list[Replaced]:
    """Cut the inputs of the projectors; nothing where a model has none.

    Args:
        model: a stock model, or the host's DistillationModel around one. graph, plan: of the stock model.

    Returns:
        Every parameter that was replaced.
    """
    replaced: list[Replaced] = []
    for projector, columns in _projectors(model, graph, plan):
        replaced += cut_channels.cut_conv(projector, None, columns)
    return replaced


def _projectors(model: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> list[tuple[nn.Conv2d, Any]]:
    """The first convolution of each projector, with the positions of its inputs that stay."""
    wrapper: Any = model
    if student_of(model) is model:
        return []
    kept = cut_channels.kept_positions(graph, plan)
    head = wrapper.student_model.model[wrapper.feats_idx[-1]]
    inputs = []
    for level, projector in enumerate(wrapper.projector):
        _, columns = kept.get(f"model.{head.i}.cv2.{level}.0.conv", (None, None))
        if columns is not None:
            inputs.append((projector[0], columns))
    return inputs
