# yolo-prune, AGPL-3.0 license
"""A cut that is bound in milliseconds and given no profile: this machine is measured, and then what came out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import yolo_prune
from tests.device.test_latency import FEW
from tests.helpers.small_models import untrained
from yolo_prune.device import measurement, probe_kit, timing
from yolo_prune.host import exporter
from yolo_prune.planning.measured_bound import TOLERANCE

NETWORKS = FEW[:3]  # one of each kind: an export in INT8 takes a second and more


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure few networks, for the test's time, by the real clock, without which all of them cost the same."""
    monkeypatch.setattr(probe_kit, "_NETWORKS", NETWORKS)
    monkeypatch.setattr(timing, "_clock", time.perf_counter)
    monkeypatch.setattr(measurement, "_MOST_SECONDS", 1.0)
    monkeypatch.setattr(timing, "SECONDS", 1.0)


@pytest.mark.usefixtures("measured")
def test_prune_measures_this_machine_and_then_what_it_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """In INT8; a run does the same in FP32 (training/test_latency_run.py)."""
    monkeypatch.setattr(measurement, "_SECONDS", 0.005)
    written: list[str] = []
    by_host = exporter.by_host

    def export(staged: Path, network: Any, kind: str, precision: str, **arguments: Any) -> Path:
        written.append(precision)
        return by_host(staged, network, kind, precision, **arguments)

    monkeypatch.setattr(exporter, "by_host", export)
    told = yolo_prune.prune(untrained(), latency="90%", precision="int8", scope="latency", imgsz=64)
    assert len(written) >= 1 + len(NETWORKS) + 2  # the networks of the profile, and the two that are compared
    assert set(written) == {"int8"}
    entry = told["latency"]
    assert entry["profile"]["precision"] == "int8"
    check = told["steps"][0]["measured"]  # what is predicted of the plan holds the bound that was corrected, if it was
    asked = check["tries"][check["taken"]]["bound"]
    assert entry["predicted_ms"]["final"] <= asked * entry["predicted_ms"]["baseline"] * (1 + 1e-3)
    assert entry["bound_ms"] == pytest.approx(0.9 * entry["predicted_ms"]["baseline"], rel=1e-3)
    assert told["final"]["latency_ms"] == entry["measured_ms"]["final"] > 0
    assert told["baseline"]["latency_ms"] == entry["measured_ms"]["baseline"] > 0
    speed = entry["measured_speedup"]
    holds = 1 / speed["median"] <= 0.9 * (1 + TOLERANCE)
    assert entry["kept"] is (holds if speed["steady"] else None)
    assert told["final"]["params"] < told["baseline"]["params"]
    json.dumps(told, allow_nan=False)
