# yolo-prune, AGPL-3.0 license
"""Latency: what a device's measurements teach, what the model of it predicts, and that allocation holds to it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.checkout import ROOT
from tests.helpers.made_up_device import made_up, made_up_once, measured_device
from tests.helpers.oracle import lively
from tests.helpers.small_models import untrained
from tests.planning.test_choice import asked, dense
from yolo_prune import log
from yolo_prune.allocation import allocate
from yolo_prune.allocation.scopes import SCOPES
from yolo_prune.cost import latency_model, model_size, profile_file
from yolo_prune.cost.latency_model import ChannelGrain, Row
from yolo_prune.device import measurement, probe_kit, runtimes
from yolo_prune.device import profile as command
from yolo_prune.errors import PruneError
from yolo_prune.importance import scoring
from yolo_prune.planning import candidates, choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.report import latency
from yolo_prune.surgery import cut_channels

FEW = (
    ("random", False),
    (60, False),
    ("random", True),
    (70, True),
)  # random networks of a kit: enough to run, too few to predict well


@pytest.fixture(scope="module", params=[(16, 16, 0.0), (16, 1, 0.1), (8, 1, 0.0)], ids=str)
def fake(request: pytest.FixtureRequest) -> profile_file.Profile:
    return made_up(ChannelGrain(*request.param))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("steps", [(1, 1, 0.0), (8, 8, 0.0), (16, 1, 0.12), (32, 16, 0.0)])
def test_channel_steps_are_learned(steps: tuple[int, int, float], noise: float) -> None:
    found = latency_model.learn_steps(
        [{**s, "ms": [ms - 0.002 for ms in s["ms"]]} for s in measured_device(ChannelGrain(*steps), noise)["sweeps"]]
    )
    assert (found.out, found.inp) == steps[:2]
    assert found.tail == pytest.approx(steps[2], abs=0.05)


def test_a_device_that_is_known_to_work_in_more_channels_is_believed_to() -> None:
    """On a machine with neighbours the sweep of one layer does not show AMX's tiles."""
    measured = measured_device(ChannelGrain(8, 1, 0.0))
    assert latency_model.fit(measured)["steps"] == {"out": 8, "inp": 1, "tail": pytest.approx(0.0, abs=0.05)}
    assert latency_model.fit(measured, least=32)["steps"] == {"out": 32, "inp": 32, "tail": 0.0}


@pytest.mark.parametrize(
    ("kind", "inp", "out", "expected"),
    [
        ("conv 3x3/1 8x8 silu", 5, 16, [16 * 8, 16, 8, 1]),
        ("conv 3x3/1 8x8 silu", 8, 17, [40 * 8, 40, 8, 1]),  # 17 outputs are two steps of 16, dearer by a quarter
        ("conv image 3x3/2 8x8 silu", 3, 17, [40 * 3, 40, 3, 1]),  # the image's channels are taken as they are
    ],
)
def test_what_a_layer_costs_by_is_known(kind: str, inp: int, out: int, expected: list[float]) -> None:
    assert latency_model.features(kind, inp, out, ChannelGrain(16, 8, 0.25)).tolist() == expected


def test_no_coefficient_is_below_zero_and_the_others_make_the_best_of_it() -> None:
    falling = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])  # 4 - x by itself; without a slope the mean is nearest
    assert latency_model.nonnegative(falling, np.array([3.0, 2.0, 1.0])) == pytest.approx([2, 0], abs=1e-9)
    assert latency_model.nonnegative(falling, np.array([1.0, 3.0, 5.0])) == pytest.approx([0, 11 * 2 / 14], abs=1e-9)
    assert latency_model.nonnegative(falling, np.array([3.0, 5.0, 7.0])) == pytest.approx([1, 2], abs=1e-6)


def test_networks_that_were_held_out_are_predicted() -> None:
    fitted = latency_model.fit(measured_device(ChannelGrain(16, 16, 0.0), noise=0.02))
    assert fitted["error"]["networks"]["count"] == 4
    assert fitted["error"]["networks"]["mean"] < 3
    assert fitted["error"]["shapes"]["mean"] < 8
    exact = latency_model.fit(measured_device(ChannelGrain(16, 16, 0.0)))
    assert exact["error"]["networks"]["largest"] < 1.5


def test_the_prediction_before_a_cut_is_that_of_the_cut_model(fake: profile_file.Profile) -> None:
    model, found, _ = dense("n")
    baseline = Baseline.of(model, found, fake)
    scores = scoring.score(found, model, "random")
    units = candidates.units(found, scores, baseline.channels, dict.fromkeys(baseline.channels, 1))
    cost = model_size.latency_cost(found, units, model, fake, 1.0)
    sizes = np.array([unit.size for unit in units], dtype=float)
    assert cost(sizes) == pytest.approx(baseline.latency, rel=1e-9)
    for seed in range(3):
        counts = np.random.default_rng(seed).integers(1, sizes.astype(int) + 1)
        small = deepcopy(model)
        cut_channels.apply(small, found, allocate.plan_of(units, counts.tolist()))
        assert cost(counts.astype(float)) == pytest.approx(model_size.latency_of(small, fake), rel=1e-9)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100))
def test_the_change_of_a_latency_is_exact(seed: int) -> None:
    model, found, baseline = dense("n")
    rng = np.random.default_rng(seed)
    units = candidates.units(
        found, scoring.score(found, model, "random"), baseline.channels, dict.fromkeys(baseline.channels, 1)
    )
    cost = model_size.latency_cost(found, units, model, made_up_once(), 1.0)
    n = rng.integers(8, [unit.size + 1 for unit in units]).astype(float)
    down = -rng.integers(1, 8, len(units)).astype(float)
    change = cost.change(n, down)
    assert len(change) == len(units) > 30
    for u in range(len(units)):
        one = n.copy()
        one[u] += down[u]
        assert change[u] == pytest.approx(cost(one) - cost(n), abs=1e-12)


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic", "latency"])
def test_a_latency_bound_holds_in_the_steps_of_the_device(scope: str, fake: profile_file.Profile) -> None:
    model, found, _ = dense("n")
    baseline = Baseline.of(model, found, fake)
    wanted = asked(latency="60%", scope=scope)
    bounds = choice.step_bounds(wanted, baseline)
    assert bounds["latency"] == pytest.approx(0.6 * baseline.latency)
    small = deepcopy(model)
    chosen = choice.plan(small, found, wanted, baseline, bounds)
    cut_channels.apply(small, found, chosen)
    share = model_size.latency_of(small, fake) / baseline.latency
    assert 0.57 <= share <= 0.6
    for group in found.groups:
        kept = len(chosen.keep.get(group.name, range(group.size)))
        assert kept == group.size or kept % fake.multiple == 0


def test_at_one_latency_the_latency_scope_keeps_the_most_importance(fake: profile_file.Profile) -> None:
    model, found, _ = dense("n")
    baseline = Baseline.of(model, found, fake)
    scores = scoring.score(found, model, "random")
    units = candidates.units(found, scores, baseline.channels, dict.fromkeys(baseline.channels, 1))
    lost = {}
    for scope in SCOPES:
        wanted = asked(latency="60%", scope=scope)
        chosen = choice.plan(model, found, wanted, baseline, choice.step_bounds(wanted, baseline), scores)
        lost[scope] = sum(float(u.losses()[len(chosen.keep.get(u.groups[0], range(u.size)))]) for u in units)
    assert min(lost, key=lambda scope: lost[scope]) in ("latency", "global")
    assert lost["latency"] == pytest.approx(min(lost.values()), rel=0.02)


def test_an_absolute_bound_and_one_out_of_reach() -> None:
    model, found, _ = dense("n")
    fake = made_up_once()
    baseline = Baseline.of(model, found, fake)
    wanted = asked(latency=f"{0.7 * baseline.latency:.3f}ms")
    assert choice.step_bounds(wanted, baseline)["latency"] == pytest.approx(0.7 * baseline.latency, rel=1e-3)
    hopeless = asked(latency="5%")
    with pytest.raises(PruneError, match=r"the bound of [\d.]+ ms is out of reach: the narrowest legal"):
        choice.plan(model, found, hopeless, baseline, choice.step_bounds(hopeless, baseline))


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_profile_is_read_back(tmp_path: Path) -> None:
    fake = made_up_once()
    measurement.write(dict(fake.content), tmp_path / "device.json")
    again = profile_file.read(tmp_path / "device.json")
    model, _, _ = dense("n")
    assert model_size.latency_of(model, again) == model_size.latency_of(model, fake)
    assert again.multiple == 16
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("between", "networks", "shapes", "words"),
    [
        ([20, 21], 2, 10, ""),
        ([20, 30], 2, 10, "the same network took 20.00 to 30.00 ms"),
        ([20, 21], 9, 10, "what was held out is predicted 9% off (networks)"),
        ([20, 21], 2, 55, "what was held out is predicted 55% off (shapes)"),
    ],
)
def test_a_profile_of_a_busy_machine_says_so(
    between: list[float], networks: float, shapes: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = dict(made_up_once().content)
    error = {
        "networks": {"mean": networks, "largest": 9, "count": 4},
        "shapes": {"mean": shapes, "largest": 9, "count": 4},
    }
    content = {**content, "error": error, "dense_ms": 20.5, "dense_ms_between": between}
    assert measurement.doubts(content) == words
    assert (f"NOT TO BE TRUSTED: {words}" in measurement.summary(content)) is bool(words)
    latency.doubt(profile_file.of(content, "made up"), 320)
    assert ("the device profile is not to be trusted" in caplog.text) is bool(words)
    latency.doubt(profile_file.of(content, "made up"), 640)
    assert "measured at 320 pixels and the model is at 640" in caplog.text


def test_networks_that_cannot_be_told_from_the_dense_one_are_said() -> None:
    content = {**made_up_once().content, "unsteady": [0.05, 0.21], "dense_ms": 2.0, "dense_ms_between": [2.0, 2.1]}
    words = "2 networks could not be told from the dense one to 3%, the worst to 21%"
    assert measurement.noise(content) == measurement.doubts(content) == words
    assert f"NOT TO BE TRUSTED: {words}" in measurement.summary(content)


def test_a_profile_of_a_busy_machine_is_written_and_ends_with_an_exit_code_of_its_own(
    checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolo_prune import cli

    monkeypatch.setattr(probe_kit, "make", lambda *_, **__: None)
    content = {**made_up_once().content, "unsteady": [0.21], "dense_ms": 2.0, "dense_ms_between": [2.0, 2.1]}
    monkeypatch.setattr(measurement, "measure", lambda *_: content)
    out = tmp_path / "device.json"
    assert cli.main(["profile", f"model={checkpoint_file}", f"out={out}"]) == 3
    assert measurement.doubts(dict(profile_file.read(out).content))


def test_a_slow_call_of_nothing_does_not_swallow_small_layers() -> None:
    """On a machine with moods a call of nothing may be timed as longer than the smallest layer."""
    pairs = [(inp, out) for inp in (16, 32, 64) for out in (16, 32, 64)]
    kind = "conv 1x1/1 20x20 silu"
    layers = [
        {"kind": kind, "inp": i, "out": o, "ms": 0.004 + 1e-5 * i * o, "held_out": n % 4 == 2}
        for n, (i, o) in enumerate(pairs)
    ]
    nets = [
        {"rows": [Row(kind, 64, 64, 400)] * count, "ms": 0.05 * count, "held_out": count == 3} for count in (4, 3, 2)
    ]
    measured = {"call_ms": 0.012, "sweeps": [], "shapes": layers, "networks": nets}
    found = latency_model.fit(measured)
    assert found["error"]["shapes"]["mean"] < 20
    assert latency_model.of_shape(found["kinds"], ChannelGrain(1, 1, 0.0), layers[-1]) == pytest.approx(0.041, rel=0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "there is no such file; measure this device, yolo-prune profile"),
        ("{", "cannot be read as JSON"),
        ({"kind": "recipe"}, "is no device profile; yolo-prune profile model=... writes one"),
        ({"version": 99}, "is of version 99, this one reads 2"),
        ({"network": [1, 2]}, "is damaged"),
        ({"network": [float("nan")] * 7}, "is damaged (its figures are no costs"),
        ({"kinds": {"conv": "x"}}, "is damaged"),
        ({"steps": None}, "is damaged"),
    ],
)
def test_a_profile_that_cannot_be_used_is_one_line(change: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    if isinstance(change, str):
        path.write_text(change)
    elif change is not None:
        path.write_text(json.dumps({**made_up_once().content, **change}))
    with pytest.raises(PruneError, match="prune_profile=") as caught:
        profile_file.read(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_of_another_model_or_size_is_refused() -> None:
    other, found, _ = dense("s")
    with pytest.raises(PruneError, match=r"measured with yolov8n at 256 and knows nothing of .* measure this one"):
        Baseline.of(other, found, profile_file.of({**made_up_once().content, "imgsz": 256}, "x"))


def test_a_profile_and_a_format_that_disagree_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    measurement.write(dict(made_up_once().content), path)
    with pytest.raises(PruneError, match=r"prune_format=ncnn, but prune_profile=.* was measured with onnx"):
        command.profile_of_recipe(asked(latency="50%", profile=str(path), format="ncnn"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "tflite"}, "format=tflite is unknown; supported: onnx, openvino, ncnn, engine"),
        ({"precision": "int4"}, "precision=int4 is unknown; supported: fp32, fp16, int8"),
        ({"precision": "int8", "format": "ncnn"}, "precision=int8 with format=ncnn: ultralytics writes ncnn in fp32"),
        ({"precision": "fp16"}, "ONNX Runtime on a CPU computes in fp32"),
        ({"threads": 0}, "threads=0: a whole number of 1 or more is needed"),
        ({"out": "device.txt"}, "out=device.txt: a file that ends in .json is needed"),
        ({"kit": "a.zip"}, "kit=a.zip: a file that ends in .pyz is needed"),
        ({"kit": "a.pyz", "out": "b.json"}, "give one"),
        ({}, "model=missing.pt: there is no such file"),
    ],
)
def test_wrong_arguments_of_profile_are_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(PruneError) as caught:
        command.profile("missing.pt", **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtimes.PACKAGES, "engine", ("no_such_module", "tensorrt"))
    with pytest.raises(PruneError, match="format=engine needs tensorrt on this machine: pip install tensorrt"):
        command.profile("best.pt", format="engine")


@pytest.mark.parametrize("module", probe_kit._MODULES)
def test_what_runs_on_a_device_is_python_3_8(module: str) -> None:
    assert ast.parse((ROOT / "yolo_prune" / f"{module.replace('.', '/')}.py").read_text(), feature_version=(3, 8)).body


# Real runtimes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latency") / "tiny.pt"
    yolo = untrained()
    yolo.model = lively(yolo.model)
    yolo.save(str(path))
    return path


@pytest.fixture(scope="module")
def packed(checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of a small network of few sizes, made once."""
    out = tmp_path_factory.mktemp("kit") / "profile.pyz"
    warned: list[str] = []
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_kit, "_NETWORKS", FEW)
        patch.setattr(log, "warn", warned.append)
        patch.setattr(log, "show", shown.append)
        assert command.profile(str(checkpoint_file), imgsz=50, kit=str(out), threads=4) is None
    assert shown[-1].endswith("&& python3 profile.pyz out=device.json threads=4")
    assert "imgsz=50 is not a multiple of 32: 64 is used" in warned
    return out


def test_a_kit_measures_without_torch_or_ultralytics(packed: Path, tmp_path: Path) -> None:
    assert packed.stat().st_size < 5e6
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'ultralytics', 'onnx', 'pydantic'): sys.modules[name] = None\n"
        f"sys.argv[:] = [{str(packed)!r}, 'out=device.json']\n"
        f"runpy.run_path({str(packed)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr  # 3: the machine was too busy, which the profile says too
    progress = [line for line in done.stdout.splitlines() if line.startswith("measuring: ")]
    assert "\nmeasuring layers: 90%, about " in done.stdout
    assert "\nmeasuring networks: 4, each in turns" in done.stdout
    assert progress[-1] == "measuring: 100%"
    assert progress.count("measuring: 100%") == 1
    assert "channels work in steps of" in done.stdout
    found = profile_file.read(tmp_path / "device.json")
    assert (found.imgsz, found.format, found.threads) == (64, "onnx", 1)
    content = found.content
    assert content["error"]["shapes"]["count"] > 10
    assert content["error"]["networks"]["count"] == 2
    assert (done.returncode == 3) is bool(measurement.noise(dict(content)))
    assert content["versions"]["onnxruntime"]
    assert content["machine"]["cores"] >= 1
    assert content["measured"]["shapes"][0]["ms"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(["threads=x"], "write out=device.json threads=1"), (["out=/dev/null/x.json"], "cannot be written")],
)
def test_a_kits_own_mistakes_are_one_line(words: list[str], said: str, packed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(packed), *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_runtime_that_cannot_open_a_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(PruneError, match=r"onnxruntime cannot open broken.onnx: "):
        runtimes.load(path, "onnx", 1)
