# yolo-prune, AGPL-3.0 license
"""What users do that the happy path does not: each works, or one clear line says why not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_num_params

import yolo_prune
from tests.helpers import custom_blocks
from tests.helpers.runs import record_of, train
from tests.helpers.small_models import untrained
from yolo_prune import files
from yolo_prune.commands.apply import apply
from yolo_prune.commands.write_yaml import write_yaml
from yolo_prune.errors import PruneError


def test_a_model_from_a_yaml_stays_pruned_in_its_training(tiny_data: Path, tmp_path: Path) -> None:
    yolo = YOLO("yolov8n.yaml")
    yolo_prune.prune(yolo, flops="50%")
    narrow = get_num_params(yolo.model)
    train(tiny_data, tmp_path, yolo, epochs=1)
    trained = get_num_params(YOLO(tmp_path / "run" / "weights" / "last.pt").model)
    assert trained < 1.01 * narrow  # fewer classes, so a little less


def test_attach_and_arguments_together_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    yolo = untrained()
    yolo_prune.attach(yolo, "oneshot")
    with pytest.raises(PruneError, match="both ask for pruning"):
        train(tiny_data, tmp_path, yolo, epochs=2, prune=0.3, prune_schedule="oneshot")


def test_the_last_attach_counts_and_speaks_once(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    yolo = untrained()
    yolo_prune.attach(yolo, "oneshot", flops="80%")
    yolo_prune.attach(yolo, "oneshot", flops="60%")
    with caplog.at_level("INFO", logger="ultralytics"):
        train(tiny_data, tmp_path, yolo, epochs=2)
    assert caplog.text.count("recipe oneshot") == 1
    record = record_of(tmp_path / "run")
    assert 0.57 <= record["final"]["gflops"] / record["baseline"]["gflops"] <= 0.6


def test_attach_wants_a_yolo_object() -> None:
    with pytest.raises(PruneError, match="wants a YOLO object"):
        yolo_prune.attach("best.pt", "oneshot")


def test_a_run_that_stops_early_says_what_is_missing(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    yolo = untrained()
    yolo.add_callback("on_fit_epoch_end", lambda trainer: setattr(trainer, "stop", True))
    with caplog.at_level("INFO", logger="ultralytics"):
        train(tiny_data, tmp_path, yolo, epochs=6, prune=0.5, prune_steps=3, prune_start=0, prune_end=0.8)
    assert "2 of 3 steps still to come" in caplog.text
    assert "stopped: params" in caplog.text


def test_a_file_where_the_record_goes_is_said_before_training(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pruning").write_text("mine")
    with pytest.raises(PruneError, match="cannot be written, which is to hold the record"):
        train(tiny_data, tmp_path, epochs=1, prune=0.5, prune_schedule="oneshot")
    assert (tmp_path / "run" / "pruning").read_text() == "mine"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt of the small model at half of its FLOPs, to be copied: what is written stands beside it."""
    yolo = untrained()
    yolo_prune.prune(yolo, flops="50%")
    path = tmp_path_factory.mktemp("pruned") / "best.pt"
    torch.save({"model": yolo.model}, path)
    return path


def _no_widths(spec: dict[str, Any]) -> None:
    del spec["yolo_prune"]["widths"]


def _text(spec: dict[str, Any]) -> None:
    spec["yolo_prune"] = "text"


def _negative(spec: dict[str, Any]) -> None:
    spec["yolo_prune"]["widths"]["model.0.conv"] = ["a", -3]


def _short(spec: dict[str, Any]) -> None:
    spec["backbone"] = spec["backbone"][:5]


def _unknown(spec: dict[str, Any]) -> None:
    spec["backbone"][-1][2] = "Mine"


@pytest.mark.parametrize("damage", [_no_widths, _text, _negative, _short, _unknown])
def test_a_damaged_architecture_is_one_line(
    damage: Callable[[dict[str, Any]], None], pruned: Path, tmp_path: Path
) -> None:
    path = write_yaml(shutil.copy(pruned, tmp_path), safe=False)
    spec = yaml.safe_load(path.read_text())
    damage(spec)
    path.write_text(yaml.safe_dump(spec))
    said = r"block Mine.*tasks\.Mine = Mine" if damage is _unknown else r"does not fit its layers.*yolo-prune yaml"
    with pytest.raises(PruneError, match=said):
        YOLO(path)


def test_a_disk_without_room_is_one_line(pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = shutil.copy(pruned, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(PruneError, match=r"best-pruned.pt cannot be written.*No space"):
        apply(best, flops="70%", safe=False)
    assert not (tmp_path / "best-pruned.pt").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 7, "schedule": "cubic"},
        {"start": 0.3},
        {"distill_outputs": 1},
        {"regularize": "group"},
        {"warmup": 2},
        {"nbs": 16},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_one_cut_takes_no_settings_of_a_training(settings: dict[str, Any]) -> None:
    network = untrained().model
    before = get_num_params(network)
    with pytest.raises(PruneError, match=f"{next(iter(settings))}=.*one cut without training does nothing with it"):
        yolo_prune.prune(network, flops="80%", **settings)
    assert get_num_params(network) == before


def test_one_cut_names_the_blocks_that_it_keeps_whole(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    custom_blocks.register()
    name = "SplitBySizes"
    network = DetectionModel(custom_blocks.yaml_with(name), verbose=False)
    yolo_prune.prune(network, flops="80%")
    assert any("prune:" in line and name in line for line in caplog.messages)
    monkeypatch.delattr(tasks, name)
    with pytest.raises(PruneError, match=f"has a block {name}, which ultralytics does not know here"):
        DetectionModel(network.yaml, verbose=False)


def test_a_dense_model_with_a_block_that_the_host_does_not_know_is_refused_before_any_work(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a .pt whose class is importable by its pickle, but which nobody has put among the host's names."""
    custom_blocks.register()
    network = DetectionModel(custom_blocks.yaml_with("SplitBySizes"), verbose=False)
    torch.save({"model": network, "train_args": {}}, tmp_path / "own.pt")
    monkeypatch.delattr(tasks, "SplitBySizes")
    yolo = YOLO(tmp_path / "own.pt")
    with pytest.raises(PruneError, match=r"own.pt has a block SplitBySizes, which ultralytics does not know here: tr"):
        train(tiny_data, tmp_path, yolo, epochs=2, prune=0.3)
    assert not (tmp_path / "run").exists()
