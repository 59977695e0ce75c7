# yolo-prune, AGPL-3.0 license
"""The folder for TensorRT: the program in it, the line for trtexec, what is refused, and engines in profiles."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.tensorrt_program import STAND_IN, TORCH, V8, V10, onnx, pair, run
from yolo_prune.errors import PruneError
from yolo_prune.export import tensorrt_kit
from yolo_prune.export.on_device import tensorrt_compare as program

SOURCE = ROOT / "yolo_prune" / "export" / "on_device" / "tensorrt_compare.py"


# The program and the line ---------------------------------------------------------------------------------------------


def defaults(made: Path) -> dict[str, Any]:
    """The values of a copy's own line."""
    (line,) = [line for line in made.read_text(encoding="utf-8").split("\n") if line.startswith("DEFAULTS = ")]
    tree = ast.parse(line).body[0]
    assert isinstance(tree, ast.Assign)
    assert isinstance(tree.value, ast.Call)
    return dict(json.loads(ast.literal_eval(tree.value.args[0])))


def test_only_one_line_of_a_copy_is_its_own(tmp_path: Path) -> None:
    made = pair(tmp_path, "int8", True)
    assert made == tmp_path / "best-tensorrt.py"
    assert defaults(made) == {"dense": "dense.onnx", "pruned": "best.onnx", "precision": "int8", "sparse": True}
    was, now = (path.read_text(encoding="utf-8").split("\n") for path in (SOURCE, made))
    assert len(was) == len(now)
    assert [a.partition(" = ")[0] for a, b in zip(was, now, strict=True) if a != b] == ["DEFAULTS"]
    only = {"dense": tmp_path / "dense.onnx"}
    other = tensorrt_kit.write(tmp_path, only, precision="fp16", sparse=False, workspace=1.5)
    assert other == tmp_path / "dense-tensorrt.py"
    assert defaults(other)["workspace"] == 1.5


@pytest.mark.parametrize(
    "name", ["a b.onnx", "it's.onnx", 'a"""b.onnx', "back\\slash.onnx", "zw\nei.onnx", "größe.onnx"]
)
def test_odd_names_of_files(tmp_path: Path, name: str) -> None:
    file = onnx(tmp_path / "sub folder" / name)
    made = tensorrt_kit.write(tmp_path, {"pruned": file}, precision="fp16", sparse=False)
    assert defaults(made)["pruned"] == f"sub folder/{name}"
    ast.parse(made.read_text(encoding="utf-8"))


def test_needs_nothing_of_ours_and_an_old_python(tmp_path: Path) -> None:
    tree = ast.parse(pair(tmp_path).read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} == {"numpy", "tensorrt"}
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "tensorrt" not in top


def test_the_kit_imports_nothing_heavy() -> None:
    code = (
        "import sys, yolo_prune.export.tensorrt_kit; sys.exit(any(x in sys.modules for x in ('torch', 'ultralytics')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(("precision", "words"), [("fp32", ""), ("fp16", "--fp16 "), ("int8", "--int8 --fp16 ")])
def test_trtexec_line(precision: str, words: str) -> None:
    line = (
        f"trtexec '--onnx=my model.onnx' {words}--sparsity=enable --memPoolSize=workspace:4096 --iterations=200 "
        "--useCudaGraph --useSpinWait --noDataTransfers"
    )
    given = {"precision": precision, "sparse": True, "workspace": 4.0, "repeats": 200, "shape": None}
    assert program.trtexec(Path("my model.onnx"), given, typed=False) == line
    assert program.trtexec(Path("my model.onnx"), given, typed=True) == line.replace(words, "")
    small = program.trtexec(Path("x.onnx"), {**given, "sparse": False, "workspace": 0.5}, typed=False)
    assert "--sparsity" not in small
    assert "workspace:512 " in small


def test_what_the_kit_refuses(tmp_path: Path) -> None:
    file = onnx(tmp_path / "best.onnx")
    inside = tmp_path / "inside"
    for folder, files, precision, fault in (
        (tmp_path, {}, "fp16", "files for TensorRT are dense and pruned, or one of them, and not none"),
        (
            tmp_path,
            {"student": file},
            "fp16",
            "files for TensorRT are dense and pruned, or one of them, and not ['student']",
        ),
        (tmp_path, {"dense": file}, "half", "precision=half is unknown for TensorRT; supported: fp16, fp32, int8"),
        (inside, {"dense": file}, "fp16", f"{file} lies outside {inside}, where the program for TensorRT looks for it"),
    ):
        with pytest.raises(PruneError) as caught:
            tensorrt_kit.write(folder, files, precision=precision, sparse=False)
        assert str(caught.value) == fault
    (inside / "best-tensorrt.py").mkdir(parents=True)
    with pytest.raises(PruneError, match=r"best-tensorrt\.py cannot be written"):
        tensorrt_kit.write(inside, {"pruned": inside / "best.onnx"}, precision="fp16", sparse=False)


# The engine path of profiles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V8, V10])
def test_runtime_runs_an_engine_by_the_documented_calls(tmp_path: Path, version: str) -> None:
    onnx(tmp_path / "best.onnx")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom yolo_prune.device import runtimes\n"
        "call = runtimes.load(Path(__file__).with_name('best.onnx'), 'engine', 1, 'fp16')\ncall()\ncall()\n"
    )
    told = run(script, modules={"tensorrt": STAND_IN, "torch": TORCH}, version=version, unfilled=True)
    assert (told.code, told.err) == (0, "")
    assert told.of("build")[0][1] == ["FP16"]
    assert [words[1] for words in told.of("address")] == ["images", "output0", "output1"]
    assert [words[0] for words in told.calls[-4:]] == ["execute", "synchronize"] * 2


def test_the_metadata_that_ultralytics_writes_before_an_engine_are_left_out() -> None:
    from yolo_prune.device import runtimes

    told = json.dumps({"task": "detect", "names": {"0": "cell"}}).encode()
    header = len(told).to_bytes(4, "little") + told
    assert runtimes._plan_of(header + b"\x89plan") == b"\x89plan"
    assert runtimes._plan_of(b"ftrt\x00plan of TensorRT's own") == b"ftrt\x00plan of TensorRT's own"
