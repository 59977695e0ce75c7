# yolo-prune, AGPL-3.0 license
"""Latency in INT8, predicted and measured: one checkpoint, one device profile, cut without training.

    python benchmarks/int8.py model=best.pt profile=device.json [left=50%] [out=int8.json]

Two cuts, to `left` of the FLOPs and to `left` of the milliseconds. Each is exported through the host and timed in turns
with the dense model; `off` is by how many percent the predicted share of the dense model's time is not the measured
one, with its interval. It takes any profile; of precision int8 it is what this is for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yolo_prune
from yolo_prune import files
from yolo_prune.cost import profile_file
from yolo_prune.device import runtimes
from yolo_prune.host import checkpoint


def cut(model: Path, device: str, imgsz: int, **bound: str) -> dict[str, Any]:
    """Cut once, and compare what is predicted with what is measured."""
    network, _ = checkpoint.load(model)
    how: dict[str, Any] = {"importance": "l2", "reconstruct": "none", "check_latency": False}  # predicted alone
    record = yolo_prune.prune(network, profile=device, imgsz=imgsz, **how, **bound)
    entry = record["latency"]
    predicted = entry["predicted_ms"]["final"] / entry["predicted_ms"]["baseline"]
    speed = entry["measured_speedup"]
    ends = [speed["median"], *(end for end in speed["interval"] if end is not None)]
    return {
        **bound,
        "flops_left": round(record["final"]["gflops"] / record["baseline"]["gflops"], 4),
        "predicted_share": round(predicted, 4),
        "predicted_ms": entry["predicted_ms"],
        "measured_ms": entry["measured_ms"],
        "measured_speedup": speed,
        "off": [round(100 * (predicted * end - 1), 2) for end in ends],
    }


def main() -> None:
    """Measure and print; see the head of this file."""
    given = {"left": "50%", **dict(word.split("=", 1) for word in sys.argv[1:])}
    device = profile_file.read(given["profile"])
    rows = [
        cut(Path(given["model"]), given["profile"], device.imgsz, **{bound: given["left"]})
        for bound in ("flops", "latency")
    ]
    content = {
        "model": Path(given["model"]).name,
        "profile": device.brief(),
        "dense_ms_between": device.content.get("dense_ms_between"),
        "machine": runtimes.machine(),
        "rows": rows,
    }
    text = json.dumps(content, indent=1) + "\n"
    if "out" in given:
        files.replace(Path(given["out"]), text)
    print(text)


if __name__ == "__main__":
    main()
