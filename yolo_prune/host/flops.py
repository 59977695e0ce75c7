# yolo-prune, AGPL-3.0 license
"""Params and FLOPs as the host counts and prints them (ultralytics 8.4.190, utils/torch_utils.py)."""

from __future__ import annotations

from torch import nn
from ultralytics.utils.torch_utils import get_flops, get_num_params


def params(model: nn.Module) -> int:
    """How many parameters a model has."""
    return int(get_num_params(model))


def gflops(model: nn.Module, imgsz: int) -> float:
    """GFLOPs of a model at that image size in pixels; 0.0 where the host's counter (thop) is missing or fails."""
    return float(get_flops(model, imgsz))
