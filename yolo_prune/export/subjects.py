# yolo-prune, AGPL-3.0 license
"""The models of an export: the one that is asked for, and the dense one that it is compared with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_prune.cost import model_size
from yolo_prune.cost.file_size import DEFAULT
from yolo_prune.cost.model_size import Size
from yolo_prune.device.timing import Ratio, Timing
from yolo_prune.errors import PruneError
from yolo_prune.graph import image_shape
from yolo_prune.host import checkpoint, dataset_check, dataset_file, model_facts, silence
from yolo_prune.host.spec_key import noted


@dataclass
class Subject:
    """One model on its way: `role` is "pruned" or "model", and "dense" for the one it is compared with.

    `deployed` are its GFLOPs as it is exported.
    `trained_int8` says that it comes of a training with quantize=8 (QAT), which the host exports in INT8 alone.
    """

    role: str
    path: Path
    network: Any  # a stock model
    ckpt: dict[str, Any]
    size: Size
    deployed: float | None
    trained_int8: bool = False
    same_classes: bool = True  # as the model that it is compared with
    staged: Path = Path()
    metrics: tuple[float, float] | None = None
    timing: Timing | None = None
    speed: Ratio | None = None  # over the dense model, of the pruned one

    @property
    def task(self) -> str:
        """The task of the model, as the host names it."""
        return model_facts.task_of(self.network)

    @property
    def class_names(self) -> list[str]:
        """The classes of the model in the order of their numbers."""
        return model_facts.class_names(self.network)

    @property
    def image_channels(self) -> int:
        """How many channels its images have."""
        return image_shape.channels(self.network)

    @property
    def is_single_class(self) -> bool:
        """Whether it was trained with single_cls=True."""
        return bool(model_facts.train_arguments(self.ckpt).get("single_cls"))


def load(path: Path, role: str | None, safe: bool) -> Subject:
    """Load a checkpoint. role: "dense", or None for the model that is asked for."""
    network, ckpt = checkpoint.load(path, "model" if role is None else role, safe)
    checkpoint.require_supported(network, str(path))
    own = "pruned" if noted(network) else "model"
    size = model_size.size_of(network)  # before quantizers: what counts FLOPs does not know their layers
    deployed = model_size.deployed_size(network, DEFAULT).gflops
    with silence.quiet():
        trained_int8 = checkpoint.requantize(network, ckpt, path)
    return Subject(role or own, path, network, ckpt, size, deployed, trained_int8)


def check_same_kind(subjects: list[Subject]) -> str | None:
    """Raise unless the dense model does what the other one does: the same task, on images of as many channels.

    Returns:
        What is left out where it has other classes: then latency and size alone can be compared.
    """
    first, main = subjects[0], subjects[-1]
    if first is not main and first.path.resolve() == main.path.resolve():
        raise PruneError(f"dense={first.path} is the model itself; name the one that it was pruned from")
    if first.task != main.task:
        raise PruneError(f"dense={first.path} is of task {first.task} and {main.path} of {main.task}")
    channels = [subject.image_channels for subject in (first, main)]
    if channels[0] != channels[1]:
        raise PruneError(
            f"dense={first.path} takes images of {channels[0]} channels and {main.path} of {channels[1]}; name its "
            "parent"
        )
    names = [subject.class_names for subject in (first, main)]
    if names[0] == names[1]:
        return None
    first.same_classes = False
    counts = [str(len(own)) for own in names] if len(names[0]) != len(names[1]) else ["other", "its own"]
    return (
        f"dense={first.path} has {counts[0]} classes and {main.path} {counts[1]}: latency and size alone are compared, "
        "and no metric of the dense model is measured"
    )


def trained_longer(subjects: list[Subject]) -> str | None:
    """Why the metric of the dense model is no fair one: it is what the training that pruned began with.

    Read in ultralytics 8.4.190, engine/trainer.py: `save_model` (`train_args`).

    Returns:
        A sentence, or None where the dense model is another one, such as one that has trained for as long.
    """
    dense, main = subjects[0], subjects[-1]
    args = model_facts.train_arguments(main.ckpt)
    begun, epochs = args.get("model"), args.get("epochs")
    if main.role != "pruned" or not begun or Path(str(begun)).resolve() != dense.path.resolve():
        return None
    return (
        f"dense={dense.path} is what the training of {main.path} began with, and has not had its {epochs} epochs; what "
        "the cut costs is seen beside a model that has them as well: the same yolo train without prune="
    )


def check_dataset(data: str | Path, subjects: list[Subject]) -> None:
    """Read the data set as the host does, and check that it has the models' classes."""
    task = subjects[0].task
    classes_there = dataset_file.read(task, data)["nc"]
    for subject in subjects:
        if not subject.same_classes:
            continue
        classes = len(subject.network.names)
        if task != "depth" and classes != classes_there and not subject.is_single_class:
            raise PruneError(
                f"data={data} has {classes_there} classes and {subject.path} {classes}; they must be the same"
            )
    dataset_check.require(next(subject.network for subject in subjects if subject.same_classes), data, ["val"])


def image_side(main: Subject, imgsz: int | None) -> int:
    """The side of the input in pixels, rounded up to the model's stride as the host does."""
    return image_shape.said(main.network, imgsz or checkpoint.image_size(main.ckpt) or model_size.IMAGE)


def stage(subject: Subject, folder: Path) -> Path:
    """Copy a checkpoint into a folder of ours: the host writes beside the .pt, and may die half-way."""
    folder.mkdir()
    return Path(shutil.copyfile(subject.path, folder / subject.path.name))
