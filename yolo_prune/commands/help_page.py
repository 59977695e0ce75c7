# yolo-prune, AGPL-3.0 license
"""`yolo-prune help faq`: a page of the documentation, as text. The pages travel with the package; errors name them."""

from __future__ import annotations

import re

from yolo_prune.recipe import resources

_PICTURE = re.compile(r'<picture>.*?<img alt="([^"]*)".*?</picture>', re.DOTALL)
_MARK = re.compile(r"<!-- /?\w+ -->\n")  # where generated parts begin and end


def names() -> list[str]:
    """The pages that there are."""
    return sorted(path.stem for path in resources.folder("docs").glob("*.md"))


def of(name: str) -> str | None:
    """The text of a page, with the words of its pictures in their places; None where there is no such page.

    Args:
        name: such as faq or faq.md.
    """
    page = name.removesuffix(".md")
    if page not in names():
        return None
    text = (resources.folder("docs") / f"{page}.md").read_text(encoding="utf-8")
    return _MARK.sub("", _PICTURE.sub(r"[picture: \1]", text)).rstrip()
