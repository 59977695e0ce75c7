# yolo-prune, AGPL-3.0 license
"""One training run that prunes."""
