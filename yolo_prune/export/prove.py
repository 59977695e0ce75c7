# yolo-prune, AGPL-3.0 license
"""Does an exported artifact answer as the torch model does? Raw outputs, and what the host makes of them in the end.

Raw outputs must agree within a share of the range that torch's own channels span. Final boxes must match one to one.
NMS has knife edges, though: a score of 0.25001 against 0.24999 at the confidence threshold, an overlap at the IoU
threshold, two neighbours with all but equal scores. There a difference in the last bit keeps a box on one side and
drops it on the other. So an unmatched box is looked up on the other side, before NMS, at the same anchor: where the
same box with the same score stands there, it counts as borderline, which is reported and is no fault; where not, it is
one. Classes must be the same ones in the same places, and maps (semantic, depth) agree as raw outputs do.

How much may differ depends on the precision (`LIMITS`): of FP32 next to nothing, of FP16 what eleven bits leave; INT8
is another model, and mAP alone says whether it will do. What a fault comes to: verdict.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from yolo_prune.host import inference

CORNER = 0.05  # two boxes are the same when no corner is farther off, in pixels: IoU says nothing about tiny boxes

# Confidence in the host's predict; in its val, for a model that is not that sure of anything.
_THRESHOLDS = (0.25, 0.001)
_LEAST_RANGE = {"box": 1.0, "score": 0.01}  # pixels, score: an all but constant channel passes; 0.1 of anything else


@dataclass(frozen=True)
class Limits:
    """What an artifact may differ by.

    Attributes:
        raw: largest difference of a raw output, as a share of its channels' range. iou: two final boxes are the same
            above this, when their scores differ by no more than `score`. map: largest difference of the task's metric
            from torch. judged: False where outputs are compared and reported only.
    """

    raw: float
    iou: float
    score: float
    map: float
    judged: bool = True


LIMITS = {
    "fp32": Limits(1e-3, 0.99, 0.01, 0.01),
    "fp16": Limits(2e-2, 0.95, 0.03, 0.01),
    "int8": Limits(1.0, 0.90, 0.10, 0.02, judged=False),
}


@dataclass(frozen=True)
class View:
    """How the outputs of a model are to be read; an image's first output is meant, others are maps.

    Attributes:
        kind: "raw", boxes before NMS (4 + classes + more, anchors), xywh in pixels; "final", boxes (n, 6 + more) as x1,
            y1, x2, y2, score, class; "queries", RT-DETR's (n, 4 + classes), or (n, 6) with score and class, xywh as
            shares of the side; "classes", probabilities (classes,); "pixels", logits (classes, height, width) or
            classes (height, width); "map", anything else.
        classes: how many; None: all channels after the box, or, of queries, a score and a class.
        rotated: the last channel is an angle. side: pixels.
    """

    kind: str = "raw"
    classes: int | None = None
    rotated: bool = False
    side: int = 1


@dataclass
class Parity:
    """How far an artifact is from torch.

    Differences are the largest over all images; `relative` ones are shares of the range of torch's channels; None where
    an output is not finite, or the model has no such output. `rest` is all that is neither box nor score: mask
    coefficients and prototypes, keypoints, angles, maps. `boxes` counts torch's final boxes above `confidence` (of
    classify, images; of semantic, pixels); `matched` those with a partner; `borderline` and `unmatched` boxes of either
    side without one.
    """

    images: int
    box_absolute: float | None = None
    box_relative: float | None = None
    score_absolute: float | None = None
    score_relative: float | None = None
    rest_relative: float | None = None
    confidence: float = _THRESHOLDS[0]
    boxes: int = 0
    matched: int = 0
    borderline: int = 0
    unmatched: int = 0
    what: str = "boxes"
    faults: list[str] = field(default_factory=list)
    judged: bool = True

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
        worst = max(self.box_relative or 0.0, self.score_relative or 0.0, self.rest_relative or 0.0)
        edge = f" ({self.borderline} tie{'s' * (self.borderline > 1)})" if self.borderline else ""
        same = f", {self.what} {self.matched}/{self.boxes}" if self.boxes else ""
        return f"{'ok: ' * self.judged}raw {worst:.0e}{same}{edge}"


Outputs = Sequence["Tensor | Sequence[Tensor]"]  # one entry an image: its output, or its outputs


def compare(reference: Outputs, candidate: Outputs, view: View = View(), limits: Limits = LIMITS["fp32"]) -> Parity:
    """Compare outputs of the same images.

    Args:
        reference: torch's outputs of each image. candidate: the artifact's. view: how to read them.
        limits: what they may differ by.

    Returns:
        The differences; what is beyond the limits is named in `faults`.
    """
    parity = Parity(len(reference), judged=limits.judged)
    if not reference or len(reference) != len(candidate):
        parity.faults.append(f"{len(candidate)} outputs for {len(reference)} images")
        return parity
    ours, theirs = ([_as_floats(image) for image in side] for side in (reference, candidate))
    for a, b in zip(ours, theirs, strict=True):
        if [x.shape for x in a] != [y.shape for y in b]:
            shapes = [", ".join(str(tuple(x.shape)) for x in side) for side in (a, b)]
            parity.faults.append(f"output shape {shapes[1]} instead of {shapes[0]}")
            return parity
    stacked = [
        (torch.stack([image[i] for image in ours]), torch.stack([image[i] for image in theirs]))
        for i in range(len(ours[0]))
    ]
    if not all(x.isfinite().all() for pair in stacked for x in pair):
        parity.faults.append("an output is not finite (NaN or infinity)")
        return parity
    first, *others = stacked
    if view.kind == "queries":
        first = (_boxes_of_queries(first[0], view), _boxes_of_queries(first[1], view))
    if view.kind in ("final", "queries"):
        # Of a model that is not sure of anything, chance picks queries: they are all but equal.
        _compare_final(*first, parity, limits, _THRESHOLDS[:1] if view.kind == "queries" else _THRESHOLDS)
    elif view.kind == "raw":
        classes = first[0].shape[1] - 4 if view.classes is None else view.classes
        _compare_raw(*first, parity, limits, classes)
        _compare_boxes(*first, parity, limits, classes, view.rotated)
    elif view.kind == "classes":
        _compare_classes(*first, parity, limits)
    elif view.kind == "pixels":
        _compare_pixels(*first, parity, limits)
    else:
        others = stacked
    for one, other in others:
        _compare_map(one, other, parity, limits)
    if not limits.judged:
        parity.faults.clear()
    return parity


def _as_floats(image: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [x.detach().float() for x in ([image] if isinstance(image, Tensor) else image)]


def _boxes_of_queries(output: Tensor, view: View) -> Tensor:
    """Queries (images, n, 4 + classes, or 6) -> final boxes (images, n, 6), each of its best class."""
    boxes = inference.corners(output[..., :4]) * view.side
    if view.classes is None:
        return torch.cat([boxes, output[..., 4:6]], -1)
    scores, classes = output[..., 4:].max(-1, keepdim=True)
    return torch.cat([boxes, scores, classes.float()], -1)


def _relative(ours: Tensor, theirs: Tensor, least: float) -> tuple[float, float]:
    """The largest difference, and the same as a share of the range of `ours`."""
    absolute = float((ours - theirs).abs().max())
    return absolute, absolute / max(float(ours.max() - ours.min()), least)


def _compare_map(ours: Tensor, theirs: Tensor, parity: Parity, limits: Limits) -> None:
    """Maps, or anything else that is no box: (images, channels, height, width)."""
    _, relative = _relative(ours, theirs, 0.1)
    parity.rest_relative = max(parity.rest_relative or 0.0, relative)
    if relative > limits.raw:
        parity.faults.append(f"map outputs differ by {relative:.1e} of their range (allowed {limits.raw:.0e})")


def _compare_pixels(ours: Tensor, theirs: Tensor, parity: Parity, limits: Limits) -> None:
    """Semantic maps: logits (images, classes, height, width), as they are and by their best class, or classes alone."""
    if ours.ndim == 4:
        _compare_map(ours, theirs, parity, limits)
        ours, theirs = ours.argmax(1), theirs.argmax(1)
    same = ours == theirs
    parity.what, parity.boxes, parity.matched = "pixels", same.numel(), int(same.sum())
    parity.borderline = same.numel() - parity.matched  # where two classes are all but equal
    parity.score_relative = parity.borderline / same.numel()
    if parity.score_relative > limits.raw:
        parity.faults.append(
            f"{parity.score_relative:.1%} of the pixels are of another class (allowed {limits.raw:.1%})"
        )


def _compare_classes(ours: Tensor, theirs: Tensor, parity: Parity, limits: Limits) -> None:
    """Probabilities (images, classes): the differences, and whether the best class is the same one, ties apart."""
    parity.score_absolute, parity.score_relative = _relative(ours, theirs, _LEAST_RANGE["score"])
    if parity.score_relative > limits.raw:
        parity.faults.append(f"scores differ by {parity.score_relative:.1e} of their range (allowed {limits.raw:.0e})")
    best = theirs.argmax(1, keepdim=True)
    same = (ours.argmax(1, keepdim=True) == best)[:, 0]
    tied = (ours.amax(1) - ours.gather(1, best)[:, 0]) <= limits.raw
    parity.what, parity.boxes, parity.matched = "classes", len(ours), int(same.sum())
    parity.borderline, parity.unmatched = int((tied & ~same).sum()), int((~tied & ~same).sum())
    if parity.unmatched:
        parity.faults.append(f"{parity.unmatched} of {len(ours)} images are of another class")


def _compare_raw(ours: Tensor, theirs: Tensor, parity: Parity, limits: Limits, classes: int) -> None:
    """Fill in the differences before NMS; outputs have the shape (images, 4 + classes + more, anchors)."""
    differences: dict[str, tuple[float, float]] = {}
    for name, channels in (("box", slice(0, 4)), ("score", slice(4, 4 + classes)), ("other", slice(4 + classes, None))):
        if not ours[:, channels].numel():
            continue
        differences[name] = _relative(ours[:, channels], theirs[:, channels], _LEAST_RANGE.get(name, 0.1))
        relative = differences[name][1]
        if relative > limits.raw:
            parity.faults.append(
                f"raw {name} outputs differ by {relative:.1e} of their range (allowed {limits.raw:.0e})"
            )
    parity.box_absolute, parity.box_relative = differences["box"]
    parity.score_absolute, parity.score_relative = differences.get("score", (None, None))
    parity.rest_relative = differences["other"][1] if "other" in differences else None


def _compare_final(ours: Tensor, theirs: Tensor, parity: Parity, limits: Limits, thresholds: Sequence[float]) -> None:
    """Fill in everything from final boxes (images, n, 6 + more): scores by rank, for boxes are ordered by them.

    The threshold of confidence is the one knife edge here: a box that stands below it on the other side is borderline.
    """
    scores = [side[..., 4].sort(dim=1, descending=True).values for side in (ours, theirs)]
    parity.score_absolute = float((scores[0] - scores[1]).abs().max())
    parity.score_relative = parity.score_absolute / max(float(scores[0].max() - scores[0].min()), _LEAST_RANGE["score"])
    parity.confidence = next((c for c in thresholds if float(scores[0].max()) > c), thresholds[-1])
    parity.box_absolute, first = 0.0, ""
    for image, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        sure = a[a[:, 4] > parity.confidence], b[b[:, 4] > parity.confidence]
        left = _match(sure[0], sure[1], limits)
        parity.boxes += len(sure[0])
        parity.matched += len(sure[0]) - len(left[0])
        same = _same(sure[0][:, None], b[None], limits)
        off = (sure[0][:, None, :4] - b[None, :, :4]).abs().amax(-1).where(same, torch.inf)
        corner_distances = [value for value in off.amin(1).tolist() if math.isfinite(value)] if len(off) else []
        parity.box_absolute = max([parity.box_absolute, *corner_distances])
        for free, boxes, other, side in ((left[0], sure[0], b, "torch"), (left[1], sure[1], a, "the artifact")):
            for index in free:
                if bool(_same(boxes[index], other, limits).any()):
                    parity.borderline += 1
                    continue
                parity.unmatched += 1
                first = first or _told(boxes[index], side, image)
    parity.box_relative = parity.box_absolute / max(
        float(ours[..., :4].max() - ours[..., :4].min()), _LEAST_RANGE["box"]
    )
    for names, relative in (("boxes", parity.box_relative), ("scores", parity.score_relative)):
        if relative > limits.raw:
            parity.faults.append(f"final {names} differ by {relative:.1e} of their range (allowed {limits.raw:.0e})")
    if parity.unmatched:
        parity.faults.append(f"{parity.unmatched} final boxes without a partner, the first: {first}")


def _told(box: Tensor, side: str, image: int) -> str:
    """A box (6 or more,) in words."""
    x1, y1, x2, y2, score, kind = box[:6].tolist()
    return f"class {kind:.0f} ({x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}) score {score:.3f} of {side}, image {image + 1}"


def _compare_boxes(ours: Tensor, theirs: Tensor, parity: Parity, limits: Limits, classes: int, rotated: bool) -> None:
    """Fill in the matching after NMS, at the first threshold that leaves any box at all."""
    for confidence in _THRESHOLDS:
        parity.confidence = confidence
        finals = inference.nms(ours, confidence, classes, rotated), inference.nms(theirs, confidence, classes, rotated)
        if any(len(boxes) for boxes, _ in (*finals[0], *finals[1])):
            break
    first = ""
    for image, (a, b) in enumerate(zip(*finals, strict=True)):
        free_a, free_b = _match(a[0], b[0], limits, rotated)
        parity.boxes += len(a[0])
        parity.matched += len(a[0]) - len(free_a)
        for free, (boxes, anchors), raw, side in (
            (free_a, a, theirs[image], "torch"),
            (free_b, b, ours[image], "the artifact"),
        ):
            for index in free:
                if _stands_before_nms(boxes[index], int(anchors[index]), raw, limits, rotated):
                    parity.borderline += 1
                    continue
                parity.unmatched += 1
                first = first or _told(boxes[index], side, image)
    if parity.unmatched:
        parity.faults.append(f"{parity.unmatched} final boxes without a partner, the first: {first}")


def _match(ours: Tensor, theirs: Tensor, limits: Limits, rotated: bool = False) -> tuple[list[int], list[int]]:
    """Pair final boxes (n, 6 + more) of one image, best score first; return the indices left over on each side.

    The first partner will do: two boxes of one class that overlap that much do not both survive NMS.
    """
    same = _same(ours[:, None], theirs[None], limits, rotated)
    left, free = [], list(range(len(theirs)))
    for i in range(len(ours)):
        partner = next((j for j in free if same[i, j]), None)
        if partner is None:
            left.append(i)
        else:
            free.remove(partner)
    return left, free


def _same(a: Tensor, b: Tensor, limits: Limits, rotated: bool = False) -> Tensor:
    """Tell which boxes (..., 6 + more) are one and the same; shapes broadcast."""
    close = (a[..., :4] - b[..., :4]).abs().amax(-1) <= CORNER
    if rotated:
        close = close & ((a[..., 6] - b[..., 6]).abs() <= 0.01)
        overlapping = _overlap_rotated(a, b) > limits.iou
    else:
        low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:4], b[..., 2:4])
        shared = (high - low).clamp(min=0).prod(-1)
        both = (a[..., 2:4] - a[..., :2]).prod(-1) + (b[..., 2:4] - b[..., :2]).prod(-1) - shared
        overlapping = shared > limits.iou * both
    return (overlapping | close) & ((a[..., 4] - b[..., 4]).abs() <= limits.score) & (a[..., 5] == b[..., 5])


def _overlap_rotated(a: Tensor, b: Tensor) -> Tensor:
    """The host's measure of overlap of rotated boxes (x, y, w, h, score, class, angle): (n, 1, 7) and (1, m, 7), or one
    of each.
    """
    columns = [0, 1, 2, 3, 6]
    overlap = inference.overlap_rotated(*(boxes.reshape(-1, boxes.shape[-1])[:, columns] for boxes in (a, b)))
    return overlap.reshape(torch.broadcast_shapes(a.shape, b.shape)[:-1])


def _stands_before_nms(box: Tensor, anchor: int, raw: Tensor, limits: Limits, rotated: bool) -> bool:
    """Tell whether the other side's raw output (4 + classes + more, anchors) has this final box at its anchor."""
    place = raw[:4, anchor] if rotated else inference.corners(raw[None, :4, anchor])[0]
    there = torch.cat([place, raw[4 + int(box[5]), anchor, None], box[5:6]])
    if rotated:
        there = torch.cat([there, raw[-1:, anchor]])
    return bool(_same(box, there, limits, rotated))
