# yolo-prune, AGPL-3.0 license
"""`deploy:` of a recipe: a run ends with proven artifacts, and ends well where they cannot be made."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.foreign import plant
from tests.helpers.runs import train
from tests.helpers.small_models import untrained
from yolo_prune.errors import HostError, PruneError
from yolo_prune.recipe import formats
from yolo_prune.recipe.arguments import load
from yolo_prune.training import deployment, resume


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    settings = "flops: 60%\nstart: 0\nimportance: l2\nreconstruct: none\ndeploy: [torchscript, engine]\n"
    path.write_text(settings, encoding="utf-8")
    return path


def test_a_run_ends_with_proven_artifacts(recipe: Path, tiny_data: Path, tmp_path: Path) -> None:
    yolo, closed = untrained(), []
    yolo.add_callback("on_train_end", lambda _: closed.append(not (tmp_path / "run/weights/export.json").exists()))
    train(tiny_data, tmp_path, yolo, epochs=1, prune=str(recipe))
    assert closed == [True]  # loggers of the host close the run first
    weights = tmp_path / "run" / "weights"
    told = json.loads((weights / "export.json").read_text(encoding="utf-8"))
    assert told["passed"]
    assert {"best.torchscript", "best.onnx"} <= set(told["artifacts"])  # an engine is built of the ONNX file, elsewhere
    assert {(row["role"], row["format"]) for row in told["rows"]} == {
        (role, kind) for role in ("dense", "pruned") for kind in ("pt", "onnx", "torchscript")
    }
    sizes = {row["role"]: row["params"] for row in told["rows"]}
    assert sizes["pruned"] < sizes["dense"]
    assert {"best-tensorrt.py", "best-dense.onnx", "export.png"} <= {path.name for path in weights.iterdir()}
    assert not list((tmp_path / "run" / "pruning").glob("*.pt"))


def test_a_sweep_leaves_it_out_also_of_a_run_that_goes_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe.write_text(f"{recipe.read_text()}qat: 5\n")
    wanted = load(recipe)
    for left_out, began in ((False, wanted), (True, wanted), (True, wanted.model_copy(update={"deploy": ()}))):
        monkeypatch.setattr(deployment, "_left_out", [True] if left_out else [])
        monkeypatch.setattr(resume, "_recipe_in_record", lambda _, began=began: began)
        for resumed in (False, True):
            run: Any = SimpleNamespace(is_resumed=resumed, is_first=True, settings={"prune": str(recipe)})
            found = resume.recipe_of(run)
            assert found is not None
            assert (found.deploy, found.qat) == (((), None) if left_out else (wanted.deploy, 5))
            assert str(found.flops) == "60%"
    assert "another one" not in caplog.text


def test_a_deployment_that_fails_is_said_and_the_run_ends_well(
    recipe: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise PruneError("no luck")

    mark = tmp_path / "ran"
    monkeypatch.setattr(deployment.job, "export", fails)
    yolo = untrained()
    yolo.add_callback("on_fit_epoch_end", lambda _: plant(tmp_path / "run" / "pruning" / "dense-trained.pt", mark))
    with caplog.at_level(logging.WARNING, "ultralytics"):
        train(tiny_data, tmp_path, yolo, epochs=1, prune=str(recipe))
    assert "dense-trained.pt is not loaded, the dense model, which the artifacts are to be compared with" in caplog.text
    assert not mark.exists()
    assert "DEPLOYMENT IS NOT PROVEN. no luck" in caplog.text
    assert (tmp_path / "run" / "weights" / "best.pt").is_file()
    assert (tmp_path / "run" / "pruning" / "record.json").is_file()


@pytest.mark.parametrize(("precision", "quantize"), [("fp32", None), ("fp16", 16), ("int8", 8)])
def test_the_precision_is_that_of_the_recipe_or_its_profile(
    precision: str, quantize: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str], int | None]] = []
    monkeypatch.setattr(deployment, "_dense_checkpoint", lambda _: None)
    monkeypatch.setattr(
        deployment.job,
        "export",
        lambda weights, **given: asked.append((weights.name, given["format"], given["quantize"])),
    )
    run = SimpleNamespace(
        final_weights=Path("best.pt"), own_folder=tmp_path, image_size=64, arguments=SimpleNamespace(data="my.yaml")
    )
    wanted: Any = SimpleNamespace(deploy=("openvino", "onnx", "engine"))
    deployment.at_end(run, wanted, precision)  # type: ignore[arg-type]
    assert asked == [("best.pt", ["openvino", "onnx", "engine"], quantize)]
    asked.clear()
    deployment.at_end(run, wanted, precision, Path("qat.pt"))  # type: ignore[arg-type]
    assert asked == [("best.pt", ["openvino"], quantize), ("qat.pt", ["onnx", "engine"], None)]


def test_what_is_missing_is_said_before_the_first_epoch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "nncf" else name)
    wanted: Any = SimpleNamespace(deploy=("openvino", "onnx", "engine"))
    with caplog.at_level(logging.WARNING, "ultralytics"):
        deployment.say_missing(wanted, "fp32")
        assert not caplog.text
        deployment.say_missing(wanted, "int8")
    assert len(caplog.records) == 1
    assert (
        "prune_deploy=openvino in int8 needs nncf, or is left out at the end of this run: pip install nncf"
        in caplog.text
    )


def test_an_engine_of_the_device_needs_its_onnx_file_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name in ("tensorrt", "onnxslim") else name)
    wanted: Any = SimpleNamespace(deploy=("engine",))
    with caplog.at_level(logging.WARNING, "ultralytics"):
        deployment.say_missing(wanted, "fp16")
    (record,) = caplog.records
    assert "prune_deploy=engine in fp16 needs onnxslim, or is left out" in record.message


@pytest.mark.parametrize("device", ["0,1", [0, 1]])
def test_on_several_devices_it_is_refused_before_an_epoch(device: object, recipe: Path) -> None:
    """The first process would wait for the others in its validation of an artifact, and they have ended."""
    wanted = load(recipe)
    deployment.require({"device": "0", "data": "my.yaml"}, wanted)
    deployment.require({"device": None, "data": "my.yaml"}, wanted)
    with pytest.raises(HostError, match=r"prune_deploy=torchscript,engine with device=.*0.*1.*leave it out, then yol"):
        deployment.require({"device": device, "data": "my.yaml"}, wanted)
