# yolo-prune, AGPL-3.0 license
"""How many times as fast: known answers on a made-up clock, and one real model against itself on a busy machine."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yolo_prune.device import timing


class Clock:
    """A clock that stands still but for the calls that move it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing, "_clock", lambda: self.now)

    def call(self, ms: float, noise: Callable[[], float]) -> Callable[[], None]:
        """A call that takes so long, times noise."""

        def run() -> None:
            self.now += ms * noise() / 1e3

        return run


NOISES: dict[str, Callable[[np.random.Generator], Callable[[], float]]] = {
    "wide": lambda rng: lambda: float(rng.lognormal(0, 0.8)),
    "tailed": lambda rng: lambda: 1 + float(rng.pareto(1.5)),
    "mild": lambda rng: lambda: float(rng.lognormal(0, 0.05)),
}


def bursts(rng: np.random.Generator) -> Callable[[], float]:
    """Another program takes two thirds of the machine, for a while, again and again."""
    slow = [False]

    def noise() -> float:
        if rng.random() < 0.03:
            slow[0] = not slow[0]
        return (3 if slow[0] else 1) * float(rng.lognormal(0, 0.05))

    return noise


@pytest.mark.parametrize("kind", [*NOISES, "bursts"])
def test_equal_models_are_never_called_faster_or_slower(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: Counter[str] = Counter()
    inside, heavy = 0, kind in ("wide", "tailed")
    for seed in range(100):
        clock, rng = Clock(monkeypatch), np.random.default_rng(seed)
        noise = bursts(rng) if kind == "bursts" else NOISES[kind](rng)
        calls = {"a": clock.call(10, noise), "b": clock.call(10, noise)}
        ratio = timing.in_turns(calls, seconds=5 if heavy else 20).ratio("a", "b")
        verdicts[ratio.verdict] += 1
        inside += ratio.low <= 1 <= ratio.high
    assert set(verdicts) <= {"alike", "too noisy"}
    assert verdicts["too noisy" if heavy else "alike"] == 100
    assert inside >= 95


@pytest.mark.parametrize(("speed", "verdict"), [(1.5, "faster"), (1 / 1.5, "slower"), (3.0, "faster"), (1.0, "alike")])
def test_a_true_ratio_is_called_and_is_in_its_interval(
    speed: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = 0
    for seed in range(50):
        clock, noise = Clock(monkeypatch), bursts(np.random.default_rng(seed))
        turns = timing.in_turns({"a": clock.call(10, noise), "b": clock.call(10 / speed, noise)})
        ratio = turns.ratio("a", "b")
        assert ratio.verdict == verdict
        assert ratio.median == pytest.approx(speed, rel=0.06)
        inside += ratio.low <= speed <= ratio.high
        assert clock.now < timing.SECONDS  # it stops when it knows
    assert inside >= 48


def test_it_is_bounded_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    turns = timing.in_turns(dict.fromkeys("ab", clock.call(10_000, lambda: 1.0)), rounds=50, seconds=5)
    assert len(turns.seconds["a"]) == 1
    assert clock.now <= 80  # one round of warm-up and one more, of two calls each
    assert turns.ratio("a", "b").verdict == "too noisy"
    noisy = Clock(monkeypatch)
    noise = NOISES["wide"](np.random.default_rng(0))
    timing.in_turns(dict.fromkeys("ab", noisy.call(10, noise)), seconds=5)
    assert 5 < noisy.now < 6.5


def test_rounds_are_palindromes_in_an_order_of_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    ticks = itertools.count()
    monkeypatch.setattr(timing, "_clock", lambda: next(ticks) * 1e-3)
    timing.in_turns({name: lambda name=name: order.append(name) for name in "abc"}, rounds=20)  # type: ignore[misc]
    counted = order[6 * timing.WARM_UP :]
    rounds = [counted[i : i + 6] for i in range(0, len(counted), 6)]
    assert len(rounds) == 20
    assert all(one == one[::-1] and sorted(one) == list("aabbcc") for one in rounds)
    assert len({"".join(one) for one in rounds}) > 3


def _outside(n: int, below: int) -> float:
    return float(2 * sum(math.comb(n, i) for i in range(below)) / 2**n)


def test_the_interval_of_a_median_is_the_one_of_the_binomial_law() -> None:
    """Table A3 of Conover's book: of 15 values the 3rd to the 13th hold the median with 99.3%."""
    low, median, high = timing.interval(np.arange(1.0, 16.0))
    assert (low, median, high) == (3, 8, 13)
    for n in range(8, 400, 7):
        low, _, high = timing.interval(np.arange(1.0, n + 1.0))
        assert low + high == n + 1
        assert _outside(n, int(low)) <= timing.OUTSIDE < _outside(n, int(low) + 1)
    low, _, high = timing.interval(np.arange(1.0, 4001.0))  # a small model's calls; a float knows no 2 ** 1024
    assert (low, high) == (1919, 4001 - 1919)
    for n in range(1, 8):
        assert timing.interval(np.arange(1.0, n + 1.0))[0::2] == (0.0, math.inf)


def test_the_interval_holds_the_true_median() -> None:
    rng = np.random.default_rng(0)
    held = [low <= 1 <= high for low, _, high in (timing.interval(rng.lognormal(0, 1, 30)) for _ in range(2000))]
    assert 0.985 < np.mean(held) <= 1


BURN = "while True: pass"


def test_a_model_against_itself_on_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real clock, a real network and a process for each core that takes it away."""
    from ultralytics import YOLO

    from yolo_prune.device import runtimes
    from yolo_prune.host import exporter

    path = exporter.export(YOLO("yolov8n.yaml", verbose=False).model, tmp_path, "onnx", imgsz=64)
    calls = {name: runtimes.load(path, "onnx", 1) for name in ("dense", "pruned")}
    monkeypatch.setattr(timing, "_clock", time.perf_counter)
    others = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(os.cpu_count() or 1)]
    try:
        ratio = timing.in_turns(calls, seconds=3).ratio("dense", "pruned")
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert ratio.rounds >= 1
    # two sessions of one file lie differently in memory, and a call of a millisecond may feel that by some percent
    assert ratio.verdict == "too noisy" or (ratio.low <= 1.05 and ratio.high >= 1 / 1.05)
