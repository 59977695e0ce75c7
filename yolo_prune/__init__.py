# yolo-prune, AGPL-3.0 license
"""Prune YOLO models while they train."""

__version__ = "0.1.0"
