# yolo-prune, AGPL-3.0 license
"""Where the milliseconds of a model are: in its backbone, its neck, its head, and beside its layers.

What a profile predicts is a sum over layers, so it can be told part by part; what is left is what a network costs
whatever its layers are (the call, additions, boxes).
"""

from __future__ import annotations

from torch import nn

from yolo_prune.cost.latency_model import Row
from yolo_prune.cost.layer_shapes import layers_of
from yolo_prune.cost.profile_file import Profile
from yolo_prune.graph import model_parts

REST = "rest"


def latency_by_part(model: nn.Module, profile: Profile) -> dict[str, float]:
    """`backbone`, `neck`, `head`, `rest` -> milliseconds; they add up to `model_size.latency_of`.

    Args:
        model: a stock model; one without a yaml has no parts, and all of it is `rest`.
    """
    parts = model_parts.of(model)
    rows: dict[str, list[Row]] = {part: [] for part in (*parts, REST)}
    for layer in layers_of(model, profile.imgsz, profile.end2end):
        inside = (part for part in parts if model_parts.matches(layer.name, part, parts))
        rows[next(inside, REST)].append(layer.row)
    milliseconds = {part: profile.of_layers(some) for part, some in rows.items()}
    milliseconds[REST] += profile.fixed
    return milliseconds
