# yolo-prune, AGPL-3.0 license
"""The dense model beside the one that is exported: which it may be, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.helpers.untrained import QUICK, SIDE, save
from yolo_prune.errors import PruneError
from yolo_prune.export import job, subjects
from yolo_prune.host.spec_key import SPEC_KEY


def pruned_from(folder: Path, begun: Path) -> Path:
    """A checkpoint of widths of its own, whose training of 12 epochs began with the other one."""
    path = save(folder / "pruned.pt", 2)
    content = torch.load(path, weights_only=False)
    content["model"].yaml[SPEC_KEY] = {"widths": {}}
    content["train_args"].update(model=str(begun), epochs=12)
    torch.save(content, path)
    return path


def test_a_dense_model_that_has_not_trained_for_as_long_is_told_of(
    tmp_path: Path, tiny_data: Path, said: list[str]
) -> None:
    dense, other = save(tmp_path / "dense.pt", 1), save(tmp_path / "other.pt", 1)
    path = pruned_from(tmp_path, dense)
    pruned = subjects.load(path, None, safe=True)
    told = subjects.trained_longer([subjects.load(dense, "dense", safe=True), pruned])
    assert told is not None
    assert told.startswith(f"dense={dense} is what the training of {path} began with, and has not had its 12 epochs;")
    assert subjects.trained_longer([subjects.load(other, "dense", safe=True), pruned]) is None
    assert subjects.trained_longer([pruned]) is None
    whole = subjects.load(other, None, safe=True)
    whole.ckpt["train_args"]["model"] = str(dense)
    assert subjects.trained_longer([subjects.load(dense, "dense", safe=True), whole]) is None, "it was not pruned"
    record = job.export(path, dense=dense, data=tiny_data, **QUICK)
    assert record["unequal"] == told
    assert said.count(told) == 1


def test_a_parent_of_another_task_is_refused(model: Path, tmp_path: Path) -> None:
    torch.save({"model": YOLO("yolov8n-seg.yaml").model.half(), "train_args": {"imgsz": SIDE}}, tmp_path / "dense.pt")
    with pytest.raises(PruneError, match="is of task segment"):
        job.export(model, dense=tmp_path / "dense.pt", **QUICK)
    with pytest.raises(PruneError, match=r"dense=.* is the model itself"):
        job.export(model, dense=model.parent / "." / model.name, **QUICK)


def test_a_parent_of_other_classes_is_compared_in_latency_and_size_alone(
    model: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As yolov8n.pt itself, of 80 classes, beside a model of two that was pruned from it."""
    torch.save({"model": YOLO("yolov8n.yaml").model.half(), "train_args": {"imgsz": SIDE}}, tmp_path / "dense.pt")
    told = job.export(model, dense=tmp_path / "dense.pt", data=tiny_data, **QUICK)
    assert "dense.pt has 80 classes and" in told["note"]
    assert "2: latency and size alone are compared" in told["note"]
    assert told["note"] in caplog.text
    for row in told["rows"]:
        assert (row["map50_95"] is None) is (row["role"] == "dense")
        assert row["latency_ms"]["median"] > 0
        assert row["megabytes"] > 1
        assert row["speedup"] == 1.0
        assert row["gflops_deployed"] < row["gflops"]
