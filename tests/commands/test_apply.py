# yolo-prune, AGPL-3.0 license
"""`yolo-prune apply` with several bounds at once: every one of them holds in the file that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint

from tests.helpers.made_up_device import made_up_once
from tests.helpers.small_models import untrained
from tests.helpers.untrained import save
from yolo_prune import cli
from yolo_prune.cost import model_size
from yolo_prune.cost.file_size import Deployment
from yolo_prune.device import profile
from yolo_prune.errors import PruneError


def figures(model: Any) -> dict[str, float]:
    """What bounds are bounds on, of a model; latency and size on the made-up device, ONNX at 320."""
    size, bytes_ = model_size.size_of(model), model_size.deployed_size(model, Deployment("onnx", "fp32", 320)).bytes
    assert bytes_ is not None
    latency = model_size.latency_of(model, made_up_once())
    return {"flops": size.flops, "params": size.params, "latency": latency, "size": bytes_}


# All four at once; which is the tightest is asked of the result, and not assumed.
@pytest.mark.parametrize(
    ("bounds", "tightest"),
    [
        ({"flops": "70%", "params": "60%", "latency": "80%", "size": "1MB"}, "size"),
        ({"flops": "95%", "params": "2.9M", "latency": "60%", "size": "90%"}, "latency"),
    ],
)
def test_all_bounds_of_a_call_hold(
    bounds: dict[str, str], tightest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_here(*models: Any) -> None:
        raise PruneError("this device is made up")

    monkeypatch.setattr(profile, "time_side_by_side", not_here)
    device, best, out = tmp_path / "device.json", tmp_path / "best.pt", tmp_path / "pruned.pt"
    device.write_text(json.dumps(made_up_once().content))
    yolo = YOLO("yolov8n.yaml", verbose=False)
    yolo.save(best)
    before = figures(yolo.model)
    words = [f"{key}={value}" for key, value in bounds.items()]
    assert cli.main(["apply", f"model={best}", f"out={out}", f"profile={device}", *words]) == 0
    after = figures(load_checkpoint(str(out))[0].float())
    units = {"G": 1e9, "M": 1e6, "k": 1e3, "MB": 1e6}
    shares = {}
    for key, text in bounds.items():
        number = text.rstrip("GMBk%")
        unit = text.removeprefix(number)
        limit = float(number) * (before[key] / 100 if unit == "%" else units[unit])
        shares[key] = after[key] / limit
    assert max(shares.values()) <= 1 + 1e-9, shares
    assert max(shares, key=lambda key: shares[key]) == tightest
    assert shares[tightest] > 0.9  # and no more is cut than they ask for


def test_a_file_that_was_there_is_replaced_and_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = tmp_path / "best.pt"
    YOLO("yolov8n.yaml", verbose=False).save(best)
    said = []
    for flops in ("70%", "50%"):
        caplog.clear()
        with caplog.at_level("INFO", logger="ultralytics"):
            assert cli.main(["apply", f"model={best}", f"flops={flops}", "importance=l2"]) == 0
        said.append("best-pruned.pt was there and is replaced" in caplog.text)
        assert "data=..." in caplog.text, "none was given"
    assert said == [False, True]


@pytest.mark.parametrize("single", [False, True])
def test_a_model_of_one_class_is_trained_on_as_it_was(
    single: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = torch.load(save(tmp_path / "best.pt", 0), weights_only=False)
    content["model"].args = {"single_cls": single}
    torch.save(content, tmp_path / "best.pt")
    with caplog.at_level("INFO", logger="ultralytics"):
        assert cli.main(["apply", f"model={tmp_path / 'best.pt'}", "flops=70%", "importance=l2"]) == 0
    assert ("data=... single_cls=True" in caplog.text) is single


def test_a_size_that_the_model_does_not_take_is_rounded_as_the_host_does_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = tmp_path / "best.pt"
    untrained().save(best)
    assert cli.main(["apply", f"model={best}", "flops=70%", "importance=l2", "imgsz=100"]) == 0
    assert "imgsz=100 is not a multiple of 32: 128 is used" in caplog.text
