# yolo-prune, AGPL-3.0 license
"""Every format, precision and task is exported and proven."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from tests.helpers import small_models
from tests.helpers.drawing import drawn
from tests.helpers.oracle import lively
from tests.helpers.untrained import QUICK, SIDE
from yolo_prune.errors import PruneError, VerifyError
from yolo_prune.export import artifact_files, job, results, variants
from yolo_prune.host import exporter
from yolo_prune.recipe import formats

# Formats, precisions and tasks ----------------------------------------------------------------------------------------

RUNTIMES = ["onnx", "openvino", "ncnn", "mnn", "torchscript", "litert"]


@pytest.fixture(scope="module")
def everything(checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Every format that this machine has, of one model, in FP32 and INT8 where there is one; and what was said."""
    folder = tmp_path_factory.mktemp("everything")
    path = Path(shutil.copy(checkpoint, folder / "best.pt"))
    with drawn():
        told = job.export(path, format=[*RUNTIMES, "engine"], quantize=8, data=tiny_data, workspace=2, **QUICK)
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
    assert told["artifacts"][row["file"]] == artifact_files.sha256(folder / row["file"])


def test_int8_stands_beside_fp32(everything: tuple[Path, Any]) -> None:
    folder, told = everything
    rows = {(row["format"], row["precision"]): row for row in told["rows"]}
    plain, small = rows["onnx", "fp32"], rows["onnx", "int8"]
    assert plain["file"] != small["file"]
    assert small["megabytes"] < 0.5 * plain["megabytes"]
    assert small["megabytes"] == round((folder / small["file"]).stat().st_size / 1e6, 3)  # not MiB
    assert small["parity"]["judged"] is False
    assert (folder / small["file"]).is_file()
    assert (folder / plain["file"]).is_file()


def test_what_cannot_be_made_here_is_named(everything: tuple[Path, Any]) -> None:
    _, told = everything
    assert "NVIDIA GPU" in told["skipped"]["engine"]
    assert "yolo export model=best.pt format=engine quantize=8 data=my.yaml" in told["skipped"]["engine int8"]
    assert told["tensorrt"] == "best-tensorrt.py"
    assert '"workspace": 2}' in (everything[0] / "best-tensorrt.py").read_text(encoding="utf-8")
    if not formats.missing("ncnn"):
        assert told["skipped"]["ncnn int8"] == "format=ncnn has no INT8 in ultralytics: left out"
    assert told["passed"]


@pytest.mark.parametrize(
    ("stem", "made", "kind", "precision", "name"),
    [
        ("best", "best.onnx", "onnx", "fp32", "best.onnx"),
        ("best", "best.onnx", "onnx", "fp16", "best_fp16.onnx"),
        ("best", "best_int8_openvino_model", "openvino", "int8", "best_int8_openvino_model"),
        ("best_fp16", "best_fp16.onnx", "onnx", "fp32", "best_fp16.onnx"),
        ("best_fp16", "best_fp16.onnx", "onnx", "fp16", "best_fp16_fp16.onnx"),
        ("best_int8", "best_int8_int8.onnx", "onnx", "int8", "best_int8_int8.onnx"),
    ],
)
def test_each_precision_has_a_name_of_its_own(stem: str, made: str, kind: str, precision: str, name: str) -> None:
    assert results.file_name(Path(made), kind, precision, stem) == name


def test_a_model_named_after_a_precision_keeps_both_files(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(checkpoint, tmp_path / "best_fp16.pt"))
    told = job.export(path, format="onnx", quantize=16, **QUICK)
    assert set(told["artifacts"]) == {"best_fp16.onnx", "best_fp16_fp16.onnx"}
    assert (tmp_path / "best_fp16.onnx").stat().st_size > 1.5 * (tmp_path / "best_fp16_fp16.onnx").stat().st_size


def test_a_gpu_without_tensorrt_leaves_the_engine_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "tensorrt" else name)
    made, skipped = variants.possible(["engine"], ["fp32", "fp16"])
    assert made == []
    assert list(variants.possible(["engine"], ["fp32", "int8"])[1]) == ["engine", "engine int8"]
    assert list(variants.possible(["engine"], ["fp32", "int8"], trained=True)[1]) == ["engine"]
    assert list(skipped) == ["engine"]
    assert (
        "format=engine is not made here: it needs tensorrt (pip install tensorrt). ONNX is exported"
        in (skipped["engine"])
    )
    monkeypatch.setattr(formats, "find_spec", lambda name: name)
    assert variants.possible(["engine"], ["fp32", "fp16"]) == ([("engine", "fp32"), ("engine", "fp16")], {})


def test_the_picture_shows_every_model(everything: tuple[Path, Any]) -> None:
    import cv2

    picture = cv2.imread(str(everything[0] / "export.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 300
    assert float(picture.std()) > 10


def test_what_exporters_said_is_in_a_file(everything: tuple[Path, Any]) -> None:
    said = (everything[0] / "export.log").read_text(encoding="utf-8", errors="replace")
    assert "starting export with onnx" in said
    assert formats.missing("ncnn") or "pnnx" in said.lower()


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
    network = RTDETR(small_models.rtdetr(tmp_path, "yolov8n-rtdetr.yaml")).model
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
    with pytest.raises(VerifyError, match=r"onnx fp32: the export of .* no luck. More: yolo-prune help export.md$"):
        job.export(model, format="onnx,torchscript", **QUICK)
    told = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert not told["passed"]
    assert list(told["artifacts"]) == ["best.torchscript"]
    assert (model.parent / "best.torchscript").is_file()
