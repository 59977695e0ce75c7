# yolo-prune, AGPL-3.0 license
"""A sweep from its request to its recommendation: all cuts, the trainings, then all artifacts beside one another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yolo_prune
from yolo_prune import files, log
from yolo_prune.cost import profile_file
from yolo_prune.device import machine
from yolo_prune.errors import PruneError
from yolo_prune.host import releases, validation
from yolo_prune.sweeps import artifacts, checks, engines, front, page, points, progress, results
from yolo_prune.sweeps import folder as folders
from yolo_prune.sweeps.artifacts import Artifact
from yolo_prune.sweeps.checks import Checked
from yolo_prune.sweeps.engines import Engine
from yolo_prune.sweeps.local import Job
from yolo_prune.sweeps.points import Point
from yolo_prune.sweeps.request import Request

Outcomes = dict[str, dict[str, Any]]  # name of a point -> what it came to


def run(request: Request) -> dict[str, Any]:
    """Carry out a request, or go on with it.

    Returns:
        The content of front.json.

    Raises:
        PruneError: the request cannot be begun; see checks.py and folder.py.
    """
    folder = folders.take(request)
    try:
        checked = checks.check(request)
        folders.require_same(folder, checked.request)
        every = checks.check_points(checked, folder)
        folders.require_same_cuts(folder, checked.request, every)
        with engines.of(checked.request, folder) as engine:
            folders.note(folder, checked.request)
            with _kept(folder):
                return _carry_out(checked, every, folder, engine)
    except (KeyboardInterrupt, SystemExit):
        log.show(f"stopped: what is finished is kept in {folder}, and the same command goes on")
        raise
    finally:
        folders.give_back(folder)
        _remove_empty(folder)


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say in one line, where the disk is full, that what is finished is not lost."""
    try:
        yield
    except (PruneError, OSError) as error:
        if not files.is_of_a_disk(error):
            raise
        if isinstance(error, OSError):
            error = files.cannot_write(files.named_by(error) or folder, error)
        raise PruneError(
            f"{error}; what is finished is kept in {folder}: make room, and the same command goes on"
        ) from None


def _remove_empty(folder: Path) -> None:
    """A request that was refused leaves no folder."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _carry_out(checked: Checked, every: Sequence[Point], folder: Path, engine: Engine) -> dict[str, Any]:
    request = checked.request
    name = validation.names(checked.task)[0]
    cut = _stage(checked, every, folder, "cut", engine)
    rows = _rows(checked, every, cut, folder, "cut")
    if not request.epochs:
        return _tell(checked, rows, [], folder)
    chosen = _chosen(request, every, rows, folder)
    log.show(f"\nafter the cut alone:\n{results.table(rows, name)}")
    left_out = [row["label"] for row in rows if not row["failed"] and row["name"] not in chosen]
    if left_out:
        log.show(f"not trained, another cut at its size is as fast and keeps more: {', '.join(left_out)}")
    trained_points = [point for point in every if point.name in chosen]
    outcomes = _stage(checked, trained_points, folder, "trained", engine)
    trained = _rows(checked, trained_points, outcomes, folder, "trained")
    trained += [row for row in rows if row["failed"]]  # what could not be cut is a line at the end as well
    return _tell(checked, trained, rows, folder)


# The stages -----------------------------------------------------------------------------------------------------------


def _stage(checked: Checked, every: Sequence[Point], folder: Path, stage: str, engine: Engine) -> Outcomes:
    """Take all points through a stage, those that are finished left as they are; a failed one is tried again."""
    request = checked.request
    outcomes: Outcomes = {}
    for point in every:
        found = folders.outcome(folder, point.name, stage)
        if found is not None and not found.get("failed"):
            outcomes[point.name] = found
    by_name = {point.name: point for point in every}
    waiting = [point for point in every if point.name not in outcomes]
    title = "training" if stage == "trained" else "cutting"
    if outcomes and waiting:
        log.show(f"{title}: going on; {len(outcomes)} of {len(every)} points are finished")
    if not waiting:
        return outcomes
    metric_name = validation.names(checked.task)[0]
    log.show(f"\n{title} {len(waiting)} points, {engine.at_a_time} at a time\n{progress.head(metric_name)}")
    costs = _costs(every, outcomes, folder) if stage == "trained" else {point.name: 1.0 for point in every}

    def share(name: str) -> float:
        return progress.share_of(folder / name, request.epochs) if stage == "trained" else 0.0

    told = progress.Progress(title, costs, set(outcomes), share)

    def done(job: Job, outcome: dict[str, Any]) -> None:
        outcomes[job["name"]] = outcome
        log.show(progress.line(by_name[job["name"]].label, outcome))
        told.finish(job["name"])

    jobs = [_job(checked, point, folder, stage) for point in waiting]
    engine.run(jobs, stage, done, told.tick)
    return outcomes


def _job(checked: Checked, point: Point, folder: Path, stage: str) -> Job:
    """What a worker is told of a point."""
    request = checked.request
    val = {key: request.settings[key] for key in ("workers", "single_cls") if key in request.settings}
    batch = request.settings.get("batch", 16)
    val["batch"] = batch if isinstance(batch, int) and batch > 0 else 16
    return {
        "folder": str(folder),
        "stage": stage,
        "name": point.name,
        "point": asdict(point),
        "model": point.model,
        "data": request.data,
        "imgsz": point.imgsz,
        "cut": None if point.cut is None else dict(point.cut),
        "trained_as": None if point.cut is not None else points.first_cut(request, point.imgsz),
        "measured": point.model in checked.measured,
        "val": val,
        "safe": request.safe,
        "words": points.words(point, request, folder) if stage == "trained" else [],
        "command": points.command(point, request),
    }


def _costs(every: Sequence[Point], outcomes: Outcomes, folder: Path) -> dict[str, float]:
    """How much work each training is, by FLOPs at its image size."""
    costs = {}
    for point in every:
        cut = folders.outcome(folder, point.name, "cut") or {}
        costs[point.name] = float(cut.get("gflops") or 1.0)
    return costs


def _chosen(request: Request, every: Sequence[Point], rows: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """The points that are trained. Which are beaten is decided once, so that a sweep that goes on trains the same; what
    had failed by then was not judged, and is trained."""
    failed = {row["name"] for row in rows if row["failed"]}
    names = [point.name for point in every if point.name not in failed]
    beaten = [] if request.train == "all" else folders.beaten(folder)
    if beaten is None:
        best = front.promising(rows, {point.name: point.family for point in every})
        beaten = [name for name in names if name not in best]
    folders.decide(folder, beaten)
    return [name for name in names if name not in beaten]


# What they are once they are deployed ---------------------------------------------------------------------------------


def _rows(
    checked: Checked, every: Sequence[Point], outcomes: Outcomes, folder: Path, stage: str
) -> list[dict[str, Any]]:
    """The rows of a stage, with milliseconds: of all points at the end; of cuts that compete before a training."""
    request = checked.request
    good = [point for point in every if not outcomes[point.name].get("failed")]
    if stage == "cut" and request.epochs:
        families = [point.family for point in good]
        good = [point for point in good if families.count(point.family) > 1 and request.train != "all"]
    made: list[Artifact] = []
    failed: dict[tuple[str, str], str] = {}  # a precision that cannot be made, beside one that can
    times: dict[tuple[str, str], dict[str, Any]] = {}
    if request.profile:
        of_all = [(p, precision, Path(outcomes[p.name]["weights"])) for p in good for precision in request.precisions]
        times = artifacts.predict_all(request, of_all)
    for point in good:
        try:
            of_point, others = artifacts.of_point(request, folder, point, stage, outcomes[point.name])
            made += of_point
            failed |= {(point.name, precision): words for precision, words in others.items()}
        except PruneError as error:
            if files.is_of_a_disk(error):
                raise
            if request.profile:  # its milliseconds are known without
                log.warn(f"{point.label}: not exported here, so its bytes are not known. {error}")
                continue
            outcomes[point.name] = {**outcomes[point.name], "failed": str(error)}
            log.warn(f"{point.label}: {error}")
    if not request.profile and made:
        times, closed = artifacts.time_all(request, made)
        for one, words in closed:
            failed[one.point.name, one.precision] = words
            artifacts.forget(folder, one, stage)
            log.warn(f"{one.point.label}, {one.precision}: {words}")
    contents = {(one.point.name, one.precision): one.content for one in made}
    return [
        results.row(request, point, stage, precision, outcome, contents.get(key, {}), times.get(key, {}))
        for point in every
        for precision in request.precisions_of(stage)
        for key in [(point.name, precision)]
        for outcome in [outcomes[point.name] | ({"failed": failed[key]} if key in failed else {})]
    ]


def _tell(checked: Checked, rows: list[dict[str, Any]], earlier: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Write everything, print the table and the recommendation."""
    request = checked.request
    name = validation.names(checked.task)[0]
    best = results.mark_front(rows)
    usable = [row for row in rows if not row["failed"]]
    sentences = front.recommend(usable, request.max_drop, request.latency, name)
    doubts = checks.doubts(request)
    sentences += [f"Milliseconds are in doubt: {line}." for line in doubts]
    record = {
        "yolo_prune": yolo_prune.__version__,
        "versions": {"ultralytics": releases.version()},
        "model": Path(request.model).name,
        "data": Path(request.data).name,
        "metric": name,
        "epochs": request.epochs,
        "max_drop": request.max_drop,
        "latency": request.latency,
        "device": _device(request),
        "predicted": bool(request.profile),
        "doubts": doubts,
        "steady": all(row["steady"] for row in usable),
        "recommendation": sentences,
        "front": best,
        "rows": rows,
        "after_cut": earlier,
        "folder": str(folder),
    }
    results.write_csv([*earlier, *rows], folder / "sweep.csv")
    results.write_front(record, folder / "front.json")
    results.write_picture(record, folder / "front.png")
    written = ["sweep.csv", "front.json", "front.png"]
    if page.write(record, folder / "report.html"):
        written.append("report.html")
    log.show(f"\n{results.table(rows, name)}\n\n* on the front: nothing is both faster and better")
    if request.profile:
        log.show("~ milliseconds that a profile predicts")
    if not record["steady"]:
        log.warn("the machine was too busy: some milliseconds are not known to 3%, see low and high in sweep.csv")
    log.show(f"saved {', '.join(written)} in {folder}\n")
    for sentence in sentences:
        log.show(sentence)
    if not request.epochs:
        log.show("This is before any training, which gives back most of what a cut costs: add epochs= to go on.")
    return record


def _device(request: Request) -> str:
    """What the milliseconds are of."""
    if request.profile:
        return f"predicted for {profile_file.read(request.profile[0])}"
    here: Mapping[str, Any] = machine.this_machine()
    return f"{request.kind} on {here['name']}, {request.threads} thread{'s' * (request.threads > 1)}"
