# yolo-prune, AGPL-3.0 license
"""Many runs: what should be deployed, of pruned models, stock smaller models and smaller images?"""
