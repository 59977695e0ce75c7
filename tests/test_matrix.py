# yolo-prune, AGPL-3.0 license
"""benchmarks/matrix.py: what it expands to, that it trains a row once, and the tables of its results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.helpers.checkout import ROOT

# In place of benchmarks/accuracy.py: it notes its words and leaves the files that a training leaves.
STUB = """
import json, pathlib, sys
words = dict(word.partition("=")[::2] for word in sys.argv[2:])
out, name = pathlib.Path(words["out"]), words["name"]
with (out / "calls").open("a") as calls:
    given = [f"{key}={words[key]}" for key in ("name", "train_nbs", "frames") if key in words]
    calls.write(" ".join([sys.argv[1], *given]) + "\\n")
if (out / "fail").exists() and (out / "fail").read_text() == name:
    sys.exit("it fails")
assert pathlib.Path(words["model"]).is_file()
(out / name / "weights").mkdir(parents=True)
(out / name / "weights" / "best.pt").write_text(name)
steps = 60 if "train_nbs" in words else 20 if sys.argv[1] == "dense" else 50
row = {"map50_95": 0.5, "gflops": 4.0, "params": 1000, "epochs": 10, "optimizer_steps": steps, "batches": 8,
       "gflops_dense": 8.0, "cpu_seconds": 60.0, "seconds": 61.0, "arguments": {}, "method": sys.argv[1]}
(out / f"{name}.json").write_text(json.dumps(row))
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the matrix."""
    pytest.importorskip("fcntl", reason="the matrix locks its rows by fcntl")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import matrix
    import matrix_files
    import matrix_rows
    import matrix_run
    import tables

    return SimpleNamespace(command=matrix, files=matrix_files, rows=matrix_rows, run=matrix_run, tables=tables)


@pytest.fixture
def small(tmp_path: Path, bench: SimpleNamespace) -> SimpleNamespace:
    """A matrix of one model and one set in both protocols, whose trainings are a stub."""
    spec = {
        **bench.rows.read(),
        "models": ["yolov8n"],
        "sets": {"demo": {"imgsz": 64, "square": True, "make": {"images": 1, "val": 1, "imgsz": 64, "seed": 0}}},
        "seeds": [0],
    }
    (tmp_path / "shared" / "weights").mkdir(parents=True)
    (tmp_path / "shared" / "weights" / "yolov8n.pt").write_text("weights")
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "runs").mkdir()
    places = bench.files.Places(tmp_path / "shared", tmp_path / "runs", tmp_path / "results")
    rows = bench.rows.expand(spec)

    def train(only: str = "", **settings: Any) -> tuple[int, list[str]]:
        """How many failed, and what the stub was called with."""
        (tmp_path / "runs" / "calls").write_text("")
        program = [sys.executable, str(tmp_path / "stub.py")]
        matrix = bench.run.Matrix(spec, places, rows, bench.rows.select(rows, only), program=program, **settings)
        return matrix.train(2, say=lambda _: None), (tmp_path / "runs" / "calls").read_text().splitlines()

    return SimpleNamespace(spec=spec, places=places, rows=rows, train=train, bench=bench)


def test_the_matrix_expands_to_every_model_set_protocol_method_and_seed(bench: SimpleNamespace) -> None:
    spec = bench.rows.read()
    rows = bench.rows.expand(spec)
    assert len(rows) == len({row.name for row in rows}) == 3 * 2 * 2 * (4 + 5 + 5)
    assert len(bench.rows.expand(spec, seeds=[0, 1, 2])) == 252
    assert [row.seed for row in rows] == [0] * 84 + [1] * 84, "all of seed 0 comes first"
    assert [row.name for row in rows[:4]] == [
        *("p1-demo-yolov8n-dense-s0", "p1-demo-yolov8n-50-s0"),
        *("p1-demo-yolov8n-25-s0", "p1-demo-yolov8n-dense-steps-s0"),
    ]
    chosen = bench.rows.select(rows, "yolo26n,bccd,p1,50,25,s1")
    assert [row.name for row in chosen] == ["p1-bccd-yolo26n-50-s1", "p1-bccd-yolo26n-25-s1"]
    with pytest.raises(SystemExit, match=r"only=yolo27n: 'yolo27n' is none of 25, 50, bccd"):
        bench.rows.select(rows, "yolo27n")


def test_variants_are_trained_where_they_say_and_only_with_a_cut(bench: SimpleNamespace) -> None:
    variant = {"label": "late", "arguments": {"prune_start": 0.3}, "sets": ["bccd"], "protocols": ["p1"], "seeds": [0]}
    rows = bench.rows.expand({**bench.rows.read(), "variants": [variant]})
    late = [row for row in rows if row.label == "late"]
    assert len(late) == 3 * 2
    assert late[0].name == "p1-bccd-yolov8n-50-late-s0"
    assert bench.rows.settings(bench.rows.read(), late[0])["prune_start"] == 0.3
    matrix = bench.command.asked({"label": "late", "prune_start": "0.3", "only": "deeppcb,yolo11n,p2,25,s0"})
    assert [row.name for row in matrix.asked] == ["p1-deeppcb-yolo11n-dense-s0", "p2-deeppcb-yolo11n-25-late-s0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"onyl": "bccd"}, "onyl: known are only, jobs"),
        ({"prune_start": "0.3"}, "label= names a variant"),
        ({"epochs": "2"}, "epochs: a trial needs runs= and results= of its own"),
    ],
)
def test_a_word_that_would_go_wrong_is_refused(bench: SimpleNamespace, words: dict[str, str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        bench.command.asked(words)


def test_each_row_is_trained_once_and_p2_from_the_best_of_p1(small: SimpleNamespace) -> None:
    failed, calls = small.train("p2,50")
    assert failed == 0
    assert calls == ["dense name=p1-demo-yolov8n-dense-s0", "ours name=p2-demo-yolov8n-50-s0"]
    failed, calls = small.train()
    assert failed == 0
    assert sorted(calls) == [
        "dense name=p1-demo-yolov8n-dense-frames-s0 frames=1",
        "dense name=p1-demo-yolov8n-dense-steps-s0 train_nbs=16",  # 80 batches for 50 steps: each batch is one
        *("dense name=p2-demo-yolov8n-dense-frames-s0 frames=1", "dense name=p2-demo-yolov8n-dense-s0"),
        "dense name=p2-demo-yolov8n-dense-steps-s0 train_nbs=16",
        *("ours name=p1-demo-yolov8n-25-s0", "ours name=p1-demo-yolov8n-50-s0", "ours name=p2-demo-yolov8n-25-s0"),
    ]
    assert small.train() == (0, [])
    result = json.loads((small.places.results / "p2-demo-yolov8n-50-s0.json").read_text())
    assert result["start"] == "RUNS/p1-demo-yolov8n-dense-s0/weights/best.pt"
    assert (result["map50_95"], result["gflops_ratio"], result["seed"]) == (0.5, 0.5, 0)
    assert str(small.places.runs.parent) not in json.dumps(result), "no place of this machine"


def test_a_result_that_could_not_be_handed_on_is_not_trained_again_and_a_lost_start_is(small: SimpleNamespace) -> None:
    small.train("p1,dense,50")
    names = ("p1-demo-yolov8n-dense-s0", "p1-demo-yolov8n-50-s0")
    before = [(small.places.results / f"{name}.json").read_text() for name in names]
    for name in names:
        (small.places.results / f"{name}.json").unlink()  # the matrix was killed right before it wrote them
    assert small.train("p1,dense,50") == (0, [])
    assert [(small.places.results / f"{name}.json").read_text() for name in names] == before
    (small.places.runs / names[0] / "weights" / "best.pt").unlink()
    assert small.train("p1,25,dense-steps") == (
        0,
        ["ours name=p1-demo-yolov8n-25-s0", "dense name=p1-demo-yolov8n-dense-steps-s0 train_nbs=16"],
    )
    failed, calls = small.train("p2,dense")
    assert (failed, sorted(calls)) == (
        0,
        ["dense name=p1-demo-yolov8n-dense-s0", "dense name=p2-demo-yolov8n-dense-s0"],
    )


def test_a_row_that_fails_or_lacks_its_weights_stops_no_other(small: SimpleNamespace) -> None:
    (small.places.runs / "fail").write_text("p1-demo-yolov8n-50-s0")
    failed, calls = small.train("p1,dense,50,25")
    assert failed == 1
    assert len(calls) == 3
    assert not (small.places.results / "p1-demo-yolov8n-50-s0.json").exists()
    (small.places.runs / "fail").unlink()
    assert small.train("p1,dense,50,25") == (0, ["ours name=p1-demo-yolov8n-50-s0"])
    (small.places.shared / "weights" / "yolov8n.pt").unlink()
    matrix = small.bench.run.Matrix({**small.spec, "epochs": 31}, small.places, small.rows, small.rows)
    assert matrix.state(small.rows[0]) == "skipped: no SHARED/weights/yolov8n.pt"
    assert matrix.train(1) == 0


def test_a_set_of_shared_is_linked_to_and_nothing_is_written_there(
    tmp_path: Path, bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.files.subprocess, "run", lambda *_, **__: None)  # the host's scan of the labels
    spec = {"sets": {"mine": {"folder": "datasets/mine"}}}

    def data(shared: Path) -> Path:
        for file in ("images/train/a.jpg", "images/val/b.jpg", "labels/train/a.txt", "labels/val/b.txt", "data.yaml"):
            (shared / "datasets" / "mine" / file).parent.mkdir(parents=True, exist_ok=True)
            (shared / "datasets" / "mine" / file).write_text("test: images/test\nnames: {0: x}\n")
        before = sorted(shared.rglob("*"))
        made: Path = bench.files.data(spec, bench.files.Places(shared, tmp_path / "runs", tmp_path), "mine")
        assert sorted(shared.rglob("*")) == before
        return made

    made = data(tmp_path / "one")
    assert yaml.safe_load(made.read_text()) == {"names": {0: "x"}, "path": str(tmp_path / "runs" / "data" / "mine")}
    image = made.parent / "images" / "train" / "a.jpg"
    assert image.resolve() == (tmp_path / "one" / "datasets" / "mine" / "images" / "train" / "a.jpg").resolve()
    assert not image.parent.is_symlink(), "the host writes its cache beside this folder"
    (tmp_path / "one").rename(tmp_path / "moved")
    assert not image.exists()
    assert data(tmp_path / "moved") == made
    assert image.exists()


def test_only_rows_that_cut_are_of_older_code(small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    small.train("p1,dense,50")
    monkeypatch.setattr(small.bench.files, "code", lambda: "another")
    matrix = small.bench.run.Matrix(small.spec, small.places, small.rows, small.rows[:2])
    assert [matrix.state(row) for row in small.rows[:2]] == ["done", "done, of older code"]
    assert small.train("p1,dense,50") == (0, [])
    assert small.train("p1,dense,50", stale=True) == (0, ["ours name=p1-demo-yolov8n-50-s0"])
    assert small.train("p1,dense,50", stale=True) == (0, [])


def test_the_tables_are_what_the_results_say(bench: SimpleNamespace) -> None:
    def result(method: str, seed: int, fitness: float, **others: Any) -> dict[str, Any]:
        axes = {"protocol": "p1", "set": "bccd", "model": "yolov8n", "method": method, "seed": seed, "label": ""}
        figures = {"flops": None, "map50_95": fitness, "gflops": 8.0, "gflops_ratio": 1.0, "params": 3000}
        versions = {"yolo-prune": "1", "ultralytics": "2", "torch": "3", "commit": "abc"}
        rest = {"arguments": {}, "optimizer_steps": 140, "settings": {"bf16": False}, "processor": "made up"}
        return {**axes, **figures, **rest, "versions": versions, **others}

    cut = {"flops": 0.5, "gflops": 4.0, "gflops_ratio": 0.5, "params": 1000}
    results = [
        *(result("dense", 0, 0.630), result("dense", 1, 0.640), result("dense", 2, 0.700)),
        *(result("50", 0, 0.628, **cut), result("50", 1, 0.632, **cut)),
        result("50", 0, 0.6333, **cut, label="late", arguments={"prune_start": 0.3}),
    ]
    spec = {**bench.rows.read(), "protocols": {"p1": "from COCO weights"}}
    assert bench.tables.render(results, spec) == (
        "| model | protocol | FLOPs | demo set | BCCD | DeepPCB | mean of the sets | worst |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| yolov8n | P1 | 50% |  | -0.005 |  |  | -0.005 |\n\n"
        "BCCD, P1: from COCO weights\n\n"
        "| model | method | FLOPs | GFLOPs | params | steps | seed 0 | seed 1 | seed 2 | mean | to dense |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| yolov8n | dense | 100.0% | 8.00 | 3,000 | 140 | 0.6300 | 0.6400 | 0.7000 | 0.6567 | +0.000 |\n"
        "| yolov8n | **50%** | 50.0% | 4.00 | 1,000 | 140 | 0.6280 | 0.6320 |  | 0.6300 | -0.005 |\n"
        "| yolov8n | 50%, late: `prune_start=0.3` | 50.0% | 4.00 | 1,000 | 140 | 0.6333 |  |  | 0.6333 | +0.003 |\n\n"
        "Measured with: made up, ultralytics 2, torch 3, float32 (3 rows); "
        "made up, ultralytics 2, torch 3, float32, yolo-prune at abc (3 rows).\n"
    )
    in_frames = bench.tables.render([*results, result("dense-frames", 0, 0.641)], spec)
    assert "| yolov8n | dense, in frames as well | 100.0% | 8.00 | 3,000 | 140 | 0.6410 |" in in_frames
    steps = [*results, result("dense-steps", 0, 0.640, optimizer_steps=300)]
    text = bench.tables.render(steps, spec)
    assert "| mean | to dense | to dense of equal steps |" in text
    assert "| 0.6280 | 0.6320 |  | 0.6300 | -0.005 | -0.012 |" in text
    assert (
        "| yolov8n | dense, equal steps | 100.0% | 8.00 | 3,000 | 300 | 0.6400 |  |  | 0.6400 | +0.010 | +0.000 |"
        in text
    )
    exported = [{**each, "map50_95_exported": each["map50_95"] - 0.1 * each["seed"]} for each in results[:4]]
    text = bench.tables.render([*exported, *results[4:]], spec)
    assert "| mean | to dense | as exported, by seed | mean | to dense |" in text
    assert "| 0.6280 | 0.6320 |  | 0.6300 | -0.005 | 0.6280 | 0.6280 | -0.002 |" in text
    assert "| worst | as exported, BCCD |" in text
    assert bench.tables.placed(f"a\n{bench.tables.BEGIN}\nold\n{bench.tables.END}\nb\n", "new\n") == (
        f"a\n{bench.tables.BEGIN}\n\nnew\n\n{bench.tables.END}\nb\n"
    )


def test_the_tables_of_the_readme_are_of_the_results_beside_it(bench: SimpleNamespace) -> None:
    text = bench.tables.README.read_text(encoding="utf-8")
    assert bench.tables.page(text) == text, "run `python benchmarks/tables.py`"


def test_what_prune_quantize_and_both_cost_is_a_table(bench: SimpleNamespace, tmp_path: Path) -> None:
    import prune_and_quantize

    def row(model: str, precision: str, fitness: float, ms: float, size: float, **others: Any) -> dict[str, Any]:
        times = {"median": ms, "low": ms, "high": ms, "p10": 0.95 * ms, "p90": 1.05 * ms}
        speed = {"median": 8.0 / ms, "interval": [1.0, 1.0], "rounds": 20, "steady": True}
        axes = {"model": model, "runtime": "onnx", "precision": precision, "map50_95": fitness, "ms": times}
        return {**axes, "steady": True, "speedup": speed, "megabytes": size, "faults": [], **others}

    rows = [
        *(row("dense", "fp32", 0.70, 8.0, 12.0), row("dense", "int8", 0.69, 10.0, 3.0)),
        *(row("pruned", "fp32", 0.68, 4.0, 3.0), row("pruned", "int8", 0.60, 5.0, 1.0, faults=["it lost 0.08"])),
    ]
    versions = {"yolo-prune": "1", "code": "abc", "onnxruntime": "2"}
    entry = {"set": "bccd", "model": "yolov8n", "busy": True, "processor": "made up", "threads": 1}
    entry |= {"pruning": "prune=0.5"}
    entry |= {"versions": versions, "rows": rows}
    for other in ({"model": "yolo11n"}, {"busy": False}, {}):  # the last of a set, model and pruning is what stays
        prune_and_quantize.keep(tmp_path / "kept.json", {**entry, **other})
    other = {**entry, "pruning": "prune_latency=50%"}
    prune_and_quantize.keep(tmp_path / "kept.json", other)
    kept = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    assert kept == [{**entry, "model": "yolo11n"}, entry, other]
    assert bench.tables.quantized(kept[1:2]) == (
        "| set | model | runtime |  | mAP50-95 | to dense | ms | times as fast | MB | refused, for | pruned by |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| BCCD | yolov8n | ONNX Runtime | dense | 0.7000 |  | 8.00 (busy) | 1.00 | 12.0 |  |  |\n"
        "| BCCD | yolov8n | ONNX Runtime | quantize | 0.6900 | -0.010 | 10.00 (busy) | 0.80 | 3.0 |  |  |\n"
        "| BCCD | yolov8n | ONNX Runtime | prune | 0.6800 | -0.020 | 4.00 (busy) | 2.00 | 3.0 |  | `prune=0.5` |\n"
        "| BCCD | yolov8n | ONNX Runtime | **both** | 0.6000 | -0.100 | 5.00 (busy) | 1.60 | 1.0 | it lost 0.08 "
        "| `prune=0.5` |\n\n"
        "Measured with: made up, 1 thread, yolo-prune 1, onnxruntime 2.\n"
    )
    assert not prune_and_quantize.busy(rows[0])
    assert prune_and_quantize.busy({**rows[0], "steady": False})
    assert prune_and_quantize.busy({**rows[0], "speedup": {"steady": False}})
    assert prune_and_quantize.busy({**rows[0], "ms": {"p10": 8.0, "p90": 9.7}})


def test_two_canvases_are_a_table(bench: SimpleNamespace) -> None:
    row = {"set": "deeppcb", "model": "yolov8n", "processor": "made up", "versions": {"torch": "2"}}
    row["dense"] = {"as_trained": 0.65, "as_exported": 0.66}
    row["pruned"] = {"as_trained": 0.67, "as_exported": 0.60}
    assert bench.tables.canvases([row]).splitlines()[2:] == [
        "| DeepPCB | yolov8n | 0.6500 | 0.6700 | +0.020 | 0.6600 | 0.6000 | -0.060 |",
        "",
        "Measured with: made up, torch 2.",
    ]


def test_int8_predicted_and_measured_is_a_table(bench: SimpleNamespace) -> None:
    row = {"model": "n", "runtime": "openvino", "precision": "int8", "bound": "latency", "left": "50%"}
    row |= {"predicted_share": 0.5, "speedup": {"median": 1.6, "interval": [1.5, None], "steady": False}}
    row |= {"off": [-20.0, -25.0], "profile": {"dense_ms_between": [20.77, 25.73]}}
    row |= {"processor": "CPU", "versions": {"yolo-prune": "0.2.0", "openvino": "2026.4", "code": "1"}}
    assert bench.tables.int8([row]).splitlines()[2:] == [
        "| n | OpenVINO, int8 | 50% of the milliseconds | 50.0% | 62.5% (busy) | -20.0% (-25.0%) | 20.8 to 25.7 |",
        "",
        "Measured with: CPU, yolo-prune 0.2.0, openvino 2026.4.",
    ]
    assert bench.tables.int8([]) == "Not measured yet.\n"


def test_averages_of_one_training_are_a_table(bench: SimpleNamespace) -> None:
    epochs = [{"epoch": n + 1, "host": [0.1 * n, 0.5], "0.1": [0.3, 0.1 * n]} for n in (1, 2, 3, 0)]
    row = {"set": "demo", "model": "yolov8n.pt", "epochs": 9, "rows": epochs, "processor": "made up"}
    row["versions"] = {"torch": "2"}
    assert bench.tables.averages([row]).splitlines() == [
        "| set | from | epochs | epoch | the host's | `ema=0.1` |",
        "| --- | --- | --- | --- | --- | --- |",
        "| demo set | yolov8n.pt | 9 | 2 | 0.1000, 0.5000 | 0.3000, 0.1000 |",
        "| demo set | yolov8n.pt | 9 | 4 | 0.3000, 0.5000 | 0.3000, 0.3000 |",
        "| demo set | yolov8n.pt | 9 | 1 | 0.0000, 0.5000 | 0.3000, 0.0000 |",
        "| demo set | yolov8n.pt | 9 | best as trained | 0.3000, 0.5000 | 0.3000, 0.3000 |",
        "",
        "Measured with: made up, torch 2.",
    ]


def test_on_a_gpu_a_row_is_trained_there_and_counts_for_itself(bench: SimpleNamespace) -> None:
    here, there = bench.rows.read(), bench.rows.read(device="0")
    row = bench.rows.expand(there)[0]
    more = {"train_device": "0", "train_amp": True, "train_cache": "ram"}
    assert bench.rows.settings(there, row) == {**bench.rows.settings(here, row), **more}


def test_a_bound_on_latency_beside_half_of_the_flops(bench: SimpleNamespace) -> None:
    speed = {"median": 2.0, "interval": [1.9, 2.1], "rounds": 20, "steady": True}
    half = {"flops_left": 0.46, "speedup": speed, "check": {"tries": [{}, {}]}, "seconds": 21.4}
    row = {
        "model": "yolo26n",
        "runtime": "ncnn",
        "noise": "",
        "latency": half,
        "flops": {"speedup": {**speed, "median": 1.6}},
    }
    row |= {"profile_seconds": 61.2, "processor": "made up", "versions": {"ncnn": "1"}}
    first = bench.tables.bounded([row]).splitlines()[2]
    assert first == "| yolo26n | ncnn | 50.0% | 46.0% | 0.92 | 2 | 1.60 | 61 | 21 |"
    assert "50.0% (busy)" in bench.tables.bounded([{**row, "noise": "it swings"}])
    assert "50.0% (busy)" in bench.tables.bounded([{**row, "flops": {"speedup": {**speed, "steady": False}}}])
