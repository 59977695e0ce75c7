# yolo-prune, AGPL-3.0 license
"""Outputs of an artifact beside torch's: what counts as equal, and the images that they are compared on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.untrained import SIDE
from yolo_prune.export import prove, results
from yolo_prune.host import samples

# Comparing outputs ----------------------------------------------------------------------------------------------------


def _output(*boxes: tuple[float, float, float, float, float, float]) -> Tensor:
    """Make a raw output (4 + 2 classes, 8 anchors) in which the first anchors say x, y, w, h and two scores."""
    output = torch.zeros(6, 8)
    output[:4] = torch.tensor([32.0, 32.0, 1.0, 1.0])[:, None]
    for anchor, box in enumerate(boxes):
        output[:, anchor] = torch.tensor(box)
    return output


def test_equal_outputs_pass() -> None:
    output = _output((20, 20, 10, 10, 0.9, 0.1), (50, 50, 20, 8, 0.2, 0.7))
    parity = prove.compare([output], [output.clone()])
    assert parity.passed
    assert (parity.boxes, parity.matched, parity.borderline, parity.unmatched) == (2, 2, 0, 0)
    assert (parity.box_relative, parity.score_relative) == (0.0, 0.0)


def test_differences_are_shares_of_the_range() -> None:
    ours = _output((20, 20, 10, 10, 0.8, 0.0), (100, 50, 20, 8, 0.0, 0.5))
    theirs = ours.clone()
    theirs[0, 0] += 0.0495  # the box channels span 1 .. 100
    theirs[4, 0] += 0.0004  # the scores 0 .. 0.8
    parity = prove.compare([ours], [theirs])
    assert parity.passed
    assert parity.box_relative == pytest.approx(0.0005, rel=1e-3)
    assert parity.score_relative == pytest.approx(0.0005, rel=1e-3)


@pytest.mark.parametrize(("channel", "by", "named"), [(0, 0.2, "raw box"), (4, 0.002, "raw score")])
def test_a_raw_difference_beyond_tolerance_fails(channel: int, by: float, named: str) -> None:
    ours = _output((20, 20, 10, 10, 0.9, 0.1), (100, 50, 20, 8, 0.2, 0.7))
    theirs = ours.clone()
    theirs[channel, 7] += by  # an anchor that no final box comes from
    parity = prove.compare([ours], [theirs])
    assert [fault.split(" outputs")[0] for fault in parity.faults] == [named]


def test_a_box_that_moved_fails() -> None:
    """Within the raw tolerance of a wide image, and yet another box: 0.3 pixels of 6."""
    ours = _output((20, 20, 6, 6, 0.9, 0.1), (1000, 50, 20, 8, 0.2, 0.7))
    theirs = ours.clone()
    theirs[0, 0] += 0.3
    parity = prove.compare([ours], [theirs])
    assert parity.box_relative is not None
    assert parity.box_relative < prove.LIMITS["fp32"].raw
    assert parity.unmatched == 2  # one on each side
    assert "without a partner" in parity.faults[0]
    assert "class 0 (17, 17, 23, 23) score 0.900 of torch, image 1" in parity.faults[0]


def test_another_class_fails() -> None:
    ours, theirs = _output((20, 20, 10, 10, 0.9, 0.1)), _output((20, 20, 10, 10, 0.1, 0.9))
    assert prove.compare([ours], [theirs]).unmatched == 2


def test_the_confidence_threshold_is_a_knife_edge_and_no_fault() -> None:
    ours, theirs = _output((20, 20, 10, 10, 0.25004, 0.1)), _output((20, 20, 10, 10, 0.24996, 0.1))
    parity = prove.compare([ours], [theirs])
    assert parity.passed
    assert (parity.boxes, parity.matched, parity.borderline) == (1, 0, 1)
    assert str(parity).endswith(", boxes 0/1 (1 tie)")


def test_the_order_of_equal_scores_is_a_knife_edge_and_no_fault() -> None:
    """Of two neighbours NMS keeps the surer one; which that is hangs on the last bit."""
    ours = _output((20, 20, 10, 10, 0.80001, 0.0), (21, 20, 10, 10, 0.8, 0.0))
    theirs = _output((20, 20, 10, 10, 0.8, 0.0), (21, 20, 10, 10, 0.80001, 0.0))
    parity = prove.compare([ours], [theirs])
    assert parity.passed
    assert (parity.boxes, parity.matched, parity.borderline) == (1, 0, 2)


def test_boxes_below_a_pixel_are_matched_by_their_corners() -> None:
    ours, theirs = _output((20, 20, 0.02, 0.02, 0.9, 0.1)), _output((20.01, 20, 0.02, 0.02, 0.9, 0.1))
    assert prove.compare([ours], [theirs]).matched == 1


def test_an_unsure_model_is_compared_at_the_threshold_of_val() -> None:
    output = _output((20, 20, 10, 10, 0.02, 0.0))
    parity = prove.compare([output], [output.clone()])
    assert (parity.confidence, parity.matched) == (0.001, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_no_number_fails(value: float) -> None:
    ours = _output((20, 20, 10, 10, 0.9, 0.1))
    theirs = ours.clone()
    theirs[4, 3] = value
    parity = prove.compare([ours], [theirs])
    assert not parity.passed
    json.dumps(parity.as_dict(), allow_nan=False)


def test_another_shape_or_count_fails() -> None:
    output = _output()
    assert "shape (6, 7) instead of (6, 8)" in prove.compare([output], [output[:, :7]]).faults[0]
    assert not prove.compare([output, output], [output]).passed
    assert not prove.compare([], []).passed


# Timing and images ----------------------------------------------------------------------------------------------------


def test_stand_in_images_are_the_same_each_time() -> None:
    one, two = samples.without_data(3, SIDE, 5), samples.without_data(3, SIDE, 5)
    assert one.names == ["bus.jpg", "zidane.jpg", "drawing 1", "drawing 2", "drawing 3"]
    assert one.images.shape == (5, 3, SIDE, SIDE)
    assert torch.equal(one.images, two.images)
    assert 0 <= float(one.images.min()) < float(one.images.max()) <= 1


def test_images_of_the_data_set_are_what_val_sees(tiny_data: Path) -> None:
    import cv2
    from ultralytics.nn.tasks import DetectionModel

    found = samples.from_data(DetectionModel("yolov8n.yaml", nc=2, verbose=False), tiny_data, SIDE, 2)
    assert found.names == ["0.png", "3.png"]
    picture = cv2.imread(str(tiny_data.parent / "images/val/3.png"))
    assert torch.equal(found.images[1], torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy()).float() / 255)


def test_batches_are_filled_up() -> None:
    images = torch.arange(5.0).reshape(5, 1, 1, 1)
    assert [part.flatten().tolist() for part in results.batches_of(images, 3)] == [[0, 1, 2], [3, 4, 4]]


def _finals() -> torch.Tensor:
    """Final boxes of one image: twenty, sure and unsure, best first."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(20, 2, generator=generator) * 100
    size = 5 + torch.rand(20, 2, generator=generator) * 50
    scores = torch.linspace(0.9, 0.02, 20)[:, None]
    return torch.cat([corner, corner + size, scores, torch.arange(20)[:, None] % 3], 1)


def test_equal_final_boxes_pass_in_any_order() -> None:
    boxes = _finals()
    parity = prove.compare([boxes], [boxes.flip(0)], view=prove.View("final"))
    assert parity.passed
    assert parity.boxes == parity.matched == int((boxes[:, 4] > 0.25).sum())
    assert parity.box_absolute == parity.score_absolute == 0


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [(0, 9.0, "without a partner"), (4, -0.03, "scores differ"), (5, 1.0, "without a partner")],
)
def test_one_changed_final_box_fails(column: int, change: float, words: str) -> None:
    boxes = _finals()
    other = boxes.clone()
    other[2, column] += change
    parity = prove.compare([boxes], [other], view=prove.View("final"))
    assert any(words in fault for fault in parity.faults)


def test_final_boxes_that_are_off_are_called_boxes() -> None:
    boxes = torch.tensor([[0.0, 0.0, 600.0, 600.0, 0.9, 0.0]])
    parity = prove.compare([boxes], [boxes + torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])], view=prove.View("final"))
    assert parity.faults == ["final boxes differ by 1.7e-03 of their range (allowed 1e-03)"]


def test_a_final_box_at_the_threshold_is_borderline() -> None:
    boxes = _finals()
    boxes[5, 4], other = 0.25001, boxes.clone()
    other[5, 4] = 0.24999
    parity = prove.compare([boxes], [other], view=prove.View("final"))
    assert parity.passed
    assert parity.borderline == 1
