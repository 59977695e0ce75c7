# yolo-prune, AGPL-3.0 license
"""What the documentation says of recipes is what there is, and the pure wings load next to nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from yolo_prune.recipe.arguments import ARGUMENTS, arguments_table, load
from yolo_prune.recipe.setting_names import REMOVED, RENAMED
from yolo_prune.recipe.settings import Recipe

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_of_a_recipe_has_an_argument() -> None:
    assert set(ARGUMENTS) == {"prune", *(f"prune_{key}" for key in set(Recipe.model_fields) - {"name"})}
    assert all(ARGUMENTS.values())


def test_the_table_has_a_row_for_every_argument_with_the_default_of_balanced() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in arguments_table().splitlines()]
    assert [row[0] for row in rows[2:]] == [f"`{name}=`" for name in ARGUMENTS]
    assert {len(row) for row in rows} == {4}
    defaults = {row[0].strip("`=").removeprefix("prune_"): row[2].strip("`") for row in rows[3:]}
    balanced = load("balanced").as_dict()
    assert defaults == {key: "" if balanced[key] in (None, []) else str(balanced[key]) for key in defaults}


@pytest.mark.parametrize(
    ("wing", "strangers"),
    [("recipe", ["torch", "ultralytics", "numpy", "cv2"]), ("allocation", ["torch", "ultralytics", "cv2"])],
)
def test_a_pure_wing_loads_without_torch_and_the_host(wing: str, strangers: list[str]) -> None:
    modules = [path.stem for path in sorted((ROOT / "yolo_prune" / wing).glob("*.py")) if path.stem != "__init__"]
    assert len(modules) > 3
    imports = "".join(f"import yolo_prune.{wing}.{name};" for name in modules)
    load = "yolo_prune.recipe.arguments.load('balanced');" if wing == "recipe" else ""
    code = f"import sys; {imports}{load} print([m for m in {strangers!r} if m in sys.modules])"
    # -S: a start-up line of the environment must not count as an import of these modules
    paths = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_docs_name_arguments_that_exist() -> None:
    """A word such as prune_steps= in the docs is an argument, or one of those that had another name or were removed."""
    known = {*ARGUMENTS, *(f"prune_{old}" for old in (*RENAMED, *REMOVED))}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "recipes").glob("*.yaml"))]
    words = {(page.name, word) for page in pages for word in re.findall(r"\b(prune_[a-z_]+)=", page.read_text("utf-8"))}
    assert len(words) > 20
    assert [pair for pair in sorted(words) if pair[1] not in known] == []
