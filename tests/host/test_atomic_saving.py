# yolo-prune, AGPL-3.0 license
"""Trainings that do not prune, as a sweep has them: a kill leaves the checkpoint before, or the new one, whole."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.callbacks import base

from tests.helpers.runs import ANY_CHOICE, StoppedError, train
from yolo_prune.host import atomic_saving


@pytest.fixture
def _protected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of a sweep."""
    monkeypatch.setitem(base.default_callbacks, "on_train_start", list(base.default_callbacks["on_train_start"]))
    atomic_saving.protect_all()
    atomic_saving.protect_all()


@pytest.mark.usefixtures("_protected")
def test_a_kill_in_a_save_leaves_the_checkpoint_before(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "run" / "weights" / "last.pt"
    stock, writes = Path.write_bytes, 0

    def write_half(path: Path, content: Any) -> int:
        nonlocal writes
        writes += path.name == "last.pt"
        if path.name == "last.pt" and writes == 2:
            stock(path, bytes(content)[: len(content) // 2])
            raise StoppedError
        return stock(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, epochs=2)
    assert torch.load(last, weights_only=False)["epoch"] == 0
    YOLO(last).train(resume=True)
    assert torch.load(last, weights_only=False)["epoch"] == -1, "it is stripped"
    with (last.parents[1] / "results.csv").open() as stream:
        assert [row["epoch"].strip() for row in csv.DictReader(stream)] == ["1", "2"], "no epoch stands twice"
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.pt", "last.pt"]


@pytest.mark.usefixtures("_protected")
def test_a_run_that_prunes_is_protected_once(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    stock = atomic_saving._save_whole
    monkeypatch.setattr(
        atomic_saving, "_save_whole", lambda trainer, *more: saved.append(trainer.wdir.name) or stock(trainer, *more)
    )
    train(tiny_data, tmp_path, epochs=1, prune_flops="90%", **ANY_CHOICE)
    assert set(saved) == {"weights"}, "the one that is within another writes into a temporary folder"
