# yolo-prune, AGPL-3.0 license
"""Does an artifact answer as the torch model it came from? Raw outputs first, then the boxes that a user gets.

Both are asked about the same images, prepared by the host's own code, and their answers go through the host's own NMS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import LetterBox
from ultralytics.data.build import build_yolo_dataset
from ultralytics.utils import ASSETS
from ultralytics.utils.metrics import box_iou
from ultralytics.utils.nms import non_max_suppression

from yolo_prune.errors import PruneError

TOLERANCE = (
    1e-3  # of the range of the reference: float32 in another order stays near 1e-6, half precision does not pass
)
CONF, NMS_IOU = 0.25, 0.7  # the host's own for predict
SAME_IOU, SAME_SCORE = 0.99, 0.01  # what counts as one and the same final box


@dataclass(frozen=True)
class Parity:
    """How far an artifact is from torch.

    `box_error` and `score_error` are the largest absolute differences of the raw output, as shares of the range that
    the reference's values span. `boxes` is the number of final boxes of the reference; `unmatched` counts those of
    either side that have no partner on the other.
    """

    images: int
    box_error: float
    score_error: float
    boxes: int
    unmatched: int

    @property
    def passed(self) -> bool:
        """Whether the raw outputs are within `TOLERANCE` and every final box has its partner."""
        return max(self.box_error, self.score_error) <= TOLERANCE and self.unmatched == 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an error that is no number (NaN or infinity in an output) becomes None."""
        errors = {"box_error": self.box_error, "score_error": self.score_error}
        return {
            "passed": self.passed,
            "images": self.images,
            **{name: error if math.isfinite(error) else None for name, error in errors.items()},
            "boxes": self.boxes,
            "unmatched": self.unmatched,
        }

    def __str__(self) -> str:
        """Say what differs, or that nothing does."""
        raw = f"raw boxes off by {self.box_error:.1e}, scores by {self.score_error:.1e} of their range"
        return f"{raw} (at most {TOLERANCE:g}); {self.unmatched} final boxes without a partner, of {self.boxes}"


def compare(reference: np.ndarray, output: np.ndarray) -> Parity:
    """Compare two raw outputs of a YOLOv8 detection head on the same images.

    Args:
        reference: torch's, float, (images, 4 + classes, anchors): xywh in pixels, then scores in [0, 1].
        output: the artifact's, of the same shape.
    """
    if reference.shape != output.shape or not np.isfinite(output).all():
        return Parity(len(reference), math.inf, math.inf, 0, 0)
    box, score = (_error(reference[:, part], output[:, part]) for part in (slice(0, 4), slice(4, None)))
    finals = [non_max_suppression(torch.from_numpy(raw.copy()), CONF, NMS_IOU) for raw in (reference, output)]
    unmatched = sum(_unmatched(ours, theirs) for ours, theirs in zip(*finals, strict=True))
    return Parity(len(reference), box, score, sum(len(boxes) for boxes in finals[0]), unmatched)


def _error(reference: np.ndarray, output: np.ndarray) -> float:
    """Largest absolute difference, as a share of the reference's range."""
    span = float(reference.max() - reference.min())
    worst = float(np.abs(reference - output).max())
    return worst / span if span > 0 else (0.0 if worst == 0 else math.inf)


def _unmatched(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    """Count the final boxes of one image, (n, 6) xyxy-score-class each, without a partner on the other side.

    A box whose score is so near the threshold that a legitimate difference may drop it is not missed.
    """
    if len(ours) and len(theirs):
        iou = box_iou(ours[:, :4], theirs[:, :4])
        near = (ours[:, None, 4] - theirs[None, :, 4]).abs() <= SAME_SCORE
        iou[~(near & (ours[:, None, 5] == theirs[None, :, 5]) & (iou > SAME_IOU))] = 0
    else:
        iou = torch.zeros(len(ours), len(theirs))
    free = [torch.ones(len(side), dtype=torch.bool) for side in (ours, theirs)]
    while iou.numel() and iou.max() > 0:  # the closest pair first; each box has one partner
        i, j = divmod(int(iou.argmax()), iou.shape[1])
        iou[i, :] = iou[:, j] = 0
        free[0][i] = free[1][j] = False
    return sum(
        int((boxes[left][:, 4] >= CONF + SAME_SCORE).sum()) for boxes, left in zip((ours, theirs), free, strict=True)
    )


def val_images(data: dict[str, Any], imgsz: int, count: int) -> np.ndarray:
    """Take images of the val split, evenly spread over it, as the host's validator would feed them.

    Args:
        data: what the host's `check_det_dataset` returns. imgsz: side in pixels. count: how many, at most.

    Returns:
        float32 (images, 3, imgsz, imgsz), RGB in [0, 1].
    """
    args = get_cfg(overrides={"task": "detect", "imgsz": imgsz, "rect": False})
    dataset = build_yolo_dataset(args, data["val"], 1, data, mode="val")
    if not len(dataset):
        raise PruneError("the val split has no images")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    return np.stack([dataset[int(i)]["img"].numpy() for i in chosen]).astype(np.float32) / 255


def stand_in_images(imgsz: int, count: int) -> np.ndarray:
    """Return the host's two sample photographs, then seeded noise, for a user who gives no data; as `val_images`."""
    photographs = [cv2.imread(str(ASSETS / name)) for name in ("bus.jpg", "zidane.jpg")]
    letterbox = LetterBox((imgsz, imgsz), auto=False)
    images = [letterbox(image=photograph) for photograph in photographs if photograph is not None][:count]
    noise = np.random.default_rng(0)
    images += [noise.integers(0, 256, (imgsz, imgsz, 3), dtype=np.uint8) for _ in range(count - len(images))]
    rgb = np.stack(images)[..., ::-1].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(rgb, dtype=np.float32) / 255
