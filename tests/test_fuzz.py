# yolo-prune, AGPL-3.0 license
"""A sample of benchmarks/fuzz.py: what a user types or brings, damaged by chance, never ends in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.checkout import ROOT

SAMPLE = {"recipes": 150, "arguments": 90, "commands": 40, "profiles": 40, "sensitivities": 60}


def test_a_sample_of_damage_ends_in_no_traceback(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    words = [*(f"{kind}={count}" for kind, count in SAMPLE.items()), "seed=7", f"out={out}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["tracebacks"] == 0
    for kind, count in SAMPLE.items():
        row = told["kinds"][kind]
        assert row["cases"] == row["taken"] + row["refused"] == count
        assert row["refused"] > 0
        assert row["taken"] > 0, f"all of {kind} were refused: nothing that is nearly right was tried"
