# yolo-prune, AGPL-3.0 license
"""Times that can be compared: every candidate in one run, in turns, on the same input with the same threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

WARM_UP = 3  # rounds that are not counted: caches, lazy kernels


@dataclass(frozen=True)
class Timing:
    """Milliseconds for one call: the median and the quartiles of all rounds."""

    median: float
    low: float
    high: float


def measure(candidates: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Time callables against each other.

    Each round calls every candidate once, every second round in reverse order. A machine that slows down or is busy for
    a while then slows all of them alike, which timing one after the other would book on one of them.

    Args:
        candidates: name -> what to time. repeats: counted rounds, at least 1.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(WARM_UP + repeats):
        names = list(candidates)
        for name in reversed(names) if turn % 2 else names:
            start = time.perf_counter()
            candidates[name]()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    quartiles = {name: np.percentile(rounds, [50, 25, 75]) for name, rounds in times.items()}
    return {name: Timing(*(float(q) for q in found)) for name, found in quartiles.items()}


def onnx_session(path: str | Path, threads: int) -> Any:
    """Open an ONNX file in onnxruntime on the CPU, with a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads of one session would otherwise spin for some milliseconds into the turn of the next candidate.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def torch_threads(threads: int | None = None) -> Iterator[None]:
    """Give torch a number of threads (None: leave it), and at the end the number that it had."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
