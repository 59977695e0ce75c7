# yolo-prune, AGPL-3.0 license
"""How far the outputs of a pruned model are from those of the dense one, where the dense one is sure.

Both have the same shape, so nothing stands between them: knowledge distillation on logits (Hinton et al., arXiv
1503.02531), weighted by the teacher's confidence (Mehta and Ozturk, arXiv 1805.06361), with boxes learnt as
distributions (Zheng et al., arXiv 2102.12252). Each part has the gain of the host's own and is as large as that of its
labels: a weight of 1 lets the teacher count as much as these.

    scores   the cross entropy of each class, less what is left of it at the teacher's own scores     gain `cls`
    boxes    1 - IoU of the two boxes at the same place                                               gain `box`
    sides    KL divergence of each side's distribution; of heads without one (reg_max=1) the difference of each side, in
             sides of the teacher's box                                                               gain `dfl`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn import functional

SURE = 0.05  # a place where the teacher gives no class this much says nothing: there are thousands of them
_SMALL = 1e-7


class Gains(NamedTuple):
    """The host's, of its arguments."""

    cls: float
    box: float
    dfl: float


def distance(
    student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor], reg_max: int, gains: Gains
) -> torch.Tensor:
    """The mean over places, each with the teacher's confidence as its weight; 0 where both say the same.

    Args:
        student, teacher: `boxes` (b, 4 * reg_max, places) and `scores` (b, classes, places), as the head puts them out.
        reg_max: bins of a distribution; 1 where sides are put out as numbers. gains: of the three parts.

    Returns:
        A scalar in float32, also where the teacher is nowhere sure.
    """
    confidence = teacher["scores"].detach().float().sigmoid().amax(1)
    sure = confidence >= SURE
    weight = confidence[sure]
    total = weight.sum().clamp(min=1)  # as the host's sum of target scores

    def rows(outputs: torch.Tensor) -> torch.Tensor:
        return outputs.float().transpose(1, 2)[sure]

    own, aim = rows(student["scores"]), rows(teacher["scores"].detach())
    parts = gains.cls * _scores(own, aim)
    own, aim = (rows(one).unflatten(1, (4, reg_max)) for one in (student["boxes"], teacher["boxes"].detach()))
    own_sides, aim_sides = (_sides(one) for one in (own, aim))
    parts = parts + gains.box * (1 - overlap(own_sides, aim_sides))
    if reg_max > 1:
        logs = functional.log_softmax(own, -1), functional.log_softmax(aim, -1)
        sides = functional.kl_div(*logs, reduction="none", log_target=True).sum(-1).mean(-1)
    else:
        size = aim_sides.clamp(min=0).sum(-1).div(2).clamp(min=1)  # of its width and height the mean, in cells
        sides = (own_sides - aim_sides).abs().mean(-1) / size
    return ((parts + gains.dfl * sides) * weight).sum() / total


def _scores(own: torch.Tensor, aim: torch.Tensor) -> torch.Tensor:
    """(places,) KL divergence of the classes' probabilities, from (places, classes) logits."""
    target = aim.sigmoid()
    at = [functional.binary_cross_entropy_with_logits(one, target, reduction="none") for one in (own, aim)]
    return (at[0] - at[1]).sum(-1)


def _sides(boxes: torch.Tensor) -> torch.Tensor:
    """(places, 4) distances to left, top, right and bottom in cells, of (places, 4, reg_max)."""
    if boxes.shape[-1] == 1:
        return boxes[..., 0]
    return boxes.softmax(-1) @ torch.arange(boxes.shape[-1], dtype=boxes.dtype, device=boxes.device)


def overlap(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(places,) IoU of two boxes around the same point, of (places, 4) distances; 0 of one turned inside out."""

    def area(sides: torch.Tensor) -> torch.Tensor:
        return (sides[:, 0] + sides[:, 2]).clamp(min=0) * (sides[:, 1] + sides[:, 3]).clamp(min=0)

    both = area(torch.minimum(first, second))
    return (both + _SMALL) / (area(first) + area(second) - both + _SMALL)
