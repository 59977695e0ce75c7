# yolo-prune, AGPL-3.0 license
"""On which canvas a training validates its images: the host's, and that of an exported file.

The host lays images of validation into a grey frame: each side of a batch is rounded up to the stride and half of one
more, so that square images of 320 lie on 352 x 352 (ultralytics 8.4.190, data/base.py: `set_rectangle`; data/build.py:
`build_yolo_dataset`, pad=0.5). A file that is exported at 320 sees 320 x 320. In a frame networks make boxes smaller,
probably because they learn from scaled images (`scale=0.5`), of which small ones lie in one; so where objects are small
the epoch that is best with the frame may be a bad one without it (docs/decisions/0029).
"""

from __future__ import annotations

from typing import Any

from yolo_prune.host import every_training

EVENTS = ("on_pretrain_routine_end", "on_train_epoch_start")  # the loaders are made; they may have been made anew
# Of a dataset: what its `batch_shapes` were; of a trainer: what its `final_eval` was.
_ATTRIBUTE = "yolo_prune_before_canvases"


def mix(trainer: Any) -> int | None:
    """Let every second batch of the validation be seen as an exported file sees images; once for each loader.

    An epoch is the best only where it is good on both. Square images take no longer by it; of images of 16 to 9, which
    an exported file sees on a square as well, a validation has 1.3 times the pixels. The host's last validation, of
    best.pt, is on its own canvas again, as `yolo val` is.

    Args:
        trainer: the host's, with its loaders; after it ran out of memory it has new ones (engine/trainer.py,
            `_build_train_pipeline`).

    Returns:
        The side of the canvas, pixels; None where nothing was changed: it is so already, there are less than two
        batches, the task has no frames, or the user wants rectangles (`rect=True`).
    """
    loader = getattr(trainer, "test_loader", None)
    dataset: Any = getattr(loader, "dataset", None)
    shapes = getattr(dataset, "batch_shapes", None)
    framed = getattr(dataset, "rect", False) and getattr(dataset, "pad", 0) and not trainer.args.rect
    if not framed or shapes is None or len(shapes) < 2 or hasattr(dataset, _ATTRIBUTE):
        return None
    setattr(dataset, _ATTRIBUTE, shapes)
    dataset.batch_shapes = shapes.copy()
    dataset.batch_shapes[1::2] = dataset.imgsz
    _begin_anew(loader)
    if not hasattr(trainer, _ATTRIBUTE):
        setattr(trainer, _ATTRIBUTE, trainer.final_eval)
        trainer.final_eval = lambda: _final_eval(trainer)
    return int(dataset.imgsz)


def mix_in_all() -> None:
    """Mix in every training of this process, those that do not prune among them, so that all choose best.pt alike."""
    for event in EVENTS:
        every_training.add(event, mix)


def _final_eval(trainer: Any) -> None:
    """The host's, or what stands in its place, on the host's own canvas."""
    dataset = trainer.test_loader.dataset
    if hasattr(dataset, _ATTRIBUTE):
        dataset.batch_shapes = getattr(dataset, _ATTRIBUTE)
        delattr(dataset, _ATTRIBUTE)
        _begin_anew(trainer.test_loader)
    getattr(trainer, _ATTRIBUTE)()


def _begin_anew(loader: Any) -> None:
    """Its worker processes have copies of the dataset, and batches that are made ahead."""
    if hasattr(loader, "reset"):
        loader.reset()
