# yolo-prune, AGPL-3.0 license
"""Every family and task through the host's real trainer: pruned, and built again at its widths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics import RTDETR, YOLO

from tests.graph.test_families import COVER
from tests.helpers import small_models, task_data
from tests.helpers.runs import SMALL, record_of, widths
from yolo_prune.host import checkpoint
from yolo_prune.recipe import support
from yolo_prune.surgery import widths as architecture

# One step and an epoch. Of the training after it only the beginning is run: test_again.py has the rest.
# Two images to train on; single ones, so that tasks with a frame are validated on both canvases (host/canvases.py).
RUN = {**SMALL, "epochs": 1, "prune": "oneshot", "prune_start": 0.0, "prune_round": 4, "prune_min_channels": 4}
RUN |= {"batch": 1, "fraction": 0.25}


@pytest.fixture(scope="module")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def data(task: str) -> Path:
        if task not in made:
            made[task] = task_data.make(tmp_path_factory.mktemp(task) / "data", task)
        return made[task]

    return data


class BegunError(Exception):
    """The model is built and the training may begin: no more is looked at."""


def begun(trainer: object) -> None:
    raise BegunError


@pytest.mark.parametrize("row", COVER)
def test_a_run_prunes_and_the_next_keeps_its_widths(
    row: support.Row, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    data = str(data_of(row.task))
    torch.manual_seed(0)
    detr = row.family == "RT-DETR"
    where = {"project": str(tmp_path), "data": data}
    yolo = RTDETR(small_models.rtdetr(tmp_path, row.file)) if detr else YOLO(row.file)
    yolo.train(name="first", **where, **RUN)
    record = record_of(tmp_path / "first")
    assert 0.45 <= record["final"]["gflops"] / record["baseline"]["gflops"] <= 0.501
    best = tmp_path / "first" / "weights" / "best.pt"
    assert checkpoint.load(best)[0].task == row.task, "a trainer's own model has none: the host's loader gives it"
    pruned = (RTDETR if detr else YOLO)(best)
    before = widths(pruned.model)
    assert architecture.is_pruned(pruned.model)
    pruned.add_callback("on_train_start", begun)
    with pytest.raises(BegunError):
        pruned.train(name="again", **where, **SMALL, epochs=1)
    again = pruned.trainer
    assert widths(again.model) == widths(again.ema.ema) == before
    tuned = {id(p) for group in again.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in again.model.parameters() if p.requires_grad} <= tuned
