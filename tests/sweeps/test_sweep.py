# yolo-prune, AGPL-3.0 license
"""One sweep of real trainings, killed in the middle and gone on with: what it keeps, what it finds, what it leaves."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import yolo_prune
from tests.helpers import typed
from tests.helpers.checkout import ROOT
from tests.helpers.untrained import save
from yolo_prune import cli
from yolo_prune.errors import NoisyError, PruneError
from yolo_prune.sweeps import checks, folder, local

POINTS = ("dense-64", "flops60-64", "dense-32", "flops60-32")
WORDS = (
    *("epochs=1", "flops=60%", "imgsz=64,32", "seconds=1", "max_drop=0.02"),
    *("workers=0", "batch=4", "plots=False", "amp=False", "optimizer=SGD"),
)


class Swept(NamedTuple):
    """A finished sweep: its folder, its model and data, what it returned, and what was there when it was killed."""

    folder: Path
    model: Path
    data: Path
    record: dict[str, Any]
    before: dict[str, Any]
    log: str


def words(model: Path, data: Path, out: Path) -> list[str]:
    """The words of the command."""
    return ["sweep", f"model={model}", f"data={data}", f"out={out}", *WORDS]


def parsed(swept: Swept, out: Path) -> dict[str, Any]:
    """The arguments that the command hands to `yolo_prune.sweep`."""
    return cli.parse("sweep", words(swept.model, swept.data, out)[1:], cli.arguments_of("sweep"))


def stamp(path: Path) -> tuple[int, int]:
    """Changes when a file is written anew."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def worker_of(run: Path) -> list[int]:
    """The processes that hold the folder of a point; they have its log open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(entry) == str(run / "train.log"):
                found.append(int(entry.parts[2]))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def swept(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The sweep: SIGKILL while its second training is at work, then the same command to its end, in this process."""
    place = tmp_path_factory.mktemp("sweep")
    model, out = save(place / "best.pt", 0), place / "out"
    command = [sys.executable, "-m", "yolo_prune", *words(model, tiny_data, out)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    first = subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 1000
        while not (out / "flops60-64" / "args.yaml").exists():  # of the host's trainer: it is at work
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        orphans = worker_of(out / "flops60-64")
    finally:
        first.kill()
    log = first.communicate()[0]
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{number}").exists() for number in orphans) and time.monotonic() < deadline:
        time.sleep(0.05)
    finished = [path for path in out.rglob("*.json") if path.name in ("cut.json", "trained.json")]
    finished.append(out / "dense-64" / "weights" / "best.pt")
    before = {
        "orphans": orphans,
        "alive": [number for number in orphans if Path(f"/proc/{number}").exists()],
        "stamps": {path: stamp(path) for path in finished},
    }
    done = typed.yolo_prune(*words(model, tiny_data, out), cwd=place)
    record = json.loads((out / "front.json").read_text())
    unproven = any(row["unproven"] for row in record["rows"])
    assert done.code in ((0, 1, 2) if unproven else (0,)) + (3,) * (not record["steady"]), done.text[-3000:]
    return Swept(out, model, tiny_data, record, before, log + done.out)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="processes are looked for in /proc")
def test_a_killed_sweep_takes_its_training_with_it(swept: Swept) -> None:
    assert len(swept.before["orphans"]) == 1
    assert swept.before["alive"] == []


def test_nothing_that_was_finished_is_done_again(swept: Swept) -> None:
    stamps = swept.before["stamps"]
    names = sorted(f"{path.parent.name}/{path.name}" for path in stamps if path.suffix == ".json")
    assert names == sorted([*(f"{name}/cut.json" for name in POINTS), "dense-64/trained.json"])
    assert {path: stamp(path) for path in stamps} == stamps
    assert "training: going on; 1 of 4 points are finished" in swept.log


def test_every_point_is_a_run_of_the_host_with_what_makes_it(swept: Swept) -> None:
    assert [row["name"] for row in swept.record["rows"]] == list(POINTS)
    for name in POINTS:
        run = swept.folder / name
        assert len((run / "results.csv").read_text().splitlines()) == 2, "a head and one epoch"
        outcome = json.loads((run / "trained.json").read_text())
        assert outcome["weights"] == f"{name}/weights/best.pt", "so that the folder can be moved"
        assert shlex.split(outcome["command"])[:2] == ["yolo", "train"]
        assert outcome["point"]["name"] == name
    assert not list(swept.folder.rglob(".yolo-prune-*"))
    assert not list(swept.folder.rglob(".running")) + list(swept.folder.rglob(".point"))


def test_the_rows_say_what_the_models_are(swept: Swept) -> None:
    rows = {row["name"]: row for row in swept.record["rows"]}
    assert [rows[name]["kind"] for name in POINTS] == ["dense", "pruned"] * 2
    assert [rows[name]["small"] for name in POINTS] == [False, False, True, True]
    assert rows["flops60-64"]["gflops"] <= 0.6 * rows["dense-64"]["gflops"]
    assert rows["dense-32"]["gflops"] == pytest.approx(rows["dense-64"]["gflops"] / 4, rel=0.01)
    for row in rows.values():
        assert not row["failed"] or row["failed"].startswith("raw "), "the scores of an untrained model are all but one"
        assert row["ms"] > 0
        assert row["speedup"]["median"] > 0
        assert 0 <= row["metric"] <= row["metric2"] <= 1
        assert Path(row["artifact"]).stat().st_size == row["bytes"]
    best = swept.record["front"]
    assert best
    assert best == sorted((row for row in rows.values() if row["on_front"]), key=lambda row: row["ms"])
    assert {row["name"] for row in swept.record["after_cut"]} == set(POINTS)


def test_what_is_written_and_said(swept: Swept) -> None:
    with (swept.folder / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["stage"] for row in rows] == ["cut"] * 4 + ["trained"] * 4
    assert (swept.folder / "front.png").read_bytes().startswith(b"\x89PNG")
    first, second = swept.record["recommendation"]
    assert swept.log.rstrip().endswith(f"{first}\n{second}")
    assert first.startswith("Fastest with at most 0.02 mAP50-95 less than the model itself")
    assert "onnx on " in swept.record["device"]
    assert "pruned flops=60% at 32" in swept.log


def test_the_same_command_from_python_trains_nothing_and_another_is_refused(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "run", lambda *given: pytest.fail("work was begun"))
    arguments = parsed(swept, swept.folder)
    again = yolo_prune.sweep(**{**arguments, "max_drop": 0.5})
    assert [row["name"] for row in again["rows"]] == list(POINTS)
    assert "0.5 mAP50-95 less" in again["recommendation"][0]
    with pytest.raises(
        PruneError, match=r"holds another sweep \(bounds= was flops=60% and is flops=50%\); name another"
    ):
        yolo_prune.sweep(**{**arguments, "flops": "50%"})
    with pytest.raises(PruneError, match=r"epochs= was 1 and is 2"):
        yolo_prune.sweep(**{**arguments, "epochs": 2})


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for requests that are refused."""
    return save(tmp_path_factory.mktemp("untrained") / "best.pt", 0)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"model": "none.pt"}, "model=none.pt: there is no such file"),
        ({"data": "none.yaml"}, "data=none.yaml: not a data set"),
        ({"baselines": "yolo99n.pt"}, "baselines=yolo99n.pt: there is no such file, and ultralytics publishes no such"),
        ({"baselines": "yolo99n.yaml"}, "baselines=yolo99n.yaml: "),
        ({"baselines": "data"}, ".yaml is no model: there is no 'backbone' in it"),
        ({"baselines": "yolov8n-seg.yaml"}, "baselines=yolov8n-seg.yaml is of task segment and the model of detect"),
        (
            {"baselines": "yolov8n-p6.yaml", "imgsz": 96},
            "takes images of multiples of 64 pixels",
        ),
        (
            {"recipe": "auto", "flops": None, "epochs": 0},
            "recipe=auto: its max_drop is of a training",
        ),
        ({"flops": "1%"}, "out of reach"),
        ({"flops": "50"}, "flops=50 has no unit"),
        ({"recipe": "balance"}, "did you mean prune=balanced?"),
        ({"profile": "none.json"}, "profile=none.json: there is no such file"),
        ({"format": "engine"}, "needs tensorrt"),
        ({"batch": "many"}, "'batch=many' is of invalid type str"),
        ({"devices": "0,99"}, "devices="),
        ({"data": "three"}, "three.yaml has 3 classes and the model 2"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_work(
    given: dict[str, Any], line: str, untrained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "run", lambda *given: pytest.fail("work was begun"))
    if given.get("baselines") == "data":
        given = {"baselines": str(tiny_data)}
    if given.get("data") == "three":
        given = {"data": str(tmp_path / "three.yaml")}
        Path(given["data"]).write_text(tiny_data.read_text() + "  2: grey\n")
    with pytest.raises(PruneError) as caught:
        yolo_prune.sweep(
            **{"model": str(untrained), "data": str(tiny_data), "epochs": 3, "imgsz": 64, "flops": "50%", **given}
        )
    assert line in str(caught.value)
    assert "prune_flops" not in str(caught.value), "arguments are named as they were given"
    assert "prune_profile" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("runs/sweep").exists()


def test_what_was_measured_on_a_busy_machine_is_not_kept(
    untrained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command would take it for good."""

    def busy(model: str, kind: str, imgsz: int, target: str, **more: Any) -> None:
        Path(target).write_text("{}")
        raise NoisyError(f"{target} was measured on a machine that was too busy: 3 of 9 networks")

    monkeypatch.setattr(checks.profiles, "profile", busy)
    monkeypatch.setattr(local, "run", lambda *given: pytest.fail("work was begun"))
    out = tmp_path / "out"
    with pytest.raises(PruneError, match=r"latency=: this machine was too busy to be measured \(3 of 9 networks\)"):
        yolo_prune.sweep(str(untrained), str(tiny_data), epochs=3, imgsz=64, latency="50%", out=str(out))
    assert not out.exists()


def test_a_point_that_fails_is_a_line_and_not_the_end(
    swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished sweep, in another place, with one training that failed and fails again."""
    import shutil

    copy = Path(shutil.copytree(swept.folder, tmp_path / "copy"))
    folder.finish(copy, "flops60-64", "trained", {"failed": "it had no luck"})

    def fail(jobs: list[dict[str, Any]], devices: object, each_anew: object, done: Any, tick: Any) -> None:
        assert [one["name"] for one in jobs] == ["flops60-64"], "what failed is tried again, and nothing else"
        done(jobs[0], {"failed": "no luck again"})

    monkeypatch.setattr(local, "run", fail)
    arguments = parsed(swept, copy)
    record = yolo_prune.sweep(**arguments)
    rows = {row["name"]: row for row in record["rows"]}
    assert rows["flops60-64"]["failed"] == "no luck again"
    assert [name for name, row in rows.items() if row["metric"] is not None] == [n for n in POINTS if n != "flops60-64"]
    dense = rows["dense-64"]
    assert (Path(dense["weights"]).parents[2], Path(dense["artifact"]).parents[2]) == (copy, copy)
    assert "flops60-64" not in {row["name"] for row in record["front"]}
    outcome = folder.read(copy / "flops60-32" / "cut.json")
    outcome["point"]["cut"]["prune_round"] = 8
    folder.finish(copy, "flops60-32", "cut", outcome)
    with pytest.raises(
        PruneError, match=r"cut flops60-32 otherwise \(prune_round= was 8 and is not given\), and the two"
    ):
        yolo_prune.sweep(**arguments)
