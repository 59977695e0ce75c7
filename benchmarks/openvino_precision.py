# yolo-prune, AGPL-3.0 license
"""What OpenVINO takes of one machine where it is told to compute in FP32, and where it chooses for itself.

    python benchmarks/openvino_precision.py dense=best_openvino_model pruned=pruned_openvino_model [seconds=60 out=FILE]

On a CPU with bfloat16 units (AMX) it chooses bfloat16; `yolo-prune export`, `profile` and `sweep` time that. All
networks are timed in turns in one run, on one thread; names are free, the first is what the others are compared with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matrix_files
import numpy as np

from yolo_prune.device import timing

OUT = matrix_files.ROOT / "benchmarks" / "results" / "openvino-precision.json"


def opened(folder: Path, precision: str | None) -> tuple[Callable[[], object], str]:
    """A network on an image of noise, and what it computes in. precision: None leaves that to OpenVINO."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = precision
    (path,) = folder.glob("*.xml")
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    image = np.random.default_rng(0).random(tuple(compiled.input(0).shape), dtype=np.float32)
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return lambda: request.infer({0: image}), chosen


def main(words: list[str]) -> None:
    """The command."""
    given = dict(word.split("=", 1) for word in words)
    seconds, out = float(given.pop("seconds", 60)), Path(given.pop("out", OUT))
    if len(given) < 2:
        raise SystemExit(__doc__)
    calls: dict[str, Callable[[], object]] = {}
    computes: dict[str, str] = {}
    for name, folder in given.items():
        for how, precision in (("f32", "f32"), ("unasked", None)):
            key = f"{name}, {how}"
            calls[key], computes[key] = opened(Path(folder), precision)
    base = next(iter(given))
    pairs = [(f"{base}, {how}", f"{name}, {how}") for name in list(given)[1:] for how in ("f32", "unasked")]
    turns = timing.in_turns(calls, seconds=seconds, compared=pairs)
    rows = []
    for key in calls:
        took, first = turns.timing(key), f"{base}, {key.rpartition(', ')[2]}"
        row = {"name": key, "computes_in": computes[key], "ms": round(took.median, 2)}
        rows.append({**row, "speedup": turns.ratio(first, key).as_dict()})
        print(f"{key:26}{computes[key]:6}{took.median:8.2f} ms  {turns.ratio(first, key)}")
    named = " ".join(f"{name}={Path(folder).parent.parent.name}" for name, folder in given.items())
    command = f"python benchmarks/openvino_precision.py {named}"
    about = {"command": command, "versions": matrix_files.versions(), "processor": matrix_files.processor()}
    matrix_files.write(out, {**about, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
