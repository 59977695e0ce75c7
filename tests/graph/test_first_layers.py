# yolo-prune, AGPL-3.0 license
"""Models whose first weight does not tell how many channels an image has: the yaml does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.graph.test_custom_blocks import check
from tests.helpers.oracle import lively
from yolo_prune.commands.inspect import inspect
from yolo_prune.cost import layer_shapes, model_size
from yolo_prune.graph import channel_groups, image_shape
from yolo_prune.host import flops

FIRST = {
    "focus": ([-1, 1, "Focus", [32, 3]], 3),
    "grouped": ([-1, 1, "Conv", [48, 3, 2, None, 3]], 3),
    "depthwise": ([-1, 1, "DWConv", [48, 3, 2]], 3),
    "grey focus": ([-1, 1, "Focus", [32, 3]], 1),
    "six": ([-1, 1, "Conv", [32, 3, 2]], 6),
}


def written(folder: Path, name: str) -> YOLO:
    """A small detector that begins with the layer."""
    first, channels = FIRST[name]
    spec: dict[str, Any] = {"nc": 2}
    spec["backbone"] = [
        *(first, [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "C2f", [32, True]], [-1, 1, "Conv", [64, 3, 2]]),
        *([-1, 1, "C2f", [64, True]], [-1, 1, "SPPF", [64, 5]]),
    ]
    spec["head"] = [[[2, 5], 1, "Detect", ["nc"]]]
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    model = YOLO(path)
    if channels != 3:  # as the host's trainer builds it for such data
        model.model = DetectionModel(str(path), ch=channels, verbose=False)
    return model


@pytest.mark.parametrize("name", FIRST)
def test_it_is_traced_counted_and_cut(name: str, tmp_path: Path) -> None:
    model = written(tmp_path, name)
    channels = FIRST[name][1]
    assert image_shape.channels(model.model) == channels
    assert layer_shapes.layers_of(model.model, 64)
    torch.manual_seed(0)
    check(lively(model.model.eval()), channel_groups.build(model.model), seeds=1, channels=channels)
    before = model_size.size_of(model.model)
    told = yolo_prune.prune(model, flops="60%")
    assert told["final"]["gflops"] <= 0.605 * before.gflops
    assert model_size.size_of(model.model).gflops == pytest.approx(told["final"]["gflops"])
    model.save(tmp_path / "cut.pt")
    shares = inspect(str(tmp_path / "cut.pt"), safe=False)
    assert shares["prunable_share"] > 0.9


def test_the_host_counts_what_we_count(tmp_path: Path) -> None:
    """Where the host's own count works, a model behind a parameter of the image's shape counts the same."""
    model = written(tmp_path, "six").model
    assert model_size._gflops(model) == flops.gflops(model_size._Reading(model, 6), model_size.IMAGE) > 0


def test_it_is_cut_in_a_training(tmp_path: Path, tiny_data: Path) -> None:
    model = written(tmp_path, "focus")
    full = sum(p.numel() for p in model.model.parameters())
    model.train(
        data=str(tiny_data), epochs=2, imgsz=64, batch=4, workers=0, device="cpu", plots=False, prune=0.4, val=False
    )
    assert sum(p.numel() for p in model.model.parameters()) < 0.8 * full
    assert any(isinstance(module, nn.Conv2d) and module.in_channels == 12 for module in model.model.modules())
