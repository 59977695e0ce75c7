# yolo-prune, AGPL-3.0 license
"""The networks of a profile, timed beside the dense one: known answers on a made-up clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.device.test_pace import Clock
from yolo_prune import log
from yolo_prune.device import measurement, runtimes

MS = {"dense": 10.0, "half": 5.0, "third": 3.3}


def measured(
    monkeypatch: pytest.MonkeyPatch, noise: Callable[[str, float], float], again: tuple[str, ...] = (), at_most: int = 5
) -> tuple[list[dict[str, Any]], list[float], list[float]]:
    """What is measured of three networks; noise: a network and the seconds so far -> how many times as slow it is.

    again: which lines say that networks are timed once more. at_most: seconds of one network, as they are said.
    """
    clock = Clock(monkeypatch)

    def load(path: Path, *_: object) -> Callable[[], None]:
        return clock.call(MS[path.name], lambda: noise(path.name, clock.now))

    monkeypatch.setattr(runtimes, "load", load)
    networks = [{"file": name, "rows": [[name, 1, 1, 1]], "held_out": name == "third"} for name in MS]
    manifest = {"format": "onnx", "precision": "fp32", "networks": networks, "shapes": [], "sweeps": []}
    monkeypatch.setattr(log.time, "monotonic", lambda: clock.now)
    said: list[str] = []
    seconds = measurement._seconds(load(Path("dense")))
    clock.now = 0.0
    made = measurement._networks(Path(), manifest, 1, measurement._Progress(said.append, manifest, seconds))
    assert said[0] == f"measuring networks: 2, each in turns with the model itself, about {at_most} s at most"
    assert tuple(line.removeprefix("measuring: ") for line in said if "timed again" in line) == again
    if clock.now > 2 * log.Progress.EVERY:  # then the first network took that long
        assert any(line.startswith("measuring networks: 1 of 2, about ") for line in said)
    return made


def test_networks_are_known_with_their_interval_though_the_machine_grows_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    rows, dense_ms, unsteady = measured(monkeypatch, lambda _, now: (1 + now) * float(rng.lognormal(0, 0.05)))
    assert unsteady == []
    assert [row["held_out"] for row in rows] == [False, False, True]
    whole = float(np.median(dense_ms))
    for row, ms in zip(rows, MS.values(), strict=True):
        low, high = row["interval"]
        assert low - 1e-5 <= ms / 10 * whole <= high + 1e-5
        assert row["ms"] / whole == pytest.approx(ms / 10, rel=0.03)
    assert rows[0]["interval"] == [round(whole, 5)] * 2  # of itself it is the whole
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(("again", "wide"), [(0, 1), (2, 0)])
def test_a_network_that_another_program_disturbed_is_timed_again_later(
    again: int, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first network is timed, for its four seconds, calls take one to thirty times as long."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(measurement, "_AGAIN", again)

    def noise(name: str, now: float) -> float:
        return float(rng.lognormal(0, 1.0) if now < 4.5 else rng.lognormal(0, 0.02))

    line = "1 network is not known to 3% yet: timed again (round 2 of at most 3), about 3 s"
    rows, _, unsteady = measured(monkeypatch, noise, (line,) * (again > 0))
    assert len(unsteady) == wide
    low, high = rows[1]["interval"]
    if again:
        assert low <= 5.0 <= high < 1.08 * low


def test_a_slow_device_is_given_time_for_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second a call: four seconds would be two rounds."""
    rng = np.random.default_rng(0)
    rows, _, unsteady = measured(monkeypatch, lambda *_: 50.0 * float(rng.lognormal(0, 0.005)), at_most=25)
    assert unsteady == []
    low, high = rows[1]["interval"]
    assert low <= 250.0 <= high


def test_an_end_that_is_not_known_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of half a minute: there is time for fewer rounds than an interval takes."""
    line = "2 networks are not known to 3% yet: timed again (round {} of at most 3), about 340 s"
    rows, _, unsteady = measured(monkeypatch, lambda *_: 3000.0, (line.format(2), line.format(3)), 75)
    assert unsteady == [9.99, 9.99]
    assert [row["interval"] for row in rows[1:]] == [[None, None]] * 2
    json.dumps(rows, allow_nan=False)
