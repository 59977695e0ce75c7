# yolo-prune, AGPL-3.0 license
"""How the demo trains: settings with which yolov8n learns from random weights in two minutes on two cores.

Some 5800 images pass through the dense model, in 720 optimizer steps; all of it is there to make the most of them. It
is no advice for trainings that have more time: leave the host's defaults alone there.

Measured with seed 0 and one thread: dense, mAP50-95 0.441 after 200 s of CPU time; pruned to half the FLOPs, 0.475
after 98 s more (it starts from the dense one, which had not learned all that it could).
"""

from __future__ import annotations

from typing import Any

# Drawing takes seconds, so many images seen a few times: of 400, seen 14 times, the model began to remember rather than
# learn (mAP50-95 0.42 on them, 0.34 on the others).
IMAGES = 640
VAL_IMAGES = 100

TRAIN_ARGS: dict[str, Any] = {
    "imgsz": 128,  # as drawn, so nothing is resized; cost grows with its square
    "epochs": 9,
    "batch": 8,  # 4 costs a third more an image, and 16 halves the steps
    "nbs": 8,  # an optimizer step for every batch: the host would gather 64 images for one
    "optimizer": "AdamW",
    "lr0": 0.003,
    "cos_lr": True,  # ends low, which is what box precision needs
    "warmup_epochs": 0.5,
    "warmup_bias_lr": 0.0,  # the host's 0.1 is for SGD; AdamW would throw every bias about in the first steps
    # The set varies more than augmentation would, and warping costs time.
    "mosaic": 0.0,
    "translate": 0.0,
    "scale": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "erasing": 0.0,
    "flipud": 0.5,  # with fliplr, the two that cost nothing
    "val": False,  # the last epoch is the best one, and validating each would take a tenth of the time
    "plots": False,
    "workers": 0,  # on two cores, loading processes take more than they give
    "amp": False,  # no gain on a CPU, and its check would look for another model's weights
    "device": "cpu",
}

# What the pruned training has otherwise.
PRUNE_ARGS: dict[str, Any] = {
    "prune": 0.5,
    "prune_start": 0.0,  # the parent has just been trained and its fitness is known; the fewer dear epochs the better
    "prune_end": 0.25,
    "prune_steps": 2,
    "epochs": 6,
    "lr0": 0.002,
    "warmup_epochs": 0.0,  # the weights are no longer random
    "val": True,  # fitness before and after each step is part of the record
}
