# yolo-prune, AGPL-3.0 license
"""What we use of ultralytics: each use once, with the version in which it was read."""
