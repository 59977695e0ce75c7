# yolo-prune, AGPL-3.0 license
"""`yolo-prune help faq`: a page of the documentation, as text. The pages travel with the package; errors name them."""

from __future__ import annotations

import posixpath
import re
import textwrap

from yolo_prune.commands import api_text
from yolo_prune.recipe import resources

_PICTURE = re.compile(r'<picture>.*?<img alt="([^"]*)".*?</picture>', re.DOTALL)
_MARK = re.compile(r"<!-- /?\w+ -->\n")  # where generated parts begin and end
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)\s]*)?\)")
_TABLE = re.compile(r"(?:^\|.*\|\n?){3,}", re.MULTILINE)
_WIDTH = 110  # of a line of a table; a wider table is written as a list


def names() -> list[str]:
    """The pages that there are."""
    return sorted(path.stem for path in resources.folder("docs").glob("*.md"))


def of(name: str) -> str | None:
    """The text of a page for a terminal; None where there is no such page.

    Words of pictures stand in their places. A link to what the package does not carry names the file of the source.

    Args:
        name: such as faq or faq.md.
    """
    page = name.removesuffix(".md")
    if page not in names():
        return None
    text = (resources.folder("docs") / f"{page}.md").read_text(encoding="utf-8")
    text = api_text.filled(_MARK.sub("", _PICTURE.sub(r"[picture: \1]", text)))
    return _TABLE.sub(_narrow, _LINK.sub(_followed, text)).rstrip()


def argument(name: str) -> str | None:
    """The row of the page on arguments, in lines, of what prunes in a training; None where there is none of that name.

    Args:
        name: such as prune_latency, or as a recipe has it, latency.
    """
    full = name if name.startswith("prune") else f"prune_{name}"
    row = re.search(rf"^`{re.escape(full)}=`\n(?:    .*(?:\n|$))+", of("arguments") or "", re.MULTILINE)
    return row[0].rstrip() if row else None


def arguments() -> list[str]:
    """The arguments that prune in a training, of the page on them."""
    return re.findall(r"^`(prune\w*)=`$", of("arguments") or "", re.MULTILINE)


def mentions(word: str) -> str:
    """Where a word stands: pages with the headings that have it, else pages whose text has it; empty where none has."""
    if not re.fullmatch(r"[\w-]{3,}", word):
        return ""
    found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    texts = {page: (resources.folder("docs") / f"{page}.md").read_text(encoding="utf-8") for page in names()}
    headings = {
        page: [line.strip("# ") for line in text.splitlines() if line.startswith("#") and found.search(line)]
        for page, text in texts.items()
    }
    lines = [f"{page} ({'; '.join(those)})" for page, those in headings.items() if those]
    return ", ".join(lines or [page for page, text in texts.items() if found.search(text)])


def _followed(link: re.Match[str]) -> str:
    """A link that can be followed here stays; of any other the text, and where the file lies in the source."""
    words, path = link[1], posixpath.normpath(posixpath.join("docs", link[2]))
    folder, _, name = path.rpartition("/")
    if folder == "docs" and name.removesuffix(".md") in names():
        return link[0]
    return words if folder == "recipes" or words == path else f"{words} [{path} of the source]"


def _narrow(table: re.Match[str]) -> str:
    """A table as it is, or, where a terminal would break its lines, each row as a paragraph."""
    lines = table[0].splitlines()
    if max(map(len, lines)) <= _WIDTH:
        return table[0]
    heads, _, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines)
    written = []
    for row in rows:
        first = textwrap.wrap(row[0], _WIDTH, break_on_hyphens=False)
        others = [
            f"{head}: {cell}" if head and len(row) > 2 else cell
            for head, cell in zip(heads[1:], row[1:], strict=True)
            if cell
        ]
        written.append("\n".join([*first, *(line for cell in others for line in _indented(cell))]))
    return "\n".join(written) + "\n"


def _indented(words: str) -> list[str]:
    """A cell below the first one of its row."""
    return textwrap.wrap(words, _WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
