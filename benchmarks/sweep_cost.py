# yolo-prune, AGPL-3.0 license
"""What a sweep costs beside its trainings, in seconds of CPU, so that what else runs on the machine does not count.

    python benchmarks/sweep_cost.py [model=best.pt data=my.yaml imgsz=64 epochs=3 fraction=1.0 flops=60%] [out=FILE]

Beside the trainings stand: this process (checks, exports, proof, timing, page), the cuts, and at the end of each
training the start of its process and one more validation. The last are measured by a second part of the same sweep in
which only they are left to do: its trained.json are removed. They do not grow with the epochs, so the share that
they are of a run says little and `minutes` much: so long must the trainings take for all this to be 3% of them.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sweep_kill
import torch

import yolo_prune
from yolo_prune import files
from yolo_prune.sweeps import local

ROOT = Path(__file__).resolve().parents[1]
MOST = 0.03  # of the trainings


def main(words: Sequence[str]) -> int:
    """Sweep twice, and write what it cost."""
    given = dict(word.split("=", 1) for word in words)
    target = Path(given.get("out", ROOT / "benchmarks" / "results" / "sweep-cost.json"))
    with tempfile.TemporaryDirectory(prefix="sweep-cost-") as place:
        asked = sweep_kill.asked(given, Path(place), "60%")
        first, record = measured(lambda: yolo_prune.sweep(**asked, out=f"{place}/out"))
        for path in Path(place).glob("out/*/trained.json"):
            path.unlink()
        again, _ = measured(lambda: yolo_prune.sweep(**asked, out=f"{place}/out"))
    points = len(record["rows"])
    parts = {"this_process": first["own"], "cuts": first["cut"], "after_each_training": again["trained"]}
    beside = sum(parts.values())
    trainings = first["trained"] - again["trained"]
    content = {
        "command": "python benchmarks/sweep_cost.py",
        "versions": {"yolo_prune": yolo_prune.__version__, "torch": torch.__version__},
        "asked": {**asked, "model": Path(asked["model"]).name, "data": Path(asked["data"]).name},
        "points": points,
        "cpu_seconds": {**{name: round(value, 1) for name, value in parts.items()}, "trainings": round(trainings, 1)},
        "share_of_this_run": round(beside / trainings, 3),
        "cpu_seconds_a_point": round(beside / points, 1),
        "minutes": round(beside / points / MOST / 60, 1),
        "metrics": [row["metric"] for row in record["rows"]],
    }
    files.replace(target, json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    return 0


def measured(sweep: Callable[[], dict[str, Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """CPU seconds of this process (`own`), and of the processes of each stage; and what the sweep returned."""
    spent = {"own": 0.0, "cut": 0.0, "trained": 0.0}
    run = local.run

    def stage(jobs: Sequence[local.Job], *given: Any) -> None:
        before = children()
        run(jobs, *given)
        spent[jobs[0]["stage"]] += children() - before

    local.run = stage  # type: ignore[assignment]
    start = time.process_time()
    try:
        record = sweep()
    finally:
        local.run = run
    spent["own"] = time.process_time() - start
    return spent, record


def children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
