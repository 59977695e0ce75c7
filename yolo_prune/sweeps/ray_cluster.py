# yolo-prune, AGPL-3.0 license
"""The Ray cluster of a sweep: found or started, its machines looked at, and what of them each trial gets.

Read in ray 2.60.0: _private/worker.py (`init`), _private/services.py (`get_ray_address_from_environment`).
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from yolo_prune import log
from yolo_prune.errors import PruneError, first_line

_THREADS = 8  # that the host trains with on a CPU, at most (ultralytics 8.4.190, utils/__init__.py, NUM_THREADS)
_ANSWER = 10.0  # seconds for the head of a cluster to take a connection; Ray itself tries for minutes
_WAIT = 180.0  # seconds for a machine to answer
_PACKAGES = ("yolo-prune", "ultralytics", "torch")  # that should be the same everywhere


@dataclass(frozen=True)
class Share:
    """What each trial gets. limit: trials at a time that were asked for. machines: that have as much, by node id."""

    cpus: float
    gpus: float
    limit: int | None
    at_a_time: int
    machines: tuple[str, ...]


@contextmanager
def connected() -> Iterator[None]:
    """Be connected with a cluster: the one that the program has, or RAY_ADDRESS names, or runs here, or a new one.

    Raises:
        PruneError: there is none where RAY_ADDRESS says, or none can be started.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:  # a client of Ray: it sees neither the folder nor what its trials are at
        raise PruneError(
            f"RAY_ADDRESS={address}: a sweep is begun on a machine of the cluster; log in there, where "
            "RAY_ADDRESS=auto finds it"
        )
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except Exception as error:  # of sockets, of gRPC, of Ray
        where = f"RAY_ADDRESS={address}: no Ray cluster answers there" if address else "Ray cannot be started here"
        raise PruneError(f"{where} ({first_line(error)}); engine=local needs none") from None
    try:
        yield
    finally:
        ray.shutdown()


def share(cpus: float | None, gpus: float | None, limit: int | None) -> Share:
    """What a trial gets of the cluster: as it was asked for; else a GPU where there are some, or a machine's CPUs.

    Args:
        limit: trials at a time, at most.

    Raises:
        PruneError: no machine has as much, so that trials would wait for ever.
    """
    machines = {
        str(node["NodeID"]): (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    }
    most = [max(column) for column in zip(*machines.values(), strict=True)] if machines else [0.0, 0.0]
    gpus = gpus if gpus is not None else float(most[1] >= 1)
    cpus = cpus if cpus is not None else 1.0 if gpus else max(min(most[0], _THREADS), 1.0)
    places = {
        name: int(min(own[0] / cpus, own[1] / gpus if gpus else math.inf) + 1e-9) for name, own in machines.items()
    }
    total = sum(places.values())
    what = f"{cpus:g} CPU{'s' * (cpus > 1)}" + (f" and {gpus:g} GPU" if gpus else "")
    if not total:
        raise PruneError(
            f"cpus={cpus:g}, gpus={gpus:g}: no machine of the Ray cluster has as much; the most that one has are "
            f"{most[0]:g} CPUs, and {most[1]:g} GPUs"
        )
    able = tuple(name for name, count in places.items() if count)
    at_a_time = min(total, limit or total)
    log.show(f"Ray: {len(able)} machine{'s' * (len(able) > 1)}; {what} a trial, {at_a_time} at a time")
    return Share(cpus, gpus, limit, at_a_time, able)


def require_same_files(of: Share, folder: Path, files: Sequence[str]) -> None:
    """Raise unless every machine that trials may run on has yolo-prune and sees the same files.

    Args:
        folder: of the sweep, which holds .running while it is at work. files: that a training reads; those that are no
            files here, such as names of the host's, are left out.

    Raises:
        PruneError: a machine does not; the line says which, and what.
    """
    wanted = [str(folder / ".running"), *(str(Path(name).resolve()) for name in files if Path(name).is_file())]
    wanted.append(str(Path.cwd()))
    names = {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in ray.nodes()}
    look = ray.remote(num_cpus=0, max_retries=0)(machine_has)
    answers = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(wanted)
        for node in of.machines
    }
    own = machine_has(wanted)["versions"]
    for node, answer in answers.items():
        try:
            said = ray.get(answer, timeout=_WAIT)
        except Exception as error:  # of its Python, of the network
            text = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise PruneError(
                f"machine {names[node]} of the Ray cluster cannot run yolo-prune ({text[-1][:200]}): install it there"
            ) from None
        if said["missing"]:
            raise PruneError(
                f"machine {names[node]} of the Ray cluster does not see {', '.join(said['missing'])}: the model, the "
                "data, the folder of the sweep and this one must be at the same paths on all machines, such as on a "
                "network drive"
            )
        if said["versions"] != own:
            log.warn(f"machine {names[node]} of the Ray cluster has {said['versions']}, and this one {own}")


def machine_has(paths: Sequence[str]) -> dict[str, Any]:
    """What a machine says of itself: which of these paths it lacks, and the versions of what trains."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return {"missing": [path for path in paths if not Path(path).exists()], "versions": versions}
