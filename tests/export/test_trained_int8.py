# yolo-prune, AGPL-3.0 license
"""Prune, then train with quantize=8 (QAT), then export: the host's own training, on a pruned checkpoint."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

import yolo_prune
from tests.helpers.checkout import needs
from tests.helpers.runs import train, widths
from yolo_prune.commands.apply import apply
from yolo_prune.errors import PruneError
from yolo_prune.export import job
from yolo_prune.host import checkpoint

pytestmark = needs("quantize")
QUICK: dict[str, Any] = {"imgsz": 64, "images": 3, "repeats": 2}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned checkpoint of two classes, untrained."""
    path = tmp_path_factory.mktemp("pruned") / "pruned.pt"
    yolo = YOLO("yolov8n.yaml")
    yolo.model = type(yolo.model)("yolov8n.yaml", nc=2, verbose=False)
    yolo.model.names = {0: "bright", 1: "dark"}
    yolo_prune.prune(yolo, flops="60%")
    torch.save({"model": yolo.model.half(), "ema": None, "train_args": {"imgsz": 64}, "epoch": -1}, path)
    return path


@pytest.fixture(scope="module")
def trained(pruned: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one epoch of quantize=8 leaves of it."""
    if importlib.util.find_spec("modelopt") is None:
        pytest.skip("training with quantize=8 needs nvidia-modelopt")
    yolo = train(tiny_data, tmp_path_factory.mktemp("trained"), YOLO(str(pruned)), epochs=1, quantize=8)
    return Path(yolo.trainer.last)


def test_the_host_trains_int8_into_the_pruned_widths(pruned: Path, trained: Path) -> None:
    network, ckpt = checkpoint.load(trained)
    assert widths(network) == widths(checkpoint.load(pruned)[0])
    assert not checkpoint.has_quantizers(network)
    assert checkpoint.requantize(network, ckpt, trained)
    assert checkpoint.has_quantizers(network)


def test_it_is_exported_as_it_was_trained_and_proven_by_its_metric(
    trained: Path, pruned: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = job.export(
        trained, dense=pruned, format="onnx,torchscript,engine", data=tiny_data, out=tmp_path, quantize=8, **QUICK
    )
    found = [(row["role"], row["format"], row["precision"]) for row in told["rows"]]
    assert found == [
        ("dense", "pt", "fp32"),
        ("pruned", "pt", "int8"),
        ("dense", "onnx", "fp32"),
        ("dense", "onnx", "int8"),
        ("pruned", "onnx", "int8"),
    ]
    assert [row["kept"] for row in told["rows"]] == [False, False, False, False, True]
    assert "torchscript cannot hold" in told["skipped"]["torchscript"]
    import onnx

    nodes = {node.op_type for node in onnx.load(tmp_path / told["artifact"]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
    program = (tmp_path / told["tensorrt"]).read_text()
    assert '"precision": "int8"' in program
    assert f'"pruned": "{told["artifact"]}"' in program


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "onnx"}, "name data="),
        ({"format": "onnx", "quantize": 16}, "exported in INT8 alone"),
        ({"format": "torchscript,openvino"}, "only onnx and engine can hold"),
    ],
)
def test_what_it_cannot_be_exported_to_is_one_line(
    arguments: dict[str, Any], words: str, trained: Path, tiny_data: Path, tmp_path: Path
) -> None:
    more = {} if words == "name data=" else {"data": tiny_data}
    with pytest.raises(PruneError, match=words) as caught:
        job.export(trained, out=tmp_path, **more, **arguments, **QUICK)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_dense_one_of_another_kind_is_refused(trained: Path, pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(PruneError, match="name the model before that"):
        job.export(pruned, dense=trained, format="onnx", out=tmp_path, **QUICK)


def test_one_cut_wants_the_model_before(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PruneError, match="carries the INT8 quantizers"):
        yolo_prune.prune(YOLO(str(trained)), flops="80%")
    with caplog.at_level("WARNING", logger="ultralytics"):
        apply(str(trained), flops="80%", out=str(tmp_path / "cut.pt"))
    assert "what it learned of INT8 is dropped" in caplog.text
    assert not checkpoint.load(tmp_path / "cut.pt")[1].get("modelopt")


def test_without_the_package_it_names_the_command(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None if name == "modelopt" else found(name))
    ckpt = torch.load(pruned, weights_only=False)
    torch.save({**ckpt, "modelopt": {"modelopt": {}, "ranges": {}}}, tmp_path / "int8.pt")
    with pytest.raises(PruneError, match="pip install nvidia-modelopt huggingface_hub"):
        job.export(tmp_path / "int8.pt", format="onnx", **QUICK)
