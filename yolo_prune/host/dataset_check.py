# yolo-prune, AGPL-3.0 license
"""Is this data set one for this model? Asked before a model is cut or measured by it.

A training is another matter: there the host lets class count and input follow the data.

Read in ultralytics 8.4.190: data/dataset.py (images whose labels are wrong are left out, with a warning each) and
data/utils.py (`verify_image_label`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.data.utils import img2label_paths

from yolo_prune import log
from yolo_prune.errors import PruneError
from yolo_prune.host import datasets
from yolo_prune.host.model_facts import task_of

_OUTLINED = {"segment": "outlines", "obb": "rotated boxes (four corners)"}
_BOXES = ("detect", "segment", "pose", "obb")  # tasks whose labels are lines of numbers


def require(network: nn.Module, data: str | Path, splits: Sequence[str] = ("train", "val")) -> None:
    """Raise unless a data set has what the model was made for.

    Args:
        network: a stock model. data: what the host's data= takes. splits: those that will be read.

    Raises:
        PruneError: there is no such data set, a split is missing or empty, its classes, its images' channels or its
            keypoints are not the model's, labels name classes that it does not have, or there are none of the task.
    """
    task = task_of(network)
    validator = datasets.opened(network, data)
    info: dict[str, Any] = validator.data
    yaml: dict[str, Any] = getattr(network, "yaml", None) or {}
    pairs = [("classes", info.get("nc"), len(getattr(network, "names", ())) or yaml.get("nc"))]
    if task == "depth" or datasets.is_single_class(network):
        pairs = []
    pairs.append(("image channels", info.get("channels", 3), yaml.get("channels", 3)))
    if task == "pose":
        pairs.append(("keypoints (kpt_shape)", info.get("kpt_shape"), yaml.get("kpt_shape")))
    faults = [
        f"has {given} {what} and the model {own}"
        for what, given, own in pairs
        if None not in (given, own) and _plain(given) != _plain(own)
    ]
    if faults:
        faults += _other_labels(validator, network, data, splits[0])
        raise PruneError(
            f"data={data} {', and '.join(faults)}: what is measured on it says nothing of this model. "
            "Name the data set that it was trained on"
        )
    if pairs[0][0] == "classes":
        _warn_of_other_names(network, info, f"data={data}")
    for split in splits:
        if not info.get(split):
            raise PruneError(f"data={data} has no {split} split, which is needed here")
        dataset = datasets.of_split(validator, network, data, split)
        if not len(dataset):  # type: ignore[arg-type]
            raise PruneError(f"data={data}: there is no image in its {split} split ({info[split]})")
        if task in _BOXES and hasattr(dataset, "labels"):
            _labels(dataset, task, f"data={data}", split, info)


def _warn_of_other_names(network: nn.Module, info: dict[str, Any], name: str) -> None:
    """Say that classes are called otherwise, or stand in another order: then what is measured may be of others."""
    own, given = (dict(enumerate(n)) if isinstance(n, (list, tuple)) else dict(n or {}) for n in _names(network, info))
    if all(str(label).isdigit() for label in own.values()):
        return  # the host's stand-ins, of a model that no data has named yet
    other = [i for i in own if i in given and str(own[i]) != str(given[i])]
    if other:
        first = other[0]
        log.warn(
            f"{name} calls class {first} {given[first]!r} and the model {own[first]!r} ({len(other)} of {len(own)} "
            "differ): if these are other classes, what is measured on it says nothing of this model"
        )


def _names(network: nn.Module, info: dict[str, Any]) -> tuple[Any, Any]:
    return getattr(network, "names", None), info.get("names")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _labels(dataset: Any, task: str, name: str, split: str, info: dict[str, Any]) -> None:
    files = dataset.get_img_files(info[split])
    used = set(dataset.im_files)
    wrong: list[tuple[int, str]] = []  # the highest class, and the file
    for file, label in zip(files, img2label_paths(files), strict=True):
        if file not in used:
            wrong += [(highest, label) for highest in [_highest(Path(label))] if highest >= info["nc"]]
    if wrong:
        raise PruneError(
            f"{name}: labels of {len(wrong)} of {len(files)} images in its {split} split name classes beyond its "
            f"{info['nc']}, such as {wrong[0][0]} in {wrong[0][1]}"
        )
    if not any(len(entry["cls"]) for entry in dataset.labels):
        raise PruneError(f"{name}: no image in its {split} split has a label, so nothing can be measured on it")
    if task in _OUTLINED and _are_boxes(dataset):
        raise PruneError(
            f"{name}: the labels of its {split} split are boxes alone, and a model of {task} needs {_OUTLINED[task]}"
        )


def _are_boxes(dataset: Any) -> bool:
    return not any(len(entry["segments"]) for entry in dataset.labels)


def _other_labels(validator: Any, network: nn.Module, data: str | Path, split: str) -> list[str]:
    """Of a data set that is refused already: that its labels are of another task as well, where they can be read."""
    task = task_of(network)
    if task not in _OUTLINED or not validator.data.get(split):
        return []
    try:
        boxes = _are_boxes(datasets.of_split(validator, network, data, split))
    except PruneError as error:  # newer hosts say it themselves (8.4.190, data/dataset.py)
        boxes = "not a detect dataset" in str(error)
    return [f"labels that are boxes alone, where a model of {task} needs {_OUTLINED[task]}"] if boxes else []


def _highest(label: Path) -> int:
    """The highest class that a label file names; -1 where it cannot be read as one."""
    try:
        return max(int(float(line.split()[0])) for line in label.read_text().splitlines() if line.strip())
    except (OSError, ValueError, UnicodeDecodeError):
        return -1
