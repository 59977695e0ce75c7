# yolo-prune, AGPL-3.0 license
"""record.json and record.csv: what stands in them is what the record holds, and a file is replaced whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolo_prune.report import record_files

FITNESS = {"fitness_before": 0.25, "fitness_cut": 0.2, "fitness_after": None}
STEP = {"step": 1, "epoch": 3, "params": 7, "gflops": 0.5, "seconds": 1, **FITNESS}


def test_the_table_has_a_row_a_step_and_the_columns_that_are_documented(tmp_path: Path) -> None:
    record: dict[str, Any] = {"steps": [{**STEP, "latency_ms": 2.0}], "final": {"params": 7}}
    record_files.write(record, tmp_path)
    folder = tmp_path / "pruning"
    assert json.loads((folder / "record.json").read_text(encoding="utf-8")) == record
    head = "step,epoch,params,gflops,fitness_before,fitness_cut,fitness_after,seconds\n"
    assert (folder / "record.csv").read_text(encoding="utf-8") == f"{head}1,3,7,0.5,0.25,0.2,,1\n"
    record_files.write({"steps": []}, tmp_path)
    assert (folder / "record.csv").read_text(encoding="utf-8") == head
    assert sorted(path.name for path in folder.iterdir()) == ["record.csv", "record.json"]
