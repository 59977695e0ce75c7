# yolo-prune, AGPL-3.0 license
"""The key of a model's yaml under which pruned widths stand. A file of its own: every plain `yolo train` reads it."""

SPEC_KEY = "yolo_prune"
