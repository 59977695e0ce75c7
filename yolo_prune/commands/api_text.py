# yolo-prune, AGPL-3.0 license
"""What mkdocstrings makes of a page's `::: yolo_prune.api.prune` on the site, as text: the signature and the docstring.

Sources are read and not imported: to import them takes seconds, for torch.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import yaml

import yolo_prune

_DIRECTIVE = re.compile(r"^::: ([\w.]+)\n((?: {4}.*\n?)*)", re.MULTILINE)
_WIDTH = 100


def filled(page: str) -> str:
    """A page with what each directive of mkdocstrings asks for in its place."""
    return _DIRECTIVE.sub(lambda found: _asked(found[1], found[2]), page)


def _asked(path: str, given: str) -> str:
    """One function, or the members of a module that are named.

    Args:
        path: dotted. given: the lines below the directive, in YAML.
    """
    options = (yaml.safe_load(textwrap.dedent(given)) or {}).get("options", {})
    module, names = (
        (path, options["members"]) if "members" in options else (path.rpartition(".")[0], [path.split(".")[-1]])
    )
    source = Path(yolo_prune.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    nodes = {getattr(node, "name", ""): node for node in ast.parse(source.read_text(encoding="utf-8")).body}
    texts = []
    for name in names:
        node = nodes[name]
        assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
        head = textwrap.wrap(
            _head(node, options.get("heading", name)), _WIDTH, subsequent_indent="    ", break_on_hyphens=False
        )
        texts.append("\n".join([*head, "", textwrap.indent(ast.get_docstring(node) or "", "    ")]))
    return "\n\n".join(texts) + "\n"


def _head(node: ast.FunctionDef | ast.ClassDef, name: str) -> str:
    """Its first line: a function with its arguments, a class with what it is made of."""
    if isinstance(node, ast.ClassDef):
        return f"{name}({', '.join(map(ast.unparse, node.bases))})"
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{name}({ast.unparse(node.args)}){returned}"
