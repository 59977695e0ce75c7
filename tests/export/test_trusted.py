# yolo-prune, AGPL-3.0 license
"""A model with classes of another package, which the user trusts: a TorchVision backbone (ultralytics #18564)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO

from tests.helpers.oracle import lively
from tests.helpers.runs import record_of, train
from yolo_prune.device import probe_kit
from yolo_prune.device import profile as command
from yolo_prune.errors import PruneError
from yolo_prune.export import job

pytest.importorskip("torchvision")

BACKBONE: dict[str, Any] = {
    "nc": 2,
    "backbone": [
        [
            -1,
            1,
            "TorchVision",
            [512, "resnet18", "None", True, 2, True],
        ],  # without weights; the outputs of its children
        *([0, 1, "Index", [width, place]] for width, place in ((128, 6), (256, 7), (512, 8))),
        [-1, 1, "SPPF", [512, 5]],
    ],
    "head": [[[1, 2, 4], 1, "Detect", ["nc"]]],
}


@pytest.fixture
def architecture(tmp_path: Path) -> Path:
    path = tmp_path / "yolo-resnet.yaml"
    path.write_text(yaml.safe_dump(BACKBONE), encoding="utf-8")
    return path


@pytest.fixture
def checkpoint(architecture: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    yolo = YOLO(architecture, verbose=False)
    lively(yolo.model)
    yolo.model.names = {0: "bright", 1: "dark"}
    torch.save({"model": yolo.model.half(), "train_args": {"imgsz": 64, "task": "detect"}}, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def test_what_is_trusted_is_exported_and_proven(checkpoint: Path, tiny_data: Path) -> None:
    dense = shutil.copy(checkpoint, checkpoint.with_name("dense.pt"))
    told = job.export(checkpoint, safe=False, data=tiny_data, imgsz=64, images=3, repeats=16, dense=dense)
    assert told["passed"]
    assert [row["format"] for row in told["rows"]] == ["pt", "pt", "onnx", "onnx"]
    assert all(row["map50_95"] is not None for row in told["rows"])
    assert told["rows"][-1]["parity"]["score_relative"] < 1e-3


def test_what_is_not_trusted_is_refused(checkpoint: Path) -> None:
    from ultralytics.nn import tasks

    if not hasattr(tasks, "SAFE_LOAD"):
        pytest.skip("this ultralytics has no restricted loading")
    with pytest.raises(PruneError, match=r"If you trust where it comes from: safe=False$") as caught:
        job.export(checkpoint, imgsz=64)
    assert "\n" not in str(caught.value)
    assert tasks.SAFE_LOAD is False


def test_what_is_trusted_is_profiled(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_kit, "_NETWORKS", (("random", False),))
    assert command.profile(str(checkpoint), imgsz=64, kit=str(tmp_path / "kit.pyz"), safe=False) is None
    assert (tmp_path / "kit.pyz").stat().st_size > 1e4


def test_a_run_deploys_it(architecture: Path, tiny_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("flops: 80%\nstart: 0\nimportance: l2\nreconstruct: none\ndeploy: [onnx]\n", encoding="utf-8")
    train(tiny_data, tmp_path, YOLO(architecture, verbose=False), epochs=1, prune=str(recipe))
    weights = tmp_path / "run" / "weights"
    told = json.loads((weights / "export.json").read_text(encoding="utf-8"))
    assert told["passed"]
    assert list(told["artifacts"]) == ["best.onnx"]
    assert {(row["role"], row["format"]) for row in told["rows"]} == {
        (role, kind) for role in ("dense", "pruned") for kind in ("pt", "onnx")
    }
    final = record_of(tmp_path / "run")["final"]
    assert final["gflops"] <= 0.8 * record_of(tmp_path / "run")["baseline"]["gflops"]
