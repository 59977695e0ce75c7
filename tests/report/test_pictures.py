# yolo-prune, AGPL-3.0 license
"""pruning.png of the records that runs leave: with steps, undone ones, layers that are gone, no validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolo_prune.report import pictures

SIZE = {"params": 3_000_000, "gflops": 8.0}
STEP = {"step": 1, "epoch": 2, **SIZE}
RECORDS: dict[str, dict[str, Any]] = {
    "no step": {"steps": [], "history": [{"epoch": 1, "fitness": 0.5, **SIZE}]},
    "a step": {"steps": [STEP], "history": [{"epoch": n, "fitness": 0.1 * n, **SIZE} for n in (1, 2, 3)]},
    "undone": {"steps": [{**STEP, "undone": 3}], "history": [{"epoch": n, "fitness": 0.5, **SIZE} for n in (1, 2, 3)]},
    "not validated": {"steps": [STEP], "history": [{"epoch": n, "fitness": None, **SIZE} for n in (1, 2)]},
    "one cut": {"steps": [{**STEP, "epoch": 0}], "history": []},
}
BEFORE, AFTER, NECK = (0xDF, 0xD3, 0xC9), (0xEB, 0x6F, 0x1F), (0x0A, 0x57, 0xD1)  # blue, green, red


def pixels(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture == color).all(axis=-1).sum())


@pytest.mark.parametrize("name", RECORDS)
def test_a_bar_is_as_high_as_its_layer_is_wide(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pruning.png"
    layers = [{"name": "model.0.conv", "before": 64, "after": 16}, {"name": "model.1.m.0", "before": 64, "after": 0}]
    pictures.picture({"baseline": SIZE, "final": SIZE, "layers": layers, **RECORDS[name]}, path)
    picture = cv2.imread(str(path))
    assert picture.shape == (960, 1440, 3)
    assert pixels(picture, BEFORE) / pixels(picture, AFTER) == pytest.approx((48 + 64) / 16, rel=0.1)


def test_milliseconds_are_drawn_part_by_part(tmp_path: Path) -> None:
    """Of 30 ms in the backbone and 10 in the neck, 10 and 10 are left."""
    path = tmp_path / "pruning.png"
    by_part = {"backbone": {"baseline": 30.0, "final": 10.0}, "neck": {"baseline": 10.0, "final": 10.0}}
    latency = {"predicted_ms_by_part": by_part}
    pictures.picture({"baseline": SIZE, "final": SIZE, "layers": [], "latency": latency, **RECORDS["one cut"]}, path)
    lowest = cv2.imread(str(path))[960:]
    assert pixels(lowest, AFTER) / pixels(lowest, NECK) == pytest.approx(40 / 20, rel=0.15)
