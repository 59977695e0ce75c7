# yolo-prune, AGPL-3.0 license
"""How much one cut leaves, before any training: every importance in every scope on one checkpoint.

    python benchmarks/oneshot.py best.pt data.yaml [imgsz=320] [left=0.85,0.7,0.5]

After the cut, BatchNorm statistics are re-estimated on 48 training images (without that, nearly nothing is left of
any); mAP50-95 is that of the validation split. Prints a markdown table.
"""

from __future__ import annotations

import logging
import sys
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import LOGGER

import yolo_prune
from yolo_prune import checkpoint

IMAGES = 48
IMPORTANCES = ("l1", "l2", "bn", "lamp", "fpgm", "random")


def calibration(data: str, imgsz: int) -> torch.Tensor:
    """The first training images, letterboxed, shape (48, 3, imgsz, imgsz), RGB in 0..1."""
    import cv2
    import numpy as np

    folder = Path(check_det_dataset(data)["train"])
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})[:IMAGES]
    fit = LetterBox((imgsz, imgsz))
    images = [fit(image=cv2.imread(str(path)))[:, :, ::-1].transpose(2, 0, 1) for path in files]
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 255


def estimate_statistics(model: nn.Module, images: torch.Tensor) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # a plain mean over the batches
    model.train()
    with torch.no_grad():
        for batch in images.split(16):
            model(batch)
    model.eval()
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum


def main() -> None:
    weights, data = sys.argv[1:3]
    options = dict(word.split("=", 1) for word in sys.argv[3:])
    imgsz = int(options.get("imgsz", 320))
    LOGGER.setLevel(logging.ERROR)
    dense, _ = checkpoint.load(weights)
    images = calibration(data, imgsz)
    print("| FLOPs left | importance | uniform | global |\n| --- | --- | --- | --- |")
    for left in map(float, options.get("left", "0.85,0.7,0.5").split(",")):
        for importance in IMPORTANCES:
            found = []
            for scope in ("uniform", "global"):
                yolo = YOLO(weights)
                yolo.model = deepcopy(dense)
                yolo_prune.prune(yolo, flops=f"{100 * left:g}%", importance=importance, scope=scope)
                estimate_statistics(yolo.model, images)
                found.append(yolo.val(data=data, imgsz=imgsz, plots=False, verbose=False, workers=0).box.map)
            print(f"| {left:.0%} | {importance} | {found[0]:.3f} | {found[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
