# yolo-prune, AGPL-3.0 license
"""Bring into the site what lies outside docs/: README.md as its first page, and every file that a page links to.

Links are written as they work in the checkout (`../benchmarks/README.md`); here they are turned to where the file lies
in the site. A link to a file that is not there stays as it is, and the strict build fails for it.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
# How GitHub shows one picture on light pages and another on dark ones; the theme of the site has marks for it.
PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">\s*'
    r'<img alt="([^"]*)" src="([^"]+)"[^>]*>\s*</picture>'
)
DECISIONS = "docs/decisions"
# Pages of the navigation that no other page has to link to.
ALWAYS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")


def placed(path: str) -> str:
    """Where a file of the checkout lies in the site."""
    if path == "README.md":
        return "index.md"
    return f"{DECISIONS}/index.md"[5:] if path == DECISIONS else path.removeprefix("docs/")


def target(page: str, link: str) -> str:
    """The file of the checkout that a page of it links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def on_files(files: Files, config: Any) -> Files:
    """Add README.md, an index of the decisions, and all files outside docs/ that pages link to."""
    waiting = [*ALWAYS, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        if not page.startswith("docs/"):
            files.append(File.generated(config, placed(page), abs_src_path=str(ROOT / page)))
        if not page.endswith(".md"):
            continue
        for link in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
            other = target(page, link[3])
            if other not in seen and not other.startswith(("docs/", "..")) and (ROOT / other).is_file():
                seen.add(other)
                waiting.append(other)
    files.append(File.generated(config, placed(DECISIONS), content=decisions()))
    files.append(File.generated(config, "quickstart-notebook.md", content=notebook()))
    return files


def notebook() -> str:
    """The notebook as a page: its words, and its code in blocks."""
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    parts = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    parts.insert(1, "[Download this page as a notebook](quickstart.ipynb)")
    return "\n\n".join(parts) + "\n"


def decisions() -> str:
    """The page that lists the decisions by their titles."""
    notes = sorted((ROOT / DECISIONS).glob("*.md"))
    titles = ((note.name, note.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")) for note in notes)
    lines = (f"- [{title}]({name})" for name, title in titles)
    return "\n".join(
        ["# Decisions", "", "A short note for each decision that a newcomer would question.", "", *lines, ""]
    )


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links from where files lie in the checkout to where they lie in the site."""
    here = page.file.src_uri
    # a generated page, such as the index of the decisions, has no file of its own and lies where it is placed
    source = page.file.abs_src_path
    written_in = f"docs/{here}" if source is None else Path(source).relative_to(ROOT).as_posix()

    def turned(link: re.Match[str]) -> str:
        mark, text, path, anchor = link.groups()
        other = target(written_in, path)
        if (ROOT / other).is_dir() and other != DECISIONS:
            return text  # a folder has no page
        if not (ROOT / other).exists():
            return link[0]
        return f"{mark}[{text}]({os.path.relpath(placed(other), posixpath.dirname(here) or '.')}{anchor or ''})"

    both = PICTURE.sub(r"![\2](\3#only-light)![\2](\1#only-dark)", markdown)
    return LINK.sub(turned, both)
