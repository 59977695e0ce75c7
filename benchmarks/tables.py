# yolo-prune, AGPL-3.0 license
"""The tables of benchmarks/README.md that stand between markers, from the JSON files of benchmarks/matrix.py,
benchmarks/averages.py, benchmarks/canvas.py, benchmarks/prune_and_quantize.py, benchmarks/latency_bound.py,
benchmarks/int8.py and benchmarks/apply_alone.py.

python benchmarks/tables.py             write them
python benchmarks/tables.py check       exit code 1 where they are not what the files say
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import matrix_files
import matrix_rows

from yolo_prune import files

HERE = Path(__file__).resolve().parent
README, RESULTS, RESULTS_GPU = HERE / "README.md", HERE / "results" / "accuracy", HERE / "results" / "accuracy-gpu"
GPU_BEGIN, GPU_END = "<!-- accuracy on a GPU: written by benchmarks/tables.py -->", "<!-- accuracy on a GPU: end -->"
BEGIN, END = "<!-- accuracy: written by benchmarks/tables.py -->", "<!-- accuracy: end -->"
QUANTIZED = HERE / "results" / "prune-and-quantize.json"
QUANTIZED_BEGIN = "<!-- prune and quantize: written by benchmarks/tables.py -->"
QUANTIZED_END = "<!-- prune and quantize: end -->"
BOUNDED = HERE / "results" / "latency-bound.json"
BOUNDED_BEGIN, BOUNDED_END = "<!-- latency bound: written by benchmarks/tables.py -->", "<!-- latency bound: end -->"
INT8 = HERE / "results" / "int8.json"
INT8_BEGIN, INT8_END = "<!-- int8: written by benchmarks/tables.py -->", "<!-- int8: end -->"
APPLIED = HERE / "results" / "apply-alone.json"
APPLIED_BEGIN, APPLIED_END = "<!-- apply alone: written by benchmarks/tables.py -->", "<!-- apply alone: end -->"
AVERAGES = HERE / "results" / "averages.json"
AVERAGES_BEGIN, AVERAGES_END = "<!-- averages: written by benchmarks/tables.py -->", "<!-- averages: end -->"
CANVASES = HERE / "results" / "canvas.json"
CANVASES_BEGIN, CANVASES_END = "<!-- two canvases: written by benchmarks/tables.py -->", "<!-- two canvases: end -->"
EXPORTED = "map50_95_exported"  # of a row: with the canvas of an exported file; rows before 2026-11-27 have none
RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn"}
NAMES = {"demo": "demo set", "bccd": "BCCD", "deeppcb": "DeepPCB"}

Result = dict[str, Any]


def read(folder: Path = RESULTS) -> list[Result]:
    """All results."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def render(results: list[Result], spec: dict[str, Any]) -> str:
    """The tables: how far the cuts are from the dense model over the sets, then every figure.

    Args:
        results: the JSON files. spec: the content of matrix.yaml, for the order and the words.
    """
    if not results:
        return "No row of the matrix has been measured yet.\n"
    parts = [_summary(results, spec)]
    for protocol, words in spec["protocols"].items():
        for name in spec["sets"]:
            some = [each for each in results if (each["protocol"], each["set"]) == (protocol, name)]
            if some:
                parts.append(f"{NAMES.get(name, name)}, {protocol.upper()}: {words}\n\n{_figures(some, spec)}")
    return "\n".join([*parts, _measured(results)])


def _summary(results: list[Result], spec: dict[str, Any]) -> str:
    """Distance to the dense model of equal epochs, the mean over the seeds, by set; then over the sets."""
    sets, rows = list(spec["sets"]), []
    exported = [name for name in sets if any(EXPORTED in each for each in results if each["set"] == name)]
    for model in spec["models"]:
        for protocol in spec["protocols"]:
            for method, flops in spec["methods"].items():
                if not isinstance(flops, float):
                    continue
                some = [each for each in results if not each["label"] and each["model"] == model]
                some = [each for each in some if each["protocol"] == protocol]
                found = [_distance(_of(some, set=name, method=method), _of(some, set=name)) for name in sets]
                known = [value for value in found if value is not None]
                if known:
                    both = [mean(known), min(known)] if len(known) == len(sets) else [None, min(known)]
                    files_too = [
                        _distance(_of(some, set=s, method=method), _of(some, set=s), EXPORTED) for s in exported
                    ]
                    rows.append([model, protocol.upper(), f"{flops:.0%}", *map(_signed, [*found, *both, *files_too])])
    head = ["model", "protocol", "FLOPs", *(NAMES.get(name, name) for name in sets), "mean of the sets", "worst"]
    return _table([*head, *(f"as exported, {NAMES.get(name, name)}" for name in exported)], rows)


def _figures(results: list[Result], spec: dict[str, Any]) -> str:
    """Every seed of one protocol and set, the mean, and the distances to dense of equal epochs and equal steps."""
    seeds, rows = sorted({each["seed"] for each in results}), []
    with_steps = any(each["method"] == matrix_rows.STEPS for each in results)
    with_exported = any(EXPORTED in each for each in results)
    for model in spec["models"]:
        of_model = [each for each in results if each["model"] == model]
        for method in spec["methods"]:
            for label in sorted({each["label"] for each in of_model}):
                some = _of(of_model, method=method, label=label)
                if not some:
                    continue
                by_seed = {each["seed"]: each["map50_95"] for each in some}
                ratios = [each["gflops_ratio"] for each in some if "gflops_ratio" in each]
                distances = [_distance(some, _of(of_model))]
                if with_steps:
                    distances.append(_distance(some, _of(of_model, method=matrix_rows.STEPS)))
                exported: list[str] = []
                if with_exported:
                    found = [each[EXPORTED] for each in some if EXPORTED in each]
                    exported = [", ".join(f"{value:.4f}" for value in found), f"{mean(found):.4f}" if found else ""]
                    exported.append(_signed(_distance(some, _of(of_model), EXPORTED)))
                rows.append(
                    [
                        *(model, _called(some[0]), f"{mean(ratios):.1%}" if ratios else ""),
                        *(
                            f"{mean(each['gflops'] for each in some):.2f}",
                            f"{mean(each['params'] for each in some):,.0f}",
                        ),
                        f"{mean(each['optimizer_steps'] for each in some):.0f}",
                        *(f"{by_seed[seed]:.4f}" if seed in by_seed else "" for seed in seeds),
                        *(f"{mean(by_seed.values()):.4f}", *map(_signed, distances)),
                        *exported,
                    ]
                )
    head = ["model", "method", "FLOPs", "GFLOPs", "params", "steps", *(f"seed {seed}" for seed in seeds), "mean"]
    head += ["to dense", *(["to dense of equal steps"] if with_steps else [])]
    return _table([*head, *(["as exported, by seed", "mean", "to dense"] if with_exported else [])], rows)


def _of(results: Iterable[Result], method: str = "dense", label: str = "", **others: str) -> list[Result]:
    wanted = {"method": method, "label": label, **others}
    return [each for each in results if all(each[key] == value for key, value in wanted.items())]


def _distance(some: list[Result], dense: list[Result], key: str = "map50_95") -> float | None:
    """The mean over the seeds that both have of mAP50-95 less the dense one's."""
    by_seed = {each["seed"]: each[key] for each in dense if key in each}
    found = [each[key] - by_seed[each["seed"]] for each in some if key in each and each["seed"] in by_seed]
    return mean(found) if found else None


def _called(result: Result) -> str:
    if result["method"] == matrix_rows.STEPS:
        return "dense, equal steps"
    if result["method"] == matrix_rows.FRAMES:
        return "dense, in frames as well"
    if result["flops"] is None:
        return "dense"
    given = ", ".join(f"`{key}={value}`" for key, value in result["arguments"].items())
    label = ": ".join(filter(None, [result["label"], given]))
    return f"{result['method']}%, {label}" if label else f"**{result['method']}%**"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _measured_table(head: list[str], lines: list[list[str]], rows: list[Result]) -> str:
    """A table, and with what its rows were measured."""
    return f"{_table(head, lines)}\nMeasured with: {'; '.join(sorted({_with(row) for row in rows}))}.\n"


def _measured(results: list[Result]) -> str:
    """With what the rows were measured, and how many of each."""
    counts: dict[str, int] = {}
    for each in results:
        versions = each["versions"]
        words = f"{each['processor']}, ultralytics {versions['ultralytics']}, torch {versions['torch']}"
        settings = each["settings"]
        words += ", AMP" if settings.get("train_amp") else ", bfloat16" if settings["bf16"] else ", float32"
        if each["flops"] is not None:
            words += f", yolo-prune at {versions.get('commit', versions['yolo-prune'])}"
        counts[words] = counts.get(words, 0) + 1
    return "Measured with: " + "; ".join(f"{words} ({count} rows)" for words, count in sorted(counts.items())) + ".\n"


def quantized(entries: list[Result]) -> str:
    """What each of prune, quantize and both costs: an artifact a line, beside the dense FP32 one of its runtime.

    Args:
        entries: of `QUANTIZED`.
    """
    rows = []
    for entry in sorted(entries, key=lambda one: (list(NAMES).index(one["set"]), one["model"], one["pruning"])):
        dense = {row["runtime"]: row for row in entry["rows"] if (row["model"], row["precision"]) == ("dense", "fp32")}
        for row in entry["rows"]:
            pruned, int8 = row["model"] == "pruned", row["precision"] == "int8"
            what = ("dense", "quantize", "prune", "**both**")[2 * pruned + int8]
            base, mark = dense[row["runtime"]], " (busy)" if entry["busy"] else ""
            rows.append(
                [
                    *(NAMES[entry["set"]], entry["model"], RUNTIMES.get(row["runtime"], row["runtime"]), what),
                    f"{row['map50_95']:.4f}",
                    "" if row is base else _signed(row["map50_95"] - base["map50_95"]),
                    *(f"{row['ms']['median']:.2f}{mark}", f"{row['speedup']['median']:.2f}", f"{row['megabytes']:.1f}"),
                    *("; ".join(row["faults"]), f"`{entry['pruning']}`" if pruned else ""),
                ]
            )
    if not rows:
        return "Not measured yet.\n"
    head = ["set", "model", "runtime", "", "mAP50-95", "to dense", "ms", "times as fast", "MB"]
    return f"{_table([*head, 'refused, for', 'pruned by'], rows)}\n{_quantized_with(entries)}"


def _quantized_with(entries: list[Result]) -> str:
    """With what it was measured."""
    words = set()
    for entry in entries:
        words.add(_with({**entry, "processor": f"{entry['processor']}, {entry['threads']} thread"}))
    return f"Measured with: {'; '.join(sorted(words))}.\n"


def bounded(rows: list[Result]) -> str:
    """Half of the milliseconds and half of the FLOPs: what was asked, and what is measured.

    Args:
        rows: of `BOUNDED`.
    """
    if not rows:
        return "Not measured yet.\n"
    lines = []
    for row in rows:
        half, flops = row["latency"], row["flops"]
        speeds = [one["speedup"] for one in (half, flops)]
        taken = [1 / one["median"] for one in speeds]
        busy = " (busy)" if row["noise"] or not all(one["steady"] for one in speeds) else ""
        lines.append(
            [
                *(row["model"], RUNTIMES.get(row["runtime"], row["runtime"]), f"{taken[0]:.1%}{busy}"),
                *(f"{half['flops_left']:.1%}", f"{half['flops_left'] / taken[0]:.2f}"),
                *(f"{len((half['check'] or {}).get('tries', ()))}", f"{speeds[1]['median']:.2f}"),
                *(f"{row['profile_seconds']:.0f}", f"{half['seconds']:.0f}"),
            ]
        )
    head = ["model", "runtime", "half the ms: measured", "its FLOPs", "speed-up by FLOPs ratio", "plans timed"]
    return _measured_table([*head, "half the FLOPs: times as fast", "profile, s", "cut and timing, s"], lines, rows)


def int8(rows: list[Result]) -> str:
    """What a profile predicted of a cut model, and what was measured.

    Args:
        rows: of `INT8`.
    """
    if not rows:
        return "Not measured yet.\n"
    lines = []
    for row in sorted(rows, key=lambda one: (one["model"], one["runtime"], one["bound"])):
        median, *ends = (f"{off:+.1f}%" for off in row["off"])
        busy = "" if row["speedup"]["steady"] else " (busy)"
        what = {"flops": "FLOPs", "latency": "milliseconds"}[row["bound"]]
        lines.append(
            [
                *(row["model"], f"{RUNTIMES.get(row['runtime'], row['runtime'])}, {row['precision']}"),
                *(f"{row['left']} of the {what}", f"{row['predicted_share']:.1%}"),
                *(f"{1 / row['speedup']['median']:.1%}{busy}", f"{median} ({' to '.join(ends)})"),
                "{:.1f} to {:.1f}".format(*row["profile"]["dense_ms_between"]),
            ]
        )
    head = ["model", "runtime", "cut to", "predicted", "measured", "off", "dense, ms, while the profile was made"]
    return _measured_table(head, lines, rows)


def canvases(rows: list[Result]) -> str:
    """mAP50-95 as a training validates it, and as an exported file is validated.

    Args:
        rows: of `CANVASES`.
    """
    if not rows:
        return "Not measured yet.\n"
    lines = []
    for row in sorted(rows, key=lambda one: (list(NAMES).index(one["set"]), one["model"])):
        pairs = [(row[one]["as_trained"], row[one]["as_exported"]) for one in ("dense", "pruned")]
        dense, pruned = ([f"{value:.4f}" for value in pair] for pair in pairs)
        apart = [_signed(after - before) for before, after in zip(*pairs, strict=True)]
        lines.append([NAMES[row["set"]], row["model"], dense[0], pruned[0], apart[0], dense[1], pruned[1], apart[1]])
    head = ["set", "model", "as the training validates: dense", "pruned", "to dense", "as exported: dense", "pruned"]
    return _measured_table([*head, "to dense"], lines, rows)


def averages(rows: list[Result]) -> str:
    """Averages of the weights of one training, at three of its epochs and of the epoch that is its best.

    Args:
        rows: of `AVERAGES`.
    """
    if not rows:
        return "Not measured yet.\n"
    names = list(dict.fromkeys(key for row in rows for one in row["rows"] for key in one if key != "epoch"))
    lines = []
    for row in sorted(rows, key=lambda one: (list(NAMES).index(one["set"]), one["model"], one["epochs"])):
        epochs = row["rows"]
        shown = {f"{one['epoch']}": one for one in (epochs[0], epochs[len(epochs) // 2], epochs[-1])}
        best = {name: max((one[name] for one in epochs if name in one), default=None) for name in names}
        for epoch, one in [*shown.items(), ("best as trained", best)]:
            figures = [one.get(name) for name in names]
            pairs = ["" if pair is None else f"{pair[0]:.4f}, {pair[1]:.4f}" for pair in figures]
            lines.append([NAMES[row["set"]], row["model"], f"{row['epochs']}", epoch, *pairs])
    head = ["set", "from", "epochs", "epoch", *("the host's" if name == "host" else f"`ema={name}`" for name in names)]
    return _measured_table(head, lines, rows)


def applied(rows: list[Result]) -> str:
    """What a cut leaves without training, and its time.

    Args:
        rows: of `APPLIED`.
    """
    if not rows:
        return "Not measured yet.\n"
    lines = []
    for row in sorted(rows, key=lambda one: (list(NAMES).index(one["set"]), one["model"], -one["flops_left"])):
        before, after = row["map50_95"]
        lines.append(
            [
                *(NAMES[row["set"]], row["model"], f"{row['flops_left']:.1%}", f"{row['params'][1]:,}"),
                *(f"{before:.4f}", f"{after:.4f}", f"{after / before:.3f}"),
                *(f"{row['seconds'][kind]:.0f}" for kind in ("cpu", "wall")),
                _faster(row.get("speed")),
            ]
        )
    head = ["set", "model", "FLOPs", "params", "mAP50-95 before", "after", "of the dense", "CPU seconds", "seconds"]
    head.append("times as fast")
    return _measured_table(head, lines, rows)


def _faster(speed: Result | None) -> str:
    """How many times as fast an artifact is, in which runtime, with the interval; empty where none was timed."""
    if speed is None:
        return ""
    low, high = ("?" if value is None else f"{value:.2f}" for value in speed["interval"])
    times = "busy" if speed["times"] is None else f"{speed['times']:.2f}"
    return f"{times} ({low}-{high}), {RUNTIMES[speed['runtime']]}"


def _with(entry: Result) -> str:
    """Processor and versions of one entry."""
    versions = {key: value for key, value in entry["versions"].items() if key not in ("code", "numpy", "python")}
    return f"{entry['processor']}, " + ", ".join(f"{key} {value}" for key, value in versions.items())


def placed(readme: str, tables: str, begin: str = BEGIN, end: str = END) -> str:
    """The text of a file with the tables between its markers."""
    before, found, rest = readme.partition(begin)
    _, ends, after = rest.partition(end)
    if not (found and ends):
        raise SystemExit(f"{README.name}: the tables have no place; put {begin} and {end} there")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


# The file of the results, what makes a table of its rows, and the markers that it stands between
PARTS: tuple[tuple[Path, Callable[[list[Result]], str], str, str], ...] = (
    (QUANTIZED, quantized, QUANTIZED_BEGIN, QUANTIZED_END),
    (APPLIED, applied, APPLIED_BEGIN, APPLIED_END),
    (INT8, int8, INT8_BEGIN, INT8_END),
    (AVERAGES, averages, AVERAGES_BEGIN, AVERAGES_END),
    (CANVASES, canvases, CANVASES_BEGIN, CANVASES_END),
    (BOUNDED, bounded, BOUNDED_BEGIN, BOUNDED_END),
)


def page(text: str) -> str:
    """The README with all its tables as the files say."""
    text = placed(text, render(read(), matrix_rows.read()))
    text = placed(text, render(read(RESULTS_GPU), matrix_rows.read()), GPU_BEGIN, GPU_END)
    for results, write, begin, end in PARTS:
        text = placed(text, write(matrix_files.read(results)), begin, end)
    return text


def refresh() -> bool:
    """Write the tables; whether anything was new."""
    text = README.read_text(encoding="utf-8")
    new = page(text)
    if new != text:
        files.replace(README, new)
    return new != text


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        text = README.read_text(encoding="utf-8")
        sys.exit(page(text) != text)
    print("written" if refresh() else "nothing new")
