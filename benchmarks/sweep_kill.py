# yolo-prune, AGPL-3.0 license
"""Kill a sweep with SIGKILL at random moments, and give the same command again, until it is finished; and so on.

    python benchmarks/sweep_kill.py [kills=20] [seed=0] [out=benchmarks/results/sweep-kill.json]

After each kill nothing that was finished may be gone, and no later part may write it anew: what each point came to,
and its best.pt. At the end of a sweep every point has as many epochs in its results.csv as were asked for, once each.
Exit code 1 where one of these does not hold. A row is written as each kill is done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from yolo_prune import files

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 3
WORDS = (
    *(f"epochs={EPOCHS}", "flops=60%", "imgsz=64,32", "seconds=1", "workers=0", "batch=4", "plots=False", "amp=False"),
    *("optimizer=SGD", "max_drop=0.01"),
)
POINTS = ("dense-64", "flops60-64", "dense-32", "flops60-32")


def main(words: list[str]) -> int:
    """Run the experiment."""
    given = dict(word.split("=", 1) for word in words)
    kills, chance = int(given.get("kills", 20)), random.Random(int(given.get("seed", 0)))
    target = Path(given.get("out", ROOT / "benchmarks" / "results" / "sweep-kill.json"))
    rows: list[dict[str, Any]] = []
    sweeps, faults = 0, 0
    with tempfile.TemporaryDirectory(prefix="sweep-kill-") as folder:
        place = Path(folder)
        model, data = _made(place)
        while len(rows) < kills:
            out = place / f"sweep{sweeps}"
            finished: dict[str, list[int]] = {}
            while True:
                wait = chance.uniform(0, 25) if len(rows) < kills else None
                code, phase = _part(model, data, out, place, wait)
                bad = _lost(out, finished)
                faults += len(bad)
                finished = _finished(out)
                if code == -signal.SIGKILL:
                    rows.append({"sweep": sweeps, "seconds": round(wait or 0, 1), "at": phase, "faults": bad})
                    _write(target, rows, sweeps, faults)
                    print(rows[-1], flush=True)
                    continue
                bad = [f"it ended with {code}"] if code else _incomplete(out)
                faults += len(bad)
                print(f"sweep {sweeps}: {'; '.join(bad) or 'whole'}", flush=True)
                break
            sweeps += 1
            _write(target, rows, sweeps, faults)
    return 1 if faults else 0


def asked(given: dict[str, str], place: Path, flops: str) -> dict[str, Any]:
    """A small sweep for `yolo_prune.sweep`, as the words of a command change it: sweep_cost.py and sweep_ray.py too.

    Args:
        given: words of the command. place: a folder for model and data, where these are not given. flops: bounds.
    """
    model, data = (given["model"], given["data"]) if "model" in given else _made(place)
    return {
        "model": str(model),
        "data": str(data),
        "imgsz": given.get("imgsz", "64"),
        "seconds": 1,
        "epochs": int(given.get("epochs", EPOCHS)),
        "flops": given.get("flops", flops),
        "workers": 0,
        "batch": 4,
        "plots": False,
        "amp": False,
        "optimizer": "SGD",
        "seed": 0,
        "fraction": float(given.get("fraction", 1.0)),
    }


def _part(model: Path, data: Path, out: Path, place: Path, wait: float | None) -> tuple[int, str]:
    """One part of a sweep, killed some seconds after it has begun with a point; its exit code, and what was done."""
    command = [sys.executable, "-m", "yolo_prune", "sweep", f"model={model}", f"data={data}", f"out={out}", *WORDS]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with (place / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, cwd=place, env=env, stdout=log, stderr=log)
        try:
            begun = time.time()
            while wait is not None and process.poll() is None and not _at_work(out, begun):
                time.sleep(0.2)
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
        code = process.wait()
    names = sorted(path.parent.name + "/" + path.name for path in out.rglob("*.json") if path.parent != out)
    return code, f"{len([name for name in names if name.endswith('/cut.json')])} cut, " + (
        f"{len([name for name in names if name.endswith('/trained.json')])} trained"
    )


def _at_work(out: Path, since: float) -> bool:
    """Whether a process of the sweep has begun with a point since then."""
    return any(path.stat().st_mtime > since for path in out.glob("*/*.log"))


def _finished(out: Path) -> dict[str, list[int]]:
    """What is finished: file -> inode and time of its last change. Of points that are trained, best.pt as well."""
    found = [path for name in ("cut", "trained") for path in out.glob(f"*/{name}.json")]
    found += [path.parent / "weights" / "best.pt" for path in out.glob("*/trained.json")]
    return {str(path): [path.stat().st_ino, path.stat().st_mtime_ns] for path in found if path.exists()}


def _lost(out: Path, before: dict[str, list[int]]) -> list[str]:
    """What was finished before and is gone, or was written anew."""
    now = _finished(out)
    return [f"{path} is {'another' if path in now else 'gone'}" for path in before if now.get(path) != before[path]]


def _incomplete(out: Path) -> list[str]:
    """What is wrong with a finished sweep."""
    faults = []
    record = json.loads((out / "front.json").read_text())
    if [row["name"] for row in record["rows"]] != list(POINTS):
        faults.append("points are missing")
    for name in POINTS:
        lines = (out / name / "results.csv").read_text().splitlines()[1:]
        epochs = [int(line.split(",")[0]) for line in lines]
        if epochs != list(range(1, EPOCHS + 1)):
            faults.append(f"{name} has the epochs {epochs}")
    return faults


def _write(target: Path, rows: list[dict[str, Any]], sweeps: int, faults: int) -> None:
    content = {"command": "python benchmarks/sweep_kill.py", "kills": len(rows), "sweeps": sweeps, "faults": faults}
    files.replace(target, json.dumps({**content, "rows": rows}, indent=1) + "\n")


def _made(place: Path) -> tuple[Path, Path]:
    """An untrained yolov8n of two classes, and a data set of drawings."""
    sys.path.insert(0, str(ROOT))
    from tests.helpers.untrained import save

    return save(place / "best.pt", 0), _drawn(place)


def _drawn(place: Path) -> Path:
    """Twelve images of rectangles, bright and dark."""
    import cv2
    import numpy as np

    chance = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (place / "data" / kind / split).mkdir(parents=True)
        for index in range(count):
            image = chance.integers(90, 130, (64, 64, 3), dtype=np.uint8)
            lines = []
            for number, shade in enumerate((230, 20)):
                x, y, w, h = (int(v) for v in chance.integers(14, 30, 4))
                cv2.rectangle(image, (x, y), (x + w, y + h), (shade,) * 3, -1)
                lines.append(f"{number} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}")
            cv2.imwrite(str(place / "data" / "images" / split / f"{index}.png"), image)
            (place / "data" / "labels" / split / f"{index}.txt").write_text("\n".join(lines) + "\n")
    data = place / "data.yaml"
    data.write_text(f"path: {place / 'data'}\ntrain: images/train\nval: images/val\nnames: {{0: bright, 1: dark}}\n")
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
