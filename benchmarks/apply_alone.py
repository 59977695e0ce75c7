# yolo-prune, AGPL-3.0 license
"""What `yolo-prune apply` leaves of a trained model, without any training.

    python benchmarks/apply_alone.py set=bccd data=data.yaml yolov8n=RUN_OR_WEIGHTS [yolo26n=…] [flops=70%] [imgsz=320]
                                     [format=onnx]

Each cut is `apply model=… data=… flops=…` and nothing else: it chooses, fits and validates before and after on the val
split. Wall and CPU seconds are of the whole of it, with those two validations. With `format=` the model and what was
cut of it are then exported and timed in turns, which wants a machine that does nothing else. A row for each replaces an
earlier measurement in results/apply-alone.json (out=FILE); benchmarks/tables.py makes the table of it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matrix_files
import tables

from yolo_prune.commands.apply import apply
from yolo_prune.export import job

OTHERS = {"flops": "70%", "imgsz": "320", "format": "", "out": str(tables.APPLIED)}
SAME = ("set", "model", "flops")  # what tells one row from another


def measure(weights: Path, data: str, imgsz: int, flops: str, kind: str) -> dict[str, Any]:
    """One cut: its fitness before and after, what is left, how long it took, and how much faster it is in a format."""
    with tempfile.TemporaryDirectory() as folder:
        pruned = Path(folder, "pruned.pt")
        wall, cpu = time.perf_counter(), time.process_time()
        record = apply(str(weights), flops=flops, data=data, imgsz=imgsz, out=str(pruned))
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        faster = {"speed": speed(pruned, weights, kind, imgsz)} if kind else {}
    before, after = record["baseline"], record["final"]
    return {
        "flops_left": round(after["gflops"] / before["gflops"], 4),
        "params": [before["params"], after["params"]],
        "map50_95": [round(before["fitness"], 4), round(after["fitness"], 4)],
        "seconds": {clock: round(value, 1) for clock, value in seconds.items()},
        "channel_multiple": record["channel_multiple"],
        **faster,
    }


def speed(pruned: Path, dense: Path, kind: str, imgsz: int) -> dict[str, Any]:
    """Milliseconds of both, exported and timed in turns, and how many times as fast the pruned one is."""
    rows = job.export(pruned, format=kind, dense=dense, imgsz=imgsz, out=pruned.parent / "exported")["rows"]
    before, after = (row for row in rows if row["format"] == kind)
    return {
        "runtime": kind,
        "ms": [row["latency_ms"]["median"] for row in (before, after)],
        "times": after["speedup"],
        "interval": after["speedup_interval"],
    }


def main(words: list[str]) -> None:
    """Measure every model at every bound; see the head of this file."""
    given = {**OTHERS, **dict(word.split("=", 1) for word in words)}
    models = {name: value for name, value in given.items() if name not in (*OTHERS, "set", "data")}
    if not models or not {"set", "data"} <= set(given):
        raise SystemExit(__doc__)
    out = Path(given["out"])
    for name, place in models.items():
        for flops in given["flops"].split(","):
            weights = matrix_files.weights_of(place)
            row = {
                "set": given["set"],
                "model": name,
                "flops": flops,
                "imgsz": int(given["imgsz"]),
                **measure(weights, given["data"], int(given["imgsz"]), flops, given["format"]),
                "command": f"yolo-prune apply model={weights.name} data={Path(given['data']).name} flops={flops} "
                f"imgsz={given['imgsz']}",
                "weights": Path(place).name,
                "processor": matrix_files.processor(),
                "versions": matrix_files.versions(),
            }
            matrix_files.keep(out, [*matrix_files.others(out, row, SAME), row])
            print(tables.applied([row]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
