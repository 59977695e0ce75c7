# yolo-prune, AGPL-3.0 license
"""One artifact on its way: made by the host, compared with torch, validated and timed. verdict.py judges it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_prune import log
from yolo_prune.device import runtimes, timing
from yolo_prune.device.timing import Ratio, Timing
from yolo_prune.errors import PruneError
from yolo_prune.export import artifact_files, compare, prove
from yolo_prune.export.prove import LIMITS, Parity
from yolo_prune.export.subjects import Subject
from yolo_prune.host import exporter, inference, validation
from yolo_prune.recipe import formats


@dataclass(frozen=True)
class Effort:
    """How outputs are compared and latencies measured; arguments as of `job.export`."""

    batch: int
    threads: int
    images: int
    repeats: int
    seconds: int

    @property
    def rounds(self) -> int:
        """Of timing, at least: each calls every model twice."""
        return -(-self.repeats // 2)


@dataclass
class Result:
    """One artifact: what it is, and what was measured of it.

    `speed` is over the dense FP32 artifact of the same format, `alike` over the dense one of the same precision.
    `faults` are all that speaks against it; `differs` where one of them is that it is not the model that torch runs.
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
    differs: bool = False
    doubts: list[str] = field(default_factory=list)


def make(subject: Subject, kind: str, precision: str, place: Path, arguments: dict[str, Any]) -> Result:
    """Export one model to one format and precision.

    Args:
        place: a folder of ours, to which the artifact goes. arguments: of the host's exporter.

    Raises:
        PruneError: the host could not.
    """
    log.show(f"exporting {subject.path} to {kind}, {precision}, at {arguments['imgsz']} x {arguments['imgsz']}")
    try:
        made = exporter.by_host(subject.staged, subject.network, kind, precision, **arguments)
        own = place / f"{subject.role}-{kind}-{precision}"  # two precisions of one format may have one name
        own.mkdir()
        file = Path(shutil.move(made, own / file_name(made, kind, precision, subject.staged.stem)))
        return Result(subject, kind, precision, file, round(artifact_files.megabytes(file), 3))
    except PruneError as error:
        raise PruneError(f"the export of {subject.path} failed. {error}") from error


def file_name(made: Path, kind: str, precision: str, stem: str = "") -> str:
    """What the host calls an artifact; with the precision where it does not say it behind the model's `stem`."""
    suffix = formats.FORMATS[kind].suffix
    if precision == "fp32" or precision in made.name.removeprefix(stem):
        return made.name
    stem = made.name.removesuffix(suffix)
    return f"{stem}_{precision}{suffix}"


def compare_with_torch(made: list[Result], images: Tensor, effort: Effort) -> None:
    """Compare raw outputs, and what the host makes of them, of each artifact with torch's."""
    for result in made:
        log.show(f"comparing {result.file.name} of {result.subject.path} with torch on {len(images)} images")
        end2end = bool(inference.metadata(result.file)["end2end"])
        calls = (
            compare.of_torch(result.subject.network, end2end, images.shape[-1], result.kind),
            compare.of_artifact(result.file, result.kind, result.precision, effort.threads),
        )
        ours, theirs = (_by_image(call, images, effort.batch) for call in calls)
        view = compare.view(result.subject.network, end2end, images.shape[-1])
        result.parity = prove.compare(ours, theirs, view, LIMITS[result.precision])


def _by_image(call: compare.Call, images: Tensor, batch: int) -> list[list[Tensor]]:
    """All outputs of each image."""
    outputs: list[list[Tensor]] = []
    for part in batches_of(images, batch):
        outputs += [list(one) for one in zip(*(output.clone() for output in call(part)), strict=True)]
    return outputs[: len(images)]


def batches_of(images: Tensor, batch: int) -> list[Tensor]:
    """Cut images (n, ...) into batches; the last one is filled up with its last image."""
    whole = [images[start : start + batch] for start in range(0, len(images), batch)]
    short = batch - len(whole[-1])
    if short:
        whole[-1] = torch.cat([whole[-1], whole[-1][-1:].expand(short, -1, -1, -1)])
    return whole


def validate(result: Result, data: str, side: int, place: Path) -> None:
    """Measure the task's metric of an artifact."""
    log.show(f"validating {result.subject.role} {result.kind} {result.precision} on {data}")
    result.metrics = figures(result.file, result.subject, data, side, place)


def figures(weights: Path, subject: Subject, data: str, side: int, place: Path) -> tuple[float, float]:
    """The two figures of the task (validation.names) of a .pt file or an artifact; place: a folder of ours."""
    more = {"single_cls": True} if subject.is_single_class else {}
    return validation.figures(weights, subject.network, data, side, place, **more)


def time_artifacts(made: list[Result], earlier: list[Result], shape: tuple[int, ...], effort: Effort) -> None:
    """Time the artifacts of one format and precision in turns, on images of that shape, with the dense FP32 one.

    Args:
        made: of the format and precision. earlier: of formats and precisions before. shape: of a batch of images.
    """
    torch.set_num_threads(effort.threads)
    own = [one for one in earlier if (one.subject.role, one.kind, one.precision) == ("dense", made[0].kind, "fp32")]
    runs = {f"{one.subject.role} {one.precision}": one for one in [*own, *made]}
    calls: dict[str, Callable[[], object]] = {
        name: runtimes.load(exporter.opened(one.file, one.kind), one.kind, effort.threads, one.precision, shape)
        for name, one in runs.items()
    }
    plain, alike = "dense fp32", f"dense {made[0].precision}"
    pairs = [(base, name) for base in dict.fromkeys((plain, alike)) if base in runs for name in runs if name != base]
    if line := runtimes.other_than_fp32(made[0].kind, made[0].precision):
        log.say(line)
    turns = timing.in_turns(calls, effort.rounds, effort.seconds, [pair for pair in pairs if pair[1] != plain])
    for name, one in runs.items():
        if one not in own:
            one.timing = turns.timing(name)
            one.speed = turns.ratio(plain, name) if plain in runs else None
            one.alike = turns.ratio(alike, name) if alike in runs else None


def time_torch(subjects: list[Subject], images: Tensor, effort: Effort) -> None:
    """Time torch on the same batch, after all others: its idle threads spin, and would slow down what comes next."""
    first = batches_of(images, effort.batch)[0]
    torch.set_num_threads(effort.threads)
    runs = {
        subject.role: partial(compare.of_torch(subject.network, False, images.shape[-1]), first) for subject in subjects
    }
    turns = timing.in_turns(runs, effort.rounds, effort.seconds)
    for subject in subjects:
        subject.timing = turns.timing(subject.role)
        subject.speed = turns.ratio("dense", subject.role) if "dense" in runs else None
