# yolo-prune, AGPL-3.0 license
"""What a detection head puts out before boxes are decoded, and how the host's loss weighs its branches.

Read in ultralytics 8.4.190, nn/modules/head.py (`Detect.forward`) and utils/loss.py (`v8DetectionLoss`, `E2ELoss`); the
same in 8.4.0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules.head import Detect

Outputs = dict[str, torch.Tensor]
"""`boxes`: (b, 4 * reg_max, places), distributions of the four distances, or, where reg_max is 1, these themselves, in
cells; `scores`: (b, classes, places), logits."""


def of(model: Any) -> Any:
    """The head of a stock model; None where it has none that puts out boxes and scores of every place (RT-DETR)."""
    head = model.model[-1]
    return head if isinstance(head, Detect) else None


def is_end_to_end(model: Any) -> bool:
    """Whether a one-to-one branch is trained beside a one-to-many one (YOLOv10, YOLO26), whichever is deployed.

    The host chooses its loss by the same (8.4.190, nn/tasks.py: `init_criterion`).
    """
    return getattr(of(model), "one2one_cv2", None) is not None


def raw(model: Any, images: torch.Tensor) -> Any:
    """What a model that is evaluated puts out for images as in training: its layers, BatchNorm among them, stay so."""
    of(model).training = True  # the flag of the head alone, which its children do not read
    return model(images)


def branches(outputs: Any) -> dict[str, Outputs]:
    """The branches of what a model puts out in training: `one2many` and `one2one`, or one of no name."""
    outputs = outputs[1] if isinstance(outputs, tuple) else outputs
    names = [name for name in ("one2many", "one2one") if name in outputs]
    return {name: outputs[name] for name in names} if names else {"": outputs}


def share(loss: Any, branch: str) -> float:
    """What the host's loss multiplies a branch by: in an end-to-end one it moves over the epochs."""
    return float(getattr(loss, {"one2many": "o2m", "one2one": "o2o"}.get(branch, ""), 1.0))


def loss_of(model: Any) -> Any:
    """The loss of a model in training, made where the host has not made it yet (8.4.190, nn/tasks.py: `loss`)."""
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    return model.criterion


def put_loss(model: Any, loss: Any) -> None:
    """Have the host call another loss; it must not be an nn.Module, whose tensors would be the model's."""
    if isinstance(loss, nn.Module):
        raise TypeError(f"a {type(loss).__name__} would become a part of the model")
    model.criterion = loss
