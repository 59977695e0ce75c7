# yolo-prune, AGPL-3.0 license
"""How long does one call take? Several models timed side by side, in turns, so that they share the machine's moods."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 5  # rounds that are not counted


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call: the median, and the 10th and 90th percentile as its spread."""

    median: float
    p10: float
    p90: float


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Time calls in turns: a, b, a, b, ... A slow second of the machine then falls on all of them.

    Args:
        calls: name -> what to time.
        repeats: counted rounds, after `WARM_UP` that are not.

    Returns:
        Name -> its timing.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a collection would fall on whoever is running
    try:
        for turn in range(WARM_UP + repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(*(1e3 * np.percentile(times, (50, 10, 90))).tolist()) for name, times in seconds.items()}


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
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Else the threads of one session spin on for a while after a call and slow down the next session's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
