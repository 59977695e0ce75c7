# yolo-prune, AGPL-3.0 license
"""What is to be avoided stays whole, with the reason given: a block without layers, one with, a layer."""

from __future__ import annotations

import pytest
from torch import nn
from ultralytics import YOLO

from yolo_prune.graph import channel_groups

WHY = "the forward fails there"


def network() -> nn.Module:
    """A YOLOv8n with a block behind its second layer that has no layers of its own."""
    model = YOLO("yolov8n.yaml", verbose=False).model
    stem = model.model[1]
    model.model[1] = nn.Sequential(stem, nn.ReLU())
    model.model[1].i, model.model[1].f, model.model[1].type = stem.i, stem.f, stem.type
    return model


@pytest.mark.parametrize(
    ("name", "stay"),
    [
        ("model.1.1", {"model.1.0.conv"}),
        ("model.3", {"model.2.cv2.conv", "model.3.conv"}),
        ("model.4.m.0.cv1", {"model.4.m.0.cv1.conv", "model.4.cv1.conv"}),
        ("model.0.conv", {"model.0.conv"}),
    ],
)
def test_what_goes_into_a_block_and_what_it_makes_stays(name: str, stay: set[str]) -> None:
    model = network()
    plain, found = channel_groups.build(model), channel_groups.build(model, avoid={name: WHY})
    held = {layer for layer, reason in found.protected.items() if reason.endswith(WHY)}
    assert stay <= held
    assert held.isdisjoint(plain.protected)
    assert {group.name for group in found.groups} < {group.name for group in plain.groups}
    assert found.native == plain.native  # a step may have cut them before: they have the width of no stock model


def test_a_name_that_is_not_there_changes_nothing() -> None:
    model = network()
    assert channel_groups.build(model, avoid={"model.99": WHY}).protected == channel_groups.build(model).protected
