# yolo-prune, AGPL-3.0 license
"""Training the rows of the accuracy matrix, some at a time, each a process of its own that may be killed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import matrix_files
import matrix_rows
from matrix_files import Places
from matrix_rows import STEPS, Row

PROGRAM = [sys.executable, str(matrix_files.ROOT / "benchmarks" / "accuracy.py")]
TO_DO = ("to do", "to do again", "its best.pt is gone")
_PR_SET_PDEATHSIG = 1  # of Linux, linux/prctl.h


class Training(NamedTuple):
    """A row in its process. `lock` is held by the process as well, so it lasts as long as one of the two lives."""

    row: Row
    process: subprocess.Popen[bytes]
    lock: IO[str]
    request: dict[str, Any]


class Matrix:
    """The rows with their results and runs.

    Attributes:
        spec: the content of matrix.yaml. places: folders. rows: all of them. asked: those that are to be trained.
        stale: whether a result of another state of the package is to be measured again. program: what trains a row.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        places: Places,
        rows: list[Row],
        asked: list[Row],
        stale: bool = False,
        program: list[str] | None = None,
    ) -> None:
        self.spec, self.places, self.rows, self.stale = spec, places, rows, stale
        starts = {
            matrix_files.start(spec, places, row)[1] for row in asked
        }  # a p2 row begins where a dense p1 row ends
        self.asked = [row for row in rows if row in asked or row in starts]
        self.program = program or PROGRAM
        self.code = matrix_files.code()

    def state(self, row: Row) -> str:
        """Where a row stands: done, to do (or why to do again), not needed, or what it waits for or lacks."""
        known = matrix_rows.result(self.places.results, row)
        ready, gathered = (True, None) if row.method != STEPS else self._equal_steps(row)
        if row.method == STEPS and (not ready or gathered is None):
            return "not needed" if ready else f"waits for {row.dense.name} and the cuts"
        lacks = matrix_files.missing(self.spec, self.places, row)
        if known is not None and known["settings"] == self._settings(row, gathered):
            changed = row.flops is not None and known["versions"]["code"] != self.code
            if self._is_start(row) and not lacks:
                return "its best.pt is gone"
            if lacks or not (changed and self.stale):
                return "done, of older code" if changed else "done"
        if lacks:
            return f"skipped: {lacks}"
        _, earlier = matrix_files.start(self.spec, self.places, row)
        if earlier and not (self._is_whole(earlier) and self.state(earlier) == "done"):
            return f"waits for {earlier.name}"
        return "to do" if known is None else "to do again"

    def _is_start(self, row: Row) -> bool:
        """Whether a dense row's best.pt is not here, and rows that are asked for and not done start from it."""
        if row.method != "dense" or self._is_whole(row):
            return False
        later = (each for each in self.asked if matrix_files.start(self.spec, self.places, each)[1] == row)
        return any(matrix_rows.result(self.places.results, each) is None for each in later)

    def _is_whole(self, row: Row) -> bool:
        """Whether a row's run has ended here and its best.pt, which a half of a run has as well, is there."""
        ended = (self.places.runs / f"{row.name}.json").is_file()
        return ended and (self.places.runs / row.name / "weights" / "best.pt").is_file()

    def _equal_steps(self, row: Row) -> tuple[bool, int | None]:
        return matrix_rows.equal_steps(self.rows, row, self.places.results)

    def _settings(self, row: Row, gathered: int | None) -> dict[str, Any]:
        wanted = matrix_rows.settings(self.spec, row)
        return wanted if gathered is None else {**wanted, "train_nbs": gathered * self.spec["batch"]}

    def request(self, row: Row) -> tuple[list[str], dict[str, Any]]:
        """The words that train a row, and what a half of a run must have been begun with to be gone on with."""
        gathered = self._equal_steps(row)[1] if row.method == STEPS else None
        wanted = self._settings(row, gathered)
        weights, _ = matrix_files.start(self.spec, self.places, row)
        given = {"model": weights, "data": matrix_files.data(self.spec, self.places, row.set), **wanted}
        given["bf16"] = int(wanted["bf16"])
        given |= {"seed": row.seed} if row.flops is None else {"seed": row.seed, "flops": row.flops}
        words = ["dense" if row.flops is None else "ours", *(f"{key}={value}" for key, value in given.items())]
        return words, {
            "command": self.places.said("python benchmarks/accuracy.py " + " ".join(words)),
            "settings": wanted,
            "start": self.places.said(str(weights)),
            "start_sha256": matrix_files.digest(weights),
            "versions": matrix_files.versions(),
            "processor": matrix_files.processor(self.spec["device"]),
        }

    def begin(self, row: Row) -> Training | None:
        """Start the process of a row, from where an earlier one was killed; None where another process trains it."""
        runs = self.places.runs
        runs.mkdir(parents=True, exist_ok=True)
        lock = (runs / f"{row.name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        words, request = self.request(row)
        noted = runs / f"{row.name}.request.json"
        measured = runs / f"{row.name}.json"  # of an ended run that was killed before it was handed on
        lost = measured.is_file() and row.method == "dense" and not self._is_whole(row)
        if lost or not _goes_on(_read(noted), request, row):
            shutil.rmtree(runs / row.name, ignore_errors=True)
            measured.unlink(missing_ok=True)
            (runs / f"{row.name}.log").unlink(missing_ok=True)
            matrix_files.write(noted, request)
        words += [f"out={runs}", f"name={row.name}", "resume=1"]
        with (runs / f"{row.name}.log").open("a") as log:
            process = subprocess.Popen(
                ["true"] if measured.is_file() else [*self.program, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=matrix_files.environment(),
                pass_fds=(lock.fileno(),),
                preexec_fn=_die_with_parent,
            )
        return Training(row, process, lock, request)

    def finish(self, training: Training) -> bool:
        """Hand on what a process measured; whether it did."""
        row, places = training.row, self.places
        measured = _read(places.runs / f"{row.name}.json")
        training.lock.close()
        if training.process.returncode or measured is None:
            return False
        axes = {key: value for key, value in row._asdict().items() if key != "arguments"}
        dense = measured.pop("gflops_dense", None)
        figures = {key: value for key, value in measured.items() if key not in (*axes, "arguments", "epochs")}
        ratio = {} if dense is None else {"gflops_ratio": round(measured["gflops"] / dense, 4)}
        content = {
            "row": row.name,
            **axes,
            "arguments": dict(row.arguments),
            **training.request,
            "epochs": measured["epochs"],
            **ratio,
            **figures,
        }
        matrix_files.write(places.results / f"{row.name}.json", content)
        return True

    def train(self, jobs: int, say: Callable[[str], None] = print, after: Callable[[], object] = lambda: None) -> int:
        """Train what is to do of the rows that are asked for; `after` is called as each result is written.

        Returns:
            How many failed.
        """
        running: list[Training] = []
        begun: set[Row] = set()  # each at most once: what is still to do after that would be so for ever
        failed = 0
        try:
            while True:
                elsewhere = self._fill(running, begun, jobs, say)
                if not running and not elsewhere:
                    return failed
                seconds = 0.0
                while seconds < 10.0 and all(each.process.poll() is None for each in running):
                    time.sleep(0.1)
                    seconds += 0.1 * (elsewhere or not running)
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    name = each.row.name
                    if self.finish(each):
                        found = matrix_rows.result(self.places.results, each.row) or {}
                        say(f"{_now()} done     {name}: {found.get('map50_95')}")
                        after()
                    else:
                        failed += 1
                        say(f"{_now()} FAILED   {name}: see {name}.log in {self.places.runs}")
        finally:
            for each in running:
                with contextlib.suppress(ProcessLookupError):
                    each.process.kill()
                each.process.wait()

    def _fill(self, running: list[Training], begun: set[Row], jobs: int, say: Callable[[str], None]) -> bool:
        """Begin rows that are ready until so many run; whether one of them is being trained by somebody else."""
        elsewhere = False
        for row in self.asked:
            if len(running) >= jobs:
                break
            if row in begun or self.state(row) not in TO_DO:
                continue
            training = self.begin(row)
            elsewhere |= training is None
            if training is not None:
                running.append(training)
                begun.add(row)
                say(f"{_now()} begins   {row.name}")
        return elsewhere


def half(places: Places, row: Row) -> int:
    """How many epochs of a row a run that is not done has behind it."""
    rows = (_read(places.runs / row.name / "epochs.json") or {"rows": []})["rows"]
    return int(rows[-1]["epoch"]) if rows else 0


def _goes_on(noted: dict[str, Any] | None, request: Mapping[str, Any], row: Row) -> bool:
    """Whether a run that was begun with this request is the one that is asked for now.

    What was committed between them does not matter, but the package itself does where it cuts.
    """
    if noted is None:
        return False
    alike = {key: request[key] == noted.get(key) for key in ("command", "start_sha256")}
    codes = [each["versions"] for each in (noted, request)]
    keys = ("ultralytics", "torch", *(("code",) if row.flops is not None else ()))
    return all(alike.values()) and all(codes[0].get(key) == codes[1].get(key) for key in keys)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def _die_with_parent() -> None:
    """Have Linux kill a training with the matrix, so that the next matrix does not train beside it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _now() -> str:
    return time.strftime("%H:%M:%S")
