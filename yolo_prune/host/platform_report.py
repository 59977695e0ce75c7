# yolo-prune, AGPL-3.0 license
"""What Ultralytics Platform is told of a model's size after it changed: from the session to what the host sends.

The host reports params and GFLOPs at epoch 0 alone (8.4.190, utils/callbacks/platform.py: `on_fit_epoch_end`), which is
before most steps.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from yolo_prune.errors import HostError
from yolo_prune.host import releases, wrapped

# (model id on the Platform, epoch from 0) -> what the report of that epoch carries
_sizes: dict[tuple[str | None, int], dict[str, Any]] = {}


def tell(model_id: str, epoch: int, info: Mapping[str, Any]) -> None:
    """Let the report of one epoch carry the size.

    Args:
        model_id: the model's on the Platform. epoch: counted from 0.
        info: what the host's `model_info_for_loggers` says, so that the figures are counted as those of epoch 0 are.
    """
    _sizes[model_id, epoch] = {
        "parameters": info["model/parameters"],
        "gflops": info["model/GFLOPs"],
        "speedMs": info["model/speed_PyTorch(ms)"],
    }


def completed(event: str, data: Mapping[str, Any], model_id: str | None) -> dict[str, Any]:
    """What the host is about to send, with the size where one is waiting for this epoch; it is sent once.

    Args:
        event: the host's name of what happened; only "epoch_end" carries a size. data: the host's payload.
        model_id: whose payload it is.
    """
    size = _sizes.pop((model_id, data["epoch"]), None) if event == "epoch_end" else None
    return {**data, **({"modelInfo": size} if size else {})}


def install(platform: Any) -> None:
    """Let the report of an epoch carry the model's size after a step too; the host sends it at epoch 0 alone (8.4.190).

    The host's callback builds the report, and a thread of its own sends it through `_send`, looked up at that moment.
    """
    stock = platform._send
    if wrapped.marked(stock):
        return
    names = list(inspect.signature(stock).parameters)
    if names[:2] != ["event", "data"] or "model_id" not in names:
        raise HostError(f"ultralytics {releases.version()} changed: platform._send takes ({', '.join(names)})")

    @functools.wraps(stock)
    def _send(event: str, data: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        model_id = inspect.signature(stock).bind(event, data, *args, **kwargs).arguments.get("model_id")
        return stock(event, completed(event, data, model_id), *args, **kwargs)

    platform._send = wrapped.mark(_send)
