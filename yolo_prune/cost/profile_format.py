# yolo-prune, AGPL-3.0 license
"""What a device profile says that it is, and which precisions it may be of; its runtime is one of formats.PROFILED.

This file runs on the device, in the kit's .pyz too (device/probe_kit.py): standard library, Python 3.8.
"""

from __future__ import annotations

KIND = "yolo-prune device profile"
VERSION = 2  # from 2 on networks are counted as they are exported: of YOLOv10 and 26 one branch of the head
PRECISIONS = ("fp32", "fp16", "int8")
