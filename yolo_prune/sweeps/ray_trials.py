# yolo-prune, AGPL-3.0 license
"""Jobs as trials of Ray Tune, each wherever the cluster has room: the same process does it as on this machine.

A trial starts that process and waits for it (local.py). What a point came to is its file in the shared folder, as
everywhere. A process, or a machine, that dies is no failed point: Ray tries again, on another machine if need be, and
the training goes on from its last.pt. A training that ends with an error is one, and this command does not try again.

Ray Tune's own state is in `ray/` of the folder. The same command restores it; where it does not hold what is wanted
(other resources, a moved folder, a point whose file is gone), a new experiment is begun with what is left. Trials are
begun in their order and none is stopped early: the metric after some epochs is lowest for just the small models.

Read in ray 2.60.0: tune/tuner.py, tune/execution/tune_controller.py (`_process_trial_failure`), tune/tune.py.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from yolo_prune import log
from yolo_prune.errors import PruneError, first_line
from yolo_prune.sweeps import folder as folders
from yolo_prune.sweeps import local
from yolo_prune.sweeps.local import Job
from yolo_prune.sweeps.ray_cluster import Share

_TRIES = 3  # of a trial whose process or machine dies
# Ctrl-C ends the sweep as it ends the local one; what a trial says is in its point's log, and its figures are ours.
_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
# Ray pickles callbacks into its state, so who is told stands outside of them.
_watchers: list[Callable[[Sequence[Any]], None]] = []


def run(
    jobs: Sequence[Job],
    folder: Path,
    stage: str,
    share: Share,
    done: Callable[[Job, dict[str, Any]], None],
    tick: Callable[[Sequence[str]], None],
    arguments: Sequence[str] = local.ARGUMENTS,
) -> None:
    """Do all jobs.

    Args:
        folder: of the sweep. stage: of `folders.STAGES`. share: what each trial gets.
        done: is told each job and what it came to. tick: is called now and then with the names at work.
        arguments: of Python, for the process that does a job.
    """
    left = {job["name"]: {**job, "cwd": os.getcwd()} for job in jobs}
    for name in left:  # what failed before is tried again
        (folder / name / f"{stage}.json").unlink(missing_ok=True)

    def look(trials: Sequence[Any]) -> None:
        for trial in trials:
            name = trial.config["point"]
            if trial.status in ("TERMINATED", "ERROR") and name in left:
                outcome = folders.outcome(folder, name, stage)
                if outcome is None and trial.status == "TERMINATED":
                    continue  # of an earlier part of the sweep, and its file is gone since
                if outcome is None:
                    outcome = _died(trial, folder / name / stage)
                done(left.pop(name), outcome)
        tick([trial.config["point"] for trial in trials if trial.status == "RUNNING"])

    needs = {
        "folder": str(folder),
        "cpus": share.cpus,
        "gpus": share.gpus,
        "limit": share.limit,
        "ray": ray.__version__,
    }
    # Ray prints a table of its own; what is said here goes to the stream that the host's log has.
    with _settings(), _watched(look), contextlib.redirect_stdout(io.StringIO()):
        for restored in (True, False):
            if left:
                _fit(folder / "ray", stage, needs, left, list(arguments), restored)


def _died(trial: Any, stem: Path) -> dict[str, Any]:
    """What a point came to whose trial died again and again."""
    with contextlib.suppress(Exception):
        text = [line for line in str(trial.get_error() or "").splitlines() if line.strip()]
        log.warn(f"{stem.parent.name}: {text[-1]}")
    outcome = {"failed": f"its process, or the machine that it was on, died {trial.num_failures} times"}
    folders.finish(stem.parent.parent, stem.parent.name, stem.name, outcome)
    return outcome


# The experiments of Ray Tune ------------------------------------------------------------------------------------------


def _fit(
    place: Path, stage: str, needs: Mapping[str, Any], left: Mapping[str, Job], arguments: list[str], restored: bool
) -> None:
    """Run the experiment that was not finished, if there is one and `restored` is wanted, or a new one."""
    number = len(list(place.glob(f"{stage}-*.json")))
    if restored:
        path = place / f"{stage}-{number}.json"
        old = folders.read(path)
        if old.get("needs") != needs or not set(left) <= set(old.get("points", [])):
            return
        points = old["points"]
    else:
        path = place / f"{stage}-{number + 1}.json"
        points = list(left)
    folders.write(path, {"needs": needs, "points": points, "arguments": arguments, "jobs": dict(left)})
    resources = tune.with_resources(trial, {"cpu": needs["cpus"], "gpu": needs["gpus"]})
    space = {"point": tune.grid_search(points), "jobs": str(path)}
    experiment = path.with_suffix("")
    if not restored:
        _tuner(resources, space, experiment, needs["limit"]).fit()
        return
    try:
        tuner = tune.Tuner.restore(
            str(experiment), resources, resume_unfinished=True, restart_errored=True, param_space=space
        )
    except Exception as error:  # its state is of another Ray, or half-written
        log.warn(f"the state of Ray in {experiment} cannot be restored ({first_line(error)}): a new one is begun")
        return
    tuner.fit()


def _tuner(trainable: Any, space: Mapping[str, Any], experiment: Path, limit: int | None) -> Any:
    configs: Any = tune if hasattr(tune, "RunConfig") else __import__("ray.train").train  # before 2.43
    return tune.Tuner(
        trainable,
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            scheduler=FIFOScheduler(),
            max_concurrent_trials=limit,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=configs.RunConfig(
            name=experiment.name,
            storage_path=str(experiment.parent),
            failure_config=configs.FailureConfig(max_failures=_TRIES - 1),
            callbacks=[_Watch()],
            verbose=0,
        ),
    )


def _name(of: Any) -> str:
    """What Ray calls a trial, and its folder in ray/."""
    return str(of.config["point"])


class _Watch(tune.Callback):
    """Tells the sweep where its trials are."""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """After each look of Ray Tune at its trials."""
        for watcher in _watchers:
            watcher(trials)


@contextlib.contextmanager
def _watched(watcher: Callable[[Sequence[Any]], None]) -> Iterator[None]:
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Ray Tune reads some of its settings from the environment; the user's own stand."""
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


# On the machine of a trial --------------------------------------------------------------------------------------------


def trial(config: Mapping[str, Any]) -> dict[str, Any]:
    """Do the job of a point, unless it is done: what Ray calls, on a machine of its choice.

    Args:
        config: `point`, the name, and `jobs`, the file of the experiment that has its job.

    Raises:
        PruneError: the training failed, or its process died.
    """
    content, name = folders.read(Path(config["jobs"])), config["point"]
    job = content["jobs"].get(name)
    if job is None:  # an earlier part of the sweep finished it
        return {}
    file = Path(job["folder"]), name, job["stage"]
    outcome = folders.outcome(*file)
    if outcome is None:
        # Ray shows a trial the GPU that it gave it as its only ones, so the host's own choice is that one.
        device = None if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
        local.run([job], [device], True, lambda *told: None, lambda names: None, content["arguments"])
        outcome = folders.outcome(*file) or {"failed": "it left no outcome"}
        if outcome.get("died"):
            file[0].joinpath(name, f"{job['stage']}.json").unlink(missing_ok=True)
    if outcome.get("failed"):
        raise PruneError(outcome["failed"])
    return {"metric": (outcome.get("metrics") or [None])[0], "seconds": outcome.get("seconds")}
