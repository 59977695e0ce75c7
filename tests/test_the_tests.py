# yolo-prune, AGPL-3.0 license
"""The tests themselves: none may pass because its asserts were never reached.

A test whose every assert stands in a loop or under a condition is green when there was nothing to loop over. It must
also assert outside of them, that there was something; a loop over what is written out, such as ("a", "b") or range(3),
is certain and counts as outside.
"""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys

import pytest

from tests.conftest import PURE
from tests.helpers.checkout import ROOT

# Tests that may stand as they are, and why.
EXCEPTIONS: dict[str, str] = {
    "test_dataset_check.py::test_a_right_one_passes": "what is tested is that nothing is refused",
    "test_trainable_check.py::test_weights_that_fit_for_the_most_part_are_taken": "that nothing is refused is tested",
    "test_faults.py::test_any_arguments_give_a_recipe_none_or_a_recipe_error": "what is drawn decides which of three",
}
CHECKS = ("pytest.raises", "pytest.warns", "pytest.fail", "assert_allclose", "assert_close", "assert_array_equal")
CHECKS += ("assert_no_trace",)  # tests/helpers/oracle.py


def test_every_test_asserts_something_that_is_reached() -> None:
    assert len(list((ROOT / "tests").rglob("test_*.py"))) > 40
    wrong = sorted(every_loose() - set(EXCEPTIONS))
    assert not wrong, (
        "every assert of these tests stands in a loop or under a condition (or there is none); assert outside of it "
        f"that there was something to look at, or name the test in EXCEPTIONS with a reason: {', '.join(wrong)}"
    )


def test_tests_of_pure_wings_import_neither_torch_nor_the_host() -> None:
    folders = [str(ROOT / "tests" / name) for name in PURE]
    code = (
        "import sys, pytest\n"
        f"code = pytest.main(['-q', '-n', '0', '--collect-only', '-p', 'no:cacheprovider', *{folders}])\n"
        "print(int(code), [name for name in ('torch', 'ultralytics') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout[-2000:] + done.stderr[-2000:]


def test_exceptions_are_of_tests_that_need_them() -> None:
    assert set(EXCEPTIONS) <= every_loose()
    assert all(len(reason) > 10 for reason in EXCEPTIONS.values())


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ("for x in found: assert x", False),
        ("if found: assert found", False),
        ("if found: assert found\n    else: assert not found", True),
        ("for x in found: assert x\n    assert found", True),
        ("for x in ('a', 'b'): assert x", True),
        ("for x in ('a', 'b'):\n        for y in found: assert y", False),
        ("for n in range(3): assert n", True),
        ("for n in range(0): assert n", False),
        ("with suppress(OSError): assert found", False),
        ("with pytest.raises(ValueError): found()", True),
        ("for x in found: held(x)", False),
        ("held(found)", True),
        ("unheld(found)", False),
        ("found()", False),
        ("def inner(): assert found\n    found(inner)", False),
        ("try: found()\n    except ValueError: return\n    assert found", True),
        ("try: found()\n    except ValueError: assert found", False),
        ("while found: assert found.pop()", False),
    ],
)
def test_the_check_sees_it(body: str, good: bool) -> None:
    text = f"def held(x):\n    assert x\n\ndef unheld(x):\n    if x: assert x\n\ndef test_it():\n    {body}\n"
    assert loose(text) == ([] if good else ["test_it"])


@functools.cache
def every_loose() -> frozenset[str]:
    """The tests, as file::name, of which no assert is certain to be reached."""
    files = (ROOT / "tests").rglob("test_*.py")
    return frozenset(f"{file.name}::{name}" for file in files for name in loose(file.read_text(encoding="utf-8")))


def loose(text: str) -> list[str]:
    """The tests of a file of which no assert is certain to be reached."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    helpers = {f.name for f in functions if not f.name.startswith("test") and _certain(f.body, set())}
    for _ in range(2):  # a helper may call a helper
        helpers |= {f.name for f in functions if not f.name.startswith("test") and _certain(f.body, helpers)}
    return [f.name for f in functions if f.name.startswith("test") and not _certain(f.body, helpers)]


def _certain(body: list[ast.stmt], helpers: set[str]) -> bool:
    """Whether a check is reached on the way through these statements, whatever is found."""
    return any(_reached(statement, helpers) for statement in body)


def _reached(statement: ast.stmt, helpers: set[str]) -> bool:
    if isinstance(statement, ast.Assert):
        return True
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.While, ast.Match)):
        return False
    if isinstance(statement, ast.If):
        return _certain(statement.body, helpers) and _certain(statement.orelse, helpers)
    if isinstance(statement, ast.For):
        return _is_never_empty(statement.iter) and _certain(statement.body, helpers)
    if isinstance(statement, ast.Try):
        return _certain([*statement.body, *statement.finalbody], helpers)
    if isinstance(statement, ast.With):
        managers = [ast.unparse(item.context_expr) for item in statement.items]
        if any(words.startswith(CHECKS) for words in managers):
            return True
        return not any("suppress(" in words for words in managers) and _certain(statement.body, helpers)
    calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return any(ast.unparse(f).endswith(CHECKS) or (isinstance(f, ast.Name) and f.id in helpers) for f in calls)


def _is_never_empty(values: ast.expr) -> bool:
    """Whether what is looped over is written out and has something in it."""
    if isinstance(values, (ast.Tuple, ast.List, ast.Set)):
        return any(not isinstance(item, ast.Starred) for item in values.elts)
    if isinstance(values, ast.Dict):
        return bool(values.keys)
    if not isinstance(values, ast.Call) or not isinstance(values.func, (ast.Name, ast.Attribute)):
        return False
    name = ast.unparse(values.func)
    if name == "range":
        numbers = [ast.literal_eval(n) if isinstance(n, ast.Constant) else None for n in values.args]
        return None not in numbers and len(range(*numbers)) > 0
    if name in ("zip", "enumerate", "itertools.product"):
        return all(_is_never_empty(argument) for argument in values.args)
    return name.endswith((".items", ".values", ".keys")) and _is_never_empty(values.func.value)  # type: ignore[union-attr]


def test_every_mutation_still_stands_in_its_file_and_names_tests_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """benchmarks/mutations.py takes minutes; that its list is no longer of this tree shows here at once."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("mutations")
    assert len(module.MUTATIONS) > 60
    assert module.check(module.MUTATIONS) == []
    wrong = module.MUTATIONS[0]._replace(old="this stands nowhere", tests=("floor::test_that_is_not_there",))
    faults = module.check((wrong,))
    assert len(faults) == 2
    assert "anchor not found: 'this stands nowhere'" in faults[0]
    assert "no such test: floor::test_that_is_not_there" in faults[1]
