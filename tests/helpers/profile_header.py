# yolo-prune, AGPL-3.0 license
"""What every device profile begins with, as the tests make profiles up."""

from __future__ import annotations

from typing import Any

from yolo_prune.cost import profile_format

HEADER: dict[str, Any] = {
    "kind": profile_format.KIND,
    "version": profile_format.VERSION,
    "model": "yolov8n",
    "format": "onnx",
    "precision": "fp32",
    "imgsz": 320,
    "end2end": False,
    "threads": 1,
    "machine": {"name": "made up"},
}
