# yolo-prune, AGPL-3.0 license
"""A model with every kind of layer that yolov8n has, and half as many: where the family does not matter.

A training costs by the number of layers, and so does what a cut does: this one costs less than half of yolov8n's.
That every family and task is pruned by the real trainer is in tests/training/test_tasks.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load

SMALL_MODEL = Path(__file__).with_name("small.yaml")


def untrained() -> YOLO:
    """The small model, with random weights."""
    return YOLO(SMALL_MODEL)


def rtdetr(folder: Path, scaled_file: str) -> Path:
    """Write a stock RT-DETR with 40 queries and two layers of decoder, for images of 64 pixels.

    Its 300 queries want images of 160 pixels, and each of the six layers looks at all of them.

    Args:
        scaled_file: the host's name of it, such as "yolov8n-rtdetr.yaml".
    """
    model = yaml_model_load(scaled_file)
    values, queries, points, heads, layers = 256, 40, 4, 8, 2  # the decoder's arguments after the number of classes
    model["head"][-1][3] = ["nc", values, queries, points, heads, layers]
    path = folder / scaled_file
    path.write_text(yaml.safe_dump({key: value for key, value in model.items() if key not in ("scale", "yaml_file")}))
    return path


def quarter(file: str) -> dict[str, Any]:
    """The architecture of a stock YOLOv9 at a quarter of its widths, which stand in its yaml as numbers."""
    model: dict[str, Any] = yaml_model_load(file)
    widths = {"Conv": 1, "ADown": 1, "SPPELAN": 2, "RepNCSPELAN4": 3}  # how many of the first arguments are widths
    for layer in (*model["backbone"], *model["head"]):
        _, _, kind, arguments = layer
        if kind == "CBLinear":
            layer[3] = [[width // 4 for width in arguments[0]]]
        count = widths.get(kind, 0)
        layer[3][:count] = [width // 4 for width in layer[3][:count]]
    return model


def small_with(path: Path, head: str, *arguments: str, **settings: Any) -> Path:
    """Write the small model with another head, such as "v10Detect", and settings of its own, such as `end2end`.

    Args:
        arguments: of the head, after the number of classes.
    """
    model = yaml.safe_load(SMALL_MODEL.read_text(encoding="utf-8"))
    model["head"][-1][2:] = [head, ["nc", *arguments]]
    path.write_text(yaml.safe_dump({**model, **settings}), encoding="utf-8")
    return path
