# yolo-prune, AGPL-3.0 license
"""Is a bound on latency held as measured, and what does half of the FLOPs give in milliseconds?

    python benchmarks/latency_bound.py [models=yolov8n,yolo11n,yolo26n,yolov8s] [format=onnx,openvino,ncnn] [imgsz=320]
                                       [left=50%] [shared=FOLDER] [out=results/latency-bound.json]

For each model and runtime: a profile of this machine, then two cuts by l2 in the scope global without training, to
`left` of the milliseconds and to 50% of the FLOPs. The weights are `shared`/weights/MODEL.pt, or random ones of
MODEL.yaml: a layer takes as long with any. What was cut is exported and timed in turns with the dense model, and so is
each plan on the way to the bound. Rows that the file has are not measured again; a row of a busy machine says so. Run
it alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matrix_files
import tables
from ultralytics import YOLO

import yolo_prune
from yolo_prune.device import profile, runtimes
from yolo_prune.errors import NoisyError
from yolo_prune.host import checkpoint

HOW: dict[str, Any] = {"importance": "l2", "scope": "global", "reconstruct": "none"}
LEFT = "50%"


def measure(model: Path, kind: str, imgsz: int, left: str, folder: Path) -> dict[str, Any]:
    """One row: the profile, and both cuts. left: of the milliseconds."""
    device, began = folder / "device.json", time.perf_counter()
    noise = ""
    try:
        profile.profile(str(model), format=kind, imgsz=imgsz, out=str(device))
    except NoisyError as error:
        noise = str(error).replace(str(device), device.name)
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {"runtime": kind, "imgsz": imgsz, "noise": noise, "profile_seconds": round(seconds, 1)}
    for bound, share in (("latency", left), ("flops", LEFT)):
        network, _ = checkpoint.load(model)
        began = time.perf_counter()
        asked: dict[str, Any] = {**HOW, bound: share}
        record = yolo_prune.prune(network, profile=str(device), imgsz=imgsz, **asked)
        row[bound] = {
            **outcome(record),
            "check": record["steps"][0].get("measured"),
            "seconds": round(time.perf_counter() - began, 1),
        }
    return row


def outcome(record: Mapping[str, Any]) -> dict[str, Any]:
    """What one cut with a profile came to, predicted and measured.

    Args:
        record: as `yolo_prune.prune` returns it.
    """
    entry = record["latency"]
    return {
        "flops_left": round(record["final"]["gflops"] / record["baseline"]["gflops"], 4),
        "predicted_share": round(entry["predicted_ms"]["final"] / entry["predicted_ms"]["baseline"], 4),
        "measured_ms": entry["measured_ms"],
        "speedup": entry["measured_speedup"],
    }


def weights(name: str, shared: Path, folder: Path) -> Path:
    """The checkpoint of a model: a shared one, or one with random weights."""
    found = shared / "weights" / f"{name}.pt"
    if not found.is_file():
        found = folder / f"{name}.pt"
        YOLO(f"{name}.yaml").save(str(found))
    return found


def main() -> None:
    """Measure what is not measured yet; see the head of this file."""
    given = {
        "models": "yolov8n,yolo11n,yolo26n,yolov8s",
        "format": "onnx,openvino,ncnn",
        "imgsz": "320",
        "shared": str(matrix_files.near()),
        "left": LEFT,
        "out": str(tables.BOUNDED),
        **dict(word.split("=", 1) for word in sys.argv[1:]),
    }
    out, imgsz = Path(given["out"]), int(given["imgsz"])
    rows = matrix_files.read(out)
    for kind in given["format"].split(","):
        for name in given["models"].split(","):
            if any((row["model"], row["runtime"], row["imgsz"]) == (name, kind, imgsz) for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder:
                model = weights(name, Path(given["shared"]), Path(folder))
                row = measure(model, kind, imgsz, given["left"], Path(folder))
            words = {"models": name, "format": kind, "imgsz": imgsz, "left": given["left"]}
            about = {
                "command": f"python benchmarks/latency_bound.py {' '.join(f'{k}={v}' for k, v in words.items())}",
                "processor": matrix_files.processor(),
                "versions": {**matrix_files.versions(), **runtimes.versions(kind)},
            }
            rows.append({"model": name, **row, **about})
            matrix_files.keep(out, rows)
            print(tables.bounded([rows[-1]]), flush=True)
    tables.refresh()


if __name__ == "__main__":
    main()
