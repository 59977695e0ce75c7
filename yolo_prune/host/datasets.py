# yolo-prune, AGPL-3.0 license
"""Images to calibrate on: few, of the training split, without augmentation, as the host's val would show them.

They are of the training split because what is fitted to them must not have seen what the model is judged on.

Host internals, read in ultralytics 8.4.190: engine/validator.py (data sets and `preprocess`), data/base.py and
data/dataset.py (`build_transforms`, `collate_fn`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, default_collate
from ultralytics.data import utils
from ultralytics.data.augment import classify_transforms
from ultralytics.data.utils import check_cls_dataset, check_det_dataset

from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint, error_text, random_state
from yolo_prune.host.model_facts import task_of
from yolo_prune.host.run import Run

_BATCH = 8
_WHOLE = 640  # pixels: batches of larger images are smaller, for gradients on one take memory by its pixels
_PIXELS = 128 * 320 * 320  # of all images together: what one pass of a whole batch may hold in memory, and may take
_FEWEST, _MOST = 8, 256


def count(imgsz: int) -> int:
    """How many images of this size are enough, and not too many for memory."""
    return min(max(_PIXELS // imgsz**2, _FEWEST), _MOST)


def batches_together(imgsz: int) -> int:
    """How many batches of images of this size have as many images as one of small images: 1, 2, 4 or 8."""
    parts = 1
    while parts < _BATCH and imgsz**2 > parts * _WHOLE**2:
        parts *= 2
    return min(parts, _BATCH)


def read(network: nn.Module, data: str | Path, imgsz: int, images: int, split: str = "train") -> list[dict[str, Any]]:
    """Labelled batches of a data set, by default of its training split.

    Args:
        network: of which task they are. data: what the host's data= takes. imgsz: pixels. images: how many at most.
        split: "train" or "val".

    Raises:
        PruneError: the data set cannot be read.
    """
    validator = opened(network, data, imgsz)
    dataset = of_split(validator, network, data, split)
    with _one_line(network, data):
        return [validator.preprocess(batch) for batch in _batches(dataset, images, imgsz)]


def is_converted(data: str | Path) -> bool:
    """Whether the host makes a data set of it first: an NDJSON file, or what it fetches from the Platform (8.4.190,
    data/utils.py: `convert_ndjson_to_yolo_if_needed`)."""
    text = str(data)
    return text.partition("?")[0].endswith(".ndjson") or text.startswith(("ul://", "https://platform.ultralytics.com/"))


def is_single_class(network: nn.Module) -> bool:
    """Whether a model was trained with single_cls=True, for which all classes of a data set are one."""
    arguments = getattr(network, "args", None)
    single = arguments.get("single_cls") if isinstance(arguments, dict) else getattr(arguments, "single_cls", False)
    return bool(single)


def converted(data: str) -> str:
    """A data set as the host reads it: of what `is_converted` says the data set that it makes, all else as it is.

    Raises:
        PruneError: it cannot be made.
    """
    convert = getattr(utils, "convert_ndjson_to_yolo_if_needed", None)  # 8.4.0 has none
    if convert is None or not is_converted(data):
        return data
    try:
        return str(convert(data))
    except Exception as error:  # of the network, of the file, or of a package that is missing
        raise PruneError(
            f"data={data}: not a data set that ultralytics can read. {error_text.quoted(error)}"
        ) from error


def opened(network: nn.Module, data: str | Path, imgsz: int = 64) -> Any:
    """The host's validator of a model's task, which knows a data set as `.data` and has read no image of it.

    For a model that was trained with single_cls=True its labels are of one class.

    Raises:
        PruneError: the data set cannot be read.
    """
    task = task_of(network)
    # Its table of classes alone: YOLO(...) would build a model, which draws random numbers and, of pose, fails.
    classes = vars(checkpoint.family(network))["task_map"].fget(None)
    arguments = {"mode": "val", "task": task, "imgsz": imgsz, "rect": False, "workers": 0, "batch": _BATCH}
    arguments |= {"data": str(data), "device": "cpu", "single_cls": is_single_class(network)}
    with _one_line(network, data):
        with tempfile.TemporaryDirectory() as folder:  # a validator makes its folder of results, else in runs/
            validator = classes[task]["validator"](save_dir=Path(folder), args=arguments)
        validator.device, validator.stride = torch.device("cpu"), 32
        check = check_cls_dataset if task == "classify" else check_det_dataset
        validator.data = check(str(data))  # split= is newer than the oldest host, 8.4.0
    return validator


def of_split(validator: Any, network: nn.Module, data: str | Path, split: str) -> Dataset[Any]:
    """The host's data set of one split, of `opened`.

    Raises:
        PruneError: it cannot be read.
    """
    with _one_line(network, data):
        more = {} if task_of(network) == "classify" else {"mode": "val", "batch": _BATCH}
        dataset: Dataset[Any] = validator.build_dataset(validator.data[split], **more)
        return dataset


@contextmanager
def _one_line(network: nn.Module, data: str | Path) -> Iterator[None]:
    """The host has many errors for a data set that is not there or not whole."""
    try:
        yield
    except Exception as error:
        task = task_of(network)
        raise PruneError(
            f"data={data}: not a data set that ultralytics can read for {task}. {error_text.quoted(error)}"
        ) from error


def of_run(run: Run, images: int) -> list[dict[str, Any]]:
    """Labelled batches of the images that a run trains on, on its device.

    Args:
        run: with its data loader. images: how many at most.

    Raises:
        PruneError: its data set is none of the host's own.
    """
    dataset = copy(run.loader.dataset)  # labels are shared with it, its augmentation is not
    if hasattr(dataset, "torch_transforms"):
        dataset.torch_transforms = classify_transforms(size=run.image_size)
    elif hasattr(dataset, "build_transforms"):
        dataset.augment = dataset.rect = False
        dataset.transforms = dataset.build_transforms(run.arguments)
    else:
        raise PruneError(f"a {type(dataset).__name__} gives no images without augmentation")
    with random_state.drawing_apart():
        batches = _batches(dataset, images, run.image_size)
    for batch in batches:
        pixels = batch["img"]
        batch["img"] = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        for key, value in batch.items():
            batch[key] = value.to(run.device) if isinstance(value, torch.Tensor) else value
    return batches


def pixels(batches: list[dict[str, Any]]) -> torch.Tensor:
    """The images of some batches, (n, channels, imgsz, imgsz), as many as `count` says, spread evenly."""
    images = torch.cat([batch["img"] for batch in batches])
    few = min(len(images), count(images.shape[-1]))
    return images[torch.linspace(0, len(images) - 1, few).round().long()]


def fewer(batches: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """Some of the batches, spread evenly, with about so many images at most."""
    most = max((len(batch["img"]) for batch in batches), default=1)
    count = min(len(batches), max(1, images // most))
    return [batches[pick] for pick in np.linspace(0, len(batches) - 1, count).round().astype(int).tolist()]


def _batches(dataset: Dataset[Any], images: int, imgsz: int) -> list[dict[str, Any]]:
    """Images spread evenly over a data set, in batches."""
    size = _BATCH // batches_together(imgsz)
    total = len(dataset)  # type: ignore[arg-type]
    picks = np.unique(np.linspace(0, total - 1, min(images, total)).round().astype(int)).tolist()
    collate = getattr(dataset, "collate_fn", default_collate)
    return [collate([dataset[pick] for pick in picks[start : start + size]]) for start in range(0, len(picks), size)]
