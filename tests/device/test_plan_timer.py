# yolo-prune, AGPL-3.0 license
"""Plans that are timed before they are cut: what is exported and timed, when, and what comes of it."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import yolo_prune
from tests.helpers.made_up_device import by_channels
from tests.helpers.small_models import untrained
from tests.planning.test_choice import asked
from yolo_prune.cost import model_size, profile_file
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import machine, plan_timer, profile, runtimes
from yolo_prune.device.profile import SideBySide
from yolo_prune.device.timing import Ratio
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.planning import choice, measured_bound
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.report import latency


@functools.cache
def small() -> Any:
    """The small model, which is not to be changed."""
    return untrained().model


def of_this_machine() -> Profile:
    """A made-up profile of the small model, as if it were of the machine that the tests run on."""
    return by_channels(small(), machine=machine.this_machine())


class SlowerMachine:
    """Stands for `profile.beside`: the model that it gets takes so many times what is predicted of it.

    Attributes:
        factor: as said. steady: whether its timings are. timed: predicted ms of what was timed.
    """

    def __init__(self, factor: float, monkeypatch: pytest.MonkeyPatch, steady: bool = True) -> None:
        self.factor, self.steady, self.timed = factor, steady, list[float]()
        monkeypatch.setattr(profile, "beside", self)

    @contextlib.contextmanager
    def __call__(
        self, whole: Callable[[], nn.Module], device: Profile, what: str = ""
    ) -> Iterator[Callable[[nn.Module], SideBySide]]:
        def timed(cut: nn.Module) -> SideBySide:
            before, after = (model_size.latency_of(one, device) for one in (whole(), cut))
            self.timed.append(after)
            faster, wide = before / after / self.factor, 0.01 if self.steady else 0.4
            return before, before / faster, Ratio(faster, faster * (1 - wide), faster * (1 + wide), 20)

        yield timed


def test_what_is_timed_is_what_the_plan_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph = small(), channel_groups.build(small())
    device = of_this_machine()
    baseline, wanted = Baseline.of(model, graph, device), asked(latency="60%", importance="l2")
    plan = choice.plan(model, graph, wanted, baseline, choice.step_bounds(wanted, baseline))
    before = {name: value.shape for name, value in model.named_parameters()}
    slower = SlowerMachine(1.2, monkeypatch)
    timer = plan_timer.PlanTimer(model, lambda: model, device)
    with timer() as timed:
        measured = timed(graph, plan)
    assert slower.timed == pytest.approx([plan.predicted], rel=1e-9)
    assert plan.predicted is not None
    share = 1.2 * plan.predicted / baseline.latency
    assert measured[:3] == pytest.approx((share, share / 1.01, share / 0.99))
    assert (measured.known, measured.ms) == (True, pytest.approx(1.2 * plan.predicted))
    assert timer.timings[0][1] == measured.ms
    assert {name: value.shape for name, value in model.named_parameters()} == before


def test_the_dense_model_is_exported_once_for_all_tries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the clock of the tests all models take as long: no plan holds the bound, and all tries are made."""
    exported: list[tuple[Path, int]] = []
    read: list[nn.Module] = []
    there: list[list[bool]] = []

    def export(network: nn.Module, folder: Path, device: Profile) -> Path:
        exported.append((folder / "model.onnx", sum(p.numel() for p in network.parameters())))
        exported[-1][0].write_bytes(b"")
        there.append([path.exists() for path, _ in exported])
        return exported[-1][0]

    def dense() -> nn.Module:
        read.append(small())
        return read[-1]

    monkeypatch.setattr(profile, "export", export)
    monkeypatch.setattr(runtimes, "load", lambda *given: lambda: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, device, wanted = small(), of_this_machine(), asked(latency="80%", importance="l2")
    baseline = Baseline.of(model, channel_groups.build(model), device)
    timer = plan_timer.PlanTimer(model, dense, device)
    bounds = choice.step_bounds(wanted, baseline)
    with caplog.at_level("INFO", logger="ultralytics"):
        _, _, check = measured_bound.choose(model, StepRequest(wanted, baseline, bounds), timer)
    assert check is not None
    words = "the plan is exported to onnx and timed in turns with the dense one on this machine, about 25 s at most"
    assert caplog.text.count(words) == len(check.tries)
    assert len(check.tries) == len(timer.timings) == 1 + measured_bound.CORRECTIONS
    whole, *cut = [count for _, count in exported]
    assert len(read) == 1
    assert len(cut) == len(check.tries)
    assert whole > cut[0] > cut[1] > cut[2]
    assert there[-1] == [True, False, False, True]  # the dense model's file stays as long as it is run
    assert list(tmp_path.iterdir()) == []


def test_plans_are_timed_where_the_profile_is_of_this_machine_and_its_runtime_is_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, other = of_this_machine(), by_channels(small())
    wanted = asked(latency="60%")
    assert plan_timer.possible(wanted, here)
    assert not plan_timer.possible(wanted, other)
    assert not plan_timer.possible(wanted, None)
    assert not plan_timer.possible(asked(latency="60%", check_latency=False), here)
    assert not plan_timer.possible(asked(flops="60%", scope="latency"), here)
    monkeypatch.setitem(runtimes.PACKAGES, "onnx", ("no_such_module", "onnxruntime"))
    assert not plan_timer.possible(wanted, here)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("profile") / "device.json"
    path.write_text(json.dumps(of_this_machine().content))
    return str(path)


def test_a_cut_holds_its_bound_on_a_machine_that_is_slower_than_its_profile(
    device: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slower = SlowerMachine(1.06, monkeypatch)
    with caplog.at_level("INFO", logger="ultralytics"):
        told = yolo_prune.prune(deepcopy(small()), latency="60%", profile=device, importance="l2")
    check, entry = told["steps"][0]["measured"], told["latency"]
    assert (check["kept"], check["taken"], check["bound"]) == (True, 1, 0.6)
    first, second = check["tries"]
    assert first["predicted"] <= 0.6 < first["measured"] == pytest.approx(1.06 * first["predicted"], abs=1e-3)
    assert second["bound"] == pytest.approx(0.6 / 1.06, abs=1e-3)
    assert 0.57 < second["measured"] <= 0.6
    assert len(slower.timed) == 2  # and the cut model is not timed again
    assert entry["predicted_ms"]["final"] == pytest.approx(slower.timed[1], abs=1e-3)
    assert entry["measured_ms"]["final"] == pytest.approx(1.06 * slower.timed[1], abs=1e-3)
    assert entry["kept"] is True
    assert f"the plan takes {second['measured']:.1%} of the dense model's time on this machine" in caplog.text
    assert "it was chosen again by what was measured" in caplog.text


def test_a_busy_machine_is_one_line_and_no_promise(
    device: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slower = SlowerMachine(1.06, monkeypatch, steady=False)
    told = yolo_prune.prune(deepcopy(small()), latency="60%", profile=device, importance="l2")
    check = told["steps"][0]["measured"]
    assert (check["kept"], len(check["tries"]), told["latency"]["kept"]) == (None, 1, None)
    assert len(slower.timed) == 2  # the plan, and at the end what came of it
    assert "the plan is not known to hold the bound on latency (45" in caplog.text
    assert caplog.text.count("the machine is too busy to tell; it holds as predicted") == 1


@pytest.mark.parametrize(("key", "value"), [("check_latency", False), ("flops", "60%")])
def test_no_plan_is_timed_where_that_is_not_wanted(
    key: str, value: Any, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower = SlowerMachine(1.06, monkeypatch)
    bound = {"latency": "60%"} if key == "check_latency" else {}
    told = yolo_prune.prune(deepcopy(small()), profile=device, importance="l2", **bound, **{key: value})
    assert "measured" not in told["steps"][0]
    assert len(slower.timed) == 1  # the cut model, at the end
    assert told["latency"]["kept"] is (False if bound else None)


def test_a_bound_that_the_plan_misses_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    one = measured_bound.Measured(0.55, 0.54, 0.56, True, 11.0)
    check = measured_bound.Check((measured_bound.Try(10.0, 9.9, one),), 0, 10.0, 20.0, False, "nothing is left to cut")
    latency.tell_check(check)
    assert (
        "THE LATENCY BOUND IS MISSED BY THE PLAN. the plan takes 55.0% of the dense model's time on this machine "
        "(54.0% to 56.0%), bound 50.0%, predicted 49.5%; nothing is left to cut" in caplog.text
    )


def test_an_interval_without_an_end_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    one = measured_bound.Measured(0.55, 0.0, 1e9, False, 11.0)
    latency.tell_check(measured_bound.Check((measured_bound.Try(10.0, 9.9, one),), 0, 10.0, 20.0, None, "too busy"))
    assert "the plan is not known to hold the bound on latency: too busy; it holds as predicted" in caplog.text


def test_a_dense_model_that_cannot_be_read_is_a_plan_that_is_not_timed(device: str) -> None:
    def gone() -> nn.Module:
        raise PruneError("dense.pt is not there")

    model, graph = small(), channel_groups.build(small())
    read = profile_file.read(device)
    baseline, wanted = Baseline.of(model, graph, read), asked(latency="60%", importance="l2")
    timer = plan_timer.PlanTimer(model, gone, read)
    bounds = choice.step_bounds(wanted, baseline)
    _, plan, check = measured_bound.choose(model, StepRequest(wanted, baseline, bounds), timer)
    assert check is not None
    assert (check.kept, check.note) == (None, "it could not be timed: dense.pt is not there")
    assert plan.predicted is not None
    assert plan.predicted <= bounds["latency"] * 1.0001


def test_macos_tells_which_of_its_processors_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`platform.processor` is "arm" on all of them. Not run on a Mac: what `sysctl` answers there is put in here."""
    told = SimpleNamespace(stdout="Apple M2 Pro\n")
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine.subprocess, "run", lambda *given, **options: told)
    monkeypatch.setattr(machine, "_processor", lambda: "")
    monkeypatch.setattr(machine, "_board", lambda: "")
    machine._apple.cache_clear()
    try:
        assert machine.this_machine()["name"] == "Apple M2 Pro"
    finally:
        machine._apple.cache_clear()
