# yolo-prune, AGPL-3.0 license
"""The rows of a sweep: whose metric stands in which, what is on the front, and what the table says of the others."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolo_prune.sweeps import points, results
from yolo_prune.sweeps.request import Request

ASKED = Request("best.pt", "my.yaml", 60, (("flops", "50%"),), imgsz=(64,), quantize=8)
DENSE, CUT = points.of(ASKED)
OUTCOME = {"params": 100, "gflops": 1.0, "metrics": [0.5, 0.8], "weights": "best.pt"}


def row(precision: str = "fp32", stage: str = "trained", **more: Any) -> dict[str, Any]:
    """One row of the cut model."""
    given = {"request": ASKED, "outcome": OUTCOME, "artifact": {"bytes": 10, "file": "a.onnx"}, "timed": {"ms": 2.0}}
    one = {**given, **more}
    return results.row(one["request"], CUT, stage, precision, one["outcome"], one["artifact"], one["timed"])


def test_int8_has_a_metric_of_its_own_and_others_that_of_the_model() -> None:
    assert (row()["metric"], row()["metric2"], row()["label"]) == (0.5, 0.8, "pruned flops=50%")
    int8 = row("int8", artifact={"bytes": 3, "file": "b.onnx", "metrics": [0.4, 0.7], "faults": []})
    assert (int8["metric"], int8["label"], int8["base"]) == (0.4, "pruned flops=50% INT8", False)
    assert row("int8")["metric"] is None, "it was not validated"
    half = row("fp16", request=replace(ASKED, base="fp16"))
    assert (half["metric"], half["label"], half["base"]) == (0.5, "pruned flops=50%", True)


def test_before_a_training_the_metric_is_the_models_for_no_artifact_was_validated() -> None:
    """With a profile in INT8 no cut was beaten by another, and the table had a dash in every row."""
    asked = replace(ASKED, base="int8", profile=("board.json",))
    artifact = {"bytes": 3, "file": "b.onnx", "metrics": None}
    assert row("int8", "cut", request=asked, artifact=artifact)["metric"] == 0.5
    assert row("int8", "trained", request=asked, artifact=artifact)["metric"] is None
    alone = replace(asked, epochs=0)
    assert row("int8", "cut", request=alone, artifact={**artifact, "metrics": [0.4, 0.7]})["metric"] == 0.4


def test_what_is_broken_or_unknown_is_said_and_is_on_no_front() -> None:
    broken = row(artifact={"bytes": 1, "file": "a.onnx", "faults": ["raw output differs", "slower"]})
    untrained = row(stage="cut", outcome={**OUTCOME, "metrics": None})
    good = row(timed={"ms": 3.0, "predicted": True})
    rows = [{**one, "name": name} for one, name in ((broken, "a"), (untrained, "b"), (good, "c"))]
    assert [one["ms"] for one in results.mark_front(rows)] == [3.0]
    assert [one["on_front"] for one in rows] == [False, False, True]
    lines = results.table(rows, "mAP50-95").splitlines()
    assert [line[0] for line in lines[2:5]] == [" ", "*", " "], "fastest first, what failed last"
    assert "3.00~" in lines[3], "predicted"
    assert lines[-2:] == [
        "pruned flops=50% failed: raw output differs; slower",
        "pruned flops=50%: no figure before a training",
    ]


def test_sweep_csv_reads_back(tmp_path: Path) -> None:
    results.write_csv([row(), row(stage="cut")], tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert [one["stage"] for one in read] == ["trained", "cut"]
    assert read[0]["command"] == "yolo train model=best.pt data=my.yaml epochs=60 imgsz=64 prune_flops=50%"
    assert set(read[0]) == set(results.COLUMNS)
