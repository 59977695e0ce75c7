# yolo-prune, AGPL-3.0 license
"""Measuring a device: runtimes, timing, probes, and the profile that they come to."""
