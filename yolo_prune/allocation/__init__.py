# yolo-prune, AGPL-3.0 license
"""How much is cut, and where: scores, costs and bounds -> a plan. Pure: numpy alone."""
