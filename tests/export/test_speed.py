# yolo-prune, AGPL-3.0 license
"""What an export says of an artifact's speed, on a made-up clock."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.untrained import QUICK
from yolo_prune.cost.model_size import Size
from yolo_prune.device import timing
from yolo_prune.errors import NoisyError, VerifyError
from yolo_prune.export import job, results, subjects, table, verdict


def _paced(monkeypatch: pytest.MonkeyPatch, milliseconds: dict[str, Any]) -> None:
    """Let models take that long on a made-up clock: a number, or a function that returns one for each call."""
    now = [0.0]

    def pace(name: str) -> Callable[[], None]:
        ms = milliseconds[name]

        def call() -> None:
            now[0] += (ms() if callable(ms) else ms) / 1e3

        return call

    stock = timing.in_turns

    def in_turns(calls: dict[str, Any], *rest: Any) -> timing.Turns:
        return stock({name: pace(name.split()[0]) for name in calls}, *rest)

    monkeypatch.setattr(timing, "_clock", lambda: now[0])
    monkeypatch.setattr(timing, "in_turns", in_turns)


def test_an_artifact_that_is_slower_than_its_parent_fails(
    model: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs are right all the same: the table has the figures of that."""
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, {"dense": 10.0, "model": 12.0})
    refused = r"proven to be torch's, but not .*best\.onnx \(model\): slower than the dense model: 0\.83 times as fast"
    with pytest.raises(VerifyError, match=refused):
        job.export(model, dense=dense, **QUICK)
    (table,) = [message for message in said if message.startswith("\nmodel")]
    assert re.search(r"model onnx .* 0\.83x \(0\.83-0\.83\) SLOWER .* ok: raw", table)
    assert "FAILED" not in table


def test_a_speed_up_is_told_with_its_interval(
    model: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, {"dense": lambda: 15 * rng.gauss(1, 0.03), "model": lambda: 10 * rng.gauss(1, 0.03)})
    told = job.export(model, dense=dense, **QUICK)
    assert told["timing_settled"]
    for row in told["rows"]:
        low, high = row["speedup_interval"]
        assert low <= (1.5 if row["role"] == "model" else 1.0) <= high
        assert row["speedup_verdict"] == ("faster" if row["role"] == "model" else "alike")
        assert row["speedup_rounds"] >= 8
    (table,) = [message for message in said if message.startswith("\nmodel")]
    assert re.search(r"model onnx .* 1\.\d\dx \(1\.4\d-1\.5\d\)", table)


def test_a_machine_that_stays_too_noisy_is_never_called_faster_or_slower(
    model: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model against itself beside a heavy load: said in the table, in export.json and by the exit code."""
    rng = random.Random(0)
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, dict.fromkeys(("dense", "model"), lambda: 10 * rng.lognormvariate(0, 1)))
    with pytest.raises(NoisyError, match=r"^proven, but the machine was too busy to time: best\.onnx: ") as caught:
        job.export(model, dense=dense, **{**QUICK, "seconds": 2})
    assert "\n" not in str(caught.value)
    told = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert told == caught.value.record
    assert told["passed"]
    assert told["timing_settled"] is False
    row = told["rows"][-1]
    assert (row["speedup"], row["speedup_verdict"]) == (None, "too noisy")
    assert row["speedup_interval"][0] < 1 < row["speedup_interval"][1]
    (table,) = [message for message in said if message.startswith("\nmodel")]
    assert "too noisy (" in table
    assert (model.parent / "best.onnx").is_file()

    from yolo_prune import cli

    monkeypatch.setitem(cli._COMMANDS, "export", ("tests.export.test_speed", "_noisy"))
    assert cli.main(["export", "model=x.pt"]) == 3


def _noisy(model: str) -> None:
    raise NoisyError("too busy")


def test_too_few_rounds_are_said_and_are_json(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Path(shutil.copy(model, tmp_path / "dense.pt"))
    _paced(monkeypatch, {"dense": 2000.0, "model": 1000.0})
    with pytest.raises(NoisyError):
        job.export(model, dense=dense, **{**QUICK, "seconds": 1})
    row = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))["rows"][-1]
    assert (row["speedup"], row["speedup_interval"]) == (None, [0.0, None])


def test_a_quantized_artifact_that_is_slower_than_the_plain_parent_fails() -> None:
    """It is faster than the parent quantized alike, and that is not what was there before."""

    def ratio(value: float) -> timing.Ratio:
        return timing.Ratio(value, value, value, 20)

    def result(role: str, precision: str, speed: float, alike: float) -> results.Result:
        subject = subjects.Subject(role, Path(f"{role}.pt"), torch.nn.Module(), {}, Size(1, 1.0), None)
        file = Path(f"{role}.onnx")
        return results.Result(subject, "onnx", precision, file, 1.0, speed=ratio(speed), alike=ratio(alike))

    dense, small = [result("dense", "fp32", 1, 1), result("dense", "int8", 0.5, 1)], result("pruned", "int8", 0.67, 1.3)
    for one in (*dense, small):
        verdict.judge(one)
    assert [one.faults for one in dense] == [[], []]
    assert small.faults == ["slower than the dense model in fp32: 0.67 times as fast in onnx, int8"]


@pytest.mark.parametrize(
    ("dense", "pruned", "interval", "said"),
    [
        (8.19, 2.61, [1.82, 1.92], True),  # on a machine that two other processes shared
        (2.61, 8.19, [1.82, 1.92], True),
        (6.09, 3.29, [1.83, 1.92], False),
        (6.09, 2.9, [1.83, 1.92], False),  # 2.1, which is near enough
        (8.19, 2.61, [1.82, None], False),  # too few rounds for an end of the interval
    ],
)
def test_milliseconds_that_say_another_speed_up_than_the_turns_are_told(
    dense: float, pruned: float, interval: list[float | None], said: bool
) -> None:
    common = {"format": "onnx", "precision": "fp32"}
    rows: list[dict[str, Any]] = [
        {**common, "role": "dense", "latency_ms": {"median": dense}, "speedup": 1.0, "speedup_interval": [1.0, 1.0]},
        {**common, "role": "pruned", "latency_ms": {"median": pruned}, "speedup": 1.89, "speedup_interval": interval},
    ]
    lines = table.in_bursts(rows)
    assert len(lines) == said
    assert not said or f"{dense / pruned:.2f} times as fast, turn by turn 1.89 times" in lines[0]
