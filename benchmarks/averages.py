# yolo-prune, AGPL-3.0 license
"""Averages of the weights beside one another: one training, several averages of its steps, each validated every epoch.

    python benchmarks/averages.py set=demo model=yolov8n.pt data=data.yaml imgsz=128 epochs=30 [from=20] [ages=0.1,0.2]
                                  [fraction=1] [seed=0] [out=averages.json]

The training has prune=0.5 and prune_ema=0, so that it is the host's own average that it validates; those of
`prune_ema=` with each of `ages` are kept beside it, in the same steps. `model` may be a run, whose best.pt it is. After
each epoch from `from` on all of them are validated on both canvases (benchmarks/canvas.py): as a training does, and as
an exported file is. The row is written when it ends, in place of an earlier one of the same set, model and epochs.
"""

from __future__ import annotations

import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import matrix_files
import tables
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import torch_utils

from yolo_prune.training import recovery

SAME = ("set", "model", "epochs")
OTHERS = {"from": "0", "ages": "0.1,0.2", "fraction": "1", "seed": "0", "out": str(tables.AVERAGES)}


class Average:
    """An average of a network's floating values, begun anew where their shapes change."""

    def __init__(self, age: float) -> None:
        self.decay, self.updates, self.values = recovery.decay(age), 0, list[torch.Tensor]()

    def update(self, values: list[torch.Tensor]) -> None:
        if [one.shape for one in self.values] != [one.shape for one in values]:
            self.values, self.updates = [one.clone() for one in values], 0
        self.updates += 1
        torch._foreach_lerp_(self.values, values, 1 - self.decay(self.updates))


def floating(network: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers, as the host's ModelEMA averages them."""
    state = torch_utils.unwrap_model(network).state_dict().values()
    return [value.detach().float() for value in state if value.dtype.is_floating_point]


def follow(averages: dict[str, Average]) -> None:
    """Have each update of the host's average update these; they begin anew where it does."""
    stock = torch_utils.ModelEMA.update

    def update(self: Any, model: torch.nn.Module) -> None:
        stock(self, model)
        values = floating(model)
        for one in averages.values():
            if self.updates == 1:
                one.values = []
            one.update(values)

    torch_utils.ModelEMA.update = update


def validated(network: torch.nn.Module, given: dict[str, str], folder: Path) -> list[float]:
    """mAP50-95 as a training validates, and as an exported file is validated."""
    found = []
    for rect in (True, False):
        how = {"batch": 32, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "mode": "val"}
        how |= {"data": given["data"], "imgsz": int(given["imgsz"]), "rect": rect, "save_dir": folder}
        figures = DetectionValidator(args=how)(model=deepcopy(network).float().eval())
        found.append(round(float(figures["metrics/mAP50-95(B)"]), 4))
    return found


def measure(given: dict[str, str]) -> list[dict[str, Any]]:
    """The training; rows of its epochs."""
    averages = {age: Average(float(age)) for age in given["ages"].split(",")}
    follow(averages)
    rows: list[dict[str, Any]] = []

    def look(trainer: Any) -> None:
        if not int(given["from"]) <= trainer.epoch < trainer.epochs:  # the host calls it once more for best.pt
            return
        state = torch.random.get_rng_state()
        row = {"epoch": trainer.epoch + 1, "host": validated(trainer.ema.ema, given, trainer.save_dir)}
        for age, average in averages.items():
            network = deepcopy(trainer.ema.ema)
            places = [value for value in network.state_dict().values() if value.dtype.is_floating_point]
            for place, value in zip(places, average.values, strict=True):
                place.copy_(value)
            row[age] = validated(network, given, trainer.save_dir)
        rows.append(row)
        torch.random.set_rng_state(state)
        print(row, flush=True)

    yolo = YOLO(matrix_files.weights_of(given["model"]))
    yolo.add_callback("on_fit_epoch_end", look)
    with tempfile.TemporaryDirectory() as folder:
        host = {"batch": 16, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "project": folder}
        how = {key: int(given[key]) for key in ("imgsz", "epochs", "seed")}
        yolo.train(data=given["data"], prune=0.5, prune_ema=0, fraction=float(given["fraction"]), **how, **host)
    return rows


def main(words: list[str]) -> None:
    """Measure and keep; see the head of this file."""
    given = {**OTHERS, **dict(word.split("=", 1) for word in words)}
    if not {"set", "model", "data", "imgsz", "epochs"} <= set(given):
        raise SystemExit(__doc__)
    said = " ".join(f"{key}={given[key]}" for key in ("imgsz", "epochs", "from", "ages", "fraction", "seed"))
    row = {
        "set": given["set"],
        "model": Path(given["model"]).name,
        "epochs": int(given["epochs"]),
        "command": f"python benchmarks/averages.py set={given['set']} model={Path(given['model']).name} "
        f"data=RUNS/data/{given['set']}/data.yaml {said}",
        "rows": measure(given),
        "versions": matrix_files.versions(),
        "processor": matrix_files.processor(),
    }
    out = Path(given["out"])
    matrix_files.keep(out, [*matrix_files.others(out, row, SAME), row])
    tables.refresh()


if __name__ == "__main__":
    main(sys.argv[1:])
