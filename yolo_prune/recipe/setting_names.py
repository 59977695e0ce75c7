# yolo-prune, AGPL-3.0 license
"""What an unknown name of a setting may have meant: the name that it has now, or a near one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Settings and values that had other names in 0.1.0.
RENAMED = {
    "floor": "max_drop",
    "compensate": "reconstruct",
    "sparse": "regularize",
    "sparse_strength": "regularize_strength",
    "rewarm": "warmup",
    "restart": "restart_lr",
}
RENAMED_VALUES = {"reconstruct": {"mean": "bias", "refit": "weights"}}


def meant(name: str, names: Iterable[str]) -> str:
    """What an unknown name may have meant, in words: its new name, or did you mean …? Nothing where none is near.

    Args:
        name: as the user wrote it. names: those that are taken, with `prune_` before them or, in a file and in calls,
            without.
    """
    every = list(names)
    plain = name.strip().lower().replace("-", "_")
    bare = plain.removeprefix("prune_")
    if bare in RENAMED:
        new = [RENAMED[bare], f"prune_{RENAMED[bare]}"]
        there = [one for one in (new if bare == plain else reversed(new)) if one in every]
        if there:
            return f"its name is {there[0]} now"
    prefixed = any(one.startswith("prune_") for one in every)
    close = get_close_matches(plain if prefixed else bare, every, 1)
    return f"did you mean {close[0]}?" if close else ""


def near(name: str, names: Iterable[str]) -> str:
    """As `meant`, and where nothing is near all names that there are."""
    every = list(names)
    return meant(name, every) or f"known are {', '.join(every)}"
