# yolo-prune, AGPL-3.0 license
"""Jobs in processes of their own, on this machine: several at a time, a device each.

A process that dies takes its job with it, and nothing else. When the sweep stops, whatever the reason, so do they.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yolo_prune.errors import PruneError
from yolo_prune.sweeps import folder as folders

Job = dict[str, Any]  # what worker.py reads

ARGUMENTS = ("-m", "yolo_prune.sweeps.worker")  # of Python, for a process that does jobs
_POLL = 0.1  # seconds
_END = 120.0  # seconds for a process to end by itself once its work is done


class _Worker:
    """One process and the job that it has. device: of the host, None for its own choice. arguments: of Python."""

    def __init__(self, device: str | None, arguments: Sequence[str]) -> None:
        self.device = device
        self.arguments = arguments
        self.job: Job | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def give(self, job: Job) -> None:
        """Have a job done; the process is started where there is none."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=job.get("cwd"),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which ends them
            )
        self.job = job
        self._say(json.dumps({**job, "device": self.device}))

    def _say(self, line: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: that is seen by its exit code
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def ended(self) -> int | None:
        """The exit code of the process; None while it runs."""
        return None if self.process is None else self.process.poll()

    def close(self) -> None:
        """Let the process end, now that it has nothing to do."""
        if self.process is None:
            return
        self._say("end")
        try:
            self.process.wait(_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.kill()

    def kill(self) -> None:
        """End the process: the end of its standard input tells it so."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process, self.job = None, None


def run(
    jobs: Sequence[Job],
    devices: Sequence[str | None],
    each_anew: bool,
    done: Callable[[Job, dict[str, Any]], None],
    tick: Callable[[Sequence[str]], None],
    arguments: Sequence[str] = ARGUMENTS,
) -> None:
    """Do all jobs, as many at a time as there are devices.

    Args:
        jobs: in the order in which they are begun. devices: one for each job at a time; they may be the same.
        each_anew: whether each job has a process of its own, and not the next one of a process.
        done: is told each job and what it came to. tick: is called now and then with the names at work.
        arguments: of Python, for a process that does jobs.
    """
    waiting = list(jobs)
    workers = [_Worker(device, arguments) for device in devices]
    try:
        while waiting or any(worker.job for worker in workers):
            for worker in workers:
                if worker.job is None and waiting:
                    job = waiting.pop(0)
                    (Path(job["folder"]) / job["name"] / f"{job['stage']}.json").unlink(missing_ok=True)
                    worker.give(job)
            time.sleep(_POLL)
            for worker in workers:
                outcome = _outcome(worker)
                if outcome is None or worker.job is None:
                    continue
                job, worker.job = worker.job, None
                if each_anew or worker.ended() is not None:
                    worker.close()
                done(job, outcome)
            tick([worker.job["name"] for worker in workers if worker.job])
        for worker in workers:
            worker.close()
    finally:
        for worker in workers:
            worker.kill()


def _outcome(worker: _Worker) -> dict[str, Any] | None:
    """What the job of a worker came to; None while it is at work."""
    job = worker.job
    if job is None:
        return None
    folder = Path(job["folder"])
    code = worker.ended()  # before the file is looked for: it is written before the end
    outcome = folders.outcome(folder, job["name"], job["stage"])
    if outcome is None and code is not None:
        log = folder / job["name"] / ("train.log" if job["stage"] == "trained" else f"{job['stage']}.log")
        signal = f"signal {-code}" if code < 0 else f"exit code {code}"
        outcome = {"failed": f"its process ended with {signal}; {log} has its last words", "died": True}
        with contextlib.suppress(PruneError):
            folders.finish(folder, job["name"], job["stage"], outcome)
    return outcome


def _environment() -> dict[str, str]:
    """Of a worker: it finds this very package, wherever it was imported from; its log is whole when it is killed."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join([*paths, package])}
