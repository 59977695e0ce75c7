# yolo-prune, AGPL-3.0 license
"""What one step takes: the baseline, its bounds, and the choice of what stays."""
