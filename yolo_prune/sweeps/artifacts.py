# yolo-prune, AGPL-3.0 license
"""What the models of a sweep are once they are deployed: exported, proven against torch, and timed beside one another.

All of them are timed in turns in one run, so that the machine was the same to all; or their milliseconds are what the
profile of a board predicts, and then they are marked as predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolo_prune import files, log, scratch
from yolo_prune.cost import model_size, profile_file
from yolo_prune.device import runtimes, timing
from yolo_prune.errors import PruneError, first_line
from yolo_prune.export import artifact_files, results, subjects, verdict
from yolo_prune.export.results import Effort
from yolo_prune.host import exporter, samples, silence
from yolo_prune.recipe import formats
from yolo_prune.sweeps import folder as folders
from yolo_prune.sweeps.points import Point
from yolo_prune.sweeps.request import Request

Call = Callable[[], object]

_IMAGES = 4  # that outputs are compared on
_ROUNDS = 10  # of timing, at least


@dataclass(frozen=True)
class Artifact:
    """One deployed model: which point's, in which precision, its file, and what was found of it, as plain data."""

    point: Point
    precision: str
    file: Path
    content: Mapping[str, Any]


def of_point(
    request: Request, folder: Path, point: Point, stage: str, outcome: Mapping[str, Any]
) -> tuple[list[Artifact], dict[str, str]]:
    """The artifacts of a point, exported and proven, or as an earlier part of the sweep left them.

    Args:
        stage: of folders.STAGES. outcome: what the point came to in it.

    Returns:
        The artifacts, and why others are not there: precision -> words.

    Raises:
        PruneError: that of the first precision cannot be made, run or validated. PruneError, OSError: the disk is full.
    """
    noted = folders.read(folder / point.name / f"artifacts-{stage}.json")
    made: list[Artifact] = []
    failed: dict[str, str] = {}
    for precision in request.precisions_of(stage):
        content: Any = noted.get(precision)
        file = folders.now(folder, point.name, str(content.get("file"))) if isinstance(content, dict) else None
        if file is None or not file.exists():
            try:
                file, content = _make(request, folder, point, stage, outcome, precision)
            except (PruneError, OSError) as error:
                if files.is_of_a_disk(error):
                    raise  # no other point finds more room
                if not made:
                    raise PruneError(first_line(error)) from error
                failed[precision] = first_line(error)
                log.warn(f"{point.label}, {precision}: {failed[precision]}")
                continue
            noted[precision] = {**content, "file": folders.noted(folder, point.name, file)}
            folders.write(folder / point.name / f"artifacts-{stage}.json", noted)
        made.append(Artifact(point, precision, file, {**content, "file": str(file)}))
    return made, failed


def _make(
    request: Request, folder: Path, point: Point, stage: str, outcome: Mapping[str, Any], precision: str
) -> tuple[Path, dict[str, Any]]:
    """Export and prove one artifact: its file; and its bytes, channels, faults, and metrics where they are its own."""
    effort = Effort(1, request.threads, _IMAGES, _ROUNDS, request.seconds)
    options: dict[str, Any] = {"imgsz": point.imgsz}
    if precision == "int8" and formats.FORMATS[request.kind].calibrated:
        options["data"] = request.data
    with scratch.folder() as place, exporter.restrained(request.safe):
        subject = subjects.load(Path(str(outcome["weights"])), None, request.safe)
        subject.staged = subjects.stage(subject, place / subject.role)
        result = results.make(subject, request.kind, precision, place, options)
        if request.is_last(stage):  # else its speed alone is needed
            with silence.quiet():
                images = samples.from_data(subject.network, request.data, point.imgsz, _IMAGES).images
            results.compare_with_torch([result], images, effort)
            verdict.judge(result)
            if precision == "int8" and outcome["metrics"] is not None:
                results.validate(result, request.data, point.imgsz, place)
        suffix = formats.FORMATS[request.kind].suffix
        name = results.file_name(Path(("best" if stage == "trained" else "cut") + suffix), request.kind, precision)
        target = folder / point.name / ("weights" if stage == "trained" else "") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        artifact_files.place(result.file, target)
    size = sum(file.stat().st_size for file in artifact_files.files(target))
    return target, {
        "bytes": size,
        "channels": subject.image_channels,
        "faults": result.faults,
        "metrics": result.metrics,
    }


def forget(folder: Path, one: Artifact, stage: str) -> None:
    """Have the next command make an artifact of a stage anew."""
    path = folder / one.point.name / f"artifacts-{stage}.json"
    folders.write(path, {key: value for key, value in folders.read(path).items() if key != one.precision})


def _opened(
    request: Request, made: Sequence[Artifact]
) -> tuple[list[Artifact], list[Call], list[tuple[Artifact, str]]]:
    """What calls each artifact once, of those that their runtime opens; the others, and why it does not."""
    good: list[Artifact] = []
    calls: list[Call] = []
    closed: list[tuple[Artifact, str]] = []
    for one in made:
        shape = (1, int(one.content["channels"]), one.point.imgsz, one.point.imgsz)
        file = exporter.opened(one.file, request.kind)
        try:
            calls.append(runtimes.load(file, request.kind, request.threads, one.precision, shape))
            good.append(one)
        except PruneError as error:
            closed.append((one, str(error)))
    return good, calls, closed


def time_all(
    request: Request, made: Sequence[Artifact]
) -> tuple[dict[tuple[str, str], dict[str, Any]], list[tuple[Artifact, str]]]:
    """Time all artifacts in turns on this machine.

    Returns:
        (point, precision) -> `ms`, its `low` and `high`, whether it is `steady`, known to timing.NARROW, and
        `speedup`, over the model itself, by the rounds in which both ran; None where that is not among them. And the
        artifacts that their runtime cannot open, with why.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(request.threads)
    try:
        artifacts, each, closed = _opened(request, made)
        if not artifacts:
            return {}, closed
        calls = {str(number): call for number, call in enumerate(each)}
        most = request.seconds * len(artifacts)
        words = f"{len(artifacts)} models in {request.kind}, {request.threads} thread(s)"
        log.show(f"timing {words}, in turns, at most {most} s")
        if line := runtimes.other_than_fp32(request.kind, "fp32"):
            log.say(line)
        reference = next((str(n) for n, one in enumerate(artifacts) if is_reference(request, one)), None)
        pairs = None if reference is None else [(reference, name) for name in calls if name != reference]
        turns = timing.in_turns(calls, _ROUNDS, most, pairs)
    finally:
        torch.set_num_threads(before)
    times = {}
    for number, one in enumerate(artifacts):
        told = turns.timing(str(number))
        low, high = (round(end, 4) if end not in (0.0, float("inf")) else None for end in (told.low, told.high))
        row = {"ms": round(told.median, 4), "low": low, "high": high, "steady": told.steady, "predicted": False}
        speed = None if reference is None else turns.ratio(reference, str(number)).as_dict()
        times[one.point.name, one.precision] = {**row, "speedup": speed}
    return times, closed


def is_reference(request: Request, artifact: Artifact) -> bool:
    """Whether this is the model itself at its own size, in the first precision."""
    point = artifact.point
    return point.kind == "dense" and point.imgsz == request.imgsz[0] and artifact.precision == request.base


def predict_all(
    request: Request, artifacts: Sequence[tuple[Point, str, Path]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Milliseconds as the device profiles of the request predict them.

    Args:
        artifacts: point, precision and checkpoint of each.

    Returns:
        As `time_all`; of what no profile knows, `ms` is None and `note` says why.
    """
    times: dict[tuple[str, str], dict[str, Any]] = {}
    for point, precision, weights in artifacts:
        row: dict[str, Any] = {"ms": None, "low": None, "high": None, "steady": True, "predicted": True}
        path = request.profile_at.get(point.imgsz)
        if path is None:
            row["note"] = f"no profile at {point.imgsz} pixels"
        else:
            device = profile_file.read(path)
            if device.precision != precision:
                row["note"] = f"the profile is of {device.precision}"
            else:
                try:
                    network = subjects.load(weights, None, request.safe).network
                    row["ms"] = round(model_size.latency_of(network, device), 4)
                except PruneError as error:
                    row["note"] = str(error)
        times[point.name, precision] = row
    return times
