# yolo-prune, AGPL-3.0 license
"""How long does one call take, and how many times as fast is one model as another?

Models are timed in turns, so that a change of the machine's speed meets all of them. A round runs each of them twice,
in some order and then in the reverse of it (a b b a, or b a a b by chance, so that nothing periodic falls on one of
them alone), and gives one ratio for each pair. Of two equal models a round favours either as often as not, however
noisy the machine is and however long it is slower; so the median of the ratios lies with 99% between two of them that
the binomial law names (the distribution-free interval of a median: Conover, Practical Nonparametric Statistics, 3.2).
Rounds go on until that interval is narrow, or until the time is up; a ratio that is not known by then is not called
anything.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 3  # rounds that are not counted
NARROW = 0.03  # half-width of an interval, as a share of its middle, below which a figure is known
MARGIN = 0.03  # by how much the whole interval of a speed-up must be off 1 to be called faster or slower
OUTSIDE = 0.01  # how often the true median lies outside of its interval
SECONDS = 20.0  # of rounds, at most
_MORE = 1.3  # rounds are looked at again when there are so many times as many

_clock = time.perf_counter  # tests put in their own


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call: the median with its interval, and the 10th and 90th percentile as the spread."""

    median: float
    p10: float
    p90: float
    low: float
    high: float

    @property
    def steady(self) -> bool:
        """Whether the median is known."""
        return narrow(self.low, self.median, self.high)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as another a model is: the median of the rounds' ratios, and its interval."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def steady(self) -> bool:
        """Whether it is known."""
        return narrow(self.low, self.median, self.high)

    @property
    def verdict(self) -> str:
        """What it may be called: "faster", "slower", "alike", or "too noisy" where it is not known."""
        if not self.steady:
            return "too noisy"
        if self.low > 1 + MARGIN:
            return "faster"
        return "slower" if self.high < 1 / (1 + MARGIN) else "alike"

    def as_dict(self) -> dict[str, Any]:
        """Plain data; an end that is not known is None."""
        low, high = (round(end, 4) if np.isfinite(end) else None for end in (self.low, self.high))
        return {"median": round(self.median, 4), "interval": [low, high], "rounds": self.rounds, "steady": self.steady}

    def __str__(self) -> str:
        return f"{self.low:.2f} to {self.high:.2f} times as fast"


@dataclass(frozen=True)
class Turns:
    """What models took: name -> (rounds, 2) seconds."""

    seconds: Mapping[str, np.ndarray]

    def joined(self, later: Turns) -> Turns:
        """These rounds, and later ones of the same models."""
        return Turns({name: np.concatenate([took, later.seconds[name]]) for name, took in self.seconds.items()})

    def timing(self, name: str) -> Timing:
        """Milliseconds of one model."""
        ms = 1e3 * self.seconds[name]
        low, median, high = interval(ms.ravel())
        p10, p90 = np.percentile(ms, (10, 90)).tolist()
        return Timing(median, p10, p90, low, high)

    def ratio(self, base: str, name: str) -> Ratio:
        """How many times as fast as `base` another model is."""
        if base == name:
            return Ratio(1.0, 1.0, 1.0, len(self.seconds[name]))
        ratios = self.seconds[base].sum(1) / np.maximum(self.seconds[name].sum(1), 1e-12)
        low, median, high = interval(ratios)
        return Ratio(median, low, high, len(ratios))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median of values (n,) and the interval that holds the true one: low, median, high.

    With fewer than 8 values nothing is known: 0 and infinity.
    """
    ordered, median = np.sort(values), float(np.median(values))
    n, below, outside, one = len(ordered), 0, 0, 1  # outside: of 2^n throws of n coins, those with so few heads
    most = 2**n // round(1 / OUTSIDE)  # in whole numbers: no float is as large as 2**1024
    while 2 * (outside + one) <= most and below < n // 2:
        outside += one
        one = one * (n - below) // (below + 1)
        below += 1
    if not below:
        return 0.0, median, float("inf")
    return float(ordered[below - 1]), median, float(ordered[n - below])


def narrow(low: float, middle: float, high: float) -> bool:
    """Whether an interval is so narrow that its middle counts as known."""
    return (high - low) / 2 <= NARROW * middle


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    seconds: float | None = None,
    compared: Sequence[tuple[str, str]] | None = None,
) -> Turns:
    """Time calls in turns until what is compared is known.

    Args:
        calls: name -> what to time. rounds: at least so many, after `WARM_UP` that are not counted; `seconds` goes
            before that. seconds: at most so long (default: SECONDS), and one round at least.
        compared: pairs (base, other) whose ratio is to be known; default: the first call with each other one. Where
            there is one call alone, its median is.
    """
    names = list(calls)
    pairs = [(names[0], name) for name in names[1:]] if compared is None else list(compared)
    chance = np.random.default_rng(0)
    taken: list[dict[str, list[float]]] = []
    most = SECONDS if seconds is None else seconds
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a collection would fall on whoever is running
    began, look = _clock(), rounds
    try:
        for _ in range(WARM_UP):
            _round(calls, names)
            if _clock() - began > most / 4:
                break
        began = _clock()
        while True:
            taken.append(_round(calls, [names[i] for i in chance.permutation(len(names))]))
            if _clock() - began > most:
                break
            if len(taken) >= look:
                look = max(int(look * _MORE), look + 1)
                turns = _turns(taken)
                if all(turns.ratio(*pair).steady for pair in pairs) and (pairs or turns.timing(names[0]).steady):
                    break
    finally:
        if collecting:
            gc.enable()
    return _turns(taken)


def _turns(taken: Sequence[Mapping[str, Sequence[float]]]) -> Turns:
    return Turns({name: np.array([one[name] for one in taken]) for name in taken[0]})


def _round(calls: Mapping[str, Callable[[], object]], order: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of each call, the first time in that order and the second time in the reverse of it."""
    took: dict[str, list[float]] = {name: [] for name in order}
    for name in (*order, *reversed(order)):
        start = _clock()
        calls[name]()
        took[name].append(_clock() - start)
    return took


def onnx_session(path: Path, threads: int) -> Any:
    """Open an ONNX file in ONNX Runtime on the CPU.

    Args:
        path: the .onnx file.
        threads: CPU threads within one operator; operators run one after the other.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are of how its makers built it, or of this machine's cores
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Else the threads of one session spin on for a while after a call and slow down the next session's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
