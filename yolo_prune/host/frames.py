# yolo-prune, AGPL-3.0 license
"""Images of training in the grey frame that the host validates in, see canvases.py.

The host scales images of training at random (`scale=0.5`), and one that was made smaller lies in grey. So a network
learns that grey borders mean small objects, and makes boxes too small where an image lies in a frame at its full size.
Where some images of training lie in such a frame, at their full size, a frame says nothing (docs/decisions/0030).
Images that are not square lie in grey at their full size anyway, in the bars that make them square, and are left as
they are (docs/decisions/0031).

Read in ultralytics 8.4.190: engine/trainer.py (`_do_train` calls `preprocess_batch` once for each batch),
data/augment.py (`Format`: boxes and keypoints are shares of the canvas, masks are `mask_ratio` times smaller,
`ori_shape` is that of the file, of a mosaic that of its first file; `LetterBox`: the grey).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from ultralytics import RTDETR

from yolo_prune.host.checkpoint import family

GREY = 114 / 255
TASKS = ("detect", "segment", "pose", "obb")  # whose images the host validates in a frame
_STOCK = "yolo_prune_stock_preprocess"  # attribute of a trainer: its own `preprocess_batch`, while ours stands there


def every_second(trainer: Any, network: nn.Module, on: bool) -> None:
    """Lay every second batch of square images in a frame from now on, the first one not; or none any more.

    Asked again it counts from the first batch: an epoch of a resumed run has the batches that it would have had.

    Args:
        trainer: the host's. network: the model that is pruned, see `run.student_of`. on: whether to. Where the host
            validates without frames (RT-DETR, other tasks) or rectangles are asked for (`rect=True`), nothing is
            changed.
    """
    stock = getattr(trainer, _STOCK, None)
    if stock is not None:
        trainer.preprocess_batch = stock
        delattr(trainer, _STOCK)
    if not on or not _has_frames(trainer, network):
        return
    stock, seen = trainer.preprocess_batch, [0]

    def framed(batch: dict[str, Any]) -> dict[str, Any]:
        seen[0] += 1
        found, border = stock(batch), int(trainer.stride) // 2
        return lay(found, border) if seen[0] % 2 == 0 and without_bars(found, border) else found

    setattr(trainer, _STOCK, stock)
    trainer.preprocess_batch = framed


def without_bars(batch: dict[str, Any], border: int) -> bool:
    """Whether most images of a batch fill its canvas: they are square, or the bars that make them so are narrow.

    Args:
        batch: of the host: `img` (b, 3, h, w), `ori_shape` b pairs of height and width; a data set of the user's own
            may have none, and is left as it is. border: pixels; a bar of that width is one.
    """
    side = max(batch["img"].shape[2:])
    bars = [side * (1 - min(shape) / max(shape)) / 2 for shape in batch.get("ori_shape", ())]
    return 2 * sum(bar < border for bar in bars) > len(bars)


def lay(batch: dict[str, Any], border: int) -> dict[str, Any]:
    """Lay the images of a batch in a grey frame, at their size, and move what their labels say.

    Args:
        batch: of the host, preprocessed: `img` (b, 3, h, w), 0 to 1; `bboxes` (n, 4 or 5), centre, width and height as
            shares of the canvas; where the task has them, `keypoints` (n, k, 2 or 3) in such shares, and `masks` and
            `sem_masks` (any, h / r, w / r). border: pixels on each side.

    Returns:
        The batch, with other tensors in these places.
    """
    height, width = batch["img"].shape[2:]
    found = {**batch, "img": functional.pad(batch["img"], [border] * 4, value=GREY)}
    whole = torch.tensor([width, height], dtype=batch["bboxes"].dtype, device=batch["bboxes"].device)

    def moved(points: torch.Tensor) -> torch.Tensor:
        return (points * whole + border) / (whole + 2 * border)

    boxes = batch["bboxes"].clone()
    boxes[:, :2] = moved(boxes[:, :2])
    boxes[:, 2:4] = boxes[:, 2:4] * whole / (whole + 2 * border)
    found["bboxes"] = boxes
    if "keypoints" in batch:
        points = batch["keypoints"].clone()
        points[..., :2] = moved(points[..., :2])
        found["keypoints"] = points
    for name in ("masks", "sem_masks"):
        if name in batch:
            rows, columns = batch[name].shape[-2:]
            sides = [border * columns // width] * 2 + [border * rows // height] * 2
            found[name] = functional.pad(batch[name], sides)
    return found


def _has_frames(trainer: Any, network: nn.Module) -> bool:
    return trainer.args.task in TASKS and not trainer.args.rect and family(network) is not RTDETR
