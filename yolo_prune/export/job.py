# yolo-prune, AGPL-3.0 license
"""`yolo-prune export`: export through the host, then prove that every artifact does what the torch model does.

The proof is a table, export.json and export.png: raw outputs and final boxes against torch (prove.py), the task's
metric of all of them by the host's val, and the latency of dense and pruned artifacts in turns (device/timing.py). A
format that cannot be made here is named and the others go on; an artifact that is broken, or slower than its dense
parent, ends the command with exit code 2; a machine that is too busy to say which is faster, with 3.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_prune import files, log, scratch
from yolo_prune.cost import model_size
from yolo_prune.cost.model_size import Size
from yolo_prune.device import runtimes, timing
from yolo_prune.device.timing import Ratio, Timing
from yolo_prune.errors import NoisyError, PruneError, VerifyError
from yolo_prune.export import artifact, compare, prove, table, tensorrt_kit
from yolo_prune.export.prove import LIMITS, Parity
from yolo_prune.graph import image_shape
from yolo_prune.host import checkpoint, dataset_check, dataset_file, exporter, inference, samples, validation
from yolo_prune.host.samples import Samples
from yolo_prune.recipe import formats, value_checks
from yolo_prune.surgery import widths
from yolo_prune.surgery.spec_key import SPEC_KEY

HOST_ARGUMENTS = ("dynamic", "fraction", "opset", "simplify", "workspace")  # that leave outputs comparable


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


@dataclass
class Result:
    """One artifact: what it is, and what was found.

    `speed` is over the dense FP32 artifact of the same format, `alike` over the dense one of the same precision.
    """

    subject: Subject
    kind: str
    precision: str
    file: Path
    megabytes: float
    parity: Parity = field(default_factory=lambda: Parity(0))
    metrics: tuple[float, float] | None = None
    timing: Timing | None = None
    speed: Ratio | None = None
    alike: Ratio | None = None
    faults: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def export(
    model: str | Path,
    *,
    format: str | Sequence[str] = "onnx",  # noqa: A002 (the host's name for it)
    quantize: int | None = None,
    data: str | Path | None = None,
    dense: str | Path | None = None,
    imgsz: int | None = None,
    batch: int = 1,
    threads: int = 1,
    images: int = 8,
    repeats: int = 30,
    seconds: int = 20,
    out: str | Path | None = None,
    safe: bool = True,
    **host_args: Any,
) -> dict[str, Any]:
    """Export a checkpoint through the host, prove the artifacts against torch, print a table and write export.json.

    Args:
        model: a checkpoint of any supported family and task, pruned or not.
        format: names of formats.FORMATS, with commas between them. What cannot be made on this machine is named, and
            the others go on.
        quantize: 8 adds INT8 artifacts beside the FP32 ones, calibrated on `data`, where a format has them; 16 adds
            FP16. A model that was trained with quantize=8 is exported in INT8, as it learned it, and in nothing else.
        data: the data set for the task's metric (mAP), for the images of the comparison and for calibration; without
            it the metric is left out and images that the host ships, with drawings, are compared.
        dense: the checkpoint it was pruned from, to stand beside it in the table. Its artifacts are not kept.
        imgsz: side of the input in pixels; default: the one the model was trained with.
        batch: images a call of the artifact, and of what is timed.
        threads: CPU threads of what is timed, for every runtime and for torch.
        images: how many images to compare outputs on. repeats: timed calls of each model, at least; they go on until
            the speed-up is known to 3%. seconds: of timing for each format and precision, at most.
        out: folder for the artifacts, export.json and export.png; default: the model's.
        safe: refuse a checkpoint that holds more than classes of torch and ultralytics; False trusts it.
        host_args: arguments of the host's exporter, of `HOST_ARGUMENTS`.

    Returns:
        The content of export.json.

    Raises:
        PruneError: an argument, a checkpoint or the data set is wrong, or nothing of what was asked could be exported.
        VerifyError: an artifact differs from torch, could not be made, or is slower than its dense parent. The table is
            printed and export.json written before. NoisyError: the same, of artifacts that are proven and whose
            speed-up could not be told.
    """
    kinds = _formats(format)
    value_checks.whole(imgsz=imgsz, batch=batch, threads=threads, images=images, repeats=repeats, seconds=seconds)
    value_checks.switch(safe=safe)
    _check_host_arguments(host_args)
    source = value_checks.path("model", model, "best.pt")
    parent = None if dense is None else value_checks.path("dense", dense, "dense.pt")
    data = None if data is None else str(value_checks.path("data", data, "my.yaml"))
    out = None if out is None else value_checks.path("out", out, "exported")
    variants, skipped = _variants(kinds, _precision(quantize, data))
    subjects = [_load(source, None, safe)]
    if parent is not None:
        subjects.insert(0, _load(parent, "dense", safe))
    main = subjects[-1]
    if main.trained_int8:
        variants, skipped = _variants_of_trained(kinds, subjects, quantize, data)
    elif subjects[0].trained_int8:
        raise PruneError(f"dense={dense} was trained with quantize=8 and {source} was not: name the model before that")
    folder = _folder(source, out)
    note = _check_same_kind(subjects)
    if note:
        log.warn(note)
    if data is not None:
        with exporter.restrained():  # reading a data set may make the host want to install what unpacks it
            _check_dataset(data, subjects)
    for kind, precision in variants:
        suffix = formats.FORMATS[kind].suffix
        artifact.require_free(folder / _name(Path(source.stem + suffix), kind, precision), not suffix.startswith("."))
    side = _side(main, imgsz)
    for words in skipped.values():
        log.warn(words)
    for_device = ("onnx", "int8" if main.trained_int8 else "fp32")  # what the device builds its engine from
    if "engine" in kinds and for_device not in variants:
        variants.insert(0, for_device)

    before = torch.get_num_threads()
    results: list[Result] = []
    failed: dict[str, str] = {}
    kit: Path | None = None
    try:
        with scratch.folder() as place, exporter.restrained(safe):
            chosen = _samples(main, data, side, images)
            for subject in subjects:
                subject.staged = _stage(subject, place / subject.role)
            (folder / "export.json").unlink(missing_ok=True)  # an older one would prove the wrong files
            for kind, precision in variants:
                options = {"imgsz": side, "batch": batch, **host_args}
                if precision == "int8" and formats.FORMATS[kind].calibrated:
                    options |= {"data": str(data)}
                try:
                    made = [
                        _make(subject, kind, precision, place, options)
                        for subject in subjects
                        if precision == "int8" or not subject.trained_int8
                    ]
                    _prove(made, chosen.images, batch, threads)
                    if data is not None:
                        for result in made:
                            if result.subject.same_classes:
                                _validate(result, str(data), side, place)
                    log.show(f"timing {kind}, {precision}, {threads} thread(s), in turns, at most {seconds} s")
                    _time(made, results, (batch, *chosen.images.shape[1:]), threads, repeats, seconds)
                    if made[-1].subject is main:
                        made[-1].file = _place(made[-1], folder)  # last: what lies there was looked at
                    if "engine" in kinds and (kind, precision) == for_device:
                        kit = _kit(made, folder)
                except PruneError as error:
                    failed[f"{kind} {precision}"] = str(error)
                    log.warn(f"{kind}, {precision} failed; what was wrong is said at the end")
                    continue
                results += made
            if not any(result.subject is main for result in results):
                raise PruneError(" | ".join(failed.values()))
            if data is not None:
                for subject in subjects:
                    if subject.same_classes:
                        log.show(f"validating {subject.role} .pt on {data}")
                        subject.metrics = _figures(subject.staged, subject, str(data), side, place)
            _time_torch(subjects, chosen.images, batch, threads, repeats, seconds)
    except OSError as error:
        raise PruneError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error
    finally:
        torch.set_num_threads(before)  # the host sets it too, when it selects a device

    for result in results:
        _judge(result)
    record = table.record(
        subjects,
        results,
        {
            "model": str(source),
            "dense": None if dense is None else str(dense),
            "note": note,
            "format": kinds,
            "imgsz": side,
            "batch": batch,
            "threads": threads,
            "repeats": repeats,
            "seconds": seconds,
            "host_args": host_args,
            "data": None if data is None else str(data),
            "images": {"source": chosen.source, "names": chosen.names},
            "tensorrt": kit and kit.name,
            "skipped": skipped,
            "failed": failed,
        },
    )
    table.show(record)
    files.replace(folder / "export.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    files.replace(folder / "export.png", table.picture(record))
    if kit is not None:
        log.show(f"{kit.name} builds and times the engines on the device: copy {folder} there, python {kit.name}")
    log.show(
        f"saved {', '.join(row['file'] for row in record['rows'] if row['kept'])}, export.json, export.png in {folder}"
    )
    _raise_for(results, failed)
    doubts = [f"{one.file.name}: {words}" for one in results for words in one.doubts]
    if doubts:
        raise NoisyError(
            f"proven, but the machine was too busy to time: {' | '.join(doubts)}. Close what else runs, or give it "
            f"more time than seconds={seconds}",
            record,
        )
    return record


def _raise_for(results: list[Result], failed: dict[str, str]) -> None:
    broken = [
        f"{result.file.name} ({result.subject.role}): {'; '.join(result.faults)}" for result in results if result.faults
    ]
    broken += [f"{name}: {words}" for name, words in failed.items()]
    if broken:
        raise VerifyError(f"not proven, do not deploy it: {' | '.join(broken)}")


# Checks before any work -----------------------------------------------------------------------------------------------


def _formats(given: object) -> list[str]:
    """Read format=: one name, names with commas between them, or a list."""
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, (list, tuple)) or not words or not all(isinstance(word, str) for word in words):
        raise PruneError(f"format={value_checks.shown(given)} is not a format; supported: {', '.join(formats.FORMATS)}")
    aliases = {"tensorrt": "engine", "trt": "engine", "tflite": "litert"}  # as the host's
    names = [aliases.get(word.strip().lower(), word.strip().lower()) for word in words]
    others = [name for name in dict.fromkeys(names) if name not in formats.FORMATS]
    if others:
        verb = "is" if len(others) == 1 else "are"
        raise PruneError(
            f"format={','.join(others)} {verb} not proven by this version; supported: {', '.join(formats.FORMATS)}"
        )
    return list(dict.fromkeys(names))


def _precision(quantize: object, data: object) -> list[str]:
    """Read quantize=: the precisions that are asked for; FP32 is always the reference."""
    if quantize is None or quantize == 32:
        return ["fp32"]
    if isinstance(quantize, bool) or not isinstance(quantize, int) or quantize not in formats.QUANTIZE:
        raise PruneError(f"quantize={value_checks.shown(quantize)}: 8 (INT8) or 16 (FP16) is needed")
    if quantize == 8 and data is None:
        raise PruneError("quantize=8 is calibrated on images: name a data set with data=")
    return ["fp32", formats.QUANTIZE[int(str(quantize))]]


def _variants(kinds: list[str], precisions: list[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """What can be made here, as (format, precision), and of what cannot, why.

    Raises:
        PruneError: nothing can.
    """
    found, skipped = [], {}
    for kind in kinds:
        if formats.FORMATS[kind].gpu and not torch.cuda.is_available():
            skipped[kind] = (
                f"format={kind} is not made here: an engine is built on the NVIDIA GPU that it will run on. ONNX is "
                "exported, and a program beside it that builds and times the engine there"
            )
            continue
        for precision in precisions:
            packages = formats.missing(kind, precision)
            if precision not in formats.FORMATS[kind].precisions:
                skipped[f"{kind} {precision}"] = f"format={kind} has no {precision.upper()} in ultralytics: left out"
            elif packages:
                shown = kind if precision == "fp32" else f"{kind} in {precision.upper()}"
                skipped[f"{kind} {precision}"] = (
                    f"format={shown} needs {', '.join(packages)}, so it is left out: pip install {' '.join(packages)}"
                )
            else:
                found.append((kind, precision))
    if not found and ("engine" not in skipped or formats.missing("onnx")):
        raise PruneError(" | ".join(skipped.values()))
    return found, skipped


def _variants_of_trained(
    kinds: list[str], subjects: list[Subject], quantize: int | None, data: object
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The same for a model that was trained with quantize=8; of a dense one that was not, FP32 stands beside it."""
    main = subjects[-1]
    if quantize not in (None, 8):
        raise PruneError(
            f"quantize={quantize}: {main.path} was trained with quantize=8 and is exported in INT8 alone; leave it out"
        )
    if data is None:
        raise PruneError(f"{main.path} was trained with quantize=8, and INT8 is proven by its metric: name data=")
    able = [kind for kind in kinds if formats.FORMATS[kind].trained]
    if not able:
        names = " and ".join(name for name, one in formats.FORMATS.items() if one.trained)
        raise PruneError(
            f"format={','.join(kinds)}: {main.path} was trained with quantize=8, which only {names} can hold"
        )
    found, skipped = _variants(able, ["int8"] if subjects[0].trained_int8 else ["fp32", "int8"])
    for kind in kinds:
        if kind not in able:
            skipped[kind] = f"format={kind} cannot hold what a training with quantize=8 learned: left out"
    return found, skipped


def _check_host_arguments(given: dict[str, Any]) -> None:
    own = [name for name in signature(export).parameters if name != "host_args"]
    others = [
        f"{name}={value_checks.shown(value)}{value_checks.nearest(name, [*own, *HOST_ARGUMENTS])}"
        for name, value in given.items()
        if name not in HOST_ARGUMENTS
    ]
    if others:
        raise PruneError(
            f"{', '.join(others)}: not supported by this version, which proves artifacts without embedded NMS; "
            f"arguments that are handed to the host's exporter: {', '.join(HOST_ARGUMENTS)}"
        )


def _load(path: Path, role: str | None, safe: bool) -> Subject:
    network, ckpt = checkpoint.load(path, "model" if role is None else role, safe)
    checkpoint.require_supported(network, str(path))
    own = "pruned" if SPEC_KEY in getattr(network, "yaml", {}) else "model"
    size = model_size.size_of(network)  # before quantizers: what counts FLOPs does not know their layers
    deployed = model_size.deployed_gflops(network)
    with exporter.quiet():
        trained_int8 = checkpoint.requantize(network, ckpt, path)
    return Subject(role or own, path, network, ckpt, size, deployed, trained_int8)


def _folder(model: Path, out: str | Path | None) -> Path:
    """Find the folder to write to, and try it before the work: it is made, and nothing in it is in the way."""
    folder = model.parent if out is None else Path(out)
    files.require_folder("out", folder)
    for name in ("export.json", "export.png"):
        files.require_place("out", folder / name, name)
    return folder


def _check_same_kind(subjects: list[Subject]) -> str | None:
    """Raise unless the dense model does what the other one does: the same task, on images of as many channels.

    Returns:
        What is left out where it has other classes: then latency and size alone can be compared.
    """
    first, main = subjects[0], subjects[-1]
    if _task(first) != _task(main):
        raise PruneError(f"dense={first.path} is of task {_task(first)} and {main.path} of {_task(main)}")
    channels = [int(subject.network.yaml.get("channels", 3)) for subject in (first, main)]
    if channels[0] != channels[1]:
        raise PruneError(
            f"dense={first.path} takes images of {channels[0]} channels and {main.path} of {channels[1]}; name its "
            "parent"
        )
    names = [_names(subject) for subject in (first, main)]
    if names[0] == names[1]:
        return None
    first.same_classes = False
    counts = [str(len(found)) for found in names] if len(names[0]) != len(names[1]) else ["other", "its own"]
    return (
        f"dense={first.path} has {counts[0]} classes and {main.path} {counts[1]}: latency and size alone are compared, "
        "and no metric of the dense model is measured"
    )


def _check_dataset(data: str | Path, subjects: list[Subject]) -> None:
    """Read the data set as the host does, and check that it has the models' classes."""
    task = _task(subjects[0])
    classes_there = dataset_file.read(task, data)["nc"]
    for subject in subjects:
        if not subject.same_classes:
            continue
        classes = len(subject.network.names)
        if task != "depth" and classes != classes_there and not _single_class(subject):
            raise PruneError(
                f"data={data} has {classes_there} classes and {subject.path} {classes}; they must be the same"
            )
    dataset_check.require(next(subject.network for subject in subjects if subject.same_classes), data, ["val"])


def _names(subject: Subject) -> list[str]:
    """The classes of a model in the order of their numbers."""
    names = getattr(subject.network, "names", None) or {}
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def _task(subject: Subject) -> str:
    return str(getattr(subject.network, "task", "detect"))


def _single_class(subject: Subject) -> bool:
    return bool((subject.ckpt.get("train_args") or {}).get("single_cls"))


def _side(main: Subject, imgsz: int | None) -> int:
    """The side of the input in pixels, rounded up to the model's stride as the host does."""
    given = imgsz or (main.ckpt.get("train_args") or {}).get("imgsz") or model_size.IMAGE
    if isinstance(given, (list, tuple)):
        given = max(given)
    side = image_shape.rounded(main.network, int(given))
    if side != given:
        log.warn(f"imgsz={given} is not a multiple of {image_shape.step(main.network)}: {side} is exported")
    return side


# The host's exporter --------------------------------------------------------------------------------------------------


def _stage(subject: Subject, folder: Path) -> Path:
    """Copy a checkpoint into a folder of ours: the host writes beside the .pt, and may die half-way."""
    folder.mkdir()
    return Path(shutil.copyfile(subject.path, folder / subject.path.name))


def _make(subject: Subject, kind: str, precision: str, scratch: Path, arguments: dict[str, Any]) -> Result:
    """Export one model to one format."""
    log.show(f"exporting {subject.path} to {kind}, {precision}, at {arguments['imgsz']} x {arguments['imgsz']}")
    try:
        made = exporter.by_host(subject.staged, subject.network, kind, precision, **arguments)
        own = scratch / f"{subject.role}-{kind}-{precision}"  # two precisions of one format may have one name
        own.mkdir()
        file = Path(shutil.move(made, own / _name(made, kind, precision)))
        return Result(subject, kind, precision, file, round(artifact.megabytes(file), 3))
    except PruneError as error:
        raise PruneError(f"the export of {subject.path} failed. {error}") from error


def _name(made: Path, kind: str, precision: str) -> str:
    """What the host calls an artifact; with the precision where it does not say it."""
    suffix = formats.FORMATS[kind].suffix
    if precision == "fp32" or precision in made.name:
        return made.name
    stem = made.name.removesuffix(suffix)
    return f"{stem}_{precision}{suffix}"


def _place(result: Result, folder: Path) -> Path:
    """Put the artifact where the user wants it."""
    target = folder / result.file.name
    artifact.place(result.file, target)
    return target


def _kit(made: list[Result], folder: Path) -> Path:
    """Write the program that builds and times engines of the ONNX files on a device; the dense one goes along."""
    main = made[-1]
    found = {"pruned": main.file}
    if main.subject.trained_int8:  # its Q/DQ nodes are what TensorRT reads; those that onnxruntime calibrates are not
        return tensorrt_kit.write(folder, found, precision="int8", sparse=False)
    if made[0] is not main:
        found["dense"] = folder / f"{main.file.stem}-dense.onnx"
        artifact.place(made[0].file, found["dense"])
    sparse = widths.sparsity(main.subject.network) == "2:4"
    return tensorrt_kit.write(folder, found, precision="fp16", sparse=sparse)


# The proof ------------------------------------------------------------------------------------------------------------


def _samples(subject: Subject, data: str | Path | None, side: int, count: int) -> Samples:
    """Choose the images to compare on."""
    if data is None:
        return samples.without_data(int(subject.network.yaml.get("channels", 3)), side, count)
    return samples.from_data(subject.network, data, side, count)


def _batches(images: Tensor, batch: int) -> list[Tensor]:
    """Cut images (n, ...) into batches; the last one is filled up with its last image."""
    whole = [images[start : start + batch] for start in range(0, len(images), batch)]
    short = batch - len(whole[-1])
    if short:
        whole[-1] = torch.cat([whole[-1], whole[-1][-1:].expand(short, -1, -1, -1)])
    return whole


def _prove(made: list[Result], images: Tensor, batch: int, threads: int) -> None:
    """Compare raw outputs, and what the host makes of them, of each artifact with torch's."""
    for result in made:
        log.show(f"comparing {result.file.name} of {result.subject.path} with torch on {len(images)} images")
        end2end = bool(inference.metadata(result.file)["end2end"])
        calls = (
            compare.of_torch(result.subject.network, end2end, images.shape[-1], result.kind),
            compare.of_artifact(result.file, result.kind, result.precision, threads),
        )
        ours, theirs = (_by_image(call, images, batch) for call in calls)
        seen = compare.view(result.subject.network, end2end, images.shape[-1])
        result.parity = prove.compare(ours, theirs, seen, LIMITS[result.precision])


def _by_image(call: compare.Call, images: Tensor, batch: int) -> list[list[Tensor]]:
    """All outputs of each image."""
    found: list[list[Tensor]] = []
    for part in _batches(images, batch):
        found += [list(one) for one in zip(*(output.clone() for output in call(part)), strict=True)]
    return found[: len(images)]


def _figures(weights: Path, subject: Subject, data: str, side: int, scratch: Path) -> tuple[float, float]:
    more = {"single_cls": True} if _single_class(subject) else {}
    return validation.figures(weights, subject.network, data, side, scratch, **more)


def _validate(result: Result, data: str, side: int, scratch: Path) -> None:
    log.show(f"validating {result.subject.role} {result.kind} {result.precision} on {data}")
    result.metrics = _figures(result.file, result.subject, data, side, scratch)


def _time(
    made: list[Result], earlier: list[Result], shape: tuple[int, ...], threads: int, repeats: int, seconds: int
) -> None:
    """Time the artifacts of one format and precision in turns, on images of that shape, with the dense FP32 one.

    Args:
        made: of the format and precision. earlier: of formats and precisions before. shape: of a batch of images.
        repeats: calls of each, at least. seconds: at most, unless one round takes longer.
    """
    torch.set_num_threads(threads)
    own = [one for one in earlier if (one.subject.role, one.kind, one.precision) == ("dense", made[0].kind, "fp32")]
    runs = {f"{one.subject.role} {one.precision}": one for one in [*own, *made]}
    calls: dict[str, Callable[[], object]] = {
        name: runtimes.load(exporter.opened(one.file, one.kind), one.kind, threads, one.precision, shape)
        for name, one in runs.items()
    }
    plain, alike = "dense fp32", f"dense {made[0].precision}"
    pairs = [(base, name) for base in dict.fromkeys((plain, alike)) if base in runs for name in runs if name != base]
    turns = timing.in_turns(calls, -(-repeats // 2), seconds, [pair for pair in pairs if pair[1] != plain])
    for name, one in runs.items():
        if one not in own:
            one.timing = turns.timing(name)
            one.speed = turns.ratio(plain, name) if plain in runs else None
            one.alike = turns.ratio(alike, name) if alike in runs else None


def _time_torch(subjects: list[Subject], images: Tensor, batch: int, threads: int, repeats: int, seconds: int) -> None:
    """Time torch on the same batch, after all others: its idle threads spin, and would slow down what comes next."""
    first = _batches(images, batch)[0]
    torch.set_num_threads(threads)
    runs = {
        subject.role: partial(compare.of_torch(subject.network, False, images.shape[-1]), first) for subject in subjects
    }
    turns = timing.in_turns(runs, -(-repeats // 2), seconds)
    for subject in subjects:
        subject.timing = turns.timing(subject.role)
        subject.speed = turns.ratio("dense", subject.role) if "dense" in runs else None


def _judge(result: Result) -> None:
    """Fill in the faults of an artifact, and what could not be told of its speed."""
    result.faults += result.parity.faults
    limit = LIMITS[result.precision].map
    if result.metrics is not None and result.subject.metrics is not None:
        name = validation.names(_task(result.subject))[0]
        lost = result.subject.metrics[0] - result.metrics[0]
        if not abs(lost) <= limit and (result.precision == "fp32" or not lost <= limit):
            result.faults.append(f"{name} differs by {abs(lost):.4f} from torch (allowed {limit})")
    if result.subject.role == "dense":
        return
    # What was bought is speed over the dense model as it was, and over the dense model of the same precision.
    alike = () if result.precision == "fp32" else ((result.alike, ""),)
    for speed, other in ((result.speed, "" if result.precision == "fp32" else " in fp32"), *alike):
        if speed is None:
            continue
        where = f"in {result.kind}, {result.precision}"
        if speed.verdict == "slower":
            result.faults.append(f"slower than the dense model{other}: {speed.median:.2f} times as fast {where}")
        if speed.verdict == "too noisy":
            result.doubts.append(f"too noisy to tell its speed from the dense model's{other}: {speed} {where}")
