# yolo-prune, AGPL-3.0 license
"""docs/research.md, run as it stands; and what is refused of what people register."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import yolo_prune
from tests.helpers.checkout import ROOT
from tests.helpers.runs import record_of
from tests.helpers.small_models import untrained
from yolo_prune.allocation import scopes
from yolo_prune.errors import PruneError
from yolo_prune.importance import scoring
from yolo_prune.recipe import schedule, settings

CODE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "research.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    tables: list[dict[str, Any]] = [scoring.IMPORTANCES, schedule.SCHEDULES, scopes.SCOPES]
    before, names = [dict(table) for table in tables], set(settings.SCOPE_NAMES)
    assert names == set(scopes.SCOPES)
    yield
    settings.SCOPE_NAMES.clear()
    settings.SCOPE_NAMES.update(names)
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


def test_the_page_is_true(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = f"prune_steps=2, workers=0, plots=False, project={str(tmp_path)!r}, name='run',"
    assert CODE[-1].count("prune_steps=2,") == 1
    exec("\n".join(CODE).replace("prune_steps=2,", own), {"MODEL": "yolov8n.yaml", "DATA": str(tiny_data)})
    record = record_of(tmp_path / "run")
    assert record["recipe"]["scope"] == "flat"
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    widest = max(row["after"] for row in record["layers"] if row["after"] < row["before"])
    assert widest < max(row["before"] for row in record["layers"])
    first, last = record["steps"]
    share = (record["baseline"]["gflops"] - first["gflops"]) / (record["baseline"]["gflops"] - last["gflops"])
    assert share == pytest.approx(0.25, abs=0.12)  # half of the time, squared


def test_each_example_is_ten_lines_at_most() -> None:
    assert all(len([line for line in block.splitlines() if line]) <= 10 for block in CODE[:3])


@pytest.mark.parametrize(
    ("arguments", "function", "words"),
    [
        (("no spaces",), len, r"register\('no spaces'\): a name is letters, digits and underscores"),
        (("l2",), len, "this importance exists already; known are"),
        (("obdc",), len, "this importance exists already"),
        (("cubic", "schedule"), len, "this schedule exists already; known are cubic, linear, oneshot"),
        (("global", "scope"), len, "this scope exists already"),
        (("x", "colour"), len, "known kinds are importance, schedule, scope"),
        (("x",), 3, r"wants a function \(group, model\) -> \(size,\) scores, given 3"),
        (
            ("x", "schedule"),
            lambda time: 1 - time,
            "grows from 0 or more to exactly 1; this one goes from 1 to 0 and fa",
        ),
        (("x", "schedule"), lambda time: time / 2, "this one goes from 0 to 0.5"),
    ],
)
def test_what_cannot_be_registered(arguments: tuple[Any, ...], function: Any, words: str) -> None:
    with pytest.raises(PruneError, match=words):
        yolo_prune.register(*arguments)(function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda problem: np.ones(3), r"scope 'mine' must return \d+ counts, one a unit; returned shape \(3,\)"),
        (lambda problem: problem.sizes(), "scope 'mine' keeps .* FLOPs where the bound of this step is 2"),
        (lambda problem: problem.sizes() * np.nan, "scope 'mine' must return"),
    ],
)
def test_what_a_scope_may_not_return(function: Any, words: str) -> None:
    yolo_prune.register("mine", kind="scope")(function)
    with pytest.raises(PruneError, match=words):
        yolo_prune.prune(untrained(), flops="50%", scope="mine")
