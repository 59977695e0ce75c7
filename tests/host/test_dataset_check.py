# yolo-prune, AGPL-3.0 license
"""A data set that is not one for the model is refused in one line before the model is touched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, PoseModel, SegmentationModel

import yolo_prune
from tests.helpers.runs import train
from tests.helpers.task_data import make
from tests.helpers.untrained import save
from yolo_prune.commands.apply import apply
from yolo_prune.commands.inspect import inspect
from yolo_prune.commands.sweep import sweep
from yolo_prune.errors import PruneError
from yolo_prune.export import job
from yolo_prune.host import console, dataset_check, datasets
from yolo_prune.recipe.arguments import ARGUMENTS

Change = Callable[[dict[str, Any], Path], None]


def data_of(folder: Path, task: str, change: Change | None = None) -> Path:
    path = make(folder / task, task)
    content = yaml.safe_load(path.read_text())
    if change is not None:
        change(content, path.parent)
        path.write_text(yaml.safe_dump(content))
    return path


def three_classes(content: dict[str, Any], folder: Path) -> None:
    content["names"] = {0: "a", 1: "b", 2: "c"}


def labels(text: str, split: str) -> Change:
    def change(content: dict[str, Any], folder: Path) -> None:
        for path in (folder / "labels" / split).glob("*.txt"):
            path.write_text(text)

    return change


def grey(content: dict[str, Any], folder: Path) -> None:
    content["channels"] = 1


def gone(content: dict[str, Any], folder: Path) -> None:
    shutil.rmtree(folder / "images" / "val")


def empty(content: dict[str, Any], folder: Path) -> None:
    for path in (folder / "images" / "val").glob("*"):
        path.unlink()


def unnamed(content: dict[str, Any], folder: Path) -> None:
    del content["val"]


WRONG = [
    (three_classes, "3 classes and the model 2"),
    (labels("7 0.5 0.5 0.2 0.2\n", "train"), "8 of 8 images.*beyond its 2, such as 7|exceeds dataset class count 2"),
    (labels("", "val"), "no image in its val split has a label"),
    (grey, "1 image channels and the model 3"),
    (gone, "not a data set that ultralytics can read"),
    (empty, "not a data set that ultralytics can read|no image in its val split"),
    (unnamed, "not a data set that ultralytics can read|no val split"),
]
NAMES = ["classes", "beyond", "backgrounds", "grey", "gone", "empty", "unnamed"]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=NAMES)
def test_refused_before_the_cut(change: Change, words: str, tmp_path: Path) -> None:
    yolo = YOLO("yolov8n.yaml")
    yolo.model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    state = {key: value.clone() for key, value in yolo.model.state_dict().items()}
    data = data_of(tmp_path, "detect", change)
    with pytest.raises(PruneError, match=words) as caught:
        yolo_prune.prune(yolo, flops="50%", data=data, imgsz=64)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, state[key]) for key, value in yolo.model.state_dict().items())


def no_images(content: dict[str, Any], folder: Path) -> None:
    for path in (folder / "images" / "train").glob("*"):
        path.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (labels("0 0.5 0.5\n", "train"), "labels require 5 columns"),
        (no_images, "(this is no image that can be opened|cannot identify)"),
    ],
    ids=["columns", "images"],
)
def test_the_words_of_the_host_are_quoted_without_colours_and_to_the_point(
    change: Change, words: str, tmp_path: Path
) -> None:
    network = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    said = rf"No valid images found in .*ignoring corrupt image/label: {words}"
    with pytest.raises(PruneError, match=said) as caught:
        dataset_check.require(network, data_of(tmp_path, "detect", change))
    assert "\x1b" not in str(caught.value)
    assert "pi_heif" not in str(caught.value)


def test_a_training_on_what_is_no_image_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(tmp_path, "detect", no_images)
    with pytest.raises(RuntimeError) as caught:
        train(data, tmp_path, epochs=1, prune=0.3)
    monkeypatch.setattr(sys, "argv", ["yolo", "train", "prune=0.3", f"data={data}"])
    line = console.host_fault(caught.value, caught.tb, ARGUMENTS) or ""
    assert line.startswith(f"data={data}: No valid images found in ")
    assert "pi_heif" not in line
    assert not set("\x1b\n") & set(line)


def test_one_label_of_many_that_is_beyond_is_named(tmp_path: Path) -> None:
    def change(content: dict[str, Any], folder: Path) -> None:
        (folder / "labels" / "train" / "3.txt").write_text("5 0.5 0.5 0.2 0.2\n")

    data = data_of(tmp_path, "detect", change)
    with pytest.raises(PruneError, match=r"labels of 1 of 8 images .* beyond its 2, such as 5 in .*3\.txt"):
        dataset_check.require(DetectionModel("yolov8n.yaml", nc=2, verbose=False), data)


def of(task: str, network: Any) -> Any:
    """As the host sets it."""
    network.task = task
    return network


def test_boxes_for_a_segmenter_and_other_keypoints(tmp_path: Path) -> None:
    boxes = data_of(tmp_path / "boxes", "detect")
    with pytest.raises(PruneError, match=r"boxes alone, and a model of segment needs outlines|not a detect dataset"):
        dataset_check.require(of("segment", SegmentationModel("yolov8n-seg.yaml", nc=2, verbose=False)), boxes)
    with pytest.raises(PruneError, match=r"2 classes and the model 3, and labels that are boxes alone, .* outlines"):
        dataset_check.require(of("segment", SegmentationModel("yolov8n-seg.yaml", nc=3, verbose=False)), boxes)
    points = data_of(tmp_path / "points", "pose")
    with pytest.raises(PruneError, match=r"\[2, 3\] keypoints .* and the model \[17, 3\]"):
        dataset_check.require(of("pose", PoseModel("yolov8n-pose.yaml", nc=2, verbose=False)), points)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify"])
def test_a_right_one_passes(task: str, tmp_path: Path) -> None:
    ending = {"detect": "", "segment": "-seg", "classify": "-cls"}.get(task, f"-{task}")
    network: Any = YOLO(f"yolov8n{ending}.yaml", task=task).model
    network.yaml["kpt_shape"] = [2, 3]
    network.names = {0: "bright", 1: "dark"}
    dataset_check.require(network, make(tmp_path / "data", task))


def test_other_names_of_as_many_classes_are_said(tmp_path: Path, caplog: Any) -> None:
    network: Any = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    network.names = {0: "dark", 1: "bright"}
    dataset_check.require(network, make(tmp_path / "data", "detect"))
    (line,) = [line for line in caplog.messages if "prune:" in line]
    assert "calls class 0 'bright' and the model 'dark' (2 of 2 differ)" in line
    caplog.clear()
    network.names = {0: "bright", 1: "dark"}
    dataset_check.require(network, tmp_path / "data" / "data.yaml")
    assert not [line for line in caplog.messages if "prune:" in line]


def test_apply_inspect_and_export_ask_too(tmp_path: Path) -> None:
    network = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    network.names = {0: "bright", 1: "dark"}
    path = tmp_path / "model.pt"
    torch.save({"model": network, "ema": None, "epoch": -1, "train_args": {"imgsz": 64}}, path)
    data = str(data_of(tmp_path, "detect", labels("", "val")))
    with pytest.raises(PruneError, match="no image in its val split has a label"):
        apply(str(path), flops="50%", data=data)
    assert not (tmp_path / "model-pruned.pt").exists()
    with pytest.raises(PruneError, match="no image in its val split has a label"):
        job.export(str(path), format="onnx", data=data, imgsz=64)
    three = str(data_of(tmp_path / "three", "detect", three_classes))
    with pytest.raises(PruneError, match="3 classes and the model 2"):
        inspect(str(path), data=three)


@pytest.mark.parametrize("change", [gone, unnamed], ids=["gone", "unnamed"])
def test_a_training_says_in_one_line_what_is_not_there(change: Change, tmp_path: Path) -> None:
    for data in (data_of(tmp_path, "detect", change), tmp_path / "nowhere.yaml"):
        with pytest.raises(PruneError, match=f"data={data}: not a data set") as caught:
            train(data, tmp_path, epochs=1, prune=0.3)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_in_a_training_classes_follow_the_data(tmp_path: Path) -> None:
    trained = train(data_of(tmp_path, "detect"), tmp_path, epochs=1, prune=0.3, prune_schedule="oneshot")
    assert trained.model.names == {0: "bright", 1: "dark"}


@pytest.mark.parametrize(
    ("data", "converted"),
    [
        ("my.ndjson", True),
        ("https://example.com/my.ndjson?token=a", True),
        ("ul://someone/datasets/some", True),
        ("https://platform.ultralytics.com/someone/datasets/some", True),
        (Path("my.yaml"), False),
        ("ndjson", False),
    ],
)
def test_what_the_host_makes_a_data_set_of_first_is_left_to_it(data: str | Path, converted: bool) -> None:
    assert datasets.is_converted(data) == converted


@pytest.mark.parametrize(
    ("task", "family", "file"),
    [("detect", DetectionModel, "yolov8n.yaml"), ("segment", SegmentationModel, "yolov8n-seg.yaml")],
)
def test_for_a_model_of_one_class_all_labels_are_one(task: str, family: Any, file: str, tmp_path: Path) -> None:
    """As it was trained, with single_cls=True; its loss fails on labels of several."""
    network = family(file, nc=1, verbose=False)
    network.args = {"single_cls": True}
    data = data_of(tmp_path, task)
    dataset_check.require(network, data)
    for split in ("train", "val"):
        classes = torch.cat([batch["cls"] for batch in datasets.read(network, data, 64, 8, split)])
        assert set(classes.flatten().tolist()) == {0.0}
    network.args = {"single_cls": False}
    assert set(datasets.read(network, data, 64, 8)[0]["cls"].flatten().tolist()) == {0.0, 1.0}


def test_commands_have_the_host_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def convert(data: str) -> Path:
        given.append(data)
        return tmp_path / "made.yaml"

    monkeypatch.setattr(datasets.utils, "convert_ndjson_to_yolo_if_needed", convert, raising=False)
    path = str(save(tmp_path / "best.pt", 0))
    swept = partial(sweep, flops="50%", epochs=1, out=str(tmp_path / "sweep"))
    for call in (inspect, partial(apply, flops="50%"), job.export, swept):
        with pytest.raises(PruneError, match=r"^data=.*made\.yaml: not a data set that ultralytics can read"):
            call(path, data="ul://me/datasets/x")
    assert given == ["ul://me/datasets/x"] * 4

    def fails(data: str) -> None:
        raise ModuleNotFoundError("No module named 'aiohttp'")

    monkeypatch.setattr(datasets.utils, "convert_ndjson_to_yolo_if_needed", fails)
    with pytest.raises(PruneError, match=r"^data=my\.ndjson: not a data set .* No module named 'aiohttp'"):
        datasets.converted("my.ndjson")
    assert datasets.converted("my.yaml") == "my.yaml"
