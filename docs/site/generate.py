# yolo-prune, AGPL-3.0 license
"""Write the parts of the documentation that follow from the code; the suite compares.

    python docs/site/generate.py                      tables, and the pictures of docs/pictures
    yolo-prune demo && python docs/site/generate.py demo=yolo-prune-demo      with the figures of a new run

A part stands between `<!-- name -->` and `<!-- /name -->` of a page.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from yolo_prune.commands import help_text
from yolo_prune.cost import channel_steps
from yolo_prune.export import table
from yolo_prune.recipe import arguments, support
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import text

ROOT = Path(__file__).resolve().parents[2]


def recipes() -> str:
    """The shipped recipes: what each asks for, and for which runtime; a link to the file, which says why."""
    lines = ["| recipe | at most | steps | runtime | channels in multiples of |", "| --- | --- | --- | --- | --- |"]
    for name in arguments.shipped():
        recipe = arguments.load(name)
        runtime = "" if recipe.format is None else f"{recipe.format}, {recipe.precision or 'fp32'}"
        file = f"[{name}](../recipes/{name}.yaml)"
        multiple = recipe.round or "what the machine wants"
        lines.append(f"| {file} | {asked(recipe)} | {recipe.steps} | {runtime} | {multiple} |")
    return "\n".join(lines)


def asked(recipe: Recipe) -> str:
    """The goal of a recipe in words."""
    bounds = [f"{bound} of the FLOPs" for bound in (recipe.flops,) if bound is not None]
    drop = [] if recipe.max_drop is None else [f"{recipe.max_drop:g} less fitness"]
    return ", ".join([*bounds, *drop])


def commands() -> str:
    """What `yolo-prune help COMMAND` prints, for each."""
    return "\n\n".join(f"## {name}\n\n```text\n{help_text.of(name)}\n```" for name in help_text.COMMANDS)


def sweep(name: str) -> str:
    """What `yolo-prune sweep` found, fastest first; benchmarks/keep_sweep.py kept it under this name."""
    found = json.loads((ROOT / "benchmarks" / "results" / f"sweep-{name}.json").read_text(encoding="utf-8"))
    lines = [f"| model | ms | {found['metric']} | GFLOPs | params | MB |", "| --- | --- | --- | --- | --- | --- |"]
    for row in sorted(found["rows"], key=lambda row: row["ms"]):
        label = f"**{row['label']}**" if row["on_front"] else row["label"]
        cells = (f"{row['ms']:.2f}", f"{row['metric']:.4f}", f"{row['gflops']:.2f}", f"{row['params']:,}")
        lines.append(f"| {label} | {' | '.join(cells)} | {row['bytes'] / 1e6:.1f} |")
    versions = found["versions"]
    about = f"{found['device']}; yolo-prune at {versions.get('commit', '?')}, torch {versions['torch']}"
    return "\n".join([*lines, "", f"*{about}. In bold what is on the front.*"])


def demo() -> str:
    """The table of docs/pictures/demo-export.json, which the picture beside it is of too."""
    return _exported({"pt", "onnx"})


def export() -> str:
    """The same, of the exported files alone."""
    return _exported({"onnx"})


def _exported(kinds: set[str]) -> str:
    """What `yolo-prune export` prints of the rows of these formats."""
    record = json.loads((ROOT / "docs" / "pictures" / "demo-export.json").read_text(encoding="utf-8"))
    record["rows"] = [row for row in record["rows"] if row["format"] in kinds]
    told = [_parity(row["parity"]) for row in record["rows"]]
    lines = text.table(table.cells(record, told)).splitlines()
    return "\n".join(["```text", *(line.rstrip() for line in lines), "```"])


def _parity(parity: Mapping[str, Any] | None) -> str:
    """As the table has it, of outputs that are right."""
    if parity is None:
        return "-"
    raw = max(parity[f"{part}_relative"] or 0.0 for part in ("box", "score", "rest"))
    return f"ok: raw {raw:.0e}, boxes {parity['matched']}/{parity['boxes']}"


def needs() -> str:
    """What pyproject.toml asks for."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    asked_for = re.findall(r'^    "((?:ultralytics|torch)[<>=][^"]+)",$', project, re.MULTILINE)
    python, licence = (
        re.findall(rf'^{key} = "(.+)"$', project, re.MULTILINE) for key in ("requires-python", "license")
    )
    words = [f"Python {python[0]}", *(word.replace(">=", " >=", 1) for word in asked_for), licence[0]]
    return " · ".join(f"`{word}`" for word in words)


# Part -> the page that it stands in, and what writes it.
PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "arguments": ("docs/arguments.md", arguments.arguments_table),
    "commands": ("docs/commands.md", commands),
    "demo": ("docs/quickstart.md", demo),
    "export": ("docs/export.md", export),
    "needs": ("README.md", needs),
    "recipes": ("docs/recipes.md", recipes),
    "steps": ("docs/profiles.md", channel_steps.table),
    "sweep": ("docs/sweep.md", partial(sweep, "demo")),
    "sweep of BCCD": ("docs/sweep.md", partial(sweep, "bccd-yolo11n")),
    "sweep of BCCD in OpenVINO": ("docs/sweep.md", partial(sweep, "bccd-yolo11n-openvino")),
    "sweep of BCCD in OpenVINO, yolov8n": ("docs/sweep.md", partial(sweep, "bccd-yolov8n-openvino")),
    "sweep of BCCD in OpenVINO, yolo26n": ("docs/sweep.md", partial(sweep, "bccd-yolo26n-openvino")),
    "sweep of BCCD, yolo26n": ("docs/sweep.md", partial(sweep, "bccd-yolo26n")),
    "support": ("README.md", support.table),
}


def pages() -> dict[Path, str]:
    """Every page that holds such a part, as it should be."""
    texts: dict[Path, str] = {}
    for name, (page, write) in PARTS.items():
        path = ROOT / page
        page_text = texts.get(path) or path.read_text(encoding="utf-8")
        before, rest = page_text.split(f"<!-- {name} -->", 1)
        after = rest.split(f"<!-- /{name} -->", 1)[1]
        texts[path] = f"{before}<!-- {name} -->\n{write()}\n<!-- /{name} -->{after}"
    return texts


if __name__ == "__main__":
    import pictures  # beside this file; it loads matplotlib, which the tables do not need

    for word in sys.argv[1:]:
        pictures.take(Path(word.removeprefix("demo=")))
    pictures.write()
    for written, content in pages().items():
        written.write_text(content, encoding="utf-8")
