# yolo-prune, AGPL-3.0 license
"""A kill of benchmarks/kill.py: SIGKILL at a moment drawn at random, then `yolo train resume`.

Of the recipe with several steps, which has more to lose; test_resumed_widths.py stops others in this process.
"""

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
    words = ("kills=1", "seed=7", "recipes=steps", f"model={SMALL_MODEL}", f"out={out}")  # in the fourth epoch of six
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill.py"), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (row,) = json.loads(out.read_text())["rows"]
    assert row["different"] == []
    assert row["signal"], done.stdout
    assert row["recipe"] == "steps"
    assert row["then"].startswith("resumed"), done.stdout
