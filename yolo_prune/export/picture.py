# yolo-prune, AGPL-3.0 license
"""What an export found -> export.png: milliseconds in one panel, the metric in another, each bar with its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_prune.report import style
from yolo_prune.report.style import LIGHT, SMALL, Note, Palette

Row = Mapping[str, Any]


def content(record: Mapping[str, Any], palette: Palette = LIGHT, note: Note | None = None) -> bytes:
    """The PNG file of an export's record; the metric has a panel where it was measured. note: as of `style.png`."""
    rows = [row for row in record["rows"] if row["latency_ms"]]
    judged = any(row["map50_95"] is not None for row in rows)

    def draw(figure: Any, palette: Palette) -> None:
        left, *right = figure.subplots(1, 2 if judged else 1, sharey=True, squeeze=False)[0]
        where = f"batch {record['batch']}, {record['threads']} thread{'s' * (record['threads'] > 1)}"
        side = f"{record['imgsz']} x {record['imgsz']}"
        first = f"{Path(record['model']).name} at {side}{_gain(rows)}"
        style.heading(left, palette, first, f"ms a call, {where}; less is better")
        _milliseconds(left, rows, palette)
        if judged:
            _metric(right[0], rows, record["metrics"][0], palette)
        left.set_yticks(range(len(rows)), [_name(row) for row in rows])
        left.set_ylim(len(rows) - 0.4, -0.6)  # the first above

    return style.png(draw, 1.2 + 0.34 * len(rows), palette, note=note)


def _gain(rows: Sequence[Row]) -> str:
    """The largest speed-up of what was kept and is right."""
    known = [row for row in rows if row["kept"] and not row["faults"] and row["speedup"] not in (None, 1.0)]
    best = max(known, key=lambda row: row["speedup"], default=None)
    return "" if best is None else f": {best['speedup']:.2f} times as fast, {_name(best).partition(', ')[2]}"


def _name(row: Row) -> str:
    """What a bar is of: who, in which format, in which precision."""
    precision = "" if row["precision"] == "fp32" else f" {row['precision']}"
    failed = "  FAILED" if row["faults"] else ""
    return f"{row['role']}, {'torch' if row['format'] == 'pt' else row['format']}{precision}{failed}"


def _colors(rows: Sequence[Row], palette: Palette) -> list[str]:
    """By the model, as in pruning.png; of what failed its proof, the figures count for nothing."""
    return [
        palette.bad if row["faults"] else palette.dense if row["role"] == "dense" else palette.pruned for row in rows
    ]


def _milliseconds(axes: Any, rows: Sequence[Row], palette: Palette) -> None:
    """Medians, the middle 80% of the calls as a line, and how many times as fast as the dense one of its format."""
    times = [row["latency_ms"] for row in rows]
    axes.barh(range(len(rows)), [time["median"] for time in times], color=_colors(rows, palette), height=0.7)
    for at, (row, time) in enumerate(zip(rows, times, strict=True)):
        axes.plot([time["p10"], time["p90"]], [at, at], color=palette.soft, lw=1)
        faster = "" if row["speedup"] in (None, 1.0) else f",  {row['speedup']:.2f}x"
        _figure(axes, max(time["median"], time["p90"]), at, f"{time['median']:.2f}{faster}")
    _finish(axes, 1.32 * max(time["p90"] for time in times))


def _metric(axes: Any, rows: Sequence[Row], name: str, palette: Palette) -> None:
    """The metric of each, with what it lost against the dense torch model."""
    values = [row["map50_95"] for row in rows]
    known = [value for value in values if value is not None]
    axes.barh(range(len(rows)), [value or 0 for value in values], color=_colors(rows, palette), height=0.7)
    dense = next((row["map50_95"] for row in rows if row["role"] == "dense" and row["format"] == "pt"), None)
    for at, value in enumerate(values):
        lost = "" if value is None or dense is None or abs(value - dense) < 5e-4 else f",  {value - dense:+.3f}"
        _figure(axes, value or 0, at, "not measured" if value is None else f"{value:.3f}{lost}")
    style.subheading(axes, palette, f"{name}; more is better")
    _finish(axes, 1.38 * max(max(known), 0.01))


def _figure(axes: Any, x: float, y: int, words: str) -> None:
    """A figure beside the end of its bar."""
    axes.annotate(words, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=SMALL + 0.5)


def _finish(axes: Any, right: float) -> None:
    axes.set_xlim(0, right)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
