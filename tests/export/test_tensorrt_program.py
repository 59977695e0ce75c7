# yolo-prune, AGPL-3.0 license
"""The program for TensorRT beside ONNX files, against a stand-in for TensorRT and for the CUDA driver.

TensorRT itself was not run. The stand-in has names, arguments and enum members of the bindings of 8.6.1, 10.3.0 and
11.4.0 (from the docstrings in their wheels) and functions of cuda.h (12.9); whatever else is asked of it fails. It has
a clock of its own, which only a synchronised stream moves on.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.tensorrt_program import FILES, HALF, QUANTIZED, V8, V10, V11, onnx, pair, run
from yolo_prune.export import tensorrt_kit
from yolo_prune.export.on_device import tensorrt_compare as program

# Arguments and order of the calls -------------------------------------------------------------------------------------

BUILDS = [
    (V8, "fp32", "fp32", False, [], 1),
    (V8, "fp16", "fp32", True, ["FP16", "SPARSE_WEIGHTS"], 1),
    (V8, "int8", "int8", False, ["FP16", "INT8"], 1),
    (V10, "fp16", "fp32", False, ["FP16"], 0),
    (V10, "int8", "int8", True, ["FP16", "INT8", "SPARSE_WEIGHTS"], 0),
    (V11, "fp16", "fp16", True, ["SPARSE_WEIGHTS"], 0),
    (V11, "int8", "int8", False, [], 0),
]


@pytest.mark.parametrize(("version", "precision", "kind", "sparse", "flags", "network"), BUILDS)
def test_builds_and_runs_by_the_documented_calls(
    tmp_path: Path, version: str, precision: str, kind: str, sparse: bool, flags: list[str], network: int
) -> None:
    made = pair(tmp_path, precision, sparse, kind)
    told = run(made, "repeats=40", "seconds=0.001", "workspace=1.5", version=version)
    assert told.err == ""
    assert told.of("create_network") == [[network], [network]]
    assert told.of("build") == [[name, flags, {"WORKSPACE": 3 << 29}, []] for name in ("dense.onnx", "best.onnx")]
    size = {"FLOAT": 4, "HALF": 2}[(FILES[kind].get("inputs") or {"images": ["FLOAT"]})["images"][0]]
    places = [["images", 3 * 8 * 16 * size], ["output0", 84 * 21 * 4], ["output1", 2 * 4]]
    assert told.of("address") == [[name, *place] for name in ("dense.onnx", "best.onnx") for place in places]
    order = ["create_network", "parse", "build", "deserialize", "address", "address", "address"]
    rounds = 20 + 40  # warm-up and counted; each is one call without and one with transfers, in turns
    assert [words[0] for words in told.calls] == [*order, *order, *(["execute"] * 4 * rounds)]
    there = [["dense.onnx"], ["dense.onnx"], ["best.onnx"], ["best.onnx"]]
    assert told.of("execute") == [*there, *there[::-1]] * (rounds // 2)
    record = json.loads((tmp_path / "tensorrt.json").read_text())
    assert (record["tensorrt"], record["precision"], record["sparse"]) == (version, precision, sparse)
    words = ["(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b"] if sparse else []
    assert [row["sparsity"] for row in record["rows"]] == [words, words]


def test_open_sizes_get_a_profile_and_a_shape(tmp_path: Path) -> None:
    sides = {"inputs": {"images": ["FLOAT", [-1, 3, -1, -1]]}, "outputs": {"output0": ["FLOAT", [-1, 84, -1]]}}
    file = onnx(tmp_path / "best.onnx", **sides, fixed={"output0": [2, 84, 21]})
    made = tensorrt_kit.write(tmp_path, {"pruned": file}, precision="fp16", sparse=False)
    told = run(made, "shape=2x3x8x16", "repeats=1", version=V10)
    assert told.code == 0, told.err
    assert told.of("build")[0][3] == [{"images": [2, 3, 8, 16]}]
    assert told.of("address") == [
        ["best.onnx", "images", 2 * 3 * 8 * 16 * 4],
        ["best.onnx", "output0", 2 * 84 * 21 * 4],
    ]
    assert "--shapes=images:2x3x8x16" in told.out
    assert run(made, version=V10).err == (
        "tensorrt: best.onnx leaves the sizes of its input open (dynamic=True): write shape=1x3x640x640\n"
    )
    assert run(made, "shape=1x1x8x8", version=V10).err == (
        "tensorrt: shape=1x1x8x8: best.onnx takes -1x3x-1x-1, where -1 is open\n"
    )


# What it tells --------------------------------------------------------------------------------------------------------


def expected(ms: float, transfers: float, repeats: int) -> list[dict[str, float]]:
    """Timings of the stand-in's network: every call takes 0.001 ms longer than the one before."""
    warm = max(20, repeats // 2)
    found = []
    for at, more in ((0, 0.0), (1, transfers)):
        times = [ms + more + 0.001 * (2 * turn + at) for turn in range(warm, warm + repeats)]
        found.append({name: np.percentile(times, q) for name, q in (("median", 50), ("p10", 10), ("p90", 90))})
    return found


def test_table_and_record(tmp_path: Path) -> None:
    folder = tmp_path / "my model's files"
    made = pair(folder, "fp16", True)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "nvpmodel").write_text('#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: 15W\\n0\\n"\n')
    (bin_folder / "nvpmodel").chmod(0o755)
    told = run(made, "repeats=50", "seconds=0.001", version=V10, path=f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    assert (told.code, told.err) == (0, "")
    record = json.loads((folder / "tensorrt.json").read_text())
    assert not list(folder.glob(".*"))
    rows = {row["role"]: row for row in record["rows"]}
    for role, name, ms, size in (("dense", "dense.onnx", 4.0, 2 << 20), ("pruned", "best.onnx", 2.0, 1 << 20)):
        compute, whole = expected(ms, 0.25 + 2 * 0.5, 50)
        assert rows[role]["compute_ms"] == pytest.approx(compute, abs=1e-3)
        assert rows[role]["with_transfers_ms"] == pytest.approx(whole, abs=1e-3)
        assert (rows[role]["file"], rows[role]["engine_bytes"], rows[role]["build_seconds"]) == (name, size, 1.5)
        assert rows[role]["inputs"] == {"images": [1, 3, 8, 16]}
    dense, pruned = (rows[role] for role in ("dense", "pruned"))
    for key in ("compute_ms", "with_transfers_ms"):
        assert record["ratio"][key] == pytest.approx(pruned[key]["median"] / dense[key]["median"], rel=1e-2)
        low, high = record["ratio_interval"][key]
        assert low < record["ratio"][key] < high < 1
    assert record["settled"]
    assert record["ratio"]["engine_bytes"] == 0.5
    facts = {"gpu": "Orin", "compute_capability": "8.7", "power_mode": "15W"}
    assert {**record, **facts, "repeats": 50, "warm_up": 25, "workspace_gib": 4.0} == record
    lines = told.out.splitlines()
    (at,) = [index for index, line in enumerate(lines) if "GPU compute, ms" in line]
    for line, row in zip(lines[at + 1 : at + 3], (dense, pruned), strict=True):
        t = row["compute_ms"]
        assert line.split()[:3] == [row["role"], f"{t['median']:.3f}", f"({t['p10']:.3f}-{t['p90']:.3f})"]
        assert line.endswith(f"{row['engine_bytes'] / 1e6:.2f}  {row['file']}")
    shares = [f"{record['ratio'][key]:.3f}" for key in ("compute_ms", "with_transfers_ms", "engine_bytes")]
    assert lines[at + 3].split() == ["pruned", "/", "dense", *shares]
    assert lines[at + 4].split()[:2] == ["99%", "interval"]
    assert any(line.startswith("TensorRT 10.3.0, Orin") and line.endswith("power mode 15W") for line in lines)
    # What is printed first can be pasted into a shell as it stands.
    by_hand = [shlex.split(line) for line in lines if line.lstrip().startswith("trtexec ")]
    assert [words[1] for words in by_hand] == [f"--onnx={folder / name}" for name in ("dense.onnx", "best.onnx")]
    assert by_hand[0][2:] == [
        *("--fp16", "--sparsity=enable", "--memPoolSize=workspace:4096", "--iterations=50"),
        *("--useCudaGraph", "--useSpinWait", "--noDataTransfers"),
    ]
    assert [shlex.split(row["trtexec"]) for row in record["rows"]] == by_hand


def test_what_stays_too_noisy_is_not_called_anything(tmp_path: Path) -> None:
    """Fewer turns than an interval needs: said in the table, in tensorrt.json and by the exit code."""
    told = run(pair(tmp_path), "repeats=2", "seconds=0.0001", version=V10)
    assert told.code == 3
    assert "pruned / dense  too noisy" in told.out
    assert "THE MACHINE WAS TOO BUSY TO TELL WHICH IS FASTER" in told.out
    record = json.loads((tmp_path / "tensorrt.json").read_text())
    assert record["settled"] is False
    assert record["ratio"] == {"compute_ms": None, "with_transfers_ms": None, "engine_bytes": 0.5}
    assert record["ratio_interval"]["compute_ms"] == [0.0, None]


def test_the_programs_on_a_device_know_the_same_interval() -> None:
    """They stand alone, so each has its own copy."""
    from yolo_prune.device import timing
    from yolo_prune.export.on_device import tensorrt_compare

    source = (ROOT / "yolo_prune" / "export" / "on_device" / "benchmark.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    kept = [node for node in tree.body if getattr(node, "name", "") in ("interval", "known")]
    space: dict[str, Any] = {"np": np, "Any": Any, "OUTSIDE": timing.OUTSIDE, "NARROW": timing.NARROW}
    exec(compile(ast.Module(kept, []), "benchmark.py", "exec"), space)
    rng = np.random.default_rng(0)
    for n in (*range(1, 120, 3), 2500):
        values = rng.lognormal(0, 0.1, n)
        found = timing.interval(values)
        assert tensorrt_compare.interval(values) == found == space["interval"](values)
        assert tensorrt_compare.known(*found) == timing.narrow(*found) == space["known"](*found)
    for name in ("OUTSIDE", "NARROW"):
        assert f"\n{name} = {getattr(timing, name)}" in source
        assert getattr(tensorrt_compare, name) == getattr(timing, name)


def test_one_file_files_of_the_users_choice_and_an_old_gpu(tmp_path: Path) -> None:
    made = pair(tmp_path)
    told = run(made, "dense=", "sparse=true", "repeats=1", version=V10, capability=[7, 2])
    record = json.loads((tmp_path / "tensorrt.json").read_text())
    assert [row["role"] for row in record["rows"]] == ["pruned"]
    assert (told.code, record["ratio"], "pruned / dense" in told.out) == (0, None, False)
    assert "sparse=True: Orin has no sparse tensor cores (Ampere and newer have them); expect no gain" in told.out
    other = onnx(tmp_path / "elsewhere" / "other.onnx")
    told = run(made, f"dense={other}", "repeats=1", version=V10)
    assert [words[0] for words in told.of("build")] == ["other.onnx", "best.onnx"]


# One line for every fault ---------------------------------------------------------------------------------------------

WAYS = (
    "precision=fp16|fp32|int8 sparse=True|False workspace=4 repeats=200 seconds=60 dense=dense.onnx pruned=best.onnx "
    "shape=1x3x640x640"
)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["verbose=1"], f"verbose=1: write {WAYS}"),
        (["best.onnx"], f"best.onnx: write {WAYS}"),
        (["precision=half"], "precision=half: write precision=fp16|fp32|int8"),
        (["sparse=2:4"], "sparse=2:4: write sparse=True|False"),
        (["workspace=0"], "workspace=0: write workspace=4"),
        (["repeats=many"], "repeats=many: write repeats=200"),
        (["shape=640"], None),
        (["shape=1x3x0"], "shape=1x3x0: write shape=1x3x640x640"),
        (["dense=gone.onnx"], "dense=gone.onnx: there is no such file"),
        (["dense=", "pruned="], "no file to measure: write dense=dense.onnx pruned=best.onnx, or one of them"),
    ],
)
def test_a_wrong_word_is_one_line(tmp_path: Path, words: list[str], fault: str | None) -> None:
    pair(tmp_path)
    program.DEFAULTS.update(dense="dense.onnx", pruned="best.onnx")
    try:
        if fault is None:
            assert program.arguments(words, tmp_path)["shape"] == (640,)
        else:
            with pytest.raises(program.DeviceError) as caught:
                program.arguments(words, tmp_path)
            assert str(caught.value) == fault
    finally:
        program.DEFAULTS.update(dense="", pruned="")


ASYMMETRIC = "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported."
BIAS = "Invalid Node - model.0.conv.bias_DequantizeLinear"
NO_CUDA = "TensorRT cannot start on this GPU: CUDA initialization failure with error: 35"
TOO_OLD = "TensorRT 8.4.3 is too old for this program (8.5 is needed); trtexec will do"
READ = "TensorRT cannot read dense.onnx:"
ONLY = "; TensorRT reads INT8 with zero points of 0 and biases in floating point only"
FP16_ON_11 = (
    f"precision=fp16: TensorRT {V11} computes in what the file says, and dense.onnx says FP32; export one in FP16: "
    "yolo export format=onnx quantize=16, or write precision=fp32"
)
NO_QDQ = (
    "precision=int8: dense.onnx has no Q/DQ nodes, and calibrating needs data; export one with them: "
    "yolo-prune export format=onnx quantize=8 data=..."
)


@pytest.mark.parametrize(
    ("world", "file", "precision", "fault"),
    [
        ({"no_driver": True}, {}, "fp16", "no NVIDIA GPU here: its driver (libcuda.so.1) is missing"),
        ({"gpus": None}, {}, "fp16", "no NVIDIA GPU here: cuInit: no CUDA-capable device is detected (100)"),
        ({"gpus": 0}, {}, "fp16", "no NVIDIA GPU here: the driver counts none"),
        ({"fails": "cuMemAlloc_v2"}, {}, "fp16", "CUDA: cuMemAlloc_v2: out of memory (2)"),
        (
            {"version": "8.4.3"},
            {},
            "fp16",
            TOO_OLD,
        ),
        (
            {"refuses": "Runtime"},
            {},
            "fp16",
            NO_CUDA,
        ),
        (
            {"refuses": "Builder"},
            {},
            "fp16",
            NO_CUDA,
        ),
        (
            {},
            {"parse_faults": ["no importer for x\nmore", "y"]},
            "fp16",
            f"{READ} no importer for x",
        ),
        ({}, {"parse_faults": []}, "fp16", f"{READ} what the log says"),
        ({}, {"parse_faults": [ASYMMETRIC]}, "int8", f"{READ} {ASYMMETRIC}{ONLY}"),
        ({}, {"parse_faults": [BIAS]}, "int8", f"{READ} {BIAS}{ONLY}"),
        ({}, {"build_fault": "no tactic"}, "fp16", "TensorRT cannot build dense.onnx: no tactic"),
        (
            {},
            {"no_engine": True},
            "fp16",
            "TensorRT cannot load the engine of dense.onnx: the plan is of another version",
        ),
        ({}, {"no_context": True}, "fp16", "TensorRT cannot load the engine of dense.onnx: it does not say why"),
        ({}, {"no_run": True}, "fp16", "TensorRT cannot run dense.onnx"),
        (
            {},
            {"outputs": {"output0": ["FLOAT", [-1, 6]]}},
            "fp16",
            "dense.onnx decides the size of output0 as it runs; export it without nms=True",
        ),
        (
            {},
            {"outputs": {"output0": ["BF16", [1, 6]]}},
            "fp16",
            "dense.onnx has BF16 in output0, which numpy does not know",
        ),
        ({}, {}, "int8", NO_QDQ),
        ({"version": V11}, {}, "int8", NO_QDQ),
        ({}, QUANTIZED, "fp16", "precision=fp16: dense.onnx has Q/DQ nodes of INT8; write precision=int8"),
        ({}, HALF, "fp32", "precision=fp32: dense.onnx is in FP16; write precision=fp16"),
        ({"version": V11}, {}, "fp16", FP16_ON_11),
    ],
)
def test_a_fault_is_one_line(
    tmp_path: Path, world: dict[str, Any], file: dict[str, Any], precision: str, fault: str
) -> None:
    made = pair(tmp_path, precision)
    onnx(tmp_path / "dense.onnx", **file)
    told = run(made, **{"version": V10, **world})
    assert (told.code, told.err) == (1, f"tensorrt: {fault}\n")
    assert not (tmp_path / "tensorrt.json").exists()
    assert told.out.count("trtexec --onnx=") == 2  # whatever fails, the lines for trtexec come first


@pytest.mark.parametrize(
    ("modules", "fault"),
    [
        (
            {"tensorrt": "raise ModuleNotFoundError('No module named tensorrt', name='tensorrt')"},
            "TensorRT is missing for this Python: on a Jetson sudo apt install python3-libnvinfer (a virtual "
            "environment sees it with --system-site-packages), elsewhere pip install tensorrt",
        ),
        (
            {"tensorrt": "raise ImportError('libnvinfer.so.10: cannot open shared object file')"},
            "TensorRT cannot be loaded here: libnvinfer.so.10: cannot open shared object file",
        ),
        (
            {"tensorrt": "raise FileNotFoundError('Could not find: nvinfer.dll\\nmore')"},
            "TensorRT cannot be loaded here: Could not find: nvinfer.dll",
        ),
        ({"numpy": "raise ImportError"}, "numpy is missing here: pip install numpy"),
    ],
)
def test_a_missing_package_is_one_line(tmp_path: Path, modules: dict[str, str], fault: str) -> None:
    told = run(pair(tmp_path), modules=modules)
    assert (told.code, told.err) == (1, f"tensorrt: {fault}\n")
    assert told.out.count("trtexec --onnx=") == (0 if "numpy" in modules else 2)
