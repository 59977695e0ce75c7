# yolo-prune, AGPL-3.0 license
"""What a process of a sweep does of one point: where a training goes on, and what a baseline is before any."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.runs import ANY_CHOICE, StoppedError, train
from tests.helpers.small_models import untrained
from tests.helpers.untrained import save
from yolo_prune.host import atomic_saving, canvases, checkpoint
from yolo_prune.sweeps import worker
from yolo_prune.training import deployment, latency_of_run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the host leaves it when all epochs are done: it names no epoch to go on from."""
    return save(tmp_path_factory.mktemp("weights") / "best.pt", 0)


def job(folder: Path, **more: Any) -> dict[str, Any]:
    """What a worker is told."""
    plain = {"folder": str(folder), "name": "a", "imgsz": 64, "safe": True, "cut": None, "measured": False}
    plain["trained_as"] = None
    return {**plain, "data": "none.yaml", "val": {}, "device": "cpu", "words": ["model=a.pt", "epochs=3"], **more}


def test_a_training_begins_goes_on_or_is_done(weights: Path, tmp_path: Path) -> None:
    run = tmp_path / "a"
    (run / "weights").mkdir(parents=True)
    last, told = run / "weights" / "last.pt", job(tmp_path)
    assert worker._words(told, run) == told["words"]
    torch.save({**torch.load(weights, weights_only=False), "epoch": 1}, last)
    assert worker._words(told, run) == ["resume", f"model={last}"]
    content = torch.load(last, weights_only=False)
    for place, words in ((run, ["resume", f"model={last}"]), (tmp_path / "moved", told["words"])):
        torch.save({**content, "train_args": {**content["train_args"], "save_dir": str(place)}}, last)
        assert worker._words(told, run) == words, "the host would go on in the folder that it was"
    last.write_bytes(last.read_bytes()[:1000])  # the host was killed while it wrote
    assert worker._words(told, run) == told["words"]
    shutil.copy(weights, last)
    assert worker._words(told, run) == told["words"], "there is no best.pt"
    shutil.copy(weights, run / "weights" / "best.pt")
    assert worker._words(told, run) == []


@pytest.mark.parametrize("settings", [{}, {"prune_flops": "90%", **ANY_CHOICE}], ids=["dense", "pruned"])
def test_a_training_that_was_killed_after_its_last_epoch_is_done(
    settings: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    """The host would say that there is nothing to resume, at each start anew."""

    def stop(trainer: Any) -> None:
        raise StoppedError

    yolo = untrained()
    yolo.add_callback("on_model_save", stop)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, epochs=1, **settings)
    weights = (tmp_path / "run").rename(tmp_path / "a") / "weights"
    contents = {name: torch.load(weights / name, weights_only=False) for name in ("last.pt", "best.pt")}
    assert [content["epoch"] for content in contents.values()] == [0, 0]
    told = job(tmp_path)
    assert worker._words(told, tmp_path / "a") == []
    for name, content in contents.items():
        stripped = torch.load(weights / name, weights_only=False)
        assert (stripped["epoch"], stripped["optimizer"]) == (-1, None), name
        for key, value in content["ema"].state_dict().items():
            assert torch.equal(stripped["model"].state_dict()[key], value), (name, key)
    stamp = (weights / "best.pt").stat().st_mtime_ns
    assert worker._words(told, tmp_path / "a") == []
    assert (weights / "best.pt").stat().st_mtime_ns == stamp, "what is stripped is left alone"
    torch.save(contents["best.pt"], weights / "best.pt")  # killed between the two
    assert worker._words(told, tmp_path / "a") == []
    assert torch.load(weights / "best.pt", weights_only=False)["epoch"] == -1


@pytest.mark.parametrize("device", [None, "1"])
def test_a_training_is_on_the_device_of_its_process(
    device: str | None, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike: list[bool] = []
    monkeypatch.setattr("yolo_prune.host.console.host_command", lambda: lambda: None)
    monkeypatch.setattr(canvases, "mix_in_all", lambda: alike.append(True))
    monkeypatch.setattr(atomic_saving, "protect_all", lambda: alike.append(True))
    monkeypatch.setattr(latency_of_run, "_not_timed", [])
    monkeypatch.setattr(deployment, "_left_out", [])
    monkeypatch.setattr(worker, "_figures", lambda *given: {})
    monkeypatch.setattr("sys.argv", ["worker"])
    last = tmp_path / "a" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    shutil.copy(weights, last.with_name("best.pt"))
    told = job(tmp_path, device=device)
    worker._train(told)
    end = [] if device is None else [f"device={device}"]
    assert sys.argv == ["yolo", "train", *told["words"], *end]
    torch.save({**torch.load(weights, weights_only=False), "epoch": 1}, last)
    worker._train(told)
    assert sys.argv == ["yolo", "train", "resume", f"model={last}", *end], "it may have begun on another"
    assert latency_of_run._not_timed == ["the models of a sweep are timed, or predicted, together at its end"]
    assert deployment._left_out == [True]
    assert alike == [True] * 4, "dense models choose their best.pt, and write it, as pruned ones do"


def test_a_baseline_of_a_yaml_is_a_model_of_random_weights_without_a_figure(tmp_path: Path) -> None:
    outcome = worker._cut(job(tmp_path, model="yolov8n.yaml"))
    assert outcome["metrics"] is None
    assert Path(outcome["weights"]) == tmp_path / "a" / "cut.pt"
    network, content = checkpoint.load(outcome["weights"])
    assert content["train_args"] == {"imgsz": 64, "task": "detect"}
    assert outcome["params"] == sum(one.numel() for one in network.parameters())
    assert outcome["gflops"] == pytest.approx(8.9 / 100, rel=0.05), "at its own image size"


def test_a_recipe_that_only_a_training_can_keep_is_not_cut_before(weights: Path, tmp_path: Path) -> None:
    outcome = worker._cut(job(tmp_path, model=str(weights), cut={"prune_max_drop": 0.1, "prune_flops": "50%"}))
    network, _ = checkpoint.load(weights)
    assert outcome["params"] == sum(one.numel() for one in network.parameters())
