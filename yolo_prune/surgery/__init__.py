# yolo-prune, AGPL-3.0 license
"""A plan applied to a model: channels, widths in the yaml, reconstruction, masks."""
