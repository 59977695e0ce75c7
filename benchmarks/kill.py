# yolo-prune, AGPL-3.0 license
"""Kill a run that prunes with SIGKILL at random moments, resume it, and compare with the run that was not killed.

    python benchmarks/kill.py [kills=20] [seed=0] [out=rows.json]

Half of the kills come by the clock, at any moment of the run. The other half come inside what matters: the training
process counts writes, renames and cuts, and ends itself with SIGKILL at one of them, drawn at random: with half of a
file written, before or after a rename, before or after a cut of a model or of the optimizer's state. After each kill
every checkpoint on disk must load and every record must parse; then `yolo train resume` goes on, and must end at the
widths, steps and epochs of the run that was not killed. Exit code 1 where one did not.
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

EPOCHS = 6
ARGUMENTS: dict[str, Any] = {
    "model": "yolov8n.yaml",
    "imgsz": 64,
    "batch": 4,
    "workers": 0,
    "device": "cpu",
    "amp": False,
    "plots": False,
    "seed": 0,
    "optimizer": "SGD",
    "epochs": EPOCHS,
    "save_period": 2,
    "name": "run",
    "exist_ok": True,
    "prune": 0.5,
    "prune_scope": "uniform",  # of which widths follow from the bound alone: a resumed run can be held to them
    "prune_steps": 3,
    "prune_start": 0.2,
    "prune_end": 0.7,
}
CHILD = "child"  # the word that makes this file the training process


def train() -> None:
    """The training process: count what matters, and die at the n-th of it where the environment says so."""
    last = int(os.environ.get("DIE_AT", "0"))
    seen: list[str] = []

    def event(name: str) -> None:
        seen.append(name)
        if len(seen) == last:
            sys.stderr.write(f"\nDIED {name}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def around(holder: Any, name: str) -> None:
        stock = getattr(holder, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            event(f"before {name}")
            found = stock(*args, **kwargs)
            event(f"after {name}")
            return found

        setattr(holder, name, counted)

    stock_write = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if len(seen) + 1 == last:
            stock_write(path, data[: len(data) // 2])
        event(f"half of {path.name}")
        return stock_write(path, data)

    from yolo_prune import continuity

    Path.write_bytes = write_bytes  # type: ignore[method-assign]
    around(os, "replace")
    around(continuity, "cut")
    around(continuity, "carry_optimizer")
    from ultralytics import YOLO

    arguments = json.loads(sys.argv[2])
    YOLO(arguments.pop("model")).train(**arguments)
    print(f"EVENTS {len(seen)}")


def start(folder: Path, data: Path, die_at: int = 0) -> subprocess.Popen[str]:
    """Start a training process; its words go to folder/log."""
    words = json.dumps({**ARGUMENTS, "data": str(data), "project": str(folder)})
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, __file__, CHILD, words],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "DIE_AT": str(die_at), "YOLO_OFFLINE": "True", "OMP_NUM_THREADS": "1"},
            text=True,
        )


def draw(folder: Path) -> Path:
    """A data set of eight training and four validation images with rectangles."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
            left, top, wide, high = (int(v) for v in (*rng.integers(2, 30, 2), *rng.integers(16, 30, 2)))
            cv2.rectangle(image, (left, top), (left + wide, top + high), (230, 230, 230), -1)
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), image)
            box = ((left + wide / 2) / 64, (top + high / 2) / 64, wide / 64, high / 64)
            (folder / "labels" / split / f"{index}.txt").write_text("0 " + " ".join(f"{v:.5f}" for v in box) + "\n")
    data = folder / "data.yaml"
    data.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n  0: box\n")
    return data


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same: widths of both checkpoints, the steps, and the epochs of results.csv."""
    from torch import nn
    from ultralytics.nn.tasks import load_checkpoint

    record = json.loads((run / "pruning" / "record.json").read_text())
    found: dict[str, Any] = {
        "steps": [(row["epoch"], row["params"], row["gflops"]) for row in record["steps"]],
        "epochs": [line.partition(",")[0] for line in (run / "results.csv").read_text().splitlines()[1:]],
        "history": [row["epoch"] for row in record["history"]],
    }
    for name in ("best.pt", "last.pt"):
        model, _ = load_checkpoint(run / "weights" / name)
        found[name] = {
            key: (m.out_channels, m.in_channels) for key, m in model.named_modules() if isinstance(m, nn.Conv2d)
        }
    return found


def check_whole(run: Path) -> list[str]:
    """What is on disk after a kill. Raises where a file is not whole."""
    import yaml
    from ultralytics.nn.tasks import load_checkpoint

    found = []
    for path in sorted((run / "weights").glob("[!.]*.pt")):
        load_checkpoint(path)
        found.append(path.name)
    for path in (run / "pruning" / "record.json", run / "args.yaml"):
        if path.is_file():
            yaml.safe_load(path.read_text())  # JSON is YAML
    return found


def resume(run: Path) -> tuple[str, str]:
    """Go on as a user does: how, and what it printed."""
    last = run / "weights" / "last.pt"
    script = "import sys; sys.argv[0] = 'yolo'; from ultralytics.cfg import entrypoint; entrypoint()"
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "resume", f"model={last}"],
        capture_output=True,
        text=True,
        cwd=run.parent,
        env={**os.environ, "YOLO_OFFLINE": "True", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    text = done.stdout + done.stderr
    if "nothing to resume" in text or "not a resumable training checkpoint" in text:  # the host's words
        return "was finished", text
    if done.returncode:
        raise RuntimeError(text[-3000:])
    start = next(line for line in text.splitlines() if "Resuming training" in line)
    return "resumed" + start.partition(" from")[2].partition(" to")[0], text


def kill_once(number: int, folder: Path, data: Path, rng: random.Random, seconds: float, events: int) -> dict[str, Any]:
    """Kill one run, see what is on disk, and finish it."""
    row: dict[str, Any] = {"kill": number}
    run = folder / "run"
    if number % 2:
        after = rng.uniform(0.0, seconds)
        process = start(folder, data)
        while "Starting training" not in (folder / "log").read_text() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(after)
        row["how"] = f"{after:.1f} s after the start"
        process.kill()
    else:
        process = start(folder, data, rng.randint(1, events))
    process.wait()
    died = [line for line in (folder / "log").read_text().splitlines() if line.startswith("DIED")]
    row.setdefault("how", died[0].removeprefix("DIED ") if died else "not at all")
    row["signal"] = process.returncode == -signal.SIGKILL
    row["on disk"] = check_whole(run)
    if "last.pt" in row["on disk"]:
        row["then"], _ = resume(run)
    else:
        row["then"] = "started again"
        if start(folder, data).wait():
            raise RuntimeError((folder / "log").read_text()[-3000:])
    return row


def main() -> int:
    """Run the reference, then the kills; print a row for each."""
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    kills, rng = int(given.get("kills", 20)), random.Random(int(given.get("seed", 0)))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="yolo-prune-kill-") as scratch:
        os.environ["YOLO_CONFIG_DIR"] = scratch
        data = draw(Path(scratch) / "data")
        begin = time.monotonic()
        reference = start(Path(scratch) / "reference", data)
        log = Path(scratch) / "reference" / "log"
        while "Starting training" not in log.read_text() and reference.poll() is None:
            time.sleep(0.02)
        begin = time.monotonic()
        if reference.wait():
            sys.exit(log.read_text()[-3000:])
        seconds = time.monotonic() - begin
        events = int(next(line for line in log.read_text().splitlines() if line.startswith("EVENTS")).split()[1])
        expected = outcome(Path(scratch) / "reference" / "run")
        print(f"reference: {seconds:.1f} s of training, {events} events, steps {expected['steps']}", flush=True)
        for number in range(kills):
            folder = Path(scratch) / f"kill{number}"
            row = kill_once(number, folder, data, rng, seconds, events)
            found = outcome(folder / "run")
            row["different"] = [key for key in expected if found[key] != expected[key]]
            rows.append(row)
            verdict = f"DIFFERENT {row['different']}" if row["different"] else "same"
            print(
                f"{number + 1:3} {row['how']:34} {row['then']:22} {verdict}  ({', '.join(row['on disk'])})", flush=True
            )
    bad = [row for row in rows if row["different"]]
    print(f"{len(rows)} kills, {len(rows) - len(bad)} ended as the run that was not killed, {len(bad)} did not")
    if "out" in given:
        Path(given["out"]).write_text(json.dumps(rows))
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        train()
    else:
        sys.exit(main())
