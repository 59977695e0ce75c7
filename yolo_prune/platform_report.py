# yolo-prune, AGPL-3.0 license
"""What Ultralytics Platform is told of a model's size after it changed: from the session to what the host sends.

The host reports params and GFLOPs at epoch 0 alone (8.4.190, utils/callbacks/platform.py: `on_fit_epoch_end`), which is
before most steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_sizes: dict[str, dict[str, float]] = {}  # model id on the Platform -> the size that its next report carries


def tell(model_id: str, params: int, gflops: float) -> None:
    """Let the next report of a model carry its size: params, and GFLOPs at 640 x 640, as the host counts both."""
    _sizes[model_id] = {"parameters": params, "gflops": round(gflops, 3)}


def completed(event: str, data: Mapping[str, Any], model_id: str | None) -> dict[str, Any]:
    """What the host is about to send, with the size where one is waiting; it is sent once.

    Args:
        event: the host's name of what happened; only "epoch_end" carries a size. data: the host's payload.
        model_id: whose payload it is.
    """
    if event != "epoch_end" or model_id not in _sizes:
        return dict(data)
    return {**data, "modelInfo": {**data.get("modelInfo", {}), **_sizes.pop(model_id)}}
