# yolo-prune, AGPL-3.0 license
"""What a width costs: params, FLOPs, and the latency that a device profile predicts."""
