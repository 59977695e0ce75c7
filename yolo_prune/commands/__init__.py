# yolo-prune, AGPL-3.0 license
"""Commands of `yolo-prune` that answer from a checkpoint at once: apply, inspect, yaml, check."""
