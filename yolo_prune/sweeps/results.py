# yolo-prune, AGPL-3.0 license
"""What a sweep found, as plain data, and as sweep.csv, front.json and front.png.

A row is one model in one precision: a point after the cut alone (`stage` "cut") or after its training ("trained").
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo_prune import files
from yolo_prune.report import style, text
from yolo_prune.report.style import LIGHT, Note, Palette
from yolo_prune.sweeps import front
from yolo_prune.sweeps.points import Point, command
from yolo_prune.sweeps.request import Request

_UNTRAINED = "no figure before a training"  # of random weights, and of weights for other classes
COLUMNS = (
    *("name", "stage", "precision", "kind", "label", "imgsz", "metric", "metric2", "ms", "low", "high", "predicted"),
    *("gflops", "params", "bytes", "on_front", "failed", "note", "weights", "artifact", "command"),
)
# What tells the kinds apart beside colour: the marker of matplotlib, the symbol of plotly, the colour in both.
STYLES = {
    "dense": ("o", "circle", "#8250df", "the model itself"),
    "pruned": ("^", "triangle-up", "#1f6feb", "pruned"),
    "baseline": ("s", "square", "#d1570a", "other models"),
}


def row(
    request: Request,
    point: Point,
    stage: str,
    precision: str,
    outcome: Mapping[str, Any],
    artifact: Mapping[str, Any],
    timed: Mapping[str, Any],
) -> dict[str, Any]:
    """One row. outcome: of the point. artifact: of artifacts.py, empty where there is none. timed: its milliseconds."""
    own = precision == "int8" and request.is_last(stage)  # before a training the artifact is timed alone
    metrics = artifact.get("metrics") if own else outcome.get("metrics")
    first, second = metrics or (None, None)
    faults = list(artifact.get("faults") or [])
    return {
        "name": point.name,
        "stage": stage,
        "precision": precision,
        "kind": point.kind,
        "label": point.label + ("" if precision == request.base else f" {precision.upper()}"),
        "imgsz": point.imgsz,
        "small": point.small,
        "own_size": point.imgsz == request.imgsz[0],
        "base": precision == request.base,
        "metric": first,
        "metric2": second,
        "ms": timed.get("ms"),
        "low": timed.get("low"),
        "high": timed.get("high"),
        "steady": timed.get("steady", True),
        "speedup": timed.get("speedup"),
        "predicted": bool(timed.get("predicted")),
        "gflops": outcome.get("gflops"),
        "params": outcome.get("params"),
        "bytes": artifact.get("bytes"),
        "on_front": False,
        "unproven": bool(faults) and not outcome.get("failed"),
        "failed": outcome.get("failed") or ("; ".join(faults) if faults else None),
        "note": outcome.get("note") or timed.get("note") or (None if stage == "trained" or metrics else _UNTRAINED),
        "weights": outcome.get("weights"),
        "artifact": artifact.get("file"),
        "command": outcome.get("command") or command(point, request),
    }


def mark_front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows on the Pareto front, fastest first; each is marked. A row that failed its proof is on none."""
    best = front.pareto([one for one in rows if not one["failed"]])
    names = {(one["name"], one["precision"]) for one in best}
    for one in rows:
        one["on_front"] = (one["name"], one["precision"]) in names
    return [one for one in sorted(rows, key=lambda r: r["ms"] or 0) if one["on_front"]]


def table(rows: Sequence[Mapping[str, Any]], metric_name: str) -> str:
    """The table for the screen, fastest first; what failed at its end."""
    shown = sorted(rows, key=lambda one: (bool(one["failed"]), one["ms"] is None, one["ms"] or 0))
    cells = [
        {
            "": "*" if one["on_front"] else "",
            "model": one["label"],
            metric_name: text.figure(one["metric"], ".4f"),
            "ms": text.figure(one["ms"], ".2f", "~" if one["predicted"] else ""),
            "MB": text.megabytes(one["bytes"]),
            "GFLOPs": text.figure(one["gflops"], ".2f"),
            "params": text.figure(one["params"], ","),
        }
        for one in shown
    ]
    lines = [text.table(cells)]
    lines += [f"{one['label']} failed: {one['failed']}" for one in shown if one["failed"]]
    lines += [f"{one['label']}: {one['note']}" for one in shown if one["note"] and not one["failed"]]
    return "\n".join(lines)


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """sweep.csv: every row of both stages."""
    content = io.StringIO()
    writer = csv.DictWriter(content, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.replace(path, content.getvalue())


def write_front(record: Mapping[str, Any], path: Path) -> None:
    """front.json: all that was found, the front first, each row with its command and its files."""
    files.replace(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def write_picture(record: Mapping[str, Any], path: Path) -> None:
    """front.png: the metric over milliseconds; kinds by shape and colour, smaller images hollow, the front drawn."""
    files.replace(path, picture(record))


def picture(record: Mapping[str, Any], palette: Palette = LIGHT, note: Note | None = None) -> bytes:
    """What `write_picture` writes. note: as of `style.png`."""

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        style.heading(axes, palette, f"What to deploy in place of {Path(str(record['model'])).name}", title(record))
        _draw_points(axes, record, palette)
        axes.set_xlabel("ms a call" + (", predicted" if record["predicted"] else "") + ", batch 1; left is better")
        axes.set_ylabel(f"{record['metric']}; up is better")
        axes.grid()
        _draw_names(axes, record, palette)

    return style.png(draw, 5.4, palette, note=note)


def _known(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows that have a place in the picture."""
    return [one for one in record["rows"] if one["ms"] is not None and one["metric"] is not None and not one["failed"]]


def _draw_points(axes: Any, record: Mapping[str, Any], palette: Palette) -> None:
    """Every model that has a place, and the line of the front below them."""
    known = _known(record)
    line = record["front"]
    if line:
        times, metrics = ([one[key] for one in line] for key in ("ms", "metric"))
        axes.step(times, metrics, where="post", color=palette.soft, lw=1.2, label="no other is faster and better")
    colors = {"dense": palette.own, "pruned": palette.pruned, "baseline": palette.second}
    for kind, (marker, _, _, name) in STYLES.items():
        for small in (False, True):
            own = [one for one in known if one["kind"] == kind and one["small"] == small]
            if own:
                axes.scatter(
                    [one["ms"] for one in own],
                    [one["metric"] for one in own],
                    marker=marker,
                    s=52,
                    facecolors="none" if small else colors[kind],
                    edgecolors=colors[kind],
                    linewidths=1.4,
                    label=name + (", smaller image" if small else ""),
                    zorder=3,
                )
    axes.margins(y=0.1)  # room for names above and below
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    if known:
        axes.figure.legend(loc="outside lower center", ncols=3)  # no place among the points is free in every sweep


_NAMED = 8  # off the front, at most


def _others(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is off the front, what competes with pruning first (other models, and the model itself at other sizes); none
    where names would cover one another.
    """
    off = [one for one in _known(record) if not one["on_front"]]
    competing = [one for one in off if one["kind"] != "pruned"]
    pruned = [one for one in off if one["kind"] == "pruned"]
    return next((some for some in ([*competing, *pruned], competing) if len(some) <= _NAMED), [])


# Where a name stands: points to the right of its point and above it, and which of its own sides is there.
_SIDES = (
    *((5, -4, "left", "top"), (-5, 4, "right", "bottom"), (5, 4, "left", "bottom"), (-5, -4, "right", "top")),
    *((8, 0, "left", "center"), (-8, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top")),
)


def _draw_names(axes: Any, record: Mapping[str, Any], palette: Palette) -> None:
    """The names of the front and of the others, each on that side of its point where it covers least.

    All else has been drawn. A pruned model off the front has a name only where that covers nothing.
    """
    axes.figure.draw_without_rendering()  # lays it out, so that names are measured where they will stand
    unit = axes.figure.dpi / 72  # pixels of a point

    def place(ms: float, metric: float) -> np.ndarray:
        return np.asarray(axes.transData.transform((ms, metric)))

    taken = [_around([place(one["ms"], one["metric"])], 8 * unit) for one in _known(record)]
    for one, other in itertools.pairwise(record["front"]):
        corner = place(other["ms"], one["metric"])
        taken += [_around([place(end["ms"], end["metric"]), corner], unit) for end in (one, other)]
    for one in [*record["front"], *_others(record)]:
        tried = []
        for x, y, side, height in _SIDES:
            words = {"fontsize": style.SMALL + 0.5, "color": palette.text, "ha": side, "va": height}
            where = {"xytext": (x, y), "textcoords": "offset points"}
            name = axes.annotate(one["label"], (one["ms"], one["metric"]), **where, **words)
            box = name.get_window_extent().extents
            tried.append((_covered(box, taken, axes.bbox.extents), box, name))
        covers, box, best = min(tried, key=lambda each: each[0])
        kept = covers == 0 or one["on_front"] or one["kind"] != "pruned"
        for _, _, name in tried:
            if name is not best or not kept:
                name.remove()
        if kept:
            taken.append(box)


def _around(places: Sequence[np.ndarray], by: float) -> np.ndarray:
    """The box around places, so much larger on each side: left, low, right, high."""
    return np.concatenate([np.min(places, axis=0) - by, np.max(places, axis=0) + by])


def _covered(box: np.ndarray, taken: Sequence[np.ndarray], whole: np.ndarray) -> float:
    """How much a box covers of others, and ten times how much of it is outside of `whole`."""

    def shared(other: np.ndarray) -> float:
        sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
        return float(np.prod(np.maximum(sides, 0)))

    outside = float(np.prod(box[2:] - box[:2])) - shared(whole)
    return sum(map(shared, taken)) + 10 * max(outside, 0.0)


def title(record: Mapping[str, Any]) -> str:
    """What was measured where: the device and the runtime."""
    trained = f"{record['epochs']} epochs" if record["epochs"] else "after the cut alone, no training"
    return f"{record['model']} on {record['data']}, {trained}; {record['device']}"
