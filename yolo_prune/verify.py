# yolo-prune, AGPL-3.0 license
"""Does an exported artifact answer as the torch model does? Raw outputs, and the boxes left by the host's NMS.

Raw outputs must agree within `TOLERANCE` of the range that torch's own box and score channels span. Final boxes must
match one to one. NMS has knife edges, though: a score of 0.25001 against 0.24999 at the confidence threshold, an
overlap at the IoU threshold, two neighbours with all but equal scores. There a difference in the last bit keeps a box
on one side and drops it on the other. So an unmatched box is looked up on the other side, before NMS, at the same
anchor: where the same box with the same score stands there, it counts as borderline, which is reported and is no fault;
where not, it is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy

TOLERANCE = 1e-3  # largest raw difference of an FP32 artifact, as a share of the channels' range
IOU = 0.99  # two boxes are the same above this,
CORNER = 0.05  # or when no corner is farther off than this, in pixels: IoU says nothing about boxes of a pixel or less
SCORE = 0.01  # and their scores differ by no more than this

_THRESHOLDS = (
    0.25,
    0.001,
)  # confidence in the host's predict; in its val, for a model that is not that sure of anything
_NMS_IOU = 0.7  # the host's default `iou`
_MAX_DET = 300  # the host's default `max_det`
_LEAST_RANGE = (
    1.0,
    0.01,
)  # pixels, score: the smallest range to compare with, so that an all but constant channel passes


@dataclass
class Parity:
    """How far an artifact is from torch.

    Differences are the largest over all images; `relative` ones are shares of the range of torch's channels; None where
    an output is not finite. `boxes` counts torch's final boxes above `confidence`; `matched` those with a partner;
    `borderline` and `unmatched` boxes of either side without one.
    """

    images: int
    box_absolute: float | None = None
    box_relative: float | None = None
    score_absolute: float | None = None
    score_relative: float | None = None
    confidence: float = _THRESHOLDS[0]
    boxes: int = 0
    matched: int = 0
    borderline: int = 0
    unmatched: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No fault was found."""
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for export.json."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        """Say it in a cell of a table."""
        if self.faults:
            return "FAILED"
        worst = max(self.box_relative or 0.0, self.score_relative or 0.0)
        edge = f", {self.borderline} borderline" if self.borderline else ""
        return f"ok: raw {worst:.0e}, boxes {self.matched}/{self.boxes}{edge}"


def compare(reference: Sequence[Tensor], candidate: Sequence[Tensor], *, final: bool = False) -> Parity:
    """Compare outputs of the same images.

    Args:
        reference: torch's output of each image, shape (4 + classes, anchors), float: x, y, w, h in pixels, then scores.
        candidate: the artifact's output of each image.
        final: the outputs are final boxes, shape (boxes, 6), as x1, y1, x2, y2, score, class: a model that needs no NMS
            (YOLOv10, YOLO26).

    Returns:
        The differences; what is beyond tolerance is named in `faults`.
    """
    parity = Parity(len(reference))
    if not reference or len(reference) != len(candidate):
        parity.faults.append(f"{len(candidate)} outputs for {len(reference)} images")
        return parity
    for a, b in zip(reference, candidate, strict=True):
        if a.shape != b.shape:
            parity.faults.append(f"output shape {tuple(b.shape)} instead of {tuple(a.shape)}")
            return parity
    ours, theirs = torch.stack(list(reference)).float(), torch.stack(list(candidate)).float()
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        parity.faults.append("an output is not finite (NaN or infinity)")
        return parity
    if final:
        _compare_final(ours, theirs, parity)
    else:
        _compare_raw(ours, theirs, parity)
        _compare_boxes(ours, theirs, parity)
    return parity


def _compare_raw(ours: Tensor, theirs: Tensor, parity: Parity) -> None:
    """Fill in the differences before NMS; outputs have the shape (images, 4 + classes, anchors)."""
    figures = []
    for name, channels, least in (("box", slice(0, 4), _LEAST_RANGE[0]), ("score", slice(4, None), _LEAST_RANGE[1])):
        ref = ours[:, channels]
        absolute = float((ref - theirs[:, channels]).abs().max())
        relative = absolute / max(float(ref.max() - ref.min()), least)
        if relative > TOLERANCE:
            parity.faults.append(
                f"raw {name} outputs differ by {relative:.1e} of their range (allowed {TOLERANCE:.0e})"
            )
        figures += [absolute, relative]
    parity.box_absolute, parity.box_relative, parity.score_absolute, parity.score_relative = figures


def _compare_final(ours: Tensor, theirs: Tensor, parity: Parity) -> None:
    """Fill in everything from final boxes (images, n, 6): scores by rank, for the order of boxes is that of scores.

    The threshold of confidence is the one knife edge here: a box that stands below it on the other side is borderline.
    """
    scores = [side[..., 4].sort(dim=1, descending=True).values for side in (ours, theirs)]
    parity.score_absolute = float((scores[0] - scores[1]).abs().max())
    parity.score_relative = parity.score_absolute / max(float(scores[0].max() - scores[0].min()), _LEAST_RANGE[1])
    parity.confidence = next((c for c in _THRESHOLDS if float(scores[0].max()) > c), _THRESHOLDS[-1])
    parity.box_absolute, first = 0.0, ""
    for image, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        sure = a[a[:, 4] > parity.confidence], b[b[:, 4] > parity.confidence]
        left = _match(sure[0], sure[1])
        parity.boxes += len(sure[0])
        parity.matched += len(sure[0]) - len(left[0])
        same = _same(sure[0][:, None], b[None])
        off = (sure[0][:, None, :4] - b[None, :, :4]).abs().amax(-1).where(same, torch.inf)
        found = [value for value in off.amin(1).tolist() if math.isfinite(value)] if len(off) else []
        parity.box_absolute = max([parity.box_absolute, *found])
        for free, boxes, other, side in ((left[0], sure[0], b, "torch"), (left[1], sure[1], a, "the artifact")):
            for index in free:
                if bool(_same(boxes[index], other).any()):
                    parity.borderline += 1
                    continue
                parity.unmatched += 1
                first = first or _told(boxes[index], side, image)
    parity.box_relative = parity.box_absolute / max(float(ours[..., :4].max() - ours[..., :4].min()), _LEAST_RANGE[0])
    for name, relative in (("box", parity.box_relative), ("score", parity.score_relative)):
        if relative > TOLERANCE:
            parity.faults.append(f"final {name}s differ by {relative:.1e} of their range (allowed {TOLERANCE:.0e})")
    if parity.unmatched:
        parity.faults.append(f"{parity.unmatched} final boxes without a partner, the first: {first}")


def _told(box: Tensor, side: str, image: int) -> str:
    """A box (6,) in words."""
    x1, y1, x2, y2, score, kind = box.tolist()
    return f"class {kind:.0f} ({x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}) score {score:.3f} of {side}, image {image + 1}"


def _compare_boxes(ours: Tensor, theirs: Tensor, parity: Parity) -> None:
    """Fill in the matching after NMS, at the first threshold that leaves any box at all."""
    for confidence in _THRESHOLDS:
        parity.confidence = confidence
        finals = _final(ours, confidence), _final(theirs, confidence)
        if any(len(boxes) for boxes, _ in (*finals[0], *finals[1])):
            break
    first = ""
    for image, (a, b) in enumerate(zip(*finals, strict=True)):
        free_a, free_b = _match(a[0], b[0])
        parity.boxes += len(a[0])
        parity.matched += len(a[0]) - len(free_a)
        for free, (boxes, anchors), raw, side in (
            (free_a, a, theirs[image], "torch"),
            (free_b, b, ours[image], "the artifact"),
        ):
            for index in free:
                if _stands_before_nms(boxes[index], int(anchors[index]), raw):
                    parity.borderline += 1
                    continue
                parity.unmatched += 1
                first = first or _told(boxes[index], side, image)
    if parity.unmatched:
        parity.faults.append(f"{parity.unmatched} final boxes without a partner, the first: {first}")


def _final(output: Tensor, confidence: float) -> list[tuple[Tensor, Tensor]]:
    """Run the host's NMS: for each image, boxes (n, 6) as x1, y1, x2, y2, score, class, and their anchors (n,)."""
    boxes, anchors = non_max_suppression(
        output.clone(),
        confidence,
        _NMS_IOU,
        nc=output.shape[1] - 4,
        max_det=_MAX_DET,
        max_time_img=math.inf,  # on a slow machine it would stop half-way
        return_idxs=True,
    )
    return list(zip(boxes, anchors, strict=True))


def _match(ours: Tensor, theirs: Tensor) -> tuple[list[int], list[int]]:
    """Pair final boxes (n, 6) of one image, best score first; return the indices left over on each side.

    The first partner will do: two boxes of one class that overlap by `IOU` do not both survive NMS.
    """
    same = _same(ours[:, None], theirs[None])
    left, free = [], list(range(len(theirs)))
    for i in range(len(ours)):
        partner = next((j for j in free if same[i, j]), None)
        if partner is None:
            left.append(i)
        else:
            free.remove(partner)
    return left, free


def _same(a: Tensor, b: Tensor) -> Tensor:
    """Tell which boxes (..., 6) are one and the same; shapes broadcast."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:4], b[..., 2:4])
    shared = (high - low).clamp(min=0).prod(-1)
    both = (a[..., 2:4] - a[..., :2]).prod(-1) + (b[..., 2:4] - b[..., :2]).prod(-1) - shared
    close = (a[..., :4] - b[..., :4]).abs().amax(-1) <= CORNER
    return ((shared > IOU * both) | close) & ((a[..., 4] - b[..., 4]).abs() <= SCORE) & (a[..., 5] == b[..., 5])


def _stands_before_nms(box: Tensor, anchor: int, raw: Tensor) -> bool:
    """Tell whether the other side's raw output (4 + classes, anchors) has this final box (6,) at its anchor."""
    corners = xywh2xyxy(raw[None, :4, anchor])[0]
    return bool(_same(box, torch.cat([corners, raw[4 + int(box[5]), anchor, None], box[5:6]])))
