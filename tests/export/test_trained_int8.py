# yolo-prune, AGPL-3.0 license
"""A run of two stages: prune, then train with quantize=8 (QAT), which is the host's own; and what is exported of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO

import yolo_prune
from tests.helpers.checkout import needs
from tests.helpers.runs import record_of, train, widths
from yolo_prune.commands.apply import apply
from yolo_prune.errors import PruneError
from yolo_prune.export import job
from yolo_prune.host import checkpoint, int8_training
from yolo_prune.training import qat

pytestmark = needs("quantize")
QUICK: dict[str, Any] = {"imgsz": 64, "images": 3, "repeats": 2}


SETTINGS: dict[str, Any] = {"prune": 0.6, "prune_importance": "l2", "prune_reconstruct": "none"}


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages."""
    if importlib.util.find_spec("modelopt") is None:
        pytest.skip("training with quantize=8 needs nvidia-modelopt")
    folder = tmp_path_factory.mktemp("stages")
    train(tiny_data, folder, epochs=1, prune_start=0, prune_qat=1, prune_deploy="torchscript,engine", **SETTINGS)
    return folder / "run"


@pytest.fixture(scope="module")
def pruned(run: Path) -> Path:
    """What the first stage leaves."""
    return run / "weights" / "best.pt"


@pytest.fixture(scope="module")
def trained(run: Path) -> Path:
    """What the second stage leaves, one epoch of quantize=8."""
    return run / record_of(run)["qat"]["weights"]


def test_the_second_stage_trains_int8_into_the_pruned_widths(run: Path, pruned: Path, trained: Path) -> None:
    assert trained == run / "qat" / "weights" / "best.pt"
    assert len((run / "qat" / "results.csv").read_text().splitlines()) == 2  # a line of heads, and one epoch
    assert len((run / "results.csv").read_text().splitlines()) == 2
    network, ckpt = checkpoint.load(trained)
    assert ckpt["train_args"]["quantize"] == 8
    assert ckpt["train_args"]["data"] == checkpoint.load(pruned)[1]["train_args"]["data"]
    assert not [key for key, value in ckpt["train_args"].items() if key.startswith("prune") and value is not None]
    params = sum(value.numel() for value in network.parameters())
    assert params == pytest.approx(record_of(run)["final"]["params"], rel=0.01)
    assert params < 0.8 * record_of(run)["baseline"]["params"]
    assert widths(network) == widths(checkpoint.load(pruned)[0])
    assert not checkpoint.has_quantizers(network)
    assert checkpoint.requantize(network, ckpt, trained)
    assert checkpoint.has_quantizers(network)


def test_each_stage_is_deployed_where_its_formats_can_hold_it(run: Path) -> None:
    first, second = (json.loads((run / folder / "weights" / "export.json").read_text()) for folder in (".", "qat"))
    assert {(row["format"], row["precision"]) for row in first["rows"]} == {("pt", "fp32"), ("torchscript", "fp32")}
    assert {row["precision"] for row in second["rows"] if row["role"] == "pruned"} == {"int8"}
    assert "best_int8-tensorrt.py" in {path.name for path in (run / "qat" / "weights").iterdir()}
    assert not list((run / "pruning").glob("*.pt")), "the dense model is kept until both are proven"


@pytest.mark.parametrize(
    ("settings", "gone", "words"),
    [
        ({"prune_qat": 2}, "modelopt", "prune_qat=2 needs nvidia-modelopt: pip install nvidia-modelopt"),
        ({"prune_qat": 2, "device": "0,1"}, "", "prune_qat=2 with device=0,1 is not supported by this version"),
        ({"prune_qat": 0}, "", "prune_qat=0 must be a whole number of epochs, 1 or more"),
    ],
)
def test_a_second_stage_that_cannot_begin_is_refused_before_the_first(
    settings: dict[str, Any], gone: str, words: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_training, "find_spec", lambda name: None if name == gone else name)
    with pytest.raises(PruneError, match=words) as caught:
        train(tiny_data, tmp_path, epochs=2, **SETTINGS, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_second_stage_that_fails_is_said_loudly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no luck\nat all")

    monkeypatch.setattr(int8_training, "train", fails)
    stage = SimpleNamespace(student=None, final_weights=tmp_path / "best.pt", folder=tmp_path, settings={})
    session = SimpleNamespace(recipe=SimpleNamespace(qat=3), unfinished=False, record={})
    with caplog.at_level("WARNING", logger="ultralytics"):
        assert qat.at_end(stage, session) is None  # type: ignore[arg-type]
    assert f"QUANTIZATION-AWARE TRAINING FAILED, {tmp_path / 'best.pt'} IS IN FP32: no luck" in caplog.text
    assert not session.record


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
