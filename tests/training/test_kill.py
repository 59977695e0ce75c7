# yolo-prune, AGPL-3.0 license
"""A kill of benchmarks/kill.py: SIGKILL at a moment drawn at random, then `yolo train resume`.

Of the recipe with several steps, which has more to lose; test_resumed_widths.py stops others in this process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.small_models import SMALL_MODEL


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_ends_as_one_that_was_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What compares is in this process; every training is one of its own."""
    out = tmp_path / "rows.json"
    words = ("kills=1", "seed=7", "recipes=steps", f"model={SMALL_MODEL}", f"out={out}")  # in the fourth epoch of six
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    kill = importlib.import_module("kill")
    monkeypatch.setattr(kill, "ARGUMENTS", {**kill.ARGUMENTS})
    monkeypatch.setattr(sys, "argv", ["kill.py", *words])
    monkeypatch.setenv("YOLO_CONFIG_DIR", os.environ["YOLO_CONFIG_DIR"])  # kill.py names another, for its trainings
    code = kill.main()
    said = capsys.readouterr().out
    assert code == 0, said[-4000:]
    (row,) = json.loads(out.read_text())["rows"]
    assert row["different"] == []
    assert row["signal"], said
    assert row["recipe"] == "steps"
    assert row["then"].startswith("resumed"), said
