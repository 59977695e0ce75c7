# yolo-prune, AGPL-3.0 license
"""A look at the machine: steps that are planted are found, noise is not believed, and what was found is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.planning.test_choice import asked, dense
from yolo_prune import api
from yolo_prune.cost.channel_steps import OPEN, ChannelMultiple
from yolo_prune.device import quick_look, runtimes, timing
from yolo_prune.graph.model_state import copy_of
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.training import last_checkpoint, resume


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Return a function that lets calls take what they would on a device of these steps: outputs, inputs, noise.

    It returns a list whose last item is the seconds that all calls took so far, one item for each network loaded.
    """

    def make(out: int, inp: int, noise: float = 0.0, slower: float = 1.0) -> list[float]:
        now, rng = [0.0], np.random.default_rng(0)

        def load(path: Path, kind: str, threads: int) -> Callable[[], object]:
            _, side, count = path.stem.split("-")
            step = out if side == "out" else inp
            seconds = slower * (1e-5 + 1e-5 * -(-int(count) // step) * step)
            now.append(now[-1])

            def call() -> None:
                now[-1] += seconds * float(np.exp(noise * rng.standard_normal()))

            return call

        monkeypatch.setattr(runtimes, "load", load)
        monkeypatch.setattr(timing, "_clock", lambda: now[-1])
        return now

    return make


@pytest.mark.parametrize(
    ("out", "inp", "channels"), [(8, 8, 8), (4, 1, 8), (16, 1, 16), (8, 16, 16), (32, 16, 32), (16, 32, 32)]
)
def test_the_coarser_of_two_planted_steps_is_found(
    out: int, inp: int, channels: int, made_up: Callable[..., list[float]]
) -> None:
    made_up(out, inp)
    assert quick_look.look("onnx") == channels
    made_up(out, inp, noise=0.2)  # a fifth more or less at each call: more rounds, the same answer
    assert quick_look.look("onnx") == channels


def test_a_machine_that_is_too_busy_is_not_believed(
    made_up: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_up(32, 32, noise=30.0)
    assert quick_look.look("onnx") is None
    monkeypatch.setattr(quick_look, "path", lambda: tmp_path / "kept.json")
    monkeypatch.setattr(quick_look, "processor", lambda: "AVX2")
    said: list[str] = []
    assert quick_look.of_deployment(asked(flops="50%"), said.append).channels == 8
    assert len(said) == 1
    assert "the machine is too busy to be measured; onnxruntime fp32 on AVX2 works in 8 (MLAS" in said[0]
    assert not (tmp_path / "kept.json").exists(), "the next run looks again"


def test_a_look_is_kept_for_its_runtime_and_processor(
    made_up: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_up(16, 16)
    monkeypatch.setattr(quick_look, "path", lambda: tmp_path / "kept.json")
    said: list[str] = []
    first = quick_look.of_deployment(asked(flops="50%"), said.append)
    made_up(32, 32)
    again = quick_look.of_deployment(asked(flops="50%"), said.append)
    assert first.channels == again.channels == 16
    assert "measured in" in said[0]
    assert "as measured before" in said[1]
    monkeypatch.setattr(quick_look, "processor", lambda: "another")
    assert quick_look.of_deployment(asked(flops="50%"), said.append).channels == 32
    (tmp_path / "kept.json").write_text('{"damaged', encoding="utf-8")
    assert quick_look.of_deployment(asked(flops="50%"), said.append).channels == 32


@pytest.mark.parametrize(
    ("settings", "channels", "words"),
    [
        ({"format": "engine", "precision": "fp16"}, 8, "tensorrt fp16 works in 8 (TensorRT Developer Guide"),
        ({"format": "engine", "precision": "int8", "size": "50%"}, 32, "tensorrt int8 works in 32"),
        ({"format": "ncnn"}, 16, "ncnn fp32 on AVX-512 works in 16"),
        ({"precision": "int8"}, 16, "onnxruntime int8 on AVX-512 works in 16"),
    ],
)
def test_the_table_speaks_for_what_is_not_timed_here(
    settings: dict[str, str], channels: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_look, "processor", lambda: "AVX-512")
    monkeypatch.setattr(quick_look, "look", lambda kind: pytest.fail("nothing is to be timed"))
    said: list[str] = []
    assert quick_look.of_deployment(asked(flops="50%", **settings), said.append).channels == channels
    assert len(said) == 1
    assert said[0].startswith(f"channel counts become multiples of {channels}: {words}")


def test_nothing_is_looked_at_where_round_is_given_or_no_channel_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_look, "_of_this_machine", lambda kind: pytest.fail("nothing is to be looked at"))
    for wanted in (asked(flops="50%", round=4), asked(sparsity="2:4")):
        assert quick_look.of_deployment(wanted, lambda line: pytest.fail(line)) is OPEN


def test_a_look_takes_at_most_ten_seconds(made_up: Callable[..., list[float]]) -> None:
    """All of its pairs are timed until their time is up: a slow machine, whose noise leaves no ratio known to 3%."""
    clock = made_up(32, 32, noise=0.2, slower=10.0)  # a call takes 3 to 6 ms
    assert quick_look.look("onnx") == 32
    assert len(clock) == 1 + 2 * 8
    assert 8 * quick_look._SECONDS < clock[-1] < 10


def test_a_real_look_runs_its_convolutions() -> None:
    """By the clock of the tests each call takes as long, as where a runtime works in 32 channels or more."""
    assert quick_look.look("onnx") == 32


def test_a_cut_keeps_the_multiple_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = copy_of(dense("n")[0])
    monkeypatch.setattr(quick_look, "path", lambda: tmp_path / "kept.json")
    quick_look.keep("onnx", 16)
    record = api.prune(model, flops="60%", importance="l1", scope="uniform")
    assert record["channel_multiple"]["channels"] == 16
    assert "as measured before" in record["channel_multiple"]["why"]
    changed = [row for row in record["layers"] if row["after"] != row["before"]]
    assert len(changed) > 20
    assert all(row["after"] % 16 == 0 for row in changed)


def test_a_bound_that_only_a_finer_multiple_reaches_is_reached() -> None:
    model, found, _ = dense("n")
    wanted = asked(flops="30%")
    baseline = Baseline.of(model, found, multiple=ChannelMultiple(32))
    assert choice.multiples(wanted, baseline) == [32, 16, 8]
    plan = choice.plan(model, found, wanted, baseline, choice.step_bounds(wanted, baseline))
    kept = {len(rows) for rows in plan.keep.values()}
    assert all(count % 8 == 0 for count in kept)
    assert any(count % 32 for count in kept)
    assert choice.multiples(asked(flops="30%", round=32), baseline) == [32]


def test_a_resumed_run_keeps_its_multiple() -> None:
    model, found, _ = dense("n")
    first = Baseline.of(model, found, multiple=ChannelMultiple(16, "another machine"))
    noted = last_checkpoint.note(first, {"steps": [], "history": [], "baseline": {"fitness": None}}, 1)
    again = resume.baseline(noted, model, found, asked(flops="50%"), None, 640, OPEN)
    assert again == first
