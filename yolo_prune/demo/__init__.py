# yolo-prune, AGPL-3.0 license
"""The main job offline, from nothing to a verified ONNX file."""
