# yolo-prune, AGPL-3.0 license
"""mAP50-95 of checkpoints as a training validates them, and as their exported files are validated.

    python benchmarks/canvas.py set=deeppcb data=data.yaml yolov8n=RUNS/dense,RUNS/pruned [imgsz=320] [out=canvas.json]

A training validates rectangles (ultralytics 8.4.190, data/base.py, `set_rectangle`): each side is rounded up to the
stride and half of one more, so that square images of 320 lie in the middle of a grey canvas of 352. A file exported at
320 gets 320 by 320, and so does a square image in `yolo predict`. Where boxes are small the two may differ by much.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matrix_files
import tables
from ultralytics import YOLO


def measure(weights: Path, data: str, imgsz: int) -> dict[str, float]:
    """mAP50-95 with the canvas of a training and with that of an exported file."""
    found = {}
    for name, rect in (("as_trained", True), ("as_exported", False)):
        with tempfile.TemporaryDirectory() as folder:
            how: dict[str, Any] = {"workers": 0, "plots": False, "verbose": False, "project": folder, "device": "cpu"}
            metrics = YOLO(weights).val(data=data, imgsz=imgsz, batch=32, rect=rect, **how)
        found[name] = round(float(metrics.box.map), 4)
    return found


def main(words: list[str]) -> None:
    """Measure each pair and keep it, in place of an earlier measurement of the same set and model."""
    given = {"imgsz": "320", "out": str(tables.CANVASES), **dict(word.split("=", 1) for word in words)}
    for model in [key for key in given if key not in ("set", "data", "imgsz", "out")]:
        dense, pruned = given[model].split(",")
        row = {
            "set": given["set"],
            "model": model,
            "command": f"python benchmarks/canvas.py set={given['set']} data=RUNS/data/{given['set']}/data.yaml "
            f"{model}={','.join(f'RUNS/{Path(run).name}' for run in (dense, pruned))} imgsz={given['imgsz']}",
            "dense": measure(matrix_files.weights_of(dense), given["data"], int(given["imgsz"])),
            "pruned": measure(matrix_files.weights_of(pruned), given["data"], int(given["imgsz"])),
            "versions": matrix_files.versions(),
            "processor": matrix_files.processor(),
        }
        out = Path(given["out"])
        matrix_files.keep(out, [*matrix_files.others(out, row, ("set", "model")), row])
        print(tables.canvases([row]), flush=True)
    tables.refresh()


if __name__ == "__main__":
    if not {"set", "data"} <= {word.split("=", 1)[0] for word in sys.argv[1:]}:
        raise SystemExit(__doc__)
    main(sys.argv[1:])
