# yolo-prune, AGPL-3.0 license
"""Jobs in processes: several at a time, a device each; one that dies takes its job alone, and none outlives the sweep.

The processes are of a stand-in that does what it is told in milliseconds; test_sweep.py has the real ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from yolo_prune.sweeps import local

STAND_IN = """\
import json, os, sys, threading, time, queue
jobs = queue.Queue()
def listen():
    for line in sys.stdin:
        if line.strip() == "end": return jobs.put(None)
        jobs.put(json.loads(line))
    os._exit(1)
threading.Thread(target=listen, daemon=True).start()
while (job := jobs.get()) is not None:
    run = os.path.join(job["folder"], job["name"])
    os.makedirs(run, exist_ok=True)
    open(os.path.join(run, "pid"), "w").write(str(os.getpid()))
    if job["name"].startswith("dies"): os._exit(3)
    if job["name"].startswith("killed"): os.kill(os.getpid(), 9)
    time.sleep({"long": 60, "slow": 5}.get(job["name"].rstrip("12"), 0.2))
    late = time.monotonic() + 60
    while job["name"].startswith("meets") and not os.path.exists(os.path.join(job["folder"], "two")):
        if time.monotonic() > late: sys.exit("never two at a time")
        time.sleep(0.01)
    outcome = {"device": job["device"], "pid": os.getpid(), "at": time.monotonic()}
    if job["name"] == "fails":
        open(os.path.join(run, "tries"), "a").write("x")
        outcome = {"failed": "no luck"}
    with open(os.path.join(run, "part"), "w") as stream:
        json.dump(outcome, stream)
    os.replace(os.path.join(run, "part"), os.path.join(run, job["stage"] + ".json"))
"""


def run(folder: Path, names: Sequence[str], devices: Sequence[str | None], **more: Any) -> dict[str, dict[str, Any]]:
    """Do jobs of these names, and return what each came to."""
    told: dict[str, dict[str, Any]] = {}
    jobs = [{"folder": str(folder), "stage": "cut", "name": name} for name in names]

    def done(job: local.Job, outcome: dict[str, Any]) -> None:
        told[job["name"]] = outcome

    tick = more.get("tick", lambda names: None)
    local.run(jobs, devices, more.get("each_anew", False), done, tick, ["-c", STAND_IN])
    return told


def test_as_many_at_a_time_as_devices_and_each_on_its_own(tmp_path: Path) -> None:
    most = [0]

    def tick(names: Sequence[str]) -> None:
        most.append(len(names))
        if len(names) == 2:
            (tmp_path / "two").touch()  # what the first jobs wait for, however slow the machine is

    told = run(tmp_path, ["meets1", "meets2", "c", "d"], ["0", "1"], tick=tick)
    assert len(told) == 4
    assert not any("failed" in one for one in told.values()), told
    assert {one["device"] for one in told.values()} == {"0", "1"}
    assert len({one["pid"] for one in told.values()}) == 2, "a process does one job after the other"
    assert max(most) == 2
    told = run(tmp_path, ["e", "f"], [None], each_anew=True)
    assert len({one["pid"] for one in told.values()}) == 2, "each has its own"


def test_a_process_that_dies_takes_its_own_job_alone(tmp_path: Path) -> None:
    told = run(tmp_path, ["dies", "a", "killed", "b"], [None])
    assert "exit code 3" in told["dies"]["failed"]
    assert "signal 9" in told["killed"]["failed"]
    assert "failed" not in told["a"]
    assert "failed" not in told["b"]
    assert json.loads((tmp_path / "dies" / "cut.json").read_text()) == told["dies"], "it is a line of the table"


def test_no_process_outlives_the_sweep(tmp_path: Path) -> None:
    def stop(names: Sequence[str]) -> None:
        if (tmp_path / "long" / "pid").exists() and (tmp_path / "long" / "pid").read_text():
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["long", "never"], [None], tick=stop)
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "long" / "pid").read_text()), 0)
    assert not (tmp_path / "long" / "cut.json").exists(), "it is begun again"
    assert not (tmp_path / "never").exists()


def test_an_older_outcome_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cut.json").write_text('{"failed": "as it was"}')
    assert "failed" not in run(tmp_path, ["a"], [None])["a"]
