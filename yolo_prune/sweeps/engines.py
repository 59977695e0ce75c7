# yolo-prune, AGPL-3.0 license
"""Who calls the processes that do the work of points: this machine (local.py), or trials of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from yolo_prune.sweeps import local
from yolo_prune.sweeps.local import Job
from yolo_prune.sweeps.request import Request, files

Done = Callable[[Job, dict[str, Any]], None]
Tick = Callable[[Sequence[str]], None]


class Engine(NamedTuple):
    """What does jobs of one stage, and how many at a time.

    `run` takes the jobs, the stage, who is told each job and what it came to, and who is told now and then the names
    at work.
    """

    at_a_time: int
    run: Callable[[Sequence[Job], str, Done, Tick], None]


@contextmanager
def of(request: Request, folder: Path) -> Iterator[Engine]:
    """The engine of a request, as long as it is needed.

    Args:
        folder: of the sweep.

    Raises:
        PruneError: there is no Ray cluster, or none that can do this.
    """
    if request.engine == "local":
        devices = devices_of(request)

        def on_this_machine(jobs: Sequence[Job], stage: str, done: Done, tick: Tick) -> None:
            local.run(jobs, devices, stage == "trained", done, tick)

        yield Engine(len(devices), on_this_machine)
        return
    from yolo_prune.sweeps import ray_cluster, ray_trials  # Ray is an extra

    with ray_cluster.connected():
        share = ray_cluster.share(request.cpus, request.gpus, request.jobs)
        ray_cluster.require_same_files(share, folder, files(request))

        def on_ray(jobs: Sequence[Job], stage: str, done: Done, tick: Tick) -> None:
            ray_trials.run(jobs, folder, stage, share, done, tick)

        yield Engine(share.at_a_time, on_ray)


def devices_of(request: Request) -> list[str | None]:
    """A device of this machine for each job that runs at a time."""
    count = request.jobs or len(request.devices) or 1
    return [request.devices[i % len(request.devices)] if request.devices else None for i in range(count)]
