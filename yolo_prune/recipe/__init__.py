# yolo-prune, AGPL-3.0 license
"""What is asked for: settings, bounds, recipe files and arguments. No torch, no ultralytics."""
