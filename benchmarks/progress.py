# yolo-prune, AGPL-3.0 license
"""The epochs of a training as they end, kept in a file: a training that was killed goes on and still knows them all."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook
from ultralytics.nn.tasks import load_checkpoint

from yolo_prune import files

FITNESS = "metrics/mAP50-95(B)"


class Progress:
    """Fitness, optimizer steps and seconds by epoch, in `<run>/epochs.json`.

    Attributes:
        rows: one an epoch: `epoch` from 1 on, `fitness`, and `steps`, `seconds` and `cpu_seconds` since the start.
        resumed: the epochs after which a killed run went on. batches: of one epoch.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.batches = run, 0
        self.rows: list[dict[str, Any]] = []
        self.resumed: list[int] = []
        self._steps, self._clock, self._cpu = 0, time.monotonic(), time.process_time()
        self._start: dict[str, Any] = {"steps": 0, "seconds": 0.0, "cpu_seconds": 0.0}

    def attach(self, holder: Any) -> None:
        """Follow a trainer, or the trainer of a YOLO object."""
        register_optimizer_step_post_hook(self._step)
        holder.add_callback("on_train_start", self._begin)
        holder.add_callback("on_fit_epoch_end", self._end)

    def read(self, epochs: int) -> None:
        """Take over what an earlier process wrote of so many epochs.

        The kill may have come between last.pt and this file: such an epoch's fitness is in results.csv, and its steps
        and seconds are taken to be those of the epoch before.
        """
        try:
            earlier = json.loads((self.run / "epochs.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            earlier = {"rows": [], "resumed": [], "batches": 0}
        self.rows = [row for row in earlier["rows"] if row["epoch"] <= epochs]
        self.resumed, self.batches = earlier["resumed"], earlier["batches"]
        while len(self.rows) < epochs:
            one, two = ([None, None, *self.rows])[-2:]
            last = two or {**self._start, "epoch": 0}
            before = one or {**self._start, "epoch": 0}
            grown = {key: round(2 * last[key] - before[key], 1) for key in self._start}
            epoch = last["epoch"] + 1
            self.rows.append({"epoch": epoch, "fitness": _fitness_of(self.run, epoch), **grown})
        if self.rows:
            self._start = {key: self.rows[-1][key] for key in self._start}

    def _step(self, *_: Any) -> None:
        self._steps += 1

    def _begin(self, trainer: Any) -> None:
        if trainer.start_epoch:
            self.read(trainer.start_epoch)
            self.resumed.append(trainer.start_epoch)
        self.batches = len(trainer.train_loader)

    def _end(self, trainer: Any) -> None:
        epoch = trainer.epoch + 1
        if epoch > trainer.epochs:
            return  # the host (8.4.190, final_eval) calls once more, of best.pt
        now = {
            "steps": self._steps,
            "seconds": time.monotonic() - self._clock,
            "cpu_seconds": time.process_time() - self._cpu,
        }
        since = {key: round(self._start[key] + value, 1) for key, value in now.items()}
        self.rows.append({"epoch": epoch, "fitness": round(float(trainer.fitness), 4), **since})
        content = {"batches": self.batches, "resumed": self.resumed, "rows": self.rows}
        files.replace(self.run / "epochs.json", json.dumps(content))


def _fitness_of(run: Path, epoch: int) -> float | None:
    try:
        rows = list(csv.DictReader((run / "results.csv").open(encoding="utf-8")))
    except OSError:
        return None
    values = [float(row[FITNESS]) for row in rows if int(row["epoch"]) == epoch and row.get(FITNESS)]
    return round(values[-1], 4) if values else None


def left_by(run: Path) -> tuple[str, Path]:
    """What a killed run left: "nothing" to go on from, a "half" of it, or all of it but its result ("whole").

    Returns:
        One of the three words, and the path of last.pt.
    """
    last = run / "weights" / "last.pt"
    try:
        _, checkpoint = load_checkpoint(str(last))
    except Exception:  # the host writes last.pt in place: a kill may have left a part of it, and that fails anyhow
        return "nothing", last
    if checkpoint["epoch"] >= 0:
        return "half", last
    return ("whole" if (run / "weights" / "best.pt").is_file() else "nothing"), last
