# yolo-prune, AGPL-3.0 license
"""What each of prune, quantize and both costs: dense and pruned models of one training, each in FP32 and INT8.

    python benchmarks/prune_and_quantize.py set=demo data=data.yaml yolov8n=RUNS/dense,RUNS/pruned [yolo11n=… …]

NAME=DENSE,PRUNED names the finished runs of a model, or their .pt files. Both are exported as `yolo-prune export
quantize=8` does it, compared with torch and validated by the host; then all four are timed in turns, in one run, for
each runtime. Further: format=onnx,openvino threads=1 seconds=60 (of timing for each runtime, at most), out=FILE.

After each model it writes results/prune-and-quantize.json, in place of an earlier measurement of the same set, name and
pruning; benchmarks/tables.py makes the table of it. A measurement is `busy` where a median or a speed-up is not known
to 3%, or where one call in ten takes a fifth longer than the fastest tenth does.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import matrix_files
import tables

from yolo_prune import files, scratch
from yolo_prune.device import runtimes
from yolo_prune.errors import PruneError
from yolo_prune.export import results, subjects, variants, verdict
from yolo_prune.export.results import Effort, Result
from yolo_prune.export.subjects import Subject
from yolo_prune.host import exporter, samples, silence

RESULT = tables.QUANTIZED
SPREAD = 1.2  # the 90th percentile of calls over the 10th, above which a machine was busy
_ROUNDS = 40  # calls of each artifact, at least


def measure(name: str, given: dict[str, str]) -> dict[str, Any]:
    """All artifacts of one model.

    Args:
        name: of the model. given: words of the command.
    """
    runs = given[name].split(",")
    if len(runs) != 2:
        raise SystemExit(f"{name}={given[name]}: give the dense run and the pruned one, {name}=DENSE,PRUNED")
    effort = Effort(1, int(given["threads"]), 8, _ROUNDS, int(given["seconds"]))
    made: list[Result] = []
    with scratch.folder() as place, exporter.restrained(True), silence.noise_to(place / "exporters.log"):
        models = [
            subjects.load(matrix_files.weights_of(runs[0]), "dense", True),
            subjects.load(matrix_files.weights_of(runs[1]), None, True),
        ]
        subjects.check_same_kind(models)
        side = subjects.image_side(models[-1], None)
        for subject in models:
            subject.staged = subjects.stage(subject, place / subject.role)
            subject.metrics = results.figures(subject.staged, subject, given["data"], side, place)
        images = samples.from_data(models[-1].network, given["data"], side, effort.images).images
        kinds = variants.formats_of(given["format"])
        for kind in kinds:
            own = [
                _proven(one, kind, precision, given, side, place, images, effort)
                for one in models
                for precision in ("fp32", "int8")
            ]
            results.time_artifacts(own, [], (1, *images.shape[1:]), effort)
            made += own
    return _record(name, runs, given, side, models, made, kinds)


def _proven(
    subject: Subject,
    kind: str,
    precision: str,
    given: dict[str, str],
    side: int,
    place: Path,
    images: Any,
    effort: Effort,
) -> Result:
    """One artifact, compared with torch and validated."""
    options: dict[str, Any] = {"imgsz": side, **({"data": given["data"]} if precision == "int8" else {})}
    result = results.make(subject, kind, precision, place, options)
    results.compare_with_torch([result], images, effort)
    results.validate(result, given["data"], side, place)
    return result


def _record(
    name: str,
    runs: list[str],
    given: dict[str, str],
    side: int,
    models: list[Subject],
    made: list[Result],
    kinds: list[str],
) -> dict[str, Any]:
    """Plain data, without places of this machine."""
    rows = [_row(one) for one in made]
    options = " ".join(f"{key}={given[key]}" for key in ("set", "format", "threads", "seconds"))
    short = ",".join(f"RUNS/{Path(run).name}" for run in runs)
    versions = matrix_files.versions()
    for kind in kinds:
        versions |= runtimes.versions(kind)
    return {
        "set": given["set"],
        "model": name,
        "command": f"python benchmarks/prune_and_quantize.py {options} data=RUNS/data/{given['set']}/data.yaml "
        f"{name}={short}",
        "pruning": _arguments(models[-1]),
        "imgsz": side,
        "threads": int(given["threads"]),
        "busy": any(busy(row) for row in rows),
        "torch_map50_95": {one.role: one.metrics and one.metrics[0] for one in models},
        "gflops": {one.role: round(one.size.gflops, 3) for one in models},
        "params": {one.role: one.size.params for one in models},
        "processor": matrix_files.processor(),
        "versions": versions,
        "rows": rows,
    }


def _arguments(pruned: Subject) -> str:
    """What its training asked of the pruning."""
    given = pruned.ckpt.get("train_args") or {}
    asked = {key: value for key, value in given.items() if key.startswith("prune") and value is not None}
    return " ".join(f"{key}={Path(value).name if isinstance(value, str) else value}" for key, value in asked.items())


def _row(result: Result) -> dict[str, Any]:
    """One artifact; `speedup` is over the dense FP32 one of the same runtime."""
    verdict.judge(result)
    timing, speed = result.timing, result.speed
    assert timing is not None
    assert speed is not None
    assert result.metrics is not None
    return {
        "model": "dense" if result.subject.role == "dense" else "pruned",
        "runtime": result.kind,
        "precision": result.precision,
        "map50_95": round(result.metrics[0], 4),
        "ms": {key: round(getattr(timing, key), 4) for key in ("median", "low", "high", "p10", "p90")},
        "steady": timing.steady,
        "speedup": speed.as_dict(),
        "megabytes": result.megabytes,
        "faults": result.faults,
    }


def busy(row: dict[str, Any]) -> bool:
    """Whether a row was measured on a machine that did other work."""
    ms = row["ms"]
    return not row["steady"] or not row["speedup"]["steady"] or bool(ms["p90"] > SPREAD * ms["p10"])


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Put a measurement into the file, in place of an earlier one of the same set, model and pruning; a row a line."""
    entries = matrix_files.others(path, entry, ("set", "model", "pruning"))
    texts = [textwrap.indent(matrix_files.text(one), " ") for one in [*entries, entry]]
    files.replace(path, "[\n" + ",\n".join(texts) + "\n]\n")


def main(words: list[str]) -> None:
    """The command; a model that cannot be measured is a line, and the others go on."""
    given = {"format": "onnx,openvino", "threads": "1", "seconds": "60", "out": str(RESULT)}
    options = {*given, "set", "data"}
    given |= dict(word.split("=", 1) for word in words)
    names = [name for name in given if name not in options]
    if not names or not {"set", "data"} <= set(given):
        raise SystemExit(__doc__)
    for name in names:
        try:
            entry = measure(name, given)
        except PruneError as error:
            print(f"{name}: {error}")
            continue
        keep(Path(given["out"]), entry)
        print(json.dumps(entry, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
