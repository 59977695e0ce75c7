# yolo-prune, AGPL-3.0 license
"""Where the files that travel with the package lie: the recipes, the data set descriptions and the pages of docs/.

A wheel carries them inside the package (pyproject.toml says so); an editable install and a checkout read them from the
folders beside the package, so that there is one copy of each in the repository.
"""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """Return the folder of shipped files called `name`.

    Args:
        name: "recipes", "datasets" or "docs".

    Returns:
        The folder inside the package when there is one (an installed wheel), else the one beside it (a checkout). It is
        not checked for existence.
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
