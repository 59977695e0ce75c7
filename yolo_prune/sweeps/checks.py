# yolo-prune, AGPL-3.0 license
"""What a sweep is refused for before any work: its model, data, baselines and profiles, and each point's arguments.

One line says what is wrong. What cannot be known so early, such as a training that fails, is a line of its point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from yolo_prune import _startup, log
from yolo_prune.cost import model_size, profile_file
from yolo_prune.device import profile as profiles
from yolo_prune.device import runtimes
from yolo_prune.errors import NoisyError, PruneError
from yolo_prune.export import variants
from yolo_prune.graph import image_shape
from yolo_prune.host import baselines, checkpoint, dataset_check, datasets, trainable_check
from yolo_prune.host.model_facts import class_names, task_of
from yolo_prune.recipe import arguments, formats, schedule
from yolo_prune.recipe.bounds import BOUNDS
from yolo_prune.report import latency
from yolo_prune.shell import command
from yolo_prune.sweeps import points
from yolo_prune.sweeps.points import Point
from yolo_prune.sweeps.request import Request
from yolo_prune.training import preflight


@dataclass(frozen=True)
class Checked:
    """A request that can be begun: its image sizes and profiles are known, its baselines are files or yamls.

    `measured` are the names of models, as points name them, that know the classes of the data set before any training.
    """

    request: Request
    task: str
    network: nn.Module
    measured: frozenset[str]


def check(request: Request) -> Checked:
    """Check what can be known before the folder is looked at.

    Raises:
        PruneError: the model, the data set, a baseline, a profile or the format will not do.
    """
    _startup.require_on("for the trainings of a sweep need it")
    network, ckpt = checkpoint.load(request.model, safe=request.safe)
    checkpoint.require_supported(network, request.model)
    trainable_check.require(network, request.model)
    if ckpt.get("modelopt"):
        raise PruneError(f"model={request.model} was trained with quantize=8: name the model that it was trained from")
    task = task_of(network)
    _require_devices(request.devices)
    request = replace(request, data=datasets.converted(request.data))  # once, and not in each training
    _require_data(network, request)
    request = _with_single_class(network, request)
    request = replace(request, imgsz=_sizes(network, checkpoint.image_size(ckpt), request))
    request = _with_profiles(request)
    for line in doubts(request):
        log.warn(line)
    for path in request.profile_at.values():
        if reason := _unknown_to(path, network):
            raise PruneError(f"profile={path}: {reason}")
    found, measured = [], {request.model}
    for name in request.baselines:
        path, model = baselines.find(name, "baselines", request.safe)
        found.append(path)
        _require_alike(name, model, network, task)
        _require_sizes(name, model, request.imgsz)
        _warn_of_no_milliseconds(name, model, request)
        if Path(path).suffix == ".pt" and class_names(model) == class_names(network):
            measured.add(path)
    request = replace(request, baselines=tuple(found))
    _require_format(request)
    return Checked(request, task, network, frozenset(measured))


def _require_devices(names: Sequence[str]) -> None:
    """Raise where a GPU is named that is not there: each of its trainings would fail."""
    count = torch.cuda.device_count()
    absent = [name for name in names if (number := name.removeprefix("cuda:")).isdecimal() and int(number) >= count]
    if absent:
        there = f"the GPUs here are {', '.join(map(str, range(count)))}" if count else "torch sees no GPU here"
        raise PruneError(f"devices={','.join(absent)}: {there}; without devices= the host chooses")


def _sizes(network: nn.Module, own: int | None, request: Request) -> tuple[int, ...]:
    """The image sizes of a request in steps of the model, first the one that all others are compared with.

    That is the size that the model was trained at; where it is not among them the largest. Where it was not given
    first, a line says so.

    Args:
        own: pixels that the checkpoint was trained at; None where it does not say.
    """
    own = None if own is None else image_shape.rounded(network, own)
    given = request.imgsz or (own or model_size.IMAGE,)
    sizes = tuple(dict.fromkeys(image_shape.rounded(network, size) for size in given))
    first = own if own in sizes else max(sizes)
    if first != sizes[0]:
        trained = f"{Path(request.model).name} was trained at"
        largest = f"the largest of these ({trained} {own or 'no known size'})"
        why = f"the size that {trained}" if first == own else largest
        log.show(f"imgsz={','.join(map(str, sizes))}: all is compared with the model itself at {first} pixels, {why}")
    return (first, *(size for size in sizes if size != first))


def _require_data(network: nn.Module, request: Request) -> None:
    try:
        dataset_check.require(network, request.data)
    except PruneError as error:
        if "and the model" not in str(error):
            raise
        raise PruneError(
            f"{error}; or train it there first, and sweep what that leaves: "
            f"{command(['yolo', 'train', f'model={request.model}', f'data={request.data}'])}"
        ) from None


def _with_single_class(network: nn.Module, request: Request) -> Request:
    """The request whose trainings are all of one class where that of the model was; baselines do not know it."""
    if not datasets.is_single_class(network):
        return request
    if request.settings.get("single_cls") is False:
        raise PruneError(
            f"single_cls=False: model={request.model} was trained with single_cls=True, and all are compared with it; "
            "leave single_cls= out, or train the model without it first"
        )
    return replace(request, settings={**request.settings, "single_cls": True})


def _require_alike(name: str, model: nn.Module, network: nn.Module, task: str) -> None:
    """Raise unless a baseline does the task of the model, on images of as many channels."""
    checkpoint.require_supported(model, name)
    own = task_of(model)
    if own != task:
        raise PruneError(f"baselines={name} is of task {own} and the model of {task}: name one of the same task")
    channels = image_shape.channels(network), image_shape.channels(model)
    if channels[0] != channels[1]:
        raise PruneError(f"baselines={name} takes images of {channels[1]} channels and the model of {channels[0]}")


def _require_sizes(name: str, model: nn.Module, sizes: Sequence[int]) -> None:
    """Raise where a baseline takes no images of a size: the host would train it at another one."""
    step = image_shape.step(model)
    wrong = [size for size in sizes if size % step]
    if wrong:
        right = ",".join(str(image_shape.rounded(model, size)) for size in sizes)
        raise PruneError(
            f"baselines={name} takes images of multiples of {step} pixels, which {', '.join(map(str, wrong))} is not: "
            f"imgsz={right}, or leave it out"
        )


def _unknown_to(profile: str, model: nn.Module) -> str | None:
    """Why a device profile, a file that can be read, has no milliseconds for a model; None where it has them."""
    try:
        model_size.latency_of(model, profile_file.read(profile))
    except PruneError as error:
        return str(error)
    return None


def _warn_of_no_milliseconds(name: str, model: nn.Module, request: Request) -> None:
    """Say of a baseline, before it is trained, that the profiles predict nothing for it."""
    for path in request.profile_at.values():
        if reason := _unknown_to(path, model):
            log.warn(
                f"baselines={name} will have no milliseconds, and is in no recommendation: profile={path}: "
                f"{reason.partition(';')[0]}. To compare the two, sweep on the device itself, without profile="
            )
            return


def _with_profiles(request: Request) -> Request:
    """The request with its device profiles by the size that they were measured at; they are of one runtime."""
    by_size: dict[int, str] = {}
    kinds: dict[tuple[str, str], str] = {}
    for path in request.profile:
        with _named_as_given():
            device = profile_file.read(path)
        if device.imgsz in by_size:
            raise PruneError(f"profile={path} and {by_size[device.imgsz]} are both of {device.imgsz} pixels: give one")
        if device.imgsz not in request.imgsz:
            sizes = ", ".join(map(str, request.imgsz))
            raise PruneError(
                f"profile={path} was measured at {device.imgsz} pixels and the models are of {sizes}: measure the "
                f"device at that, or say imgsz={device.imgsz}"
            )
        by_size[device.imgsz] = path
        kinds[device.format, device.precision] = path
    if len(kinds) > 1:
        raise PruneError(f"profile={','.join(kinds.values())}: they are of several runtimes or precisions: give one's")
    missing = [size for size in request.imgsz if by_size and size not in by_size]
    if missing and any(cost == "latency" for cost, _ in request.bounds):
        raise PruneError(
            f"latency= with profile= of {', '.join(map(str, by_size))} pixels alone: the device was not measured at "
            f"{', '.join(map(str, missing))}; add a profile of that, or leave the size out of imgsz="
        )
    if missing:
        log.warn(
            f"no profile= is of {', '.join(map(str, missing))} pixels: these points have no milliseconds; profile= "
            "takes several files, one a size"
        )
    if not kinds:
        return request
    ((kind, precision),) = kinds
    if request.format not in (None, kind):
        raise PruneError(f"format={request.format} and profile={request.profile[0]}, which is of {kind}: give one")
    return replace(request, profile_at=by_size, format=kind, base=precision)


def doubts(request: Request) -> list[str]:
    """Why the milliseconds of device profiles are not to be trusted, a line for each reason."""
    return [
        f"profile={path}: {line}"
        for path in request.profile_at.values()
        for line in latency.doubts(profile_file.read(path))
    ]


def _require_format(request: Request) -> None:
    """Raise where artifacts cannot be made and timed here, unless a profile predicts their milliseconds."""
    offered = formats.FORMATS[request.kind].precisions
    if absent := [precision for precision in request.precisions if precision not in offered]:
        raise PruneError(f"quantize= with {request.kind}: it has no {', '.join(absent)}, but {' and '.join(offered)}")
    if request.profile:
        _require_int8(request)
        return
    if formats.FORMATS[request.kind].gpu:
        runtimes.require(request.kind)
    made, skipped = variants.possible([request.kind], list(request.precisions))
    if len(made) < len(request.precisions):
        raise PruneError(" | ".join(skipped.values()))


def _require_int8(request: Request) -> None:
    """Raise where INT8 is asked for, and cannot be made and run here: unlike FP32's, its metric is that of the file."""
    if "int8" not in request.precisions:
        return
    packages = formats.missing(request.kind, "int8")
    no_gpu = formats.FORMATS[request.kind].gpu and not torch.cuda.is_available()
    if not packages and not no_gpu:
        return
    of_profile = request.base == "int8"
    given = f"profile={request.profile[0]} is of {request.kind} in" if of_profile else f"quantize=8: {request.kind} in"
    lacks = ["an NVIDIA GPU"] * no_gpu + packages
    right = f"pip install {' '.join(packages)}" if not no_gpu else "sweep on the device itself"
    other = "give a profile of FP32 or FP16" if of_profile else "leave quantize=8 out"
    raise PruneError(
        f"{given} INT8, whose metric is measured on the exported file, for which {', '.join(lacks)} is missing here: "
        f"{right}, or {other}"
    )


def check_points(checked: Checked, folder: Path) -> list[Point]:
    """The points of a request, each with arguments that a training would begin with.

    Args:
        folder: of the sweep; where a latency is bound and no profile given, this machine is measured into it.

    Raises:
        PruneError: an argument of a training is wrong, or a bound is out of reach.
    """
    request = checked.request
    every = points.of(request)
    with _named_as_given():
        for point in every:
            if point.cut is not None:
                _require_cut(checked, point, folder)
    own = dict(word.split("=", 1) for word in points.words(every[0], request))
    settings = {**own, **request.settings, "epochs": max(request.epochs, 1), "imgsz": request.imgsz[0]}
    settings["patience"] = request.settings.get("patience", 100)
    baselines.require_settings({key: value for key, value in settings.items() if not key.startswith("prune_")})
    if any(point.teacher for point in every):
        baselines.require_settings({"distill_model": request.model})
    if request.epochs:
        _say_left_out(request.recipe)
    return every


def _say_left_out(recipes: Sequence[str]) -> None:
    """Say of recipes what no training of a sweep does (worker.py), though they ask for it."""
    for name in recipes:
        wanted = arguments.load(name)
        if idle := [f"{key}:" for key, value in (("deploy", wanted.deploy), ("qat", wanted.qat)) if value]:
            words = f"{' and '.join(idle)} {'are' if idle[1:] else 'is'} left out"
            log.show(f"recipe={name}: its {words}, for a sweep exports and times all models alike at its end")


@contextmanager
def _named_as_given() -> Iterator[None]:
    """Call what a sweep varies as its own arguments are called: flops=, and not prune_flops=."""
    try:
        yield
    except PruneError as error:
        text = re.sub(rf"\bprune_({'|'.join((*BOUNDS, 'importance', 'profile'))})\b", r"\1", str(error))
        raise type(error)(text) from None


def _require_cut(checked: Checked, point: Point, folder: Path) -> None:
    request = checked.request
    assert point.cut is not None
    profile = point.cut.get("prune_profile")
    if profile and not Path(profile).exists() and profile not in request.profile:
        _measure(checked, point.imgsz, Path(profile), folder)
    wanted = arguments.from_arguments({**point.cut, "epochs": request.epochs or None})
    assert wanted is not None
    if not request.epochs and wanted.max_drop is not None:
        raise PruneError(f"recipe={wanted.name}: its max_drop is of a training, and epochs=0 has none")
    if request.epochs:
        schedule.step_epochs(wanted, request.epochs)
        preflight.max_drop({}, wanted)
    preflight.model(checked.network, wanted, request.model, 1.0, request.settings.get("freeze"), point.imgsz)


def _measure(checked: Checked, imgsz: int, target: Path, folder: Path) -> None:
    """Measure this machine at one image size, for the bounds on latency."""
    request = checked.request
    log.show(f"no profile= is given: measuring this machine at {imgsz} pixels for latency=, a minute or two")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        profiles.profile(request.model, request.kind, imgsz, str(target), threads=request.threads, safe=request.safe)
    except NoisyError as error:  # it is written; the next command would take it for good
        target.unlink(missing_ok=True)
        raise PruneError(
            f"latency=: this machine was too busy to be measured ({str(error).partition(': ')[2]}): give the same "
            "command again when nothing else runs, or a profile= of it"
        ) from None
