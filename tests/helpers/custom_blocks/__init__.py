# yolo-prune, AGPL-3.0 license
"""Blocks as users write them into their own yamls, each a few lines. FOLLOWED are cut, NAMED are protected by name."""

from tests.helpers.custom_blocks import across_channels, followed, foreign_code, own_weights, positions_and_counts
from tests.helpers.custom_blocks.base import FOLLOWED, NAMED, Between, register, yaml_with
from tests.helpers.custom_blocks.followed import Keywords

__all__ = [
    "FOLLOWED",
    "NAMED",
    "Between",
    "Keywords",
    "across_channels",
    "followed",
    "foreign_code",
    "own_weights",
    "positions_and_counts",
    "register",
    "yaml_with",
]
