# yolo-prune, AGPL-3.0 license
"""Kill a run that prunes with SIGKILL at random moments, resume it, and compare with the run that was not killed.

    python benchmarks/kill.py [kills=100] [seed=0] [out=benchmarks/results/kill.json] [model=yolov8n.yaml] [recipes=...]

Every second kill is of the default recipe (one step by gradients, made up for), every second of several steps with a
penalty that grows before each: widths that hang on every gradient seen since the start. Half of the kills come by the
clock, at any moment of the run. The other half come inside what matters: the training process counts writes, renames
and cuts, and ends itself with SIGKILL at one of them, drawn at random: with half of a file written, before or after a
rename, before or after a cut of a model or of the optimizer's state. After each kill every checkpoint on disk must
load and every record must parse; then `yolo train resume` goes on, and must end at the widths, steps and epochs of
the run that was not killed. Exit code 1 where one did not.

A row is written as each kill is done; the same command takes up where an earlier one was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from yolo_prune import files

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS: dict[str, Any] = {
    "model": "yolov8n.yaml",
    "imgsz": 64,
    "batch": 3,  # with nbs=64, gradients of many batches add up, across the ends of epochs
    "workers": 0,
    "device": "cpu",
    "amp": False,
    "plots": False,
    "seed": 0,
    "save_period": 2,
    "name": "run",
    "exist_ok": True,
    "prune": 0.5,
}
RECIPES: dict[str, dict[str, Any]] = {
    "default": {"epochs": 12},  # its one step is at 0.15 of them
    "steps": {
        "epochs": 6,
        "nbs": 6,
        "prune_steps": 3,
        "prune_schedule": "linear",
        "prune_start": 0.2,
        "prune_end": 0.7,
        "prune_regularize": "growing",
    },
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

    def half(name: str, data: bytes, write: Any) -> Any:
        if len(seen) + 1 == last:
            write(data[: len(data) // 2])
        event(f"half of {name}")
        return write(data)

    class Stream:
        """A file that may be left half-written."""

        def __init__(self, stream: Any, name: str) -> None:
            self.stream, self.name = stream, name

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: Any) -> None:
            self.stream.close()

        def write(self, data: bytes) -> Any:
            return half(self.name, data, lambda part: (self.stream.write(part), self.stream.flush()))

    from yolo_prune import files
    from yolo_prune.training import cut_models, optimizer_state

    stock_write, stock_new = Path.write_bytes, files._new
    Path.write_bytes = lambda path, data: half(path.name, data, lambda part: stock_write(path, part))  # type: ignore
    files._new = lambda path, *more: Stream(stock_new(path, *more), f"a file in {path.parent.name}")  # type: ignore
    around(os, "replace")
    around(cut_models, "cut_student")
    around(optimizer_state, "carry_optimizer")
    from ultralytics import YOLO

    arguments = json.loads(sys.argv[2])
    YOLO(arguments.pop("model")).train(**arguments)
    print(f"EVENTS {len(seen)}")


def start(folder: Path, data: Path, recipe: str, die_at: int = 0) -> subprocess.Popen[str]:
    """Start a training process; its words go to folder/log."""
    words = json.dumps({**ARGUMENTS, **RECIPES[recipe], "data": str(data), "project": str(folder)})
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


def weights(run: Path) -> str:
    """A digest of the final weights: told beside, for they may differ where widths do not."""
    from ultralytics.nn.tasks import load_checkpoint

    found = hashlib.sha256()
    for value in load_checkpoint(run / "weights" / "last.pt")[0].state_dict().values():
        found.update(value.float().numpy().tobytes())
    return found.hexdigest()


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


def kill_once(number: int, folder: Path, data: Path, recipe: str, seed: int, whole: dict[str, Any]) -> dict[str, Any]:
    """Kill one run, see what is on disk, and finish it.

    Args:
        number: of the kill; it draws the moment. seed: of all kills. whole: as of `reference`.
    """
    rng = random.Random(f"{seed} {number}")
    row: dict[str, Any] = {"kill": number, "recipe": recipe}
    run = folder / "run"
    if number // 2 % 2:
        after = rng.uniform(0.0, whole["seconds"])
        process = start(folder, data, recipe)
        while "Starting training" not in (folder / "log").read_text() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(after)
        row["how"] = f"{after:.1f} s after the start"
        process.kill()
    else:
        process = start(folder, data, recipe, rng.randint(1, whole["events"]))
    process.wait()
    died = [line for line in (folder / "log").read_text().splitlines() if line.startswith("DIED")]
    row.setdefault("how", died[0].removeprefix("DIED ") if died else "not at all")
    row["signal"] = process.returncode == -signal.SIGKILL
    row["on disk"] = check_whole(run)
    if "last.pt" in row["on disk"]:
        row["then"], _ = resume(run)
    else:
        row["then"] = "started again"
        if start(folder, data, recipe).wait():
            raise RuntimeError((folder / "log").read_text()[-3000:])
    return row


def reference(folder: Path, data: Path, recipe: str) -> dict[str, Any]:
    """A run that is not killed: its outcome, how long it trains in seconds, and how many events it has."""
    process = start(folder, data, recipe)
    log = folder / "log"
    while "Starting training" not in log.read_text() and process.poll() is None:
        time.sleep(0.02)
    begin = time.monotonic()
    if process.wait():
        sys.exit(log.read_text()[-3000:])
    seconds = time.monotonic() - begin
    events = int(next(line for line in log.read_text().splitlines() if line.startswith("EVENTS")).split()[1])
    found: dict[str, Any] = {"seconds": seconds, "events": events, "outcome": outcome(folder / "run")}
    found["weights"] = weights(folder / "run")
    print(f"{recipe}: {seconds:.1f} s of training, {events} events, steps {found['outcome']['steps']}", flush=True)
    return found


def earlier(out: Path, seed: int) -> list[dict[str, Any]]:
    """The rows that a stopped run of this command left."""
    try:
        kept = json.loads(out.read_text())
    except OSError:
        return []
    rows: list[dict[str, Any]] = kept["rows"] if kept.get("seed") == seed else []
    return rows


def main() -> int:
    """Run the references, then the kills; print and write a row for each."""
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    kills, seed = int(given.get("kills", 100)), int(given.get("seed", 0))
    ARGUMENTS["model"] = given.get("model", ARGUMENTS["model"])
    recipes = given.get("recipes", ",".join(RECIPES)).split(",")
    out = Path(given.get("out", ROOT / "benchmarks" / "results" / "kill.json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = earlier(out, seed)
    with tempfile.TemporaryDirectory(prefix="yolo-prune-kill-") as scratch:
        os.environ["YOLO_CONFIG_DIR"] = scratch
        data = draw(Path(scratch) / "data")
        whole = {recipe: reference(Path(scratch) / recipe, data, recipe) for recipe in recipes}
        for number in range(len(rows), kills):
            recipe = recipes[number % len(recipes)]
            folder = Path(scratch) / f"kill{number}"
            begin = time.monotonic()
            row = kill_once(number, folder, data, recipe, seed, whole[recipe])
            expected, found = whole[recipe]["outcome"], outcome(folder / "run")
            row["different"] = [key for key in expected if found[key] != expected[key]]
            row["same weights"] = weights(folder / "run") == whole[recipe]["weights"]
            row["seconds"] = round(time.monotonic() - begin, 1)
            rows.append(row)
            shutil.rmtree(folder)
            files.replace(out, json.dumps({"seed": seed, "versions": versions(), "rows": rows}, indent=1) + "\n")
            verdict = f"DIFFERENT {row['different']}" if row["different"] else "same"
            print(
                f"{number + 1:3} {recipe:8} {row['how']:34} {row['then']:22} {verdict}  ({', '.join(row['on disk'])})"
            )
            sys.stdout.flush()
    bad = [row for row in rows if row["different"]]
    print(f"{len(rows)} kills, {len(rows) - len(bad)} ended as the run that was not killed, {len(bad)} did not")
    return 1 if bad else 0


def versions() -> dict[str, str]:
    """What the rows were taken with."""
    return {name: metadata.version(name) for name in ("yolo-prune", "ultralytics", "torch")}


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        train()
    else:
        sys.exit(main())
