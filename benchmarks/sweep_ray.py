# yolo-prune, AGPL-3.0 license
"""A sweep on a Ray cluster of two machines, one of which is killed in the middle, beside the same sweep without Ray.

    python benchmarks/sweep_ray.py [model=best.pt data=my.yaml imgsz=64 epochs=3 fraction=1.0 flops=60%,40%] [out=FILE]

The machines are processes of this one, of one CPU each. The second is killed with SIGKILL once two trainings are at
work and one of them has finished an epoch. Every point must come to an end, none that was finished may be trained
again, and every model that was not interrupted must have the very weights that it has without Ray. The front is
compared over GFLOPs, for milliseconds differ from one timing to the next. Exit code 1 where one of these does not hold.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import sweep_kill
import torch
from ray.cluster_utils import Cluster

import yolo_prune
from yolo_prune import files
from yolo_prune.host import checkpoint
from yolo_prune.sweeps import front, ray_trials

ROOT = Path(__file__).resolve().parents[1]


def main(words: Sequence[str]) -> int:
    """Run both sweeps, compare them, and write what came of it."""
    given = dict(word.split("=", 1) for word in words)
    target = Path(given.get("out", ROOT / "benchmarks" / "results" / "sweep-ray.json"))
    with tempfile.TemporaryDirectory(prefix="sweep-ray-") as place:
        asked = sweep_kill.asked(given, Path(place), "60%,40%")
        local = yolo_prune.sweep(**asked, out=f"{place}/local")
        start = time.time()
        killed, spread = on_ray(asked, Path(place) / "ray")
        seconds = round(time.time() - start, 1)
        record = json.loads((Path(place) / "ray" / "front.json").read_text())
        rows = [compared(one, killed) for one in zip(local["rows"], record["rows"], strict=True)]
        faults = wrong(rows, killed, local, record, Path(place) / "ray", asked["epochs"])
    content = {
        "command": "python benchmarks/sweep_ray.py",
        "versions": {"ray": ray.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "asked": {**asked, "model": Path(asked["model"]).name, "data": Path(asked["data"]).name},
        "killed": killed,
        "machines_of_trials": spread,
        "seconds_on_ray": seconds,
        "faults": faults,
        "rows": rows,
    }
    files.replace(target, json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    return 1 if faults else 0


def on_ray(asked: dict[str, Any], out: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The sweep on the cluster: what was at work when the machine was killed, and where each trial ran."""
    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}  # to see that a machine is dead
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    killed: dict[str, Any] = {}
    spread: dict[str, list[str]] = {}

    def watch(trials: Sequence[Any]) -> None:
        running = [trial for trial in trials if trial.status == "RUNNING"]
        for trial in running:
            where, seen = str(trial.temporary_state.location.pid), spread.setdefault(trial.config["point"], [])
            if where != "None" and where not in seen:
                seen.append(where)
        names = [trial.config["point"] for trial in running]
        epochs = {name: lines_of(out / name / "results.csv") for name in names}
        if not killed and len(names) == 2 and any(epochs.values()):
            done = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/trained.json")}
            killed.update({"at_work": names, "epochs": epochs, "finished": done})
            cluster.remove_node(machines[1], allow_graceful=False)

    try:
        with ray_trials._watched(watch):
            yolo_prune.sweep(**asked, out=str(out), engine="ray")
    finally:
        ray.shutdown()
        cluster.shutdown()
    return killed, spread


def lines_of(path: Path) -> int:
    """Epochs in a results.csv."""
    try:
        return max(len(path.read_text().splitlines()) - 1, 0)
    except OSError:
        return 0


def compared(pair: tuple[dict[str, Any], dict[str, Any]], killed: dict[str, Any]) -> dict[str, Any]:
    """A point without Ray and on it."""
    plain, on = pair
    same = None
    if not plain["failed"] and not on["failed"]:
        states = [checkpoint.load(one["weights"])[0].float().state_dict() for one in pair]
        same = states[0].keys() == states[1].keys() and all(
            value.shape == states[1][name].shape and bool((value == states[1][name]).all())
            for name, value in states[0].items()
        )
    return {
        "name": on["name"],
        "at_work_when_killed": on["name"] in killed.get("at_work", ()),
        "same_weights": same,
        **{key: [plain[key], on[key]] for key in ("metric", "gflops", "params", "failed")},
    }


def wrong(
    rows: Sequence[dict[str, Any]],
    killed: dict[str, Any],
    local: dict[str, Any],
    record: dict[str, Any],
    out: Path,
    epochs: int,
) -> list[str]:
    """What does not hold."""
    faults = [] if killed else ["no machine was killed"]
    faults += [f"{row['name']} failed" for row in rows if row["failed"][1] and not row["failed"][0]]
    faults += [
        f"{row['name']} differs" for row in rows if row["same_weights"] is False and not row["at_work_when_killed"]
    ]
    for name, stamp in killed.get("finished", {}).items():
        if (out / name / "trained.json").stat().st_mtime_ns != stamp:
            faults.append(f"{name} was trained again")
    for row in rows:
        if lines_of(out / row["name"] / "results.csv") != epochs:
            faults.append(f"{row['name']} has another number of epochs")
    fronts = [
        [one["name"] for one in front.pareto([{**row, "ms": row["gflops"]} for row in found["rows"]])]
        for found in (local, record)
    ]
    if fronts[0] != fronts[1]:
        faults.append(f"the front is {fronts[1]} and without Ray {fronts[0]}")
    return faults


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
