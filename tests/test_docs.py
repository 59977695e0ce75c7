# yolo-prune, AGPL-3.0 license
"""What the documentation says by itself is what there is: generated parts, commands, and how long the README may be."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import yolo_prune
from tests.helpers.checkout import ROOT
from yolo_prune import __version__, cli

SITE = ROOT / "docs" / "site"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/site/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", SITE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_those_of_the_code(generate: ModuleType) -> None:
    pages = generate.pages()
    made = {
        "README.md",
        "arguments.md",
        "commands.md",
        "export.md",
        "profiles.md",
        "quickstart.md",
        "recipes.md",
        "sweep.md",
    }
    assert {path.name for path in pages} == made
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `python docs/site/generate.py`"


def test_the_pictures_show_what_their_figures_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE))
    pictures = importlib.import_module("pictures")
    held = {path.name for path in pictures.FOLDER.glob("*.png")}
    assert held == {f"{name}{suffix}.png" for name in pictures.PICTURES for suffix in ("", "-dark")}
    assert pictures.stale() == [], "run `python docs/site/generate.py`"


def test_the_notebook_carries_no_outputs_and_calls_what_there_is() -> None:
    """`.ci/run` runs it (docs/site/run_notebook.py)."""
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    assert ["parameters"] in [cell["metadata"].get("tags") for cell in code]
    text = "".join(line for cell in cells for line in cell["source"])
    assert [link for link in re.findall(r"\]\((?!https?:)([^)]+)", text) if not (ROOT / "docs" / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_command_is_on_the_page_of_commands() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = [command for command in (*cli._COMMANDS, "check", "train") if f"`yolo-prune {command}" not in text]
    assert not missing


def test_what_is_public_is_on_the_page_of_the_api() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in dir(yolo_prune) if name != "__version__" and f"`yolo_prune.{name}`" not in text] == []


def test_the_licence_is_one() -> None:
    """In SPDX's words, as pyproject.toml has it; Ultralytics' own and the heads of files are called AGPL-3.0."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml", "docs/skills/yolo-prune/SKILL.md"):
        said = re.findall(r"(?m)^(?:license: |license = \"|\[)(AGPL[\w.-]*)", (ROOT / name).read_text(encoding="utf-8"))
        assert said == ["AGPL-3.0-or-later"], name


def test_every_page_is_in_the_navigation() -> None:
    text = (SITE / "mkdocs.yml").read_text(encoding="utf-8")
    listed = {word for word in re.findall(r"[\w./-]+\.md", text) if (ROOT / "docs" / word).exists()}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:] if path.parent.name != "decisions"}
    assert pages == listed


def _links(page: Path) -> list[str]:
    """What a page links to in this checkout, code left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in _links(page) if not (page.parent / link).exists()] == []


def test_the_argument_that_a_word_of_the_commands_names_exists() -> None:
    """`yolo-prune apply model=... flops=50%` in the docs is an apply that takes these."""
    seen = 0
    for page in PAGES:
        for command, rest in re.findall(r"yolo-prune (\w+) ([^\n`|#]*=[^\n`|#]*)", page.read_text(encoding="utf-8")):
            if command not in cli._COMMANDS:
                continue
            known = cli.arguments_of(command)
            words = re.findall(r"(?:^|\s)(\w+)=", rest.split("  ")[0])
            assert [word for word in words if word not in known] == [], f"{page.name}: yolo-prune {command} {rest}"
            seen += len(words)
    assert seen > 30


def test_the_pages_that_errors_name_are_there() -> None:
    """`yolo-prune help PAGE` prints them, from the wheel too."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "yolo_prune").rglob("*.py"))
    named = re.findall(r"yolo-prune help ([a-z-]+)", " ".join(sources))
    commands = {"command", *cli._COMMANDS}
    missing = {name for name in named if name not in commands and not (ROOT / "docs" / f"{name}.md").is_file()}
    assert not missing
    assert len(named) > 8


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in text


def test_measured_figures_of_the_pages_stand_in_the_benchmarks() -> None:
    """mAP, milliseconds and speed-ups are copied from benchmarks/README.md, where the command stands beside them."""
    held = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    seen = 0
    for name in ("README.md", "docs/how-much.md", "docs/int8.md", "docs/profiles.md", "docs/faq.md"):
        rows = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        figures = re.findall(
            r"(?<![\d.])\d+\.\d{2,4}(?! M)(?![\d%])", " ".join(re.sub(r"`[^`]*`", "", row) for row in rows)
        )
        assert [figure for figure in figures if figure not in held and figure != "1.00"] == [], name
        seen += len(figures)
    assert seen > 60
