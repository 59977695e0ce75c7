# yolo-prune, AGPL-3.0 license
"""Recipes of arguments and of files, and the lines that wrong ones get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolo_prune.errors import RecipeError
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.settings import Recipe


def asked(**args: object) -> Any:
    """The recipe of these arguments, typed loosely: its bounds are known to be there."""
    found = from_arguments(args)
    assert isinstance(found, Recipe)
    return found


def recipe(**values: Any) -> Recipe:
    return Recipe(name="x", **values)


def refused(**args: object) -> str:
    with pytest.raises(RecipeError) as caught:
        from_arguments(args)
    return str(caught.value)


def refused_file(content: str | bytes, **args: object) -> str:
    """The error of `prune=bad.yaml` with this content, in the current directory."""
    Path("bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return refused(prune="bad.yaml", **args)
