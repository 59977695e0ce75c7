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

SMALL_MODEL = Path(__file__).with_name("small.yaml")


def untrained() -> YOLO:
    """The small model, with random weights."""
    return YOLO(SMALL_MODEL)


def small_with(path: Path, head: str, *arguments: str, **settings: Any) -> Path:
    """Write the small model with another head, such as "v10Detect", and settings of its own, such as `end2end`.

    Args:
        arguments: of the head, after the number of classes.
    """
    model = yaml.safe_load(SMALL_MODEL.read_text(encoding="utf-8"))
    model["head"][-1][2:] = [head, ["nc", *arguments]]
    path.write_text(yaml.safe_dump({**model, **settings}), encoding="utf-8")
    return path
