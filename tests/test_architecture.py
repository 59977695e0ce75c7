# yolo-prune, AGPL-3.0 license
"""The house: import-linter holds its arrows (`tool.importlinter` in pyproject.toml); here stands what it cannot say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT

PACKAGE = ROOT / "yolo_prune"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP = {
    "__init__",
    "__main__",
    "_startup",
    "api",
    "callbacks",
    "cli",
    "install",
    "errors",
    "files",
    "folder_lock",
    "log",
    "registry",
    "scratch",
    "shell",
}


def name_of(path: Path) -> str:
    """The dotted name of a module below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[str]:
    """What a module imports at its top, as dotted names."""
    names: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            names.append(node.module or "")
    return names


def test_arrows_between_wings_point_downwards_and_libraries_stay_where_they_belong() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " 0 broken" in done.stdout


def test_at_the_top_stands_what_a_user_or_the_interpreter_meets() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_which_question_it_answers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yolo-prune, AGPL-3.0 license\n")
    assert ast.get_docstring(ast.parse(text))


# Programs that are copied to a device as one file each.
LONG_FILES = {"export/on_device/detect.py", "export/on_device/tensorrt_compare.py"}


def test_no_file_is_over_400_lines_and_no_function_over_60() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert len(tests) > 80
    long_files, long_functions = set(), []
    for path in [*MODULES, *tests, *sorted((ROOT / "benchmarks").glob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long_files.add(str(path.relative_to(PACKAGE if path in MODULES else ROOT)))
        if path.parent.name == "benchmarks":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:  # type: ignore[operator]
                long_functions.append(f"{path.stem}.{node.name}")
    assert long_files == LONG_FILES
    assert long_functions == []


def test_the_hosts_trainer_goes_no_further_than_to_the_handlers() -> None:
    """All else of a training is given a `Run` (docs/decisions/0017-wings.md)."""
    takes = {
        path.stem
        for path in (PACKAGE / "training").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.arg) and node.arg == "trainer")
        or (isinstance(node, ast.Attribute) and node.attr == "trainer")
    }
    assert takes == {"session", "dense_alike"}  # those of a run that prunes, and of its opponent


def test_start_up_imports_next_to_nothing() -> None:
    top = {name for module in ("__init__", "_startup") for name in imports(PACKAGE / f"{module}.py")}
    assert top == {"__future__", "os", "sys", "yolo_prune"}


def test_what_a_kit_takes_to_a_device_needs_numpy_alone() -> None:
    from yolo_prune.device import probe_kit

    taken = [PACKAGE / f"{module.replace('.', '/')}.py" for module in probe_kit._MODULES]
    assert taken
    known = {*sys.stdlib_module_names, "numpy", "yolo_prune"}
    assert {name.split(".")[0] for path in taken for name in imports(path)} <= known


def test_the_map_of_the_house_is_true() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", text.split("## To change X")[1].split("## Habits")[0])
    assert len(rooms) > 15
    assert [room for room in rooms if not (PACKAGE / room).exists()] == []
    wings = {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert wings == there - {"__init__"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}


def test_what_is_put_into_the_host_stands_in_its_decision() -> None:
    """Wrapped functions and attributes on foreign objects, each with the module that puts it there."""
    told = (ROOT / "docs/decisions/0003-hooks-into-the-host.md").read_text(encoding="utf-8")
    rows = [line for line in told.splitlines() if line.startswith("| `")]
    found = {
        (name, path.relative_to(PACKAGE).as_posix())
        for path in MODULES
        for names in re.findall(
            r"wrapped\.mark\((\w+)\)|\"(_?yolo_prune_\w+)\"|\.(yolo_prune_\w+) = ", path.read_text(encoding="utf-8")
        )
        for name in names
        if name
    }
    assert len(found) > 25
    assert not {(name, file) for name, file in found if not any(f"`{name}`" in row and file in row for row in rows)}
    known = {name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert known == {name for name, _ in found}
