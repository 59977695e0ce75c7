# yolo-prune, AGPL-3.0 license
"""What `protect` names: layers by patterns of their names, or by the part of the model that they are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch

from torch import nn

Parts = Mapping[str, tuple[str, ...]]


def of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """`backbone`, `neck`, `head` -> the names of the modules that they are; a part that a model has not is left out.

    The backbone is what the model's yaml lists under that word, the head its last module, the neck what is between
    them (of a classifier nothing). A model without a yaml has no parts.
    """
    yaml = getattr(model, "yaml", None)
    layers = getattr(model, "model", None)
    if not isinstance(yaml, dict) or "backbone" not in yaml or not isinstance(layers, nn.Sequential):
        return {}
    names = tuple(f"model.{index}" for index in range(len(layers)))
    border = min(len(yaml["backbone"]), len(names) - 1)
    parts = {"backbone": names[:border], "neck": names[border:-1], "head": names[-1:]}
    return {part: inside for part, inside in parts.items() if inside}


def matches(name: str, pattern: str, parts: Parts) -> bool:
    """Whether a pattern of `protect` means a layer: `model.2.cv1` and `model.2.*` mean `model.2.cv1.conv` too.

    Args:
        parts: of the model, as `of` gives them; their names mean all layers in them.
    """
    if pattern in parts:
        return any(name == module or name.startswith(f"{module}.") for module in parts[pattern])
    return fnmatch(name, pattern) or fnmatch(name.removesuffix(".conv"), pattern)


def first_match(names: Iterable[str], patterns: Iterable[str], parts: Parts) -> str | None:
    """The first pattern that means one of some layers; None where none does."""
    patterns = tuple(patterns)
    return next((pattern for name in names for pattern in patterns if matches(name, pattern, parts)), None)
