# yolo-prune, AGPL-3.0 license
"""Accuracy against the dense model of equal training: every model, set, protocol and seed of matrix.yaml.

    python benchmarks/matrix.py list [only=yolo26n,bccd,p1]     what is done and what is missing, with its time
    python benchmarks/matrix.py [only=…] [jobs=2] [stale=1]     train what is missing
    python benchmarks/matrix.py only=bccd,p1,s0 label=late prune_start=0.3      a variant: the same with other arguments
    python benchmarks/tables.py                                 the tables of benchmarks/README.md, from the results

    python benchmarks/matrix.py device=0 jobs=12                on a GPU: results/accuracy-gpu, a table of its own

Further words: seeds=0,1,2; shared=FOLDER with datasets and weights; runs=FOLDER of the trainings (runs/accuracy,
of a GPU runs/accuracy-gpu); results=FOLDER of the JSON files (benchmarks/results/accuracy, of a GPU accuracy-gpu);
epochs=, imgsz= and batch= for a trial, with a `runs` and a `results` of its own. On a GPU the host's AMP is on, as a
user has it, and images are kept in memory (`cache=ram`).

Each row is a process of one thread, trained by benchmarks/accuracy.py, and leaves one JSON. A row that has it is not
trained again. The command may be killed at any moment: the same command goes on, and a half of a row from its last
epoch. `only=` takes models, sets, protocols, methods (dense, 50, 25, dense-steps, dense-frames), labels of variants and
seeds (s0).
A result of an earlier state of the package counts as done; `stale=1` measures it again. Where weights or a set are
missing the row says so and is skipped. To repeat a row, delete its JSON and what lies of its name in `runs`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import matrix_files
import matrix_rows
import matrix_run
import tables
import yaml
from matrix_files import ROOT, Places
from matrix_run import Matrix

TRIAL = ("epochs", "imgsz", "batch")
RUNS = ROOT / "runs"
WORDS = ("only", "jobs", "stale", "seeds", "shared", "runs", "results", "label", "device", *TRIAL)


def asked(words: dict[str, str]) -> Matrix:
    """The matrix, with the rows that a command asks for.

    Raises:
        SystemExit: a word is not known, or a trial would lie among the results.
    """
    own = {key: yaml.safe_load(value) for key, value in words.items() if key.startswith(("prune_", "train_"))}
    if unknown := sorted(set(words) - set(WORDS) - set(own)):
        raise SystemExit(f"{', '.join(unknown)}: known are {', '.join(WORDS)}, prune_… and train_…")
    if bool(own) != ("label" in words):
        raise SystemExit("label= names a variant, and prune_… or train_… say what is other in it: give both")
    trial = {key: int(words[key]) for key in TRIAL if key in words}
    if trial and not {"runs", "results"} <= set(words):
        raise SystemExit(f"{', '.join(trial)}: a trial needs runs= and results= of its own")
    spec = matrix_rows.read(device=words.get("device", "cpu"))
    for key, value in trial.items():
        if key == "imgsz":
            spec["sets"] = {name: {**entry, "imgsz": value} for name, entry in spec["sets"].items()}
        else:
            spec[key] = value
    if own:
        spec["variants"] = [each for each in spec["variants"] if each["label"] != words["label"]]
        spec["variants"].append({"label": words["label"], "arguments": own})
    rows = matrix_rows.expand(spec, [int(seed) for seed in words["seeds"].split(",")] if "seeds" in words else None)
    name = tables.RESULTS.name if spec["device"] == "cpu" else tables.RESULTS_GPU.name
    places = Places(
        Path(words.get("shared", matrix_files.near())),
        Path(words.get("runs", RUNS / name)),
        Path(words.get("results", tables.RESULTS.with_name(name))),
    )
    chosen = matrix_rows.select(rows, words.get("only", ""))
    if own:
        chosen = [row for row in chosen if row.label == words["label"]]
    return Matrix(spec, places, rows, chosen, stale=words.get("stale") == "1")


def show(matrix: Matrix, jobs: int) -> None:
    """Print where each row stands, and how long the rest takes."""
    known = [matrix_rows.result(matrix.places.results, row) for row in matrix.rows]
    found = [each for each in known if each is not None]
    seconds, counts = {"to do": 0.0, "perhaps": 0.0}, {"done": 0, "to do": 0, "perhaps": 0, "other": 0}
    for row in matrix.asked:
        state, words = matrix.state(row), ""
        content: dict[str, Any] = matrix_rows.result(matrix.places.results, row) or {}
        kind = "done" if state.startswith("done") else "to do"
        if kind == "done":
            words = f"{content['map50_95']:.4f}  {content['cpu_seconds'] / 60:5.1f} min"
        elif state in matrix_run.TO_DO or state.startswith("waits for"):
            kind = "perhaps" if row.method == matrix_rows.STEPS and state not in matrix_run.TO_DO else "to do"
            behind = matrix_run.half(matrix.places, row)
            left = matrix_rows.estimate(matrix.spec, row, found) * (1 - behind / matrix.spec["epochs"])
            seconds[kind] += left
            words = f"        {left / 60:5.1f} min" + (f", {behind} epochs are behind it" if behind else "")
        else:
            kind = "other"
        counts[kind] += 1
        print(f"{row.name:34} {state:46} {words}".rstrip())
    hours = {kind: value / 3600 for kind, value in seconds.items()}
    print(
        f"{counts['done']} done, {counts['other']} skipped or not needed, {counts['to do']} to do: "
        f"{hours['to do']:.1f} CPU-hours, {hours['to do'] / jobs:.1f} hours with jobs={jobs}"
    )
    if counts["perhaps"]:
        print(
            f"{counts['perhaps']} rows of dense-steps are trained only where a cut takes more optimizer steps than the "
            f"dense: {hours['perhaps']:.1f} CPU-hours at most"
        )


def main(words: list[str]) -> int:
    """The command."""
    listing = words[:1] == ["list"]
    given = dict(word.partition("=")[::2] for word in words[listing:])
    matrix = asked(given)
    jobs = int(given.get("jobs", 2))
    if listing:
        show(matrix, jobs)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # trainings end with it
    for row in matrix.asked:
        if (state := matrix.state(row)).startswith("skipped"):
            print(f"{row.name}: {state}")
    own = matrix.places.results in (tables.RESULTS.resolve(), tables.RESULTS_GPU.resolve())
    try:
        return int(matrix.train(jobs, after=tables.refresh if own else lambda: None) > 0)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
