# yolo-prune, AGPL-3.0 license
"""Images to compare an artifact on: from the data set's val split, or, without one, the host's own and drawn ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.augment import LetterBox
from ultralytics.utils import ASSETS


@dataclass(frozen=True)
class Samples:
    """Preprocessed images, shape (n, channels, imgsz, imgsz), RGB in 0..1, their names and where they come from."""

    images: Tensor
    names: list[str]
    source: str


def from_data(data: dict[str, Any], imgsz: int, count: int) -> Samples:
    """Take images of the val split, as the host's val sees them, spread evenly over the split.

    Args:
        data: a data set that the host's `check_det_dataset` has read.
        imgsz: side of the square images in pixels.
        count: how many; fewer where the split has fewer.

    Raises:
        Exception: whatever the host raises for a data set that it cannot read.
    """
    settings = get_cfg(overrides={"task": "detect", "mode": "val", "imgsz": imgsz})
    dataset = build_yolo_dataset(settings, data["val"], 1, data, mode="val", rect=False)
    picks = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    images = torch.stack([dataset[int(pick)]["img"] for pick in picks])
    names = [str(dataset.im_files[int(pick)]).replace("\\", "/").rpartition("/")[2] for pick in picks]
    return Samples(images.float() / 255, names, "val split")


def without_data(channels: int, imgsz: int, count: int) -> Samples:
    """Take the photographs that the host ships, and drawings from a fixed seed for the rest.

    Args:
        channels: of the model's input; 3 in most models.
        imgsz: side of the square images in pixels.
        count: how many.
    """
    pictures = {path.name: cv2.imread(str(path)) for path in sorted(ASSETS.glob("*.jpg"))}
    named = [(name, picture) for name, picture in pictures.items() if picture is not None][:count]
    random = np.random.default_rng(0)
    named += [(f"drawing {index + 1}", _draw(random, imgsz)) for index in range(count - len(named))]
    fit = LetterBox(new_shape=(imgsz, imgsz), auto=False)
    arrays = [np.ascontiguousarray(fit(image=picture)[..., ::-1].transpose(2, 0, 1)) for _, picture in named]
    images = torch.from_numpy(np.stack(arrays)).float() / 255
    source = "the host's own images and seeded drawings"
    return Samples(images[:, torch.arange(channels) % 3], [name for name, _ in named], source)


def _draw(random: np.random.Generator, side: int) -> np.ndarray:
    """Draw boxes and discs on noise, BGR."""
    image = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    for _ in range(12):
        color = random.integers(0, 256, 3).tolist()
        x, y, wide, high = (int(v) for v in random.integers(0, side, 4))
        if random.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + wide // 2, y + high // 2), color, -1)
        else:
            cv2.circle(image, (x, y), wide // 4, color, -1)
    return image
