# yolo-prune, AGPL-3.0 license
"""What hangs together: a model -> the groups of channels that are cut together."""
