# yolo-prune, AGPL-3.0 license
"""`yolo-prune export`: export through the host, then prove that every artifact does what the torch model does.

The proof is a table, export.json and export.png: raw outputs and final boxes against torch (prove.py), the task's
metric of all of them by the host's val, and the latency of dense and pruned artifacts in turns (device/timing.py). A
format that cannot be made here is named and the others go on; an artifact that is broken, or slower than its dense
parent, ends the command with exit code 2; a machine that is too busy to say which is faster, with 3 (verdict.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from yolo_prune import files, log, scratch
from yolo_prune.errors import PruneError, first_line
from yolo_prune.export import artifact_files, picture, results, subjects, table, tensorrt_kit, variants, verdict
from yolo_prune.export.results import Effort, Result
from yolo_prune.export.subjects import Subject
from yolo_prune.export.variants import Variant
from yolo_prune.host import datasets, exporter, samples, silence
from yolo_prune.host.samples import Samples
from yolo_prune.recipe import formats, value_checks
from yolo_prune.shell import command
from yolo_prune.surgery import widths

HOST_ARGUMENTS = ("dynamic", "fraction", "opset", "simplify", "workspace")  # that leave outputs comparable


@dataclass(frozen=True)
class Request:
    """What is to be made, after all checks.

    Attributes:
        subjects: the dense model, if there is one, and the one that is asked for. kinds: formats that were asked for.
        variants: what is made. skipped: what is left out, and why. side: pixels. folder: where artifacts go.
        note: what cannot be compared with the dense model. unequal: why its metric is compared with care.
    """

    subjects: list[Subject]
    kinds: list[str]
    variants: list[Variant]
    skipped: dict[str, str]
    folder: Path
    data: str | None
    side: int
    effort: Effort
    note: str | None
    unequal: str | None
    host_args: dict[str, Any]

    @property
    def main(self) -> Subject:
        """The model that is asked for."""
        return self.subjects[-1]

    @property
    def for_device(self) -> Variant | None:
        """What a device builds its TensorRT engine from, where one is asked for."""
        if "engine" not in self.kinds:
            return None
        return "onnx", "int8" if self.main.trained_int8 else "fp32"


@dataclass
class Outcome:
    """What was made of a request. failed: format and precision -> why there is none. kit: the program for a device."""

    samples: Samples
    results: list[Result] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    kit: Path | None = None


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
        out: folder for the artifacts, export.json, export.png and export.log; default: the model's.
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
    kinds = variants.formats_of(format)
    value_checks.whole(imgsz=imgsz, batch=batch, threads=threads, images=images, repeats=repeats, seconds=seconds)
    value_checks.switch(safe=safe)
    _check_host_arguments(host_args, kinds, quantize)
    effort = Effort(batch, threads, images, repeats, seconds)
    request = _request(model, dense, data, out, kinds, quantize, imgsz, effort, safe, host_args)
    outcome = _judged(request, safe)
    record = _record(request, outcome)
    _write(record, request.folder, outcome.kit)
    verdict.require_proven(outcome.results, outcome.failed, seconds, record)
    return record


def _request(
    model: str | Path,
    dense: str | Path | None,
    data: str | Path | None,
    out: str | Path | None,
    kinds: list[str],
    quantize: int | None,
    imgsz: int | None,
    effort: Effort,
    safe: bool,
    host_args: dict[str, Any],
) -> Request:
    """Read the models, check what can be known before any work, and warn of what is left out.

    Args:
        kinds: names of formats. All others: as of `export`.
    """
    source = value_checks.path("model", model, "best.pt")
    parent = None if dense is None else value_checks.path("dense", dense, "dense.pt")
    data = None if data is None else value_checks.data_set(data)
    out = None if out is None else value_checks.path("out", out, "exported")
    possible = variants.possible(kinds, variants.precisions_of(quantize, data))
    models = [subjects.load(source, None, safe)]
    if parent is not None:
        models.insert(0, subjects.load(parent, "dense", safe))
    main = models[-1]
    chosen, skipped = _variants(models, kinds, possible, quantize, data)
    folder = _folder(main.path, out)
    note = subjects.check_same_kind(models)
    if note:
        log.warn(note)
    if data is not None:
        with exporter.restrained():  # reading a data set may make the host want to install what unpacks it
            data = datasets.converted(data)
            subjects.check_dataset(data, models)
    for kind, precision in chosen:
        suffix = formats.FORMATS[kind].suffix
        name = results.file_name(Path(main.path.stem + suffix), kind, precision, main.path.stem)
        artifact_files.require_free(folder / name, not suffix.startswith("."))
    side = subjects.image_side(main, imgsz)
    for words in skipped.values():
        log.warn(words)
    unequal = None if note or data is None else subjects.trained_longer(models)
    request = Request(models, kinds, chosen, skipped, folder, data, side, effort, note, unequal, host_args)
    if request.for_device is not None and request.for_device not in chosen:
        chosen.insert(0, request.for_device)
    return request


def _variants(
    models: list[Subject],
    kinds: list[str],
    possible: tuple[list[Variant], dict[str, str]],
    quantize: int | None,
    data: str | None,
) -> tuple[list[Variant], dict[str, str]]:
    """What is made, and what is left out with the reason. possible: the same where no model was trained in INT8."""
    dense, main = models[0], models[-1]
    if main.trained_int8:
        return variants.possible_of_trained(kinds, main.path, not dense.trained_int8, quantize, data)
    if dense.trained_int8:
        raise PruneError(
            f"dense={dense.path} was trained with quantize=8 and {main.path} was not: name the model before that"
        )
    return possible


def _judged(request: Request, safe: bool) -> Outcome:
    """Make, prove, time and judge everything, with a temporary folder and torch's threads put back at the end."""
    before = torch.get_num_threads()
    try:
        with scratch.folder() as place, exporter.restrained(safe), silence.noise_to(request.folder / NOISE):
            outcome = _carry_out(request, place)
    except OSError as error:
        if files.is_of_writing(error, request.folder):
            raise files.cannot_write(files.named_by(error) or request.folder, error) from error
        raise PruneError(f"{request.main.path} could not be exported: {first_line(error)}") from error
    finally:
        torch.set_num_threads(before)  # the host sets it too, when it selects a device
    for result in outcome.results:
        verdict.judge(result)
    return outcome


def _carry_out(request: Request, place: Path) -> Outcome:
    """Make, prove and time everything. place: a folder of ours."""
    outcome = Outcome(_samples(request))
    for subject in request.subjects:
        subject.staged = subjects.stage(subject, place / subject.role)
    (request.folder / "export.json").unlink(missing_ok=True)  # an older one would prove the wrong files
    stages = [f"{kind}, {precision}" for kind, precision in request.variants] + ["torch"]
    began = time.monotonic()
    for number, (kind, precision) in enumerate(request.variants):
        _say_stage(stages, number, began)
        try:
            outcome.results += _one_variant(request, outcome, kind, precision, place)
        except (PruneError, OSError) as error:
            if files.is_of_writing(error, request.folder, place):
                raise  # a disk that is full, which no other format finds better
            outcome.failed[f"{kind} {precision}"] = first_line(error)
            log.warn(f"{kind}, {precision} failed; what was wrong is said at the end, and in {request.folder / NOISE}")
    if not any(result.subject is request.main for result in outcome.results):
        raise PruneError(" | ".join(outcome.failed.values()))
    _say_stage(stages, len(stages) - 1, began)
    if request.data is not None:
        for subject in request.subjects:
            if subject.same_classes:
                log.show(f"validating {subject.role} .pt on {request.data}")
                subject.metrics = results.figures(subject.staged, subject, request.data, request.side, place)
    log.show(f"timing torch, {request.effort.threads} thread(s), in turns, at most {request.effort.seconds} s")
    results.time_torch(request.subjects, outcome.samples.images, request.effort)
    return outcome


def _say_stage(stages: Sequence[str], number: int, began: float) -> None:
    """Say which of all is at work, and about how long it takes from here on, which the first alone cannot tell."""
    log.show(f"{number + 1} of {len(stages)}: {stages[number]}{log.to_go(began, number / len(stages))}")


def _one_variant(request: Request, outcome: Outcome, kind: str, precision: str, place: Path) -> list[Result]:
    """Make and prove one format and precision of all models, and put that of the model into its place.

    Raises:
        PruneError: it cannot be made, run or validated.
    """
    images, effort = outcome.samples.images, request.effort
    taken = {name: value for name, value in request.host_args.items() if exporter.takes(kind, name)}
    options = {"imgsz": request.side, "batch": effort.batch, **taken}
    if precision == "int8" and formats.FORMATS[kind].calibrated:
        options |= {"data": str(request.data)}
    made = [
        results.make(subject, kind, precision, place, options)
        for subject in request.subjects
        if precision == "int8" or not subject.trained_int8
    ]
    results.compare_with_torch(made, images, effort)
    if request.data is not None:
        for result in made:
            if result.subject.same_classes:
                results.validate(result, request.data, request.side, place)
    log.show(f"timing {kind}, {precision}, {effort.threads} thread(s), in turns, at most {effort.seconds} s")
    results.time_artifacts(made, outcome.results, (effort.batch, *images.shape[1:]), effort)
    if made[-1].subject is request.main:  # last: what lies there was looked at
        target = request.folder / made[-1].file.name
        artifact_files.place(made[-1].file, target)
        made[-1].file = target
    if (kind, precision) == request.for_device:
        outcome.kit = _kit(made, request.folder, request.host_args.get("workspace"))
    return made


def _samples(request: Request) -> Samples:
    """Choose the images to compare on."""
    if request.data is None:
        return samples.without_data(request.main.image_channels, request.side, request.effort.images)
    return samples.from_data(request.main.network, request.data, request.side, request.effort.images)


def _kit(made: list[Result], folder: Path, workspace: float | None) -> Path:
    """Write the program that builds and times engines of the ONNX files on a device; the dense one goes along.

    Args:
        made: the ONNX files, that of the model last. folder: where they lie. workspace: GiB, where it was asked for.
    """
    main = made[-1]
    networks = {"pruned": main.file}
    if main.subject.trained_int8:  # its Q/DQ nodes are what TensorRT reads; those that onnxruntime calibrates are not
        return tensorrt_kit.write(folder, networks, precision="int8", sparse=False, workspace=workspace)
    if made[0] is not main:
        networks["dense"] = folder / f"{main.file.stem}-dense.onnx"
        artifact_files.place(made[0].file, networks["dense"])
    sparse = widths.sparsity(main.subject.network) == "2:4"
    return tensorrt_kit.write(folder, networks, precision="fp16", sparse=sparse, workspace=workspace)


# What is told ---------------------------------------------------------------------------------------------------------


def _record(request: Request, outcome: Outcome) -> dict[str, Any]:
    """The content of export.json."""
    effort = request.effort
    words = {
        "model": str(request.main.path),
        "dense": None if request.subjects[0] is request.main else str(request.subjects[0].path),
        "note": request.note,
        "unequal": request.unequal,
        "format": request.kinds,
        "imgsz": request.side,
        "batch": effort.batch,
        "threads": effort.threads,
        "repeats": effort.repeats,
        "seconds": effort.seconds,
        "host_args": request.host_args,
        "data": request.data,
        "images": {"source": outcome.samples.source, "names": outcome.samples.names},
        "tensorrt": outcome.kit and outcome.kit.name,
        "skipped": request.skipped,
        "failed": outcome.failed,
    }
    return table.record(request.subjects, outcome.results, words)


def _write(record: dict[str, Any], folder: Path, kit: Path | None) -> None:
    """Print the table, and write export.json and export.png."""
    table.show(record)
    files.replace(folder / "export.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    files.replace(folder / "export.png", picture.content(record))
    if kit is not None:
        run = command(["python3", kit.name])  # a Jetson has no `python`
        log.show(f"{kit.name} builds and times the engines on the device: copy {folder} there, {run}")
    log.show(
        f"saved {', '.join(row['file'] for row in record['rows'] if row['kept'])}, export.json, export.png in {folder}"
        f"{f'; what the exporters said: {NOISE}' if (folder / NOISE).is_file() else ''}"
    )


NOISE = "export.log"  # in the folder of the export: what pnnx, nncf, torch's exporter and the host said


# Checks before any work -----------------------------------------------------------------------------------------------


def _check_host_arguments(given: dict[str, Any], kinds: list[str], quantize: int | None) -> None:
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
    gib = given.get("workspace")
    if gib is not None and (isinstance(gib, bool) or not isinstance(gib, (int, float)) or not 0 < gib < 1 << 20):
        raise PruneError(f"workspace={value_checks.shown(gib)}: GiB are needed, a number above 0, such as workspace=4")
    for name, value in given.items():
        if value == exporter.default(name):
            continue
        if name == "fraction" and quantize != 8:
            log.warn(
                f"fraction={value_checks.shown(value)} is of INT8's calibration: it does nothing without quantize=8"
            )
        without = [kind for kind in kinds if not exporter.takes(kind, name)]
        if without == kinds:
            raise PruneError(f"{name}={value_checks.shown(value)}: no argument of ultralytics for {', '.join(kinds)}")
        if without:
            log.warn(f"{name}={value_checks.shown(value)} is left out for {', '.join(without)}, which has none")


def _folder(model: Path, out: str | Path | None) -> Path:
    """Find the folder to write to, and try it before the work: it is made, and nothing in it is in the way."""
    folder = model.parent if out is None else Path(out)
    files.require_folder("out", folder)
    for name in ("export.json", "export.png", NOISE):
        files.require_place("out", folder / name, name)
    return folder
