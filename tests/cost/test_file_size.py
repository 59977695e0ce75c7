# yolo-prune, AGPL-3.0 license
"""Bytes of the exported file: counted without exporting, and what the host writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

import yolo_prune
from tests.cost.test_exported import network
from tests.helpers import onnx_memory
from yolo_prune.allocation import allocate
from yolo_prune.cost import model_size
from yolo_prune.cost.file_size import Deployment
from yolo_prune.errors import BoundError, PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import exporter
from yolo_prune.importance import scoring
from yolo_prune.planning import candidates
from yolo_prune.recipe import formats
from yolo_prune.surgery.cut_channels import apply


def written(path: Path) -> int:
    """Bytes of an ONNX file; of both files of an ncnn model."""
    parts = [path] if path.suffix == ".onnx" else [path, path.with_suffix(".bin")]
    return sum(part.stat().st_size for part in parts)


# A cover: each family in both formats, dense and narrow, FP16 too; further files in test_exported.py.
@pytest.mark.parametrize(
    ("name", "narrow", "deployment"),
    [
        ("yolov8n", False, Deployment("onnx", "fp32", 640)),
        ("yolo26n", False, Deployment("onnx", "fp32", 320)),
        ("yolo11n", True, Deployment("onnx", "fp16", 64)),
        ("yolo11n", False, Deployment("ncnn", "fp32", 64)),
        ("yolo26n", True, Deployment("ncnn", "fp16", 320)),
    ],
    ids=str,
)
def test_the_file_has_the_bytes_that_are_counted(
    name: str, narrow: bool, deployment: Deployment, tmp_path: Path
) -> None:
    kind, precision, imgsz = deployment.format, deployment.precision, deployment.imgsz
    if formats.missing(kind):
        pytest.skip(f"{kind} needs {', '.join(formats.missing(kind))}")
    model = network(name, narrow)
    path = exporter.export(model, tmp_path, kind, imgsz=imgsz, precision=precision)
    counted = model_size.deployed_size(model, deployment)
    assert counted.bytes == pytest.approx(written(path), rel=0.0001 if kind == "ncnn" else 0.01)
    if (kind, precision) == ("onnx", "fp32"):  # a file of FP16 lists its cast of the image last, out of order
        assert counted.activations == onnx_memory.peak_bytes(path)


def test_an_onnx_file_of_int8_hands_on_fp32(tmp_path: Path) -> None:
    model = network("yolov8n", True)
    deployment = Deployment("onnx", "int8", 64)
    path = exporter.export(model, tmp_path, "onnx", imgsz=64, precision="int8")
    assert model_size.activations(model, deployment) == onnx_memory.peak_bytes(path)


@pytest.mark.parametrize(
    ("name", "deployment"),
    [
        ("yolo26n", Deployment("ncnn", "fp16", 320)),
        ("yolov10n", Deployment()),
        ("yolov9t", Deployment("onnx", "int8", 64)),
        ("yolo12n", Deployment()),
    ],
    ids=str,
)
def test_the_bytes_of_a_cut_are_those_of_the_cut_model(name: str, deployment: Deployment) -> None:
    """Through layers that are fused of several, vectors, and past the branch that is not deployed."""
    model = network(name)
    found = channel_groups.build(model)
    original = {group.name: group.size for group in found.groups}
    scores, lowest = scoring.score(found, model, "random"), dict.fromkeys(original, 1)
    units = candidates.units(found, scores, original, lowest)
    cost = model_size.size_cost(found, units, model, deployment, 1.0)
    dense = model_size.deployed_size(model, deployment).bytes
    assert dense is not None
    assert cost(np.array([float(unit.size) for unit in units])) == pytest.approx(dense, abs=0.5)
    halves = [max(unit.size // 2, 1) for unit in units]
    apply(model, found, allocate.plan_of(units, halves))
    after = model_size.deployed_size(model, deployment).bytes
    assert after is not None
    assert after < 0.5 * dense
    assert cost(np.array(halves, dtype=float)) == pytest.approx(after, abs=0.5)


def test_a_file_is_as_small_as_was_asked(tmp_path: Path) -> None:
    yolo = YOLO("yolo11n.yaml", verbose=False)
    record = yolo_prune.prune(yolo, size="1.5MB", imgsz=320)
    assert record["bounds"] == {"size": 1.5e6}
    assert record["deployment"] == {"format": "onnx", "precision": "fp32", "imgsz": 320}
    assert record["baseline"]["size_bytes"] > 10e6
    assert 1.4e6 < record["final"]["size_bytes"] <= 1.5e6
    path = exporter.export(yolo.model, tmp_path, "onnx", imgsz=320)
    assert written(path) == pytest.approx(record["final"]["size_bytes"], rel=0.03)


def test_fp16_has_half_the_bytes_and_int8_a_byte_a_weight() -> None:
    model = network("yolov8n")
    whole = model_size.deployed_size(model, Deployment("onnx", "fp32", 64)).bytes
    half = model_size.deployed_size(model, Deployment("onnx", "fp16", 64)).bytes
    quarter = model_size.deployed_size(model, Deployment("onnx", "int8", 64)).bytes
    assert whole is not None
    assert half is not None
    assert quarter is not None
    assert half / whole == pytest.approx(0.5, abs=0.01)
    assert quarter / whole == pytest.approx(0.2665, abs=0.003)  # as the host's file of an INT8 calibration has


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": "10kB"}, "the bound of 10 kB is out of reach: the narrowest legal widths of this model have"),
        ({"size": "1.5MiB"}, "size=1.5MiB has an unknown unit MiB: known are % and B, kB, KB, MB, GB"),
        ({"size": "1500000"}, "size=1500000 has no unit: write 50% (of the original) or 1.5MB"),
        ({"size": "0MB"}, "size=0MB must be above 0 and finite, for example 1.5MB"),
        ({"size": "-1MB"}, "size=-1MB is no bound: write 50% (of the original) or 1.5MB"),
        ({"size": "30%", "precision": "int8", "format": "ncnn"}, "precision=int8 does not go with format=ncnn"),
        ({"latency": "30%", "precision": "int8", "format": "ncnn"}, "precision=int8 does not go with format=ncnn"),
    ],
    ids=str,
)
def test_wrong_bounds_are_one_line(settings: dict[str, str], words: str) -> None:
    with pytest.raises(PruneError) as caught:
        yolo_prune.prune(YOLO("yolov8n.yaml", verbose=False), **settings)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, BoundError) is ("out of reach" in words)
