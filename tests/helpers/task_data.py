# yolo-prune, AGPL-3.0 license
"""Tiny data sets of drawn rectangles, one for each of the host's tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

SIDE = 64
SHADES = {"bright": 230, "dark": 20}
Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the image


def make(folder: Path, task: str) -> Path:
    """Write images and labels of a task; 8 to train on, 4 to validate on.

    Returns:
        What `data=` takes: a yaml file, of classify a folder.
    """
    return _classes(folder) if task == "classify" else _pictures(folder, task)


def _classes(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, shade in SHADES.items():
            where = folder / split / name
            where.mkdir(parents=True)
            for number in range(count):
                image = rng.integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
                cv2.rectangle(image, (10, 10), (50, 50), (shade,) * 3, -1)
                cv2.imwrite(str(where / f"{number}.png"), image)
    return folder


def _pictures(folder: Path, task: str) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for part in ("images", "labels", "masks", "depth"):
            (folder / part / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
            mask = np.full((SIDE, SIDE), 255, dtype=np.uint8)
            lines = []
            for kind, shade in enumerate(SHADES.values()):
                left, top = (int(v) for v in rng.integers(4, 30, 2))
                width, height = (int(v) for v in rng.integers(16, 30, 2))
                cv2.rectangle(image, (left, top), (left + width, top + height), (shade,) * 3, -1)
                cv2.rectangle(mask, (left, top), (left + width, top + height), kind, -1)
                box = left / SIDE, top / SIDE, (left + width) / SIDE, (top + height) / SIDE
                if task in _LINES:
                    lines.append(" ".join([str(kind), *(f"{value:.5f}" for value in _LINES[task](box))]))
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            (folder / "labels" / split / f"{number}.txt").write_text("\n".join(lines) + "\n")
            if task == "semantic":
                cv2.imwrite(str(folder / "masks" / split / f"{number}.png"), mask)
            if task == "depth":
                np.save(folder / "depth" / split / f"{number}.npy", 1 + mask.astype(np.float32) / 100)
    more = {"pose": "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n", "semantic": "masks_dir: masks\n"}
    names = "  0: depth\n" if task == "depth" else "  0: bright\n  1: dark\n"
    text = f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}{more.get(task, '')}"
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


def _box(box: Box) -> tuple[float, ...]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _corners(box: Box) -> tuple[float, ...]:
    left, top, right, bottom = box
    return left, top, right, top, right, bottom, left, bottom


def _points(box: Box) -> tuple[float, ...]:
    left, top, right, bottom = box
    return (*_box(box), left, top, 2, right, bottom, 2)


_LINES: dict[str, Callable[[Box], tuple[float, ...]]] = {
    "detect": _box,
    "segment": _corners,
    "obb": _corners,
    "pose": _points,
}
