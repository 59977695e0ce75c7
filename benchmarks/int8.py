# yolo-prune, AGPL-3.0 license
"""Latency in INT8, predicted and measured: one checkpoint, one device profile, cut without training.

    python benchmarks/int8.py model=best.pt profile=device.json [left=50%] [out=int8.json]

Two cuts, to `left` of the FLOPs and to `left` of the milliseconds. Each is exported through the host and timed in turns
with the dense model; `off` is by how many percent the predicted share of the dense model's time is not the measured
one, with its interval. It takes any profile; of precision int8 it is what this is for. A row for each cut replaces an
earlier measurement of the same model, runtime and bound in results/int8.json; benchmarks/tables.py makes the table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import latency_bound
import matrix_files
import tables

import yolo_prune
from yolo_prune.cost import profile_file
from yolo_prune.cost.profile_file import Profile
from yolo_prune.host import checkpoint

SAME = ("model", "runtime", "precision", "bound")  # what tells one row from another


def cut(model: Path, source: str, device: Profile, bound: str, left: str) -> dict[str, Any]:
    """Cut once, and compare what is predicted with what is measured.

    Args:
        source: the file of `device`. bound: "flops" or "latency". left: what stays of it.
    """
    network, _ = checkpoint.load(model)
    how: dict[str, Any] = {"importance": "l2", "reconstruct": "none", "check_latency": False, bound: left}
    record = yolo_prune.prune(network, profile=source, imgsz=device.imgsz, **how)  # predicted alone, not timed
    entry = record["latency"]
    predicted = entry["predicted_ms"]["final"] / entry["predicted_ms"]["baseline"]
    speed = entry["measured_speedup"]
    ends = [speed["median"], *(end for end in speed["interval"] if end is not None)]
    profile = device.brief()
    return {
        "model": model.stem,
        "runtime": device.format,
        "precision": device.precision,
        "bound": bound,
        "left": left,
        **latency_bound.outcome(record),
        "predicted_ms": entry["predicted_ms"],
        "off": [round(100 * (predicted * end - 1), 2) for end in ends],
        "profile": {"error": profile["error"], "dense_ms_between": device.content.get("dense_ms_between")},
        "command": f"python benchmarks/int8.py model={model.name} profile=device.json left={left}",
        "versions": {**matrix_files.versions(), **profile["versions"]},
        "processor": matrix_files.processor(),
    }


def main(words: list[str]) -> None:
    """Measure both cuts and keep them."""
    given = {"left": "50%", "out": str(tables.INT8), **dict(word.split("=", 1) for word in words)}
    device, out = profile_file.read(given["profile"]), Path(given["out"])
    for bound in ("flops", "latency"):
        row = cut(Path(given["model"]), given["profile"], device, bound, given["left"])
        matrix_files.keep(out, [*matrix_files.others(out, row, SAME), row])
        print(tables.int8([row]), flush=True)
    tables.refresh()


if __name__ == "__main__":
    if not {"model", "profile"} <= {word.split("=", 1)[0] for word in sys.argv[1:]}:
        raise SystemExit(__doc__)
    main(sys.argv[1:])
