# yolo-prune, AGPL-3.0 license
"""Which channels matter: one score a channel, larger is more important."""
