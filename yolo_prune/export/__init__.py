# yolo-prune, AGPL-3.0 license
"""Artifacts and their proof."""
