# yolo-prune, AGPL-3.0 license
"""The end of a sweep, with cuts that are made up: exporting, timing, and how the command ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import yolo_prune
from tests.helpers.untrained import save
from yolo_prune import cli, files
from yolo_prune.commands import sweep as commands
from yolo_prune.device import runtimes
from yolo_prune.errors import NoisyError, PruneError, VerifyError
from yolo_prune.sweeps import artifacts, folder, local, verdict
from yolo_prune.sweeps.points import Point
from yolo_prune.sweeps.request import Request

GOOD = b"a network"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the sweeps."""
    return save(tmp_path_factory.mktemp("deployed") / "best.pt", 0)


Sweep = Callable[..., dict[str, Any]]


@pytest.fixture
def sweep(model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of one cut without training: what it comes to is made up, its artifacts hold `GOOD`."""

    def run(jobs: Any, devices: Any, each_anew: Any, done: Any, tick: Any) -> None:
        for job in jobs:
            outcome = {"params": 10, "gflops": 1.0, "metrics": [0.5, 0.8], "weights": str(model)}
            folder.finish(Path(job["folder"]), job["name"], job["stage"], outcome)
            done(job, outcome)

    def make(request: Request, place: Path, point: Point, *_: Any) -> tuple[Path, dict[str, Any]]:
        target = place / point.name / "cut.onnx"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(GOOD)
        return target, {"bytes": len(GOOD), "channels": 3, "faults": [], "metrics": None}

    stock = runtimes.load

    def load(file: Path, *more: Any) -> Callable[[], object]:
        return (lambda: time.sleep(0.001)) if file.read_bytes() == GOOD else stock(file, *more)

    monkeypatch.setattr(local, "run", run)
    monkeypatch.setattr(artifacts, "_make", make)
    monkeypatch.setattr(runtimes, "load", load)
    given: dict[str, Any] = {"model": str(model), "data": str(tiny_data), "epochs": 0, "flops": "50%", "imgsz": 64}
    return lambda **more: yolo_prune.sweep(**{**given, "seconds": 1, "out": str(tmp_path / "out"), **more})


def full(*_: Any) -> Any:
    """As a disk without room, which names no file in a write."""
    with Path("/dev/full").open("w") as stream:
        stream.write("x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is made of /dev/full")
def test_a_full_disk_at_the_end_is_one_line_and_the_sweep_goes_on(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, stock = tmp_path / "out", artifacts._make

    def in_place(*_: Any) -> None:
        with files.writing(place / "a.onnx"):
            full()

    for dies, what in ((full, place), (in_place, place / "a.onnx")):
        monkeypatch.setattr(artifacts, "_make", dies)
        with pytest.raises(PruneError) as caught:
            sweep()
        assert str(caught.value) == (
            f"{what} cannot be written: No space left on device; what is finished is kept in {place}: make room, and "
            "the same command goes on"
        )
    monkeypatch.setattr(artifacts, "_make", stock)
    monkeypatch.setattr(local, "run", lambda *_: pytest.fail("nothing is cut twice"))
    assert [row["failed"] for row in sweep()["rows"]] == [None, None]


def test_an_error_of_the_system_in_an_export_is_of_its_point_alone(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = artifacts._make

    def make(request: Request, place: Path, point: Point, *more: Any) -> Any:
        if point.cut:
            raise OSError("libgomp.so.1: cannot open shared object file\nmore")
        return stock(request, place, point, *more)

    monkeypatch.setattr(artifacts, "_make", make)
    failed = [row["failed"] for row in sweep()["rows"]]
    assert failed == [None, "libgomp.so.1: cannot open shared object file"]


def test_an_artifact_that_its_runtime_cannot_open_is_a_failed_point_and_made_anew(sweep: Sweep, tmp_path: Path) -> None:
    assert [row["failed"] for row in sweep()["rows"]] == [None, None]
    file = tmp_path / "out" / "flops50-64" / "cut.onnx"
    file.write_bytes(b"half of it")
    dense, cut = sweep()["rows"]
    assert cut["failed"].startswith("onnxruntime cannot open cut.onnx: ")
    assert (cut["ms"], dense["failed"], dense["ms"] > 0) == (None, None, True)
    assert [row["failed"] for row in sweep()["rows"]] == [None, None]
    assert file.read_bytes() == GOOD
    for one in tmp_path.glob("out/*/cut.onnx"):  # `sweep` returns, and the command ends with 1
        one.write_bytes(b"half of it")
    assert all("cannot open" in row["failed"] for row in sweep()["rows"])


@pytest.mark.parametrize(
    ("dense", "cut", "steady", "error", "words"),
    [
        ({}, {}, True, None, ""),
        ({}, {"failed": "no luck"}, True, None, ""),
        (
            {"failed": "no luck"},
            {},
            True,
            PruneError,
            "no figures to compare with (no luck); all that was found is in a",
        ),
        ({"ms": None, "note": "no profile"}, {}, True, PruneError, "no recommendation, for the model itself has no"),
        ({}, {"failed": "raw", "unproven": True}, True, VerifyError, "not proven, do not deploy it: cut: raw; all"),
        ({}, {"failed": "raw", "unproven": True, "ms": 9.0, "metric": 0.1}, True, None, ""),  # it would be on no front
        ({"failed": "raw", "unproven": True, "metric": 0.7}, {}, False, VerifyError, "dense: raw"),
        ({}, {"steady": False}, False, NoisyError, "too busy to time cut; all that was found is in a. Close what else"),
    ],
)
def test_how_the_command_ends(
    dense: dict[str, Any], cut: dict[str, Any], steady: bool, error: type[Exception] | None, words: str
) -> None:
    plain = {"failed": None, "unproven": False, "note": None, "precision": "fp32", "base": True, "own_size": True}
    rows = [
        {"label": "dense", "kind": "dense", "ms": 4.0, "metric": 0.6, "steady": True, **plain, **dense},
        {"label": "cut", "kind": "pruned", "ms": 2.0, "metric": 0.5, "steady": True, **plain, **cut},
    ]
    record = {"rows": rows, "folder": "a", "steady": steady}
    if error is None:
        verdict.require(record, 5)
        return
    with pytest.raises(PruneError) as caught:
        verdict.require(record, 5)
    assert (type(caught.value), words in str(caught.value)) == (error, True)
    assert error is not NoisyError or (caught.value.record == record and "seconds=5," in str(caught.value))  # type: ignore[attr-defined]


def test_the_command_says_by_its_exit_code_what_the_function_returns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"label": "cut", "ms": 1.0, "metric": 0.5, "failed": "raw", "unproven": True}
    record: dict[str, Any] = {"rows": [row], "folder": "a", "steady": True}
    monkeypatch.setattr(commands.job, "run", lambda _: record)
    assert cli.main(["sweep", "model=best.pt", "data=my.yaml", "flops=50%"]) == 2
    assert capsys.readouterr().err.startswith("yolo-prune: not proven, do not deploy it: cut: raw; all that was found")
    assert yolo_prune.sweep("best.pt", "my.yaml", flops="50%") is record
