# yolo-prune, AGPL-3.0 license
"""Images to compare an artifact on: from the data set's val split, or, without one, the host's own and drawn ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.data.augment import LetterBox
from ultralytics.utils import ASSETS

from yolo_prune.host import datasets


@dataclass(frozen=True)
class Samples:
    """Preprocessed images, shape (n, channels, imgsz, imgsz), RGB in 0..1, their names and where they come from."""

    images: Tensor
    names: list[str]
    source: str


def from_data(network: nn.Module, data: str | Path, imgsz: int, count: int) -> Samples:
    """Take images of the val split, as the host's val of the model's task sees them, spread evenly over the split.

    Args:
        network: a stock model. data: what the host's data= takes. imgsz: side of the square images in pixels.
        count: how many; fewer where the split has fewer.

    Raises:
        PruneError: the data set cannot be read.
    """
    batches = datasets.read(network, data, imgsz, count, split="val")
    images = torch.cat([batch["img"] for batch in batches])
    files = [str(name) for batch in batches for name in batch.get("im_file", [""] * len(batch["img"]))]
    names = [name.replace("\\", "/").rpartition("/")[2] or f"image {i + 1}" for i, name in enumerate(files)]
    return Samples(images, names, "val split")


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
