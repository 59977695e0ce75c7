# yolo-prune, AGPL-3.0 license
"""export.png: a bar of milliseconds and one of the metric for each model, with their figures."""

from __future__ import annotations

from typing import Any

from yolo_prune.export import picture
from yolo_prune.report.style import LIGHT

TIMES = {"median": 10.0, "p10": 9.0, "p90": 11.0}
DENSE: dict[str, Any] = {
    "role": "dense",
    "format": "pt",
    "precision": "fp32",
    "kept": False,
    "faults": [],
    "speedup": 1.0,
    "latency_ms": TIMES,
    "map50_95": 0.6,
}
PRUNED = {**DENSE, "role": "pruned", "kept": True, "speedup": 2.0, "latency_ms": {**TIMES, "median": 5.0}}
ROWS = [
    DENSE,
    {**PRUNED, "format": "onnx", "map50_95": 0.58},
    {**PRUNED, "format": "onnx", "precision": "int8", "map50_95": 0.1, "speedup": 4.0, "faults": ["boxes differ"]},
]
RECORD = {"model": "runs/best.pt", "imgsz": 320, "batch": 1, "threads": 1, "metrics": ["mAP50-95", "mAP50"]}


def drawn(rows: list[dict[str, Any]]) -> Any:
    figures: list[Any] = []

    def keep(figure: Any) -> dict[str, str]:
        figures.append(figure)
        return {}

    picture.content({**RECORD, "rows": rows}, LIGHT, keep)
    return figures[0]


def test_two_panels_with_figures() -> None:
    left, right = drawn(ROWS).axes
    assert [bar.get_width() for bar in left.patches] == [10, 5, 5]
    assert [bar.get_width() for bar in right.patches] == [0.6, 0.58, 0.1]
    assert [text.get_text() for text in left.texts[1:]] == ["10.00", "5.00,  2.00x", "5.00,  4.00x"]
    assert [text.get_text() for text in right.texts[:-1]] == ["0.600", "0.580,  -0.020", "0.100,  -0.500"]
    assert right.texts[-1].get_text() == "mAP50-95; more is better"
    assert right.texts[-1].xyann == left.texts[0].xyann, "both at one height"
    names = ["dense, torch", "pruned, onnx", "pruned, onnx int8  FAILED"]
    assert [label.get_text() for label in left.get_yticklabels()] == names
    # what failed its proof is not the headline
    assert left.get_title(loc="left") == "best.pt at 320 x 320: 2.00 times as fast, onnx"


def test_one_panel_where_nothing_was_validated() -> None:
    (only,) = drawn([{**row, "map50_95": None} for row in ROWS]).axes
    assert len(only.patches) == 3
