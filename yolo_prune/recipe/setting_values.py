# yolo-prune, AGPL-3.0 license
"""Single values of a recipe as they are read, before pydantic checks their types. Pure."""

from __future__ import annotations

from collections.abc import Container

from pydantic_core import PydanticCustomError

from yolo_prune.recipe.bounds import is_figure
from yolo_prune.recipe.formats import name_of
from yolo_prune.recipe.sparsity_pattern import parse


def patterns(given: object) -> object:
    """A list as a tuple."""
    return tuple(given) if isinstance(given, list) else given  # a tuple, so that a Recipe is frozen all through


def pattern(given: object) -> object:
    """Check a sparsity; a share may be written as a number."""
    text = repr(given) if is_figure(given) and 0 < given < 1 else given
    if isinstance(text, str):
        try:
            return str(parse(text))
        except (ValueError, OverflowError):
            raise PydanticCustomError("value_error", "no pattern") from None
    return given


def format_name(given: object) -> object:
    """A format by the name that it has here, also where the host's `format=` has another for it."""
    return name_of(given) if isinstance(given, str) else given


def one_of(table: Container[str], given: object) -> object:
    """Refuse a text that is no name in a table; `yolo_prune.register` adds to these tables."""
    if isinstance(given, str) and given not in table:
        raise PydanticCustomError("literal_error", "unknown")
    return given
