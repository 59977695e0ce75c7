# yolo-prune, AGPL-3.0 license
"""What an unknown name of a setting may have meant: its new name, what took its place, a near one. Pure."""

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
# Settings that were never the better for a training (docs/decisions/0033), what is in their place, and what that does.
REMOVED = {
    "layer_loss": ("sensitivity", "spares sensitive layers by itself"),
    "distill": ("distill_outputs", "learns what the dense model puts out"),
}
RENAMED_VALUES = {"reconstruct": {"mean": "bias", "refit": "weights"}}
REMOVED_VALUES = {"restart_lr": {"cosine": ("True", "goes through the whole schedule once more")}}


def meant(name: str, names: Iterable[str]) -> str:
    """What an unknown name may have meant, in words: its new name, what took its place, did you mean …? Or nothing.

    Args:
        name: as the user wrote it. names: those that are taken, with `prune_` before them or, in a file and in calls,
            without.
    """
    every = list(names)
    plain = name.strip().lower().replace("-", "_")
    bare = plain.removeprefix("prune_")
    now, use = REMOVED.get(bare) or (RENAMED.get(bare, ""), "")
    forms = [now, f"prune_{now}"] if bare == plain else [f"prune_{now}", now]
    there = [one for one in forms if one in every]
    if there:
        return f"it was removed; in its place {there[0]} {use}" if use else f"its name is {there[0]} now"
    prefixed = any(one.startswith("prune_") for one in every)
    close = get_close_matches(plain if prefixed else bare, every, 1)
    return f"did you mean {close[0]}?" if close else ""


def near(name: str, names: Iterable[str]) -> str:
    """As `meant`, and where nothing is near all names that there are."""
    every = list(names)
    return meant(name, every) or f"known are {', '.join(every)}"
