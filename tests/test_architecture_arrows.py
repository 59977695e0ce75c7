# yolo-prune, AGPL-3.0 license
"""Which module may import which: arrows point downwards only, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "yolo_prune"

# From the bottom up. A module imports from its own row and from rows below it, anywhere in its text.
LAYERS = {
    "base": {"arguments", "errors", "files", "platform_report", "resources", "scratch"},
    "device": {"device", "latency", "latency_model", "runtime"},
    "pure": {
        "allocate",
        "costs",
        "formats",
        "measured_file",
        "pattern",
        "profiles",
        "scopes",
        "units",
        "recipe",
        "recipe_file",
        "schedule",
        "support",
        "text",
    },
    "torch": {
        "architecture",
        "at_steps",
        "blocks",
        "channel_counts",
        "compensate",
        "flat",
        "frozen",
        "follow",
        "gates",
        "graph",
        "hooks",
        "importance",
        "masks",
        "memory",
        "measure",
        "operation_names",
        "operations",
        "residual",
        "rewarm",
        "sets",
        "shapes",
        "sparse",
        "step",
        "surgery",
        "trace",
    },
    "trainer": {
        *("api", "checkpoint", "continuity", "demo", "demo_data", "demo_settings", "export"),
        *(
            "artifact",
            "asked_for",
            "between",
            "calibration",
            "cutting",
            "bundle",
            "deploy",
            "deployment",
            "distill",
            "dry_cut",
            "export_report",
            "exported",
            "floor",
            "gradients",
            "kit",
            "outputs",
            "preflight",
            "probes",
            "profile",
            "sensitivity",
            "timed",
            "undo",
            "ranks",
            "rebuilt",
            "state_file",
            "exclusive",
            "stopped",
            "cadence",
            "training_state",
            "record",
            "report",
            "resuming",
            "samples",
            "saving",
            "session",
            "suitable",
            "telling",
            "tensorrt_kit",
            "validation",
            "verify",
        ),
    },
    "host": {"console", "host"},
    "top": {"__init__", "__main__", "_startup", "cli"},
}
ORDER = tuple(LAYERS)

# The start of what a layer may import from outside, at the top of a module; the standard library always may.
OUTSIDE = {
    "base": set(),
    "device": {"numpy"},
    "pure": {"numpy", "pydantic", "pydantic_core", "yaml"},
    "torch": {"numpy", "torch", "torch_pruning", "ultralytics.nn", "ultralytics.utils"},
    "host": set(),
    "top": set(),
}


class Import(NamedTuple):
    """One imported module, and whether that happens at the top of the file."""

    name: str
    top: bool


def _layer(module: str) -> str:
    return next(layer for layer, modules in LAYERS.items() if module in modules)


def _imports(path: Path) -> Iterator[Import]:
    """Yield every import of a file but those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            assert node.module is not None
            if node.module == "yolo_prune":
                yield from (Import(f"yolo_prune.{alias.name}", id(node) in top) for alias in node.names)
            else:
                yield Import(node.module, id(node) in top)


MODULES = {path.stem: list(_imports(path)) for path in sorted(PACKAGE.glob("*.py"))}


def _ours(module: str) -> set[str]:
    """Return the modules of the package that `module` imports. Names of `__init__`, such as __version__, are none."""
    parts = (item.name.split(".") for item in MODULES[module])
    return {part[1] for part in parts if part[0] == "yolo_prune" and len(part) > 1} & set(MODULES)


def _outside(module: str, top_only: bool) -> set[str]:
    """Return what `module` imports from other distributions."""
    names = {item.name for item in MODULES[module] if item.top or not top_only}
    return {name for name in names if name.split(".")[0] not in {*sys.stdlib_module_names, "yolo_prune"}}


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS.values())
    assert set(MODULES) - known == set(), "say in LAYERS where they belong"
    assert len(known) == sum(map(len, LAYERS.values()))


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_downwards(module: str) -> None:
    height = ORDER.index(_layer(module))
    upwards = {name for name in _ours(module) if ORDER.index(_layer(name)) > height}
    assert upwards == set()


def test_no_circles() -> None:
    graph = {module: _ours(module) for module in MODULES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", [name for name in MODULES if _layer(name) in OUTSIDE])
def test_heavy_libraries_stay_where_they_belong(module: str) -> None:
    allowed = OUTSIDE[_layer(module)]
    found = _outside(module, top_only=_layer(module) not in ("base", "pure"))
    strangers = {name for name in found if not any(name == a or name.startswith(f"{a}.") for a in allowed)}
    assert strangers == set()


def test_only_graph_knows_torch_pruning() -> None:
    users = {module for module in MODULES if any(name.startswith("torch_pruning") for name in _outside(module, False))}
    assert users == {"graph"}


def test_start_up_imports_next_to_nothing() -> None:
    top = {item.name for module in ("__init__", "_startup") for item in MODULES[module] if item.top}
    assert top == {"__future__", "os", "sys", "yolo_prune._startup"}


def test_first_line_and_docstring() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 70
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# yolo-prune, AGPL-3.0 license\n"), path.name
        assert ast.get_docstring(ast.parse(text)), f"{path.name} does not say which question it answers"
