# yolo-prune, AGPL-3.0 license
"""What an export found -> export.json, and the one table on the screen."""

from __future__ import annotations

import importlib
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from yolo_prune import __version__, log
from yolo_prune.cost import model_size
from yolo_prune.cost.file_size import Deployment
from yolo_prune.device.timing import Ratio, Timing
from yolo_prune.export import artifact_files, prove
from yolo_prune.export.results import Result
from yolo_prune.export.subjects import Subject
from yolo_prune.host import releases, validation
from yolo_prune.recipe import formats
from yolo_prune.report import text


def record(subjects: Sequence[Subject], results: Sequence[Result], request: dict[str, Any]) -> dict[str, Any]:
    """Put an export into plain data.

    Args:
        subjects: the one that was asked for last. results: of their artifacts.
        request: what was asked.
    """
    main = subjects[-1]
    task = main.task
    rows = [_torch_row(subject) for subject in subjects]
    rows += [_row(result, result.subject is main, request["imgsz"]) for result in results]
    kept = [result for result in results if result.subject is main]
    return {
        "yolo_prune": __version__,
        **request,
        "task": task,
        "metrics": list(validation.names(task)),
        "artifact": kept[0].file.name,
        "sha256": artifact_files.sha256(kept[0].file),
        "artifacts": {result.file.name: artifact_files.sha256(result.file) for result in kept},
        "tolerance": {name: asdict(limits) for name, limits in prove.LIMITS.items()},
        "passed": not request["failed"] and not any(result.faults for result in results),
        "timing_settled": not any(result.doubts for result in results),
        "rows": rows,
        "versions": _versions(sorted({result.kind for result in results})),
    }


def _torch_row(subject: Subject) -> dict[str, Any]:
    return {
        **_figures(subject, subject.metrics, subject),
        "format": "pt",
        "precision": "int8" if subject.trained_int8 else "fp32",
        "file": subject.path.name,
        "kept": False,
        "megabytes": round(artifact_files.megabytes(subject.path), 3),
        "peak_activation_bytes": None,
        "parity": None,
        "faults": [],
        "doubts": [],
        "_parity": "-",
    }


def _row(result: Any, kept: bool, imgsz: int) -> dict[str, Any]:
    """One artifact; its speed-up is over the dense FP32 artifact of the same format."""
    deployment = Deployment(result.kind, result.precision, imgsz)
    return {
        **_figures(result.subject, result.metrics, result),
        "format": result.kind,
        "precision": result.precision,
        "file": result.file.name,
        "kept": kept,
        "megabytes": result.megabytes,
        "peak_activation_bytes": model_size.activations(result.subject.network, deployment),
        "parity": result.parity.as_dict(),
        "faults": result.faults,
        "doubts": result.doubts,
        "_parity": "FAILED" if result.differs else str(result.parity),
    }


def _figures(subject: Any, metrics: tuple[float, float] | None, measured: Any) -> dict[str, Any]:
    """What a torch model and an artifact share. measured: the one of the two that has `timing` and `speed`.

    A speed-up that is not known is None, and only its interval is told.
    """
    timing: Timing | None = measured.timing
    speed: Ratio | None = measured.speed
    return {
        "role": subject.role,
        "params": subject.size.params,
        "gflops": subject.size.gflops,
        "gflops_deployed": subject.deployed and round(subject.deployed, 4),
        "map50_95": metrics and metrics[0],
        "map50": metrics and metrics[1],
        "latency_ms": timing and {key: _finite(value, 4) for key, value in asdict(timing).items()},
        "speedup": round(speed.median, 3) if speed and speed.steady else None,
        "speedup_interval": speed and [_finite(speed.low, 3), _finite(speed.high, 3)],
        "speedup_rounds": speed and speed.rounds,
        "speedup_verdict": speed and speed.verdict,
    }


def _finite(value: float, digits: int) -> float | None:
    """A rounded figure; None for the infinity that too few rounds leave, which JSON does not know."""
    return round(value, digits) if math.isfinite(value) else None


def cells(record: Mapping[str, Any], parities: Sequence[str]) -> list[dict[str, str]]:
    """The rows of the table, column -> text. parities: what is said of each row's outputs."""
    first, second = record["metrics"]
    ms = "ms (median)" if record["batch"] == 1 else f"ms a batch of {record['batch']} (median)"
    shown = []
    for row, parity in zip(record["rows"], parities, strict=True):
        times = row["latency_ms"]
        precision = "" if row["precision"] == "fp32" else f" {row['precision']}"
        shown.append(
            {
                "model": f"{row['role']} {'.pt' if row['format'] == 'pt' else row['format']}{precision}",
                "params": f"{row['params']:,}",
                "GFLOPs": f"{row['gflops']:.2f}",
                first: text.figure(row["map50_95"], ".4f"),
                second: text.figure(row["map50"], ".4f"),
                ms: f"{times['median']:.2f}",
                "p10-p90": f"{times['p10']:.2f}-{times['p90']:.2f}",
                "speed-up": _speed(row),
                "MB": f"{row['megabytes']:.1f}",
                "parity": parity,
            }
        )
    return shown


_BURST = 1.1  # by how much the ratio of medians may lie outside of the interval of the ratios

TIES = "ties: kept by only one of torch and the file, though both have them, for they stand at a limit; no fault"


def show(record: dict[str, Any]) -> None:
    """Log the one table, and a line on what it cannot show."""
    shown = cells(record, [row.pop("_parity") for row in record["rows"]])
    log.show(f"\n{text.table(shown)}")
    lives = [
        f"{cell['model']} {row['peak_activation_bytes'] / 1e6:.2f} MB"
        for cell, row in zip(shown, record["rows"], strict=True)
        if row["peak_activation_bytes"]
    ]
    if lives:
        log.show(f"tensors of one image that live at once, weights aside: {', '.join(lives)}")
    for line in in_bursts(record["rows"]):
        log.show(line)
    if any(row["parity"] and row["parity"]["borderline"] and not row["faults"] for row in record["rows"]):
        log.show(TIES)
    if record["unequal"]:
        log.show(record["unequal"])
    if record["data"] is None:
        log.show(
            f"no data= was given: {record['metrics'][0]} is not measured, and outputs are compared on "
            f"{record['images']['source']}"
        )
    if not any(row["parity"] and row["parity"]["boxes"] for row in record["rows"]) and record["task"] not in {
        "semantic",
        "depth",
    }:
        log.show("no image has a box that survives NMS: only raw outputs could be compared")


def in_bursts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each row whose milliseconds say another speed-up than the turns do: something else ran now and then.

    Args:
        rows: of export.json; each is beside the dense fp32 one of its format.
    """
    dense = {row["format"]: row for row in rows if row["role"] == "dense" and row["precision"] == "fp32"}
    lines = []
    for row in rows:
        base = dense.get(row["format"])
        if base is None or row["speedup"] in (None, 1.0) or not (base["latency_ms"] and row["latency_ms"]):
            continue
        by_medians = base["latency_ms"]["median"] / row["latency_ms"]["median"]
        low, high = row["speedup_interval"]
        high = math.inf if high is None else high  # of too few rounds
        if not low / _BURST <= by_medians <= high * _BURST:
            lines.append(
                "the machine was busy now and then: by its milliseconds the "
                f"{row['role']} {row['format']} {row['precision']} is {by_medians:.2f} times as fast, turn by turn "
                f"{row['speedup']:.2f} times, which is the figure to trust"
            )
    return lines


def _speed(row: dict[str, Any]) -> str:
    """A speed-up with its interval; without a figure where it is not known."""
    if row["speedup_verdict"] is None:
        return "-"
    if row["role"] == "dense" and row["speedup"] == 1.0:
        return "1.00x"
    low, high = (text.figure(value, ".2f") for value in row["speedup_interval"])
    if row["speedup"] is None:
        return f"too noisy ({low}-{high})"
    return f"{row['speedup']:.2f}x ({low}-{high}){' SLOWER' if row['speedup_verdict'] == 'slower' else ''}"


def _versions(kinds: list[str]) -> dict[str, str]:
    packages = {name for kind in kinds for name in (*formats.FORMATS[kind].export, *formats.FORMATS[kind].run)}
    modules = {name: importlib.import_module(name) for name in sorted(packages)}
    return {
        "ultralytics": releases.version(),
        "torch": str(torch.__version__),
        **{name: str(getattr(module, "__version__", "unknown")) for name, module in modules.items()},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
