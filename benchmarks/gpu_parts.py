# yolo-prune, AGPL-3.0 license
"""What the parts of gpu.py have in common: how they are listed, how they train, and what every run should show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Settings(NamedTuple):
    """How the parts run.

    Attributes:
        device: as the host takes it. quick: a few tiny images. folder: of this run. data: the `data=` file.
        dense: a trained dense yolov8n, or "" where the part that trains it failed.
    """

    device: str
    quick: bool
    folder: Path
    data: str
    dense: str

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"


class SkipError(Exception):
    """This part cannot be run here; the words say why."""


PARTS: dict[str, tuple[Callable[[Settings], dict[str, Any]], int]] = {}  # name -> function, seconds that it may take


def part(limit: int) -> Callable[[Callable[[Settings], dict[str, Any]]], Callable[[Settings], dict[str, Any]]]:
    """Add a part: a function of the settings that returns what it found, "faults" (a list of sentences) among it."""

    def add(function: Callable[[Settings], dict[str, Any]]) -> Callable[[Settings], dict[str, Any]]:
        PARTS[function.__name__] = (function, limit)
        return function

    return add


def shared(name: str) -> Path | None:
    """`shared/<name>` of the nearest folder at or above the checkout that has it."""
    return next((f / "shared" / name for f in (ROOT, *ROOT.parents) if (f / "shared" / name).exists()), None)


def given_weights(name: str) -> str:
    """Published weights of a model where they are at hand; "" where not."""
    found = shared(f"weights/{name}.pt")
    return str(found) if found else ""


def train(s: Settings, model: str | None = None, setup: Callable[[Any], None] | None = None, **given: Any) -> Any:
    """Train into a folder of its own: (the YOLO, its record or {}, seconds)."""
    from ultralytics import YOLO

    yolo = YOLO(model or s.dense or "yolov8n.yaml")
    if setup is not None:
        setup(yolo)
    size = {"imgsz": 64, "batch": 4, "epochs": 4} if s.quick else {"imgsz": 320, "batch": 32, "epochs": 5}
    common = {"workers": 0 if s.quick else 4, "plots": False, "seed": 0, "verbose": False, "nbs": size["batch"]}
    place = {"project": str(s.folder / "runs"), "name": "run", "data": s.data, "device": s.device}
    start = time.monotonic()
    yolo.train(**{**size, **common, **place, "amp": s.cuda, "warmup_epochs": 0, **given})
    record = Path(yolo.trainer.save_dir) / "pruning" / "record.json"
    told = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return yolo, told, round(time.monotonic() - start, 1)


def shown(yolo: Any, record: dict[str, Any], seconds: float, share: float | None = 0.5) -> dict[str, Any]:
    """What every pruning run should show: its bound, finite weights, a checkpoint that loads at the final widths."""
    import torch
    from ultralytics import YOLO

    trainer = yolo.trainer
    before, after = record["baseline"], record["final"]
    faults = []
    if share is not None and after["gflops"] > share * before["gflops"] * 1.001:
        faults.append(f"{after['gflops']} GFLOPs are more than {share:.0%} of {before['gflops']}")
    best = YOLO(Path(trainer.save_dir) / "weights" / "best.pt").model
    if sum(p.numel() for p in best.parameters()) != after["params"]:
        faults.append("best.pt has not the final widths")
    if not all(bool(torch.isfinite(value).all()) for value in best.state_dict().values()):
        faults.append("best.pt has weights that are not finite")
    lost = [name for name, p in trainer.ema.ema.named_parameters() if not bool(torch.isfinite(p).all())]
    faults += [f"the average is not finite: {lost[0]}"] if lost else []
    fitness = [row["fitness"] for row in record["history"]]
    return {
        "seconds": seconds,
        "fitness": fitness,
        "gflops": [before["gflops"], after["gflops"]],
        "step_seconds": [row["seconds"] for row in record["steps"]],
        "optimizer": type(trainer.optimizer).__name__,
        "fused": bool(trainer.optimizer.param_groups[0].get("fused")),
        "amp": bool(trainer.amp),
        "faults": faults,
    }


def one_step(**more: Any) -> dict[str, Any]:
    """Arguments of a run with one step, after the second epoch."""
    return {"prune": 0.5, "prune_steps": 1, "prune_start": 0.3, "prune_end": 0.3, **more}
