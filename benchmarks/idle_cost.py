# yolo-prune, AGPL-3.0 license
"""What the plugin costs where nothing is pruned: interpreter start, and epochs of a plain training.

    python benchmarks/idle_cost.py

Both compare medians of runs with and without YOLO_PRUNE=0, interleaved, in processes of their own. Needs an environment
in which yolo-prune is installed, so that its start-up files run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 40
EPOCHS = 6
TRAIN = """
import sys, time
from ultralytics import YOLO
marks = []
yolo = YOLO("yolov8n.yaml")
yolo.add_callback("on_train_epoch_start", lambda trainer: marks.append(time.perf_counter()))
yolo.train(data=sys.argv[1], epochs={epochs}, imgsz=64, batch=8, workers=0, device="cpu", plots=False, amp=False,
           val=False, verbose=False, project=sys.argv[2], exist_ok=True, save=False)
print("epochs", *(b - a for a, b in zip(marks[1:], marks[2:])))
"""


def environment(on: bool) -> dict[str, str]:
    variables = {key: value for key, value in os.environ.items() if key != "YOLO_PRUNE"}
    return variables if on else {**variables, "YOLO_PRUNE": "0"}


def start_up(on: bool) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], env=environment(on), check=True)
    return time.perf_counter() - begin


def epochs(on: bool, data: Path, folder: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN.format(epochs=EPOCHS), str(data), str(folder)],
        env=environment(on),
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("epochs"))
    return [float(word) for word in line.split()[1:]]


def main() -> None:
    from yolo_prune.demo import dataset

    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for on in (True, False):
            times[on].append(start_up(on))
    with_it, without = (1000 * statistics.median(times[on]) for on in (True, False))
    print(f"python -c pass: {with_it:.2f} ms with, {without:.2f} ms with YOLO_PRUNE=0: {with_it - without:+.2f} ms")
    with tempfile.TemporaryDirectory() as folder:
        data = dataset.make(Path(folder) / "data", images=64, val=8, imgsz=64)
        times = {True: [], False: []}
        for _ in range(3):
            for on in (True, False):
                times[on] += epochs(on, data, Path(folder) / "runs")
        with_it, without = (statistics.median(times[on]) for on in (True, False))
    print(f"an epoch: {with_it:.3f} s with, {without:.3f} s with YOLO_PRUNE=0: ratio {with_it / without:.3f}")


if __name__ == "__main__":
    main()
