# yolo-prune, AGPL-3.0 license
"""`yolo-prune demo`: the main job offline, from nothing to a verified ONNX file, in minutes.

Draws a data set, trains a small dense YOLOv8 on it from random weights, prunes that to half its FLOPs while it trains
on, exports both to ONNX, compares them on the validation images, and prints one table.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from yolo_prune import _startup, files, log
from yolo_prune.demo import dataset
from yolo_prune.demo.settings import IMAGES, PRUNE_ARGS, TRAIN_ARGS, VAL_IMAGES
from yolo_prune.errors import NoisyError, PruneError, VerifyError
from yolo_prune.export import job
from yolo_prune.host import yolo_object
from yolo_prune.recipe import value_checks

STAGES = 4
RUNS = ("dense", "pruned")  # folders of the two trainings
_MARK = log.mark("demo:")
LOSS = 0.05  # of mAP50-95, the most that the pruned model may lose


def run(out: str = "yolo-prune-demo", seed: int = 0) -> dict[str, Any]:
    """Run the demo.

    Args:
        out: a folder for all of it; made if need be, and reused by the next demo.
        seed: of the data and of the trainings.

    Returns:
        "dense" and "pruned", each with `params`, `gflops`, `map50_95`, `ms`, `speedup` and `megabytes`, and "seconds".

    Raises:
        HostError: the plugin is off. PruneError: `out` cannot be used. VerifyError: the exported model differs from the
            trained one, or the pruned model did not keep up with its dense parent. NoisyError: the machine was too busy
            to tell its speed.
    """
    _startup.require_on("for the demo prunes in a training")
    start = time.perf_counter()
    folder = value_checks.path("out", out, "yolo-prune-demo").resolve()
    _require_own(folder)
    files.require_folder("out", folder)
    imgsz = int(TRAIN_ARGS["imgsz"])
    _stage(1, f"drawing {IMAGES} training and {VAL_IMAGES} validation images", start)
    data = dataset.make(folder / "data", images=IMAGES, val=VAL_IMAGES, imgsz=imgsz, seed=seed)
    common = {"data": str(data), "project": str(folder), "exist_ok": True, "seed": seed}
    _stage(2, f"training a dense yolov8n from random weights, {TRAIN_ARGS['epochs']} epochs", start)
    yolo_object.of("yolov8n.yaml").train(**{**TRAIN_ARGS, **common, "name": RUNS[0]})
    dense = folder / RUNS[0] / "weights" / "best.pt"
    _stage(3, f"pruning it to half its FLOPs while it trains on, {PRUNE_ARGS['epochs']} epochs", start)
    yolo_object.of(dense).train(**{**TRAIN_ARGS, **PRUNE_ARGS, **common, "name": RUNS[1], "pretrained": True})
    pruned = folder / RUNS[1] / "weights" / "best.pt"
    _stage(4, "exporting both to ONNX, comparing and timing them", start)
    noisy: NoisyError | None = None
    try:
        report = job.export(str(pruned), format="onnx", data=str(data), dense=str(dense), imgsz=imgsz)
    except NoisyError as error:  # of all that it shows the speed alone is not known
        noisy, report = error, error.record or {}
    result = {**_summary(report), "seconds": round(time.perf_counter() - start, 1)}
    _tell(result, folder)
    if noisy is not None:
        raise noisy
    return result


def _require_own(folder: Path) -> None:
    """Raise PruneError where runs of the user's have the names of the demo's, which would be written over."""
    taken = [folder / name for name in RUNS if (folder / name).exists()]
    if taken and not dataset.is_set(folder / "data"):
        raise PruneError(
            f"out={folder}: {taken[0]} is there and no demo has made it; name another folder, such as "
            "out=yolo-prune-demo"
        )


def _stage(number: int, what: str, start: float) -> None:
    log.show(f"\n{_MARK} {number}/{STAGES} {what} ({time.perf_counter() - start:.0f} s so far)")


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """Of an export's rows: one entry for each ONNX model, "dense" and "pruned"."""
    return {
        row["role"]: {
            "params": row["params"],
            "gflops": row["gflops"],
            "map50_95": row["map50_95"],
            "ms": row["latency_ms"]["median"],
            "speedup": row["speedup"],
            "megabytes": row["megabytes"],
        }
        for row in report["rows"]
        if row["format"] == "onnx"
    }


def _speed(times: float | None) -> str:
    return "a speed that this busy machine cannot tell" if times is None else f"{times:.2f} times as fast"


def _tell(result: dict[str, Any], folder: Path) -> None:
    """Say in words what the table says, where everything lies, and whether the demo kept its promise.

    Raises:
        VerifyError: the pruned model lost more than `LOSS` mAP50-95 or has more than half the FLOPs.
    """
    dense, pruned = result["dense"], result["pruned"]
    log.show(
        f"\n{_MARK} {pruned['gflops'] / dense['gflops']:.1%} of the FLOPs, "
        f"{pruned['params'] / dense['params']:.0%} of the params, {_speed(pruned['speedup'])} in "
        f"ONNX Runtime on one thread, mAP50-95 {dense['map50_95']:.3f} -> {pruned['map50_95']:.3f}, in "
        f"{result['seconds']:.0f} s\n"
        f"picture   {folder / 'pruned' / 'pruning.png'}\n"
        f"record    {folder / 'pruned' / 'pruning' / 'record.json'}\n"
        f"model     {folder / 'pruned' / 'weights' / 'best.pt'}, best.onnx and export.json beside it\n"
        "next      yolo train model=best.pt data=my.yaml epochs=60 prune=0.5   with a model and data of your own"
    )
    if pruned["map50_95"] < dense["map50_95"] - LOSS or pruned["gflops"] > 0.5 * dense["gflops"]:
        raise VerifyError(
            f"the demo's pruned model has mAP50-95 {pruned['map50_95']:.3f} (dense {dense['map50_95']:.3f}, at most "
            f"{LOSS} less was expected) at {pruned['gflops'] / dense['gflops']:.1%} of the FLOPs; please report this"
        )
