# yolo-prune, AGPL-3.0 license
"""A checkpoint of an untrained model that sees differences and draws boxes, and a quick proof of its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.helpers.small_models import SMALL_MODEL
from yolo_prune.host import samples

SIDE = 64
QUICK: dict[str, Any] = {"imgsz": SIDE, "images": 3, "repeats": 16}  # on a made-up clock, see conftest.py


def save(path: Path, seed: int, yaml: str | Path = SMALL_MODEL) -> Path:
    """Write a checkpoint of the small model, or another, untrained, of two classes, that draws boxes.

    With BatchNorm's initial statistics activations fade out, and the output is all but a constant whatever the weights.
    """
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(seed)
    model = DetectionModel(str(yaml), nc=2, verbose=False)
    model.names = {0: "bright", 1: "dark"}
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(samples.without_data(3, SIDE, 8).images)
    model.eval()
    for norm in norms:
        norm.momentum = 0.03
    head = model.model[-1]
    for tower in [*head.cv3, *(getattr(head, "one2one_cv3", None) or ())]:
        torch.nn.init.normal_(tower[-1].weight, std=0.3)
        torch.nn.init.constant_(tower[-1].bias, -1.0)
    torch.save({"model": model.half(), "train_args": {"imgsz": SIDE, "task": "detect"}}, path)
    return path
