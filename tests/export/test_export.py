# yolo-prune, AGPL-3.0 license
"""The export's proof: what passes, what must fail, what is said, and what is left on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics import YOLO

from tests.helpers.oracle import lively
from yolo_prune.cost.model_size import Size
from yolo_prune.device import timing
from yolo_prune.errors import NoisyError, PruneError, VerifyError
from yolo_prune.export import artifact, job, prove, results, subjects
from yolo_prune.host import exporter, samples, validation
from yolo_prune.recipe import formats

SIDE = 64
FORMATS = ", ".join(formats.FORMATS)
QUICK: dict[str, Any] = {"imgsz": SIDE, "images": 3, "repeats": 16}  # on a made-up clock, see conftest.py


# Comparing outputs ----------------------------------------------------------------------------------------------------


def _output(*boxes: tuple[float, float, float, float, float, float]) -> Tensor:
    """Make a raw output (4 + 2 classes, 8 anchors) in which the first anchors say x, y, w, h and two scores."""
    output = torch.zeros(6, 8)
    output[:4] = torch.tensor([32.0, 32.0, 1.0, 1.0])[:, None]
    for anchor, box in enumerate(boxes):
        output[:, anchor] = torch.tensor(box)
    return output


def test_equal_outputs_pass() -> None:
    output = _output((20, 20, 10, 10, 0.9, 0.1), (50, 50, 20, 8, 0.2, 0.7))
    parity = prove.compare([output], [output.clone()])
    assert parity.passed
    assert (parity.boxes, parity.matched, parity.borderline, parity.unmatched) == (2, 2, 0, 0)
    assert (parity.box_relative, parity.score_relative) == (0.0, 0.0)


def test_differences_are_shares_of_the_range() -> None:
    ours = _output((20, 20, 10, 10, 0.8, 0.0), (100, 50, 20, 8, 0.0, 0.5))
    theirs = ours.clone()
    theirs[0, 0] += 0.0495  # the box channels span 1 .. 100
    theirs[4, 0] += 0.0004  # the scores 0 .. 0.8
    parity = prove.compare([ours], [theirs])
    assert parity.passed
    assert parity.box_relative == pytest.approx(0.0005, rel=1e-3)
    assert parity.score_relative == pytest.approx(0.0005, rel=1e-3)


@pytest.mark.parametrize(("channel", "by", "named"), [(0, 0.2, "raw box"), (4, 0.002, "raw score")])
def test_a_raw_difference_beyond_tolerance_fails(channel: int, by: float, named: str) -> None:
    ours = _output((20, 20, 10, 10, 0.9, 0.1), (100, 50, 20, 8, 0.2, 0.7))
    theirs = ours.clone()
    theirs[channel, 7] += by  # an anchor that no final box comes from
    parity = prove.compare([ours], [theirs])
    assert [fault.split(" outputs")[0] for fault in parity.faults] == [named]


def test_a_box_that_moved_fails() -> None:
    """Within the raw tolerance of a wide image, and yet another box: 0.3 pixels of 6."""
    ours = _output((20, 20, 6, 6, 0.9, 0.1), (1000, 50, 20, 8, 0.2, 0.7))
    theirs = ours.clone()
    theirs[0, 0] += 0.3
    parity = prove.compare([ours], [theirs])
    assert parity.box_relative is not None
    assert parity.box_relative < prove.LIMITS["fp32"].raw
    assert parity.unmatched == 2  # one on each side
    assert "without a partner" in parity.faults[0]
    assert "class 0 (17, 17, 23, 23) score 0.900 of torch, image 1" in parity.faults[0]


def test_another_class_fails() -> None:
    ours, theirs = _output((20, 20, 10, 10, 0.9, 0.1)), _output((20, 20, 10, 10, 0.1, 0.9))
    assert prove.compare([ours], [theirs]).unmatched == 2


def test_the_confidence_threshold_is_a_knife_edge_and_no_fault() -> None:
    ours, theirs = _output((20, 20, 10, 10, 0.25004, 0.1)), _output((20, 20, 10, 10, 0.24996, 0.1))
    parity = prove.compare([ours], [theirs])
    assert parity.passed
    assert (parity.boxes, parity.matched, parity.borderline) == (1, 0, 1)
    assert "1 borderline" in str(parity)


def test_the_order_of_equal_scores_is_a_knife_edge_and_no_fault() -> None:
    """Of two neighbours NMS keeps the surer one; which that is hangs on the last bit."""
    ours = _output((20, 20, 10, 10, 0.80001, 0.0), (21, 20, 10, 10, 0.8, 0.0))
    theirs = _output((20, 20, 10, 10, 0.8, 0.0), (21, 20, 10, 10, 0.80001, 0.0))
    parity = prove.compare([ours], [theirs])
    assert parity.passed
    assert (parity.boxes, parity.matched, parity.borderline) == (1, 0, 2)


def test_boxes_below_a_pixel_are_matched_by_their_corners() -> None:
    ours, theirs = _output((20, 20, 0.02, 0.02, 0.9, 0.1)), _output((20.01, 20, 0.02, 0.02, 0.9, 0.1))
    assert prove.compare([ours], [theirs]).matched == 1


def test_an_unsure_model_is_compared_at_the_threshold_of_val() -> None:
    output = _output((20, 20, 10, 10, 0.02, 0.0))
    parity = prove.compare([output], [output.clone()])
    assert (parity.confidence, parity.matched) == (0.001, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_no_number_fails(value: float) -> None:
    ours = _output((20, 20, 10, 10, 0.9, 0.1))
    theirs = ours.clone()
    theirs[4, 3] = value
    parity = prove.compare([ours], [theirs])
    assert not parity.passed
    json.dumps(parity.as_dict(), allow_nan=False)


def test_another_shape_or_count_fails() -> None:
    output = _output()
    assert "shape (6, 7) instead of (6, 8)" in prove.compare([output], [output[:, :7]]).faults[0]
    assert not prove.compare([output, output], [output]).passed
    assert not prove.compare([], []).passed


# Timing and images ----------------------------------------------------------------------------------------------------


def test_stand_in_images_are_the_same_each_time() -> None:
    one, two = samples.without_data(3, SIDE, 5), samples.without_data(3, SIDE, 5)
    assert one.names == ["bus.jpg", "zidane.jpg", "drawing 1", "drawing 2", "drawing 3"]
    assert one.images.shape == (5, 3, SIDE, SIDE)
    assert torch.equal(one.images, two.images)
    assert 0 <= float(one.images.min()) < float(one.images.max()) <= 1


def test_images_of_the_data_set_are_what_val_sees(tiny_data: Path) -> None:
    import cv2
    from ultralytics.nn.tasks import DetectionModel

    found = samples.from_data(DetectionModel("yolov8n.yaml", nc=2, verbose=False), tiny_data, SIDE, 2)
    assert found.names == ["0.png", "3.png"]
    picture = cv2.imread(str(tiny_data.parent / "images/val/3.png"))
    assert torch.equal(found.images[1], torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy()).float() / 255)


def test_batches_are_filled_up() -> None:
    images = torch.arange(5.0).reshape(5, 1, 1, 1)
    assert [part.flatten().tolist() for part in results.batches_of(images, 3)] == [[0, 1, 2], [3, 4, 4]]


def _finals() -> torch.Tensor:
    """Final boxes of one image: twenty, sure and unsure, best first."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(20, 2, generator=generator) * 100
    size = 5 + torch.rand(20, 2, generator=generator) * 50
    scores = torch.linspace(0.9, 0.02, 20)[:, None]
    return torch.cat([corner, corner + size, scores, torch.arange(20)[:, None] % 3], 1)


def test_equal_final_boxes_pass_in_any_order() -> None:
    boxes = _finals()
    parity = prove.compare([boxes], [boxes.flip(0)], view=prove.View("final"))
    assert parity.passed
    assert parity.boxes == parity.matched == int((boxes[:, 4] > 0.25).sum())
    assert parity.box_absolute == parity.score_absolute == 0


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [(0, 9.0, "without a partner"), (4, -0.03, "scores differ"), (5, 1.0, "without a partner")],
)
def test_one_changed_final_box_fails(column: int, change: float, words: str) -> None:
    boxes = _finals()
    other = boxes.clone()
    other[2, column] += change
    parity = prove.compare([boxes], [other], view=prove.View("final"))
    assert any(words in fault for fault in parity.faults)


def test_a_final_box_at_the_threshold_is_borderline() -> None:
    boxes = _finals()
    boxes[5, 4], other = 0.25001, boxes.clone()
    other[5, 4] = 0.24999
    parity = prove.compare([boxes], [other], view=prove.View("final"))
    assert parity.passed
    assert parity.borderline == 1


# The job --------------------------------------------------------------------------------------------------------------


def _save(path: Path, seed: int, yaml: str = "yolov8n.yaml") -> Path:
    """Write a checkpoint of an untrained yolov8n, or another, of two classes, that sees differences and draws boxes.

    With BatchNorm's initial statistics activations fade out, and the output is all but a constant whatever the weights.
    """
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(seed)
    model = DetectionModel(yaml, nc=2, verbose=False)
    model.names = {0: "bright", 1: "dark"}
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(samples.without_data(3, SIDE, 8).images)
    model.eval()
    for norm in norms:
        norm.momentum = 0.03
    head = model.model[-1]
    for tower in [*head.cv3, *(getattr(head, "one2one_cv3", None) or ())]:
        torch.nn.init.normal_(tower[-1].weight, std=0.3)
        torch.nn.init.constant_(tower[-1].bias, -1.0)
    torch.save({"model": model.half(), "train_args": {"imgsz": SIDE, "task": "detect"}}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("checkpoint") / "best.pt", 0)


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    """Return a copy in a folder of its own."""
    folder = tmp_path / "weights"
    folder.mkdir()
    return Path(shutil.copy(checkpoint, folder / "best.pt"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is logged, in order."""
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("ultralytics"), "info", lambda message, *_, **__: lines.append(str(message)))
    return lines


def _spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change the graph of every artifact between the host's export and the comparison."""
    import onnx

    stock = results.make

    def spoiled(*given: Any) -> Any:
        result = stock(*given)
        graph = onnx.load(result.file)
        change(graph)
        onnx.save(graph, result.file)
        return result

    monkeypatch.setattr(results, "make", spoiled)


def test_dense_and_pruned_side_by_side(
    model: Path, tiny_data: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks
    from ultralytics.utils import checks

    other = tmp_path / "old"
    other.mkdir()
    dense = _save(other / "best.pt", 1)  # the same name, in a folder that must stay as it is
    threads, switches = torch.get_num_threads(), (tasks.SAFE_LOAD, checks.AUTOINSTALL)

    record = job.export(str(model), data=str(tiny_data), dense=str(dense), threads=2, **QUICK)

    assert record == json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert sorted(path.name for path in model.parent.iterdir()) == ["best.onnx", "best.pt", "export.json", "export.png"]
    assert [path.name for path in other.iterdir()] == ["best.pt"]
    assert not (tmp_path / "runs").exists()  # the host's val would leave one in the current folder
    assert (torch.get_num_threads(), (tasks.SAFE_LOAD, checks.AUTOINSTALL)) == (threads, switches)

    assert record["passed"]
    assert record["sha256"] == hashlib.sha256((model.parent / "best.onnx").read_bytes()).hexdigest()
    assert record["images"] == {"source": "val split", "names": ["0.png", "2.png", "3.png"]}
    rows = record["rows"]
    assert [(row["role"], row["format"]) for row in rows] == [
        *(("dense", "pt"), ("model", "pt")),
        *(("dense", "onnx"), ("model", "onnx")),
    ]
    for torch_row, artifact_row in zip(rows[:2], rows[2:], strict=True):
        assert artifact_row["params"] == torch_row["params"] == 3_011_238  # as the host prints yolov8n with two classes
        assert artifact_row["map50_95"] == pytest.approx(torch_row["map50_95"], abs=1e-3)
        assert artifact_row["parity"]["boxes"] > 10
        assert artifact_row["parity"]["box_relative"] < prove.LIMITS["fp32"].raw / 10
        assert torch_row["speedup"] if torch_row["role"] == "model" else torch_row["speedup"] == 1.0
    assert len({row["parity"]["score_absolute"] for row in rows[2:]}) == 2  # two models, not one twice

    tables = [message for message in said if message.startswith("\nmodel")]
    assert len(tables) == 1
    lines = tables[0].strip().splitlines()
    heads = ["params", "GFLOPs", "mAP50-95", "mAP50", "ms (median)", "speed-up", "MB", "parity"]
    assert all(head in lines[0] for head in heads)
    assert [line.split()[:2] for line in lines[2:]] == [
        *(["dense", ".pt"], ["model", ".pt"]),
        *(["dense", "onnx"], ["model", "onnx"]),
    ]


def test_without_data_it_says_so(model: Path, said: list[str], tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    out.mkdir()
    record = job.export(model, out=out, batch=2, **QUICK)
    assert sorted(path.name for path in out.iterdir()) == ["best.onnx", "export.json", "export.png"]
    assert [path.name for path in model.parent.iterdir()] == ["best.pt"]
    assert record["rows"]
    assert all(row["map50_95"] is None and row["speedup"] is None for row in record["rows"])
    assert record["batch"] == 2
    assert any("no data= was given" in message for message in said)


def test_a_perturbed_artifact_fails(model: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import numpy_helper

    def change(graph: Any) -> None:
        weights = [item for item in graph.graph.initializer if len(item.dims) == 4]
        item = weights[len(weights) // 2]
        array = numpy_helper.to_array(item) * 1.02
        item.CopyFrom(numpy_helper.from_array(array.astype("float32"), item.name))

    _spoil(monkeypatch, change)
    with pytest.raises(
        VerifyError, match=r"not proven, do not deploy it: best\.onnx \(model\): .*raw (box|score) outputs differ"
    ) as caught:
        job.export(model, **QUICK)
    assert "\n" not in str(caught.value)
    record = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert record["passed"] is False
    assert record["rows"][-1]["parity"]["faults"]
    assert any("FAILED" in message for message in said if message.startswith("\nmodel"))


def test_an_artifact_of_another_map_fails(model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs agree on the few images that are compared, and mAP over all of them does not."""
    figures = iter(((0.5, 0.9), (0.45, 0.9)))
    monkeypatch.setattr(validation, "figures", lambda *_, **__: next(figures))
    with pytest.raises(VerifyError, match=r"mAP50-95 differs by 0\.0500 from torch"):
        job.export(model, data=tiny_data, **QUICK)


def test_val_is_asked_for_the_same_images_of_both(
    model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    stock = YOLO.val

    def val(self: Any, **settings: Any) -> Any:
        asked.append({key: settings[key] for key in ("data", "imgsz", "rect", "batch", "device")})
        return stock(self, **settings)

    monkeypatch.setattr(YOLO, "val", val)
    job.export(model, data=tiny_data, **QUICK)
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert (asked[0]["rect"], asked[0]["imgsz"]) == (False, SIDE)


def test_an_export_that_dies_leaves_what_was_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model.parent / "best.onnx").write_bytes(b"an older one")

    def dies(self: Any, **_: Any) -> str:
        Path(self.ckpt_path).with_suffix(".onnx").write_bytes(b"half")
        raise AssertionError("out of luck\nmore")

    monkeypatch.setattr(YOLO, "export", dies)
    with pytest.raises(PruneError, match=r"the export of .*best\.pt failed\. ultralytics .* to onnx: out of luck$"):
        job.export(model, **QUICK)
    assert sorted(path.name for path in model.parent.iterdir()) == ["best.onnx", "best.pt"]
    assert (model.parent / "best.onnx").read_bytes() == b"an older one"


def test_a_run_that_dies_later_leaves_no_older_proof(
    model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model.parent / "export.json").write_text("{}", encoding="utf-8")

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "validate", dies)
    with pytest.raises(KeyboardInterrupt):
        job.export(model, data=tiny_data, **QUICK)
    assert sorted(path.name for path in model.parent.iterdir()) == ["best.pt"]  # nor anything that is not proven


def test_the_host_loads_in_its_restricted_way_and_installs_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks
    from ultralytics.utils import checks

    seen = []

    def look(*_: Any, **__: Any) -> str:
        seen.append((tasks.SAFE_LOAD, checks.AUTOINSTALL))
        raise RuntimeError("enough")

    monkeypatch.setattr(YOLO, "export", look)
    with pytest.raises(PruneError, match="enough"):
        job.export(model, **QUICK)
    assert seen == [(True, False)]


def test_mnns_converter_installs_and_reports_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone it installs a package for its log, and with it a protobuf that onnx cannot be imported with."""
    pytest.importorskip("MNN")
    for name in [name for name in sys.modules if name.startswith("MNN.tools")]:
        monkeypatch.delitem(sys.modules, name)
    commands: list[str] = []
    monkeypatch.setattr(os, "system", lambda command: commands.append(command) or 1)
    told = job.export(model, format="mnn", **QUICK)
    assert told["rows"][-1]["parity"]["passed"]
    assert commands == []
    assert sys.modules["MNN.tools.mnnconvert"].mnn_logger is None
    assert "MNN.tools.utils.log" not in sys.modules


def test_a_trained_model(weights: Callable[[str], Path], bccd: Path, tmp_path: Path) -> None:
    """Real weights, real images: final boxes of a model that is sure of what it sees."""
    path = Path(shutil.copyfile(weights("yolov8n-bccd.pt"), tmp_path / "cells.pt"))
    told = job.export(path, data=bccd, imgsz=160, images=4, repeats=2, out=tmp_path)
    parity = told["rows"][-1]["parity"]
    assert parity["passed"]
    assert parity["confidence"] == 0.25
    assert parity["matched"] == parity["boxes"] > 10


# Formats, precisions and tasks ----------------------------------------------------------------------------------------

RUNTIMES = ["onnx", "openvino", "ncnn", "mnn", "torchscript", "litert"]


@pytest.fixture(scope="module")
def everything(checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Every format that this machine has, of one model, in FP32 and INT8 where there is one; and what was said."""
    folder = tmp_path_factory.mktemp("everything")
    path = Path(shutil.copy(checkpoint, folder / "best.pt"))
    told = job.export(path, format=[*RUNTIMES, "engine"], quantize=8, data=tiny_data, **QUICK)
    return folder, told


@pytest.mark.parametrize("kind", RUNTIMES)
def test_every_format_is_proven(kind: str, everything: tuple[Path, Any]) -> None:
    folder, told = everything
    if formats.missing(kind):
        assert f"pip install {' '.join(formats.missing(kind))}" in told["skipped"][f"{kind} fp32"]
        pytest.skip(f"{kind} needs {', '.join(formats.missing(kind))}")
    (row,) = (row for row in told["rows"] if (row["format"], row["precision"]) == (kind, "fp32"))
    assert (folder / row["file"]).exists()
    assert row["parity"]["passed"]
    assert max(row["parity"]["box_relative"], row["parity"]["score_relative"]) < 1e-3
    assert row["parity"]["matched"] + row["parity"]["borderline"] >= row["parity"]["boxes"] > 10
    assert row["map50_95"] == pytest.approx(told["rows"][0]["map50_95"], abs=0.01)
    assert row["latency_ms"]["median"] > 0
    assert told["artifacts"][row["file"]] == artifact.sha256(folder / row["file"])


def test_int8_stands_beside_fp32(everything: tuple[Path, Any]) -> None:
    folder, told = everything
    rows = {(row["format"], row["precision"]): row for row in told["rows"]}
    plain, small = rows["onnx", "fp32"], rows["onnx", "int8"]
    assert plain["file"] != small["file"]
    assert small["megabytes"] < 0.5 * plain["megabytes"]
    assert small["parity"]["judged"] is False
    assert (folder / small["file"]).is_file()
    assert (folder / plain["file"]).is_file()


def test_what_cannot_be_made_here_is_named(everything: tuple[Path, Any]) -> None:
    _, told = everything
    assert "NVIDIA GPU" in told["skipped"]["engine"]
    assert told["tensorrt"] == "best-tensorrt.py"
    assert (everything[0] / "best-tensorrt.py").is_file()
    if not formats.missing("ncnn"):
        assert told["skipped"]["ncnn int8"] == "format=ncnn has no INT8 in ultralytics: left out"
    assert told["passed"]


def test_the_picture_shows_every_model(everything: tuple[Path, Any]) -> None:
    import cv2

    picture = cv2.imread(str(everything[0] / "export.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 300
    assert float(picture.std()) > 10


TASKS = [
    "yolo11n-seg.yaml",
    "yolov8n-pose.yaml",
    "yolov8n-obb.yaml",
    "yolo11n-cls.yaml",
    "yolo26n-sem.yaml",
    "yolo26n-depth.yaml",
]


@pytest.mark.parametrize("yaml", TASKS)
def test_every_task_is_proven(yaml: str, tmp_path: Path) -> None:
    from ultralytics.cfg import TASKS as KNOWN

    torch.manual_seed(0)
    network = YOLO(yaml).model if yaml.rpartition("-")[2] != "sem.yaml" or "semantic" in KNOWN else None
    if network is None:
        pytest.skip("this ultralytics has no such task")
    lively(network)
    network.names = {index: f"class {index}" for index in range(len(network.names))}
    torch.save({"model": network.half(), "train_args": {"imgsz": SIDE}}, tmp_path / "best.pt")
    told = job.export(tmp_path / "best.pt", **QUICK)
    parity = told["rows"][-1]["parity"]
    assert parity["passed"], parity["faults"]
    figures = [parity[key] for key in ("box_relative", "score_relative", "rest_relative") if parity[key] is not None]
    assert figures
    assert max(figures) < 1e-3


def test_rtdetr_is_proven(tmp_path: Path) -> None:
    from ultralytics import RTDETR

    torch.manual_seed(0)
    network = RTDETR("yolov8n-rtdetr.yaml").model
    torch.save({"model": network.half(), "train_args": {"imgsz": SIDE}}, tmp_path / "best.pt")
    told = job.export(tmp_path / "best.pt", **QUICK)
    parity = told["rows"][-1]["parity"]
    assert parity["passed"], parity["faults"]
    assert parity["score_absolute"] < 1e-3  # untrained, it is sure of nothing: only scores can be compared


def test_a_format_that_fails_is_named_and_the_others_go_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = exporter.by_host

    def by_host(staged: Path, network: Any, kind: str, precision: str, **rest: Any) -> Path:
        if kind == "onnx":
            raise PruneError("ultralytics could not export the model to onnx: no luck")
        return stock(staged, network, kind, precision, **rest)

    monkeypatch.setattr(exporter, "by_host", by_host)
    with pytest.raises(VerifyError, match=r"onnx fp32: the export of .* no luck$"):
        job.export(model, format="onnx,torchscript", **QUICK)
    told = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert not told["passed"]
    assert list(told["artifacts"]) == ["best.torchscript"]
    assert (model.parent / "best.torchscript").is_file()


def _paced(monkeypatch: pytest.MonkeyPatch, milliseconds: dict[str, Any]) -> None:
    """Let models take that long on a made-up clock: a number, or a function that returns one for each call."""
    now = [0.0]

    def pace(name: str) -> Callable[[], None]:
        ms = milliseconds[name]

        def call() -> None:
            now[0] += (ms() if callable(ms) else ms) / 1e3

        return call

    stock = timing.in_turns

    def in_turns(calls: dict[str, Any], *rest: Any) -> timing.Turns:
        return stock({name: pace(name.split()[0]) for name in calls}, *rest)

    monkeypatch.setattr(timing, "_clock", lambda: now[0])
    monkeypatch.setattr(timing, "in_turns", in_turns)


def test_an_artifact_that_is_slower_than_its_parent_fails(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, {"dense": 10.0, "model": 12.0})
    with pytest.raises(VerifyError, match=r"best\.onnx \(model\): slower than the dense model: 0\.83 times as fast"):
        job.export(model, dense=dense, **QUICK)


def test_a_speed_up_is_told_with_its_interval(
    model: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, {"dense": lambda: 15 * rng.gauss(1, 0.03), "model": lambda: 10 * rng.gauss(1, 0.03)})
    told = job.export(model, dense=dense, **QUICK)
    assert told["timing_settled"]
    for row in told["rows"]:
        low, high = row["speedup_interval"]
        assert low <= (1.5 if row["role"] == "model" else 1.0) <= high
        assert row["speedup_verdict"] == ("faster" if row["role"] == "model" else "alike")
        assert row["speedup_rounds"] >= 8
    (table,) = [message for message in said if message.startswith("\nmodel")]
    assert re.search(r"model onnx .* 1\.\d\dx \(1\.4\d-1\.5\d\)", table)


def test_a_machine_that_stays_too_noisy_is_never_called_faster_or_slower(
    model: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model against itself beside a heavy load: said in the table, in export.json and by the exit code."""
    rng = random.Random(0)
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, dict.fromkeys(("dense", "model"), lambda: 10 * rng.lognormvariate(0, 1)))
    with pytest.raises(NoisyError, match=r"^proven, but the machine was too busy to time: best\.onnx: ") as caught:
        job.export(model, dense=dense, **{**QUICK, "seconds": 2})
    assert "\n" not in str(caught.value)
    told = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert told == caught.value.record
    assert told["passed"]
    assert told["timing_settled"] is False
    row = told["rows"][-1]
    assert (row["speedup"], row["speedup_verdict"]) == (None, "too noisy")
    assert row["speedup_interval"][0] < 1 < row["speedup_interval"][1]
    (table,) = [message for message in said if message.startswith("\nmodel")]
    assert "too noisy (" in table
    assert (model.parent / "best.onnx").is_file()

    from yolo_prune import cli

    monkeypatch.setitem(cli._COMMANDS, "export", ("tests.export.test_export", "_noisy"))
    assert cli.main(["export", "model=x.pt"]) == 3


def _noisy(model: str) -> None:
    raise NoisyError("too busy")


def test_too_few_rounds_are_said_and_are_json(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, {"dense": 2000.0, "model": 1000.0})
    with pytest.raises(NoisyError):
        job.export(model, dense=dense, **{**QUICK, "seconds": 1})
    row = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))["rows"][-1]
    assert (row["speedup"], row["speedup_interval"]) == (None, [0.0, None])


def test_a_quantized_artifact_that_is_slower_than_the_plain_parent_fails() -> None:
    """It is faster than the parent quantized alike, and that is not what was there before."""

    def ratio(value: float) -> timing.Ratio:
        return timing.Ratio(value, value, value, 20)

    def result(role: str, precision: str, speed: float, alike: float) -> results.Result:
        subject = subjects.Subject(role, Path(f"{role}.pt"), torch.nn.Module(), {}, Size(1, 1.0), None)
        file = Path(f"{role}.onnx")
        return results.Result(subject, "onnx", precision, file, 1.0, speed=ratio(speed), alike=ratio(alike))

    dense, small = [result("dense", "fp32", 1, 1), result("dense", "int8", 0.5, 1)], result("pruned", "int8", 0.67, 1.3)
    for one in (*dense, small):
        results.judge(one)
    assert [one.faults for one in dense] == [[], []]
    assert small.faults == ["slower than the dense model in fp32: 0.67 times as fast in onnx, int8"]


def test_a_parent_of_another_task_is_refused(model: Path, tmp_path: Path) -> None:
    torch.save({"model": YOLO("yolov8n-seg.yaml").model.half(), "train_args": {"imgsz": SIDE}}, tmp_path / "dense.pt")
    with pytest.raises(PruneError, match="is of task segment"):
        job.export(model, dense=tmp_path / "dense.pt", **QUICK)


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


def test_a_fault_is_said_once(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One that was found in an artifact, and one of a format that could not be made."""
    from yolo_prune import cli

    stock, compare = exporter.by_host, prove.compare

    def by_host(staged: Path, network: Any, kind: str, precision: str, **rest: Any) -> Path:
        if kind == "torchscript":
            raise PruneError("no luck with it")
        return stock(staged, network, kind, precision, **rest)

    def broken(*given: Any) -> prove.Parity:
        parity = compare(*given)
        parity.faults.append("another box")
        return parity

    monkeypatch.setattr(exporter, "by_host", by_host)
    monkeypatch.setattr(prove, "compare", broken)
    words = [f"{name}={value}" for name, value in {**QUICK, "model": model, "format": "onnx,torchscript"}.items()]
    assert cli.main(["export", *words]) == 2
    text = "\n".join([*caplog.messages, capsys.readouterr().err])
    assert text.count("another box") == 1
    assert text.count("no luck with it") == 1


def test_a_full_disk_is_one_line_and_nothing_half_written(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model.parent / "best.onnx").write_bytes(b"an older one")
    stock = shutil.copyfile

    def full(source: Any, target: Any, **rest: Any) -> Any:
        if model.parent in Path(target).parents:
            Path(target).write_bytes(b"half")
            raise OSError(28, "No space left on device", str(target))
        return stock(source, target, **rest)

    monkeypatch.setattr(artifact.shutil, "copyfile", full)
    with pytest.raises(PruneError, match=r"best\.onnx cannot be written: No space left on device") as caught:
        job.export(model, **QUICK)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in model.parent.iterdir()) == ["best.onnx", "best.pt"]
    assert (model.parent / "best.onnx").read_bytes() == b"an older one"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    new, target = tmp_path / "new", tmp_path / "out" / "best_ncnn_model"
    new.mkdir()
    (new / "a").write_text("new")
    target.mkdir(parents=True)
    (target / "b").write_text("old")
    artifact.place(new, target)
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["best_ncnn_model"]
    (tmp_path / "out" / "best.onnx").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(PruneError, match=r"a folder of that name is in the way"):
        artifact.place(tmp_path / "file", tmp_path / "out" / "best.onnx")


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"format": "coreml"}, f"format=coreml is not proven by this version; supported: {FORMATS}"),
        ({"format": "onnx,pb, paddle"}, f"format=pb,paddle are not proven by this version; supported: {FORMATS}"),
        ({"format": 3}, f"format=3 is not a format; supported: {FORMATS}"),
        ({"quantize": 4}, "quantize=4: 8 (INT8) or 16 (FP16) is needed"),
        ({"quantize": 8}, "quantize=8 is calibrated on images: name a data set with data="),
        ({"format": "ncnn", "quantize": 7}, "quantize=7: 8 (INT8)"),
        ({"imgsz": 0}, "imgsz=0: a whole number of 1 or more is needed"),
        ({"batch": 1.5, "threads": True}, "batch=1.5, threads=True: a whole number of 1 or more is needed"),
        ({"images": -1}, "images=-1: a whole number of 1 or more is needed"),
        ({"nms": True, "prune": 0.5}, "nms=True, prune=0.5: not supported by this version"),
        ({"out": __file__}, f"out={__file__}: nothing can be written there: a file is in the way"),
        ({"out": 3.5}, "out=3.5 is no name of a file or folder"),
        ({"dense": 0}, "dense=0: a PyTorch checkpoint of ultralytics is needed"),
        ({"imgsz": "abc"}, "imgsz=abc: a whole number of 1 or more is needed"),
        ({"imgsz": [64, 64]}, "imgsz=[64, 64]: a whole number of 1 or more is needed"),
        ({"imgsz": 10**12}, f"imgsz={10**12} is too large: 8192 at most"),
        ({"safe": "no"}, "safe=no: True or False is needed"),
        ({"formt": "onnx"}, "formt=onnx (did you mean format?): not supported by this version"),
        ({"data": "nowhere.yaml"}, "data=nowhere.yaml: not a data set that ultralytics can read."),
        ({"dense": "nowhere.pt"}, "dense=nowhere.pt: there is no such file"),
    ],
)
def test_bad_arguments_are_one_line_before_any_work(
    settings: dict[str, Any], line: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "make", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(PruneError) as caught:
        job.export(model, **settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "yaml", ["yolov5nu.yaml", "yolov9t.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolo26n.yaml"]
)
def test_detectors_of_other_families(yaml: str, tmp_path: Path) -> None:
    told = job.export(_save(tmp_path / "best.pt", 0, yaml), **QUICK)
    assert told["passed"]
    parity = told["rows"][1]["parity"]
    assert parity["matched"] + parity["borderline"] >= parity["boxes"] > 10
    assert 0 <= parity["score_relative"] < 1e-3


def test_a_model_that_is_no_yolo(tmp_path: Path, checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    files = {
        "truncated.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "image.pt": b"\x89PNG\r\n\x1a\n" + bytes(64),
        "pickle.pt": pickle.dumps({"model": Path("x")}),
        "best.onnx": whole,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PruneError, match=name) as caught:
            job.export(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_a_data_set_of_other_classes(model: Path, tiny_data: Path, tmp_path: Path) -> None:
    text = tiny_data.read_text(encoding="utf-8") + "  2: grey\n"
    (tmp_path / "three.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(PruneError, match=r"three\.yaml has 3 classes and .*best\.pt 2; they must be the same"):
        job.export(model, data=tmp_path / "three.yaml")


def _without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if these were not installed."""
    stock = formats.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name in modules else stock(name))


def test_a_missing_runtime_names_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "onnxruntime")
    with pytest.raises(PruneError, match=r"^format=onnx needs onnxruntime, .*: pip install onnxruntime$"):
        job.export(model)
