# yolo-prune, AGPL-3.0 license
"""A run of the host's real trainer that aims at milliseconds: measured on the spot, kept to, resumed, told."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

import yolo_prune
from tests.device.test_latency import FEW
from tests.device.test_plan_timer import SlowerMachine, of_this_machine
from tests.helpers.foreign import plant
from tests.helpers.runs import StoppedError, record_of, stop_in, train
from tests.helpers.small_models import untrained
from yolo_prune import log
from yolo_prune.cost import model_size, profile_file
from yolo_prune.device import measurement, probe_kit, profile, timing
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host.run import Run
from yolo_prune.planning import measured_bound
from yolo_prune.planning.baseline import Baseline
from yolo_prune.report import latency
from yolo_prune.training import kept_model, latency_of_run


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was asked for a latency without a profile, ended in its third epoch, and resumed."""
    folder = tmp_path_factory.mktemp("latency")
    yolo = untrained()
    stop_in(yolo, 2, "on_train_epoch_end")
    settings = {"prune_latency": "85%", "prune_scope": "latency", "prune_steps": 2, "prune_end": 0.8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_kit, "_NETWORKS", FEW)
        patch.setattr(timing, "_clock", time.perf_counter)  # on a made-up one all networks cost the same
        patch.setattr(measurement, "_MOST_SECONDS", 1.0)
        patch.setattr(measurement, "_SECONDS", 0.01)
        patch.setattr(measurement, "_AGAIN", 0)
        with pytest.raises(StoppedError):
            train(tiny_data, folder, yolo, epochs=5, **settings)
    before = (folder / "run" / "pruning" / "device.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured_bound, "CORRECTIONS", 1)
        YOLO(folder / "run" / "weights" / "last.pt").train(resume=True)
    assert (folder / "run" / "pruning" / "device.json").read_bytes() == before  # measured once
    return folder / "run"


def run_of(folder: Path) -> Run:
    """A run in a folder, as at its end."""

    def get_model(cfg: Any, weights: Any, verbose: bool) -> DetectionModel:
        return DetectionModel(cfg, nc=2, verbose=verbose)

    best = folder / "weights" / "best.pt"
    model = load_checkpoint(str(best))[0].float()
    return Run(SimpleNamespace(model=model, get_model=get_model, save_dir=folder, best=best))


def dense_of(folder: Path) -> Any:
    """The dense model that a run has kept."""
    run = run_of(folder)
    return kept_model.read(folder / "pruning" / "dense.pt", run.built, "", run.student)


def test_the_bound_is_met_by_best_and_last(run: Path) -> None:
    found = profile_file.read(run / "pruning" / "device.json")
    dense = model_size.latency_of(dense_of(run), found)
    for name in ("best.pt", "last.pt"):
        model, _ = load_checkpoint(str(run / "weights" / name))
        assert 0.5 * dense < model_size.latency_of(model.float(), found) <= 0.85 * dense * (1 + 1e-6)


def test_the_record_tells_bound_prediction_and_measurement(run: Path) -> None:
    record = record_of(run)
    entry = record["latency"]
    assert record["bounds"]["latency"] == pytest.approx(entry["bound_ms"], rel=1e-3)
    assert entry["bound_ms"] == pytest.approx(0.85 * entry["predicted_ms"]["baseline"], rel=1e-3)
    assert entry["predicted_ms"]["final"] <= entry["bound_ms"] * 1.0001
    assert record["baseline"]["latency_ms"] == entry["measured_ms"]["baseline"] > 0
    assert record["final"]["latency_ms"] == entry["measured_ms"]["final"] > 0
    speed = entry["measured_speedup"]
    assert entry["kept"] is ((1 / speed["median"] <= 0.85 * 1.02) if speed["steady"] else None)
    assert entry["profile"]["format"] == "onnx"
    assert entry["profile"]["error"]["networks"]["count"] == 2
    for key in ("baseline", "final"):
        parts = [row[key] for row in entry["predicted_ms_by_part"].values()]
        assert len(parts) == 4
        assert sum(parts) == pytest.approx(entry["predicted_ms"][key], abs=1e-3)
    predicted = [row["predicted_ms"] for row in record["steps"]]
    assert len(predicted) == 2
    assert "measured" not in record["steps"][0]  # the first step ends on the way
    check = record["steps"][1]["measured"]  # exported and timed, where by the clock of the tests all takes as long
    assert [one["measured"] for one in check["tries"]] == [1.0, 1.0]
    assert (check["bound"], check["kept"], check["taken"]) == (0.85, False, 0)
    assert predicted == sorted(predicted, reverse=True)


def test_a_given_profile_is_used_and_every_bound_holds(tiny_data: Path, tmp_path: Path) -> None:
    """On a machine that turns out 30% slower for what is cut than its profile says: the plan is chosen again.

    The profile is made up: by a real one it hangs on the machine which of the bounds is the tightest.
    """
    said: list[str] = []
    device = tmp_path / "device.json"
    device.write_text(json.dumps(of_this_machine().content))
    with pytest.MonkeyPatch.context() as patch:
        slower = SlowerMachine(1.3, patch)
        patch.setattr(probe_kit, "make", lambda *a, **k: said.append("measured again"))
        train(
            tiny_data,
            tmp_path,
            epochs=2,
            prune_latency="90%",
            prune_profile=str(device),
            prune_schedule="oneshot",
            prune_flops="85%",
            prune_params="80%",
            prune_size="1.5MB",
        )
    assert said == []
    record = record_of(tmp_path / "run")
    entry, before, after = record["latency"], record["baseline"], record["final"]
    assert entry["predicted_ms"]["final"] <= 0.9 * entry["predicted_ms"]["baseline"] * 1.0001
    assert entry["note"] == "on this machine"
    (step,) = record["steps"]
    first, second = step["measured"]["tries"]
    assert first["measured"] > 0.91
    assert second["measured"] == pytest.approx(1.3 * second["predicted"], abs=1e-3)
    assert (step["measured"]["taken"], step["measured"]["kept"], entry["kept"]) == (1, True, True)
    assert step["predicted_ms"] == pytest.approx(slower.timed[1], abs=1e-3)
    assert slower.timed[2] == pytest.approx(slower.timed[1])  # best.pt, at the end
    assert set(record["bounds"]) == {"flops", "params", "latency", "size"}  # and all of them hold
    assert after["gflops"] <= 0.85 * before["gflops"]
    assert after["params"] <= 0.8 * before["params"]
    assert 1.2e6 < after["size_bytes"] <= 1.5e6 < before["size_bytes"]
    assert record["deployment"] == {"format": "onnx", "precision": "fp32", "imgsz": 64}


@pytest.mark.parametrize(("share", "kept"), [(0.89, True), (0.91, True), (0.93, False), (1.1, False)])
def test_a_missed_bound_is_said_loudly(
    share: float, kept: bool, run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is 90%; what two timings of one model differ by (2% of it) is no miss."""
    ratio = timing.Ratio(1 / share, 1 / share, 1 / share, 20)
    monkeypatch.setattr(profile, "beside", lambda *given: nullcontext(lambda cut: (10.0, 10.0 * share, ratio)))
    yolo = untrained()
    yolo.model = dense_of(run)
    with caplog.at_level("INFO", logger="ultralytics"):
        told = yolo_prune.prune(yolo, latency="90%", profile=str(run / "pruning" / "device.json"))
    assert told["latency"]["kept"] is kept
    assert ("THE LATENCY BOUND IS MISSED" in caplog.text) is not kept
    assert "model   bound, ms  predicted, ms  measured, ms" in caplog.text


def test_a_dense_model_that_would_run_code_is_not_timed(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run, tmp_path / "run")
    plant(tmp_path / "run" / "pruning" / "dense.pt", tmp_path / "ran")
    ended = run_of(tmp_path / "run")
    device = profile_file.read(run / "pruning" / "device.json")
    baseline = Baseline.of(ended.student, channel_groups.build(ended.student), device)
    with caplog.at_level("INFO", logger="ultralytics"):
        latency_of_run.beside_dense(ended, record := record_of(run), baseline, log.say)
    assert record["latency"]["measured_ms"] is None
    assert "dense.pt is not loaded, beside which the trained model is timed" in record["latency"]["note"]
    assert record["latency"]["note"] in caplog.text
    assert "\n" not in record["latency"]["note"]
    assert not (tmp_path / "ran").exists()


def test_a_run_whose_timing_was_left_to_others_has_what_is_predicted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sweep, where it would measure the machine that trains and not the device, beside other trainings."""
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.setattr(latency_of_run, "_not_timed", [])
    monkeypatch.setattr(profile, "time_side_by_side", lambda *given: pytest.fail("it was timed"))
    ended = run_of(tmp_path / "run")
    device = profile_file.read(run / "pruning" / "device.json")
    baseline = Baseline.of(ended.student, channel_groups.build(ended.student), device)
    latency_of_run.leave_timing("others do it")
    record = record_of(run)
    record["steps"][-1]["predicted_ms"] = 0.001  # of a step that was undone
    latency_of_run.beside_dense(ended, record, baseline, log.say)
    expected = round(model_size.latency_of(ended.student, device), 4)
    assert (record["latency"]["measured_ms"], record["latency"]["note"]) == (None, "not measured: others do it")
    assert record["latency"]["predicted_ms"]["final"] == expected
    assert record["latency"]["predicted_ms_by_part"]


def test_a_profile_that_is_missing_is_refused_before_the_run(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(PruneError, match=r"prune_profile=nothing.json: there is no such file"):
        train(tiny_data, tmp_path, epochs=2, prune_latency="80%", prune_profile="nothing.json")
    assert not (tmp_path / "run").exists()


def test_a_profile_of_another_machine_is_predicted_and_not_timed_here(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a model takes other milliseconds than on a board, and is another share of the dense one's."""
    monkeypatch.setattr(profile, "beside", lambda *given: pytest.fail("timed"))
    found = json.loads((run / "pruning" / "device.json").read_text())
    found["machine"]["cores"] += 1
    (other := run / "pruning" / "other.json").write_text(json.dumps(found))
    yolo = untrained()
    yolo.model = dense_of(run)
    with caplog.at_level("INFO", logger="ultralytics"):
        entry = yolo_prune.prune(yolo, latency="90%", profile=str(other))["latency"]
    assert (entry["measured_ms"], entry["kept"]) == (None, None)
    assert "not timed, for this machine is not the one of the profile" in entry["note"]
    (line,) = [one for one in caplog.records if entry["note"] in one.message]
    assert line.levelname == "INFO"
    told = record_of(run)
    ended = run_of(run)
    baseline = Baseline.of(ended.student, channel_groups.build(ended.student), profile_file.read(other))
    latency_of_run.beside_dense(ended, told, baseline, log.say)
    assert told["latency"]["note"] == entry["note"]


@pytest.mark.parametrize("computes_in", [None, "f32", "bf16"])
def test_a_profile_of_this_machine_in_another_precision_is_doubted(
    computes_in: str | None, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenVINO was told FP32 before, and what it chooses may change with its version."""
    found = json.loads((run / "pruning" / "device.json").read_text())
    assert found.pop("computes_in") == "f32"
    device = profile_file.of({**found, **({} if computes_in is None else {"computes_in": computes_in})}, "device.json")
    latency.doubt(device, device.imgsz)
    assert ("computing in bf16, and by itself it computes in f32 on this machine" in caplog.text) is (
        computes_in == "bf16"
    )
