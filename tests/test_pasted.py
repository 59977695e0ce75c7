# yolo-prune, AGPL-3.0 license
"""Commands in our lines can be pasted as they stand, whatever a file is called."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_prune.device import profile
from yolo_prune.errors import PruneError
from yolo_prune.export import bundle, job
from yolo_prune.report import messages
from yolo_prune.sweeps import checks

MODEL = "my runs/best.pt"


@pytest.fixture(autouse=True)
def _posix(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("yolo_prune.shell.os", SimpleNamespace(name="posix", pathsep=":"))
    caplog.set_level(logging.INFO, "ultralytics")


def test_how_a_checkpoint_is_exported_for_a_bundle(tmp_path: Path) -> None:
    model = tmp_path / MODEL
    model.parent.mkdir()
    model.touch()
    with pytest.raises(PruneError) as caught:
        bundle.bundle(str(model))
    words = shlex.split(str(caught.value).partition("export it first: ")[2])
    assert words[:4] == ["yolo", "export", f"model={model}", "format=onnx"]


def test_how_a_profile_and_its_kit_are_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name, answer in (("write", None), ("summary", ""), ("noise", "")):
        monkeypatch.setattr(profile.measurement, name, lambda *_, answer=answer: answer)
    profile._save({}, Path("my device.json"), MODEL)
    words = shlex.split(caplog.text.partition("aim at it: ")[2])
    assert words[2:5] == [f"model={MODEL}", "...", "prune_profile=my device.json"]
    assert profile._on_device("ncnn", "a kit.pyz", 4) == (
        "pip install numpy ncnn && python3 'a kit.pyz' out=device.json threads=4"
    )
    assert profile._on_device("ncnn", "a.pyz", 1) == "pip install numpy ncnn && python3 a.pyz out=device.json"


def test_how_a_model_is_trained_on_the_data_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(*_: Any) -> None:
        raise PruneError("x has 3 classes and the model 2")

    monkeypatch.setattr(checks.dataset_check, "require", require)
    request: Any = SimpleNamespace(model=MODEL, data="my data.yaml")
    network: Any = None
    with pytest.raises(PruneError) as caught:
        checks._require_data(network, request)
    words = shlex.split(str(caught.value).partition("leaves: ")[2])
    assert words == ["yolo", "train", f"model={MODEL}", "data=my data.yaml"]


def test_how_a_run_that_has_not_cut_all_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, answer in (("all_undone", False), ("_fused", ""), ("_files", "")):
        monkeypatch.setattr(messages, name, lambda *_, answer=answer: answer)
    size = {"params": 1, "gflops": 1.0, "fitness": None}
    messages.ended({"baseline": size, "final": size}, 1, 2, Path("my runs/last.pt"))
    assert shlex.split(caplog.text.partition("To go on: ")[2])[:3] == ["yolo", "train", "model=my runs/last.pt"]


def test_how_engines_are_built_on_a_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job.table, "show", lambda _: None)
    monkeypatch.setattr(job.picture, "content", lambda _: b"")
    job._write({"rows": []}, tmp_path, Path("my best-tensorrt.py"))
    assert "there, python3 'my best-tensorrt.py'" in caplog.text
