# yolo-prune, AGPL-3.0 license
"""A few kills of benchmarks/kill.py: SIGKILL at random moments, then `yolo train resume`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.small_models import SMALL_MODEL


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_ends_as_one_that_was_not_killed(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    words = ("kills=2", "seed=5", f"model={SMALL_MODEL}", f"out={out}")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill.py"), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    rows = json.loads(out.read_text())["rows"]
    assert [row["different"] for row in rows] == [[], []]
    assert any(row["signal"] for row in rows), done.stdout
    assert [row["recipe"] for row in rows] == ["default", "steps"]
    assert any(row["then"].startswith("resumed") for row in rows), done.stdout
