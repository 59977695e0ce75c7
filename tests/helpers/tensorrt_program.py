# yolo-prune, AGPL-3.0 license
"""The program for TensorRT, run where TensorRT and the CUDA driver are stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.cuda_stand_in import CUDA
from tests.helpers.tensorrt_stand_in import TENSORRT
from yolo_prune.export import tensorrt_kit

V8, V10, V11 = "8.6.1", "10.3.0", "11.4.0.106"
STAND_IN = TENSORRT + CUDA

TORCH = """
import tensorrt


class Tensor:
    def __init__(self, shape, device, dtype=None):
        assert device == "cuda" and dtype is None
        size = 4
        for side in shape:
            size *= side
        self.place = (1 << 40) + (len(tensorrt.GPU.memory) << 20)
        tensorrt.GPU.memory[self.place] = size

    def to(self, dtype):
        assert dtype in (float32, float16, int64)
        return self

    def data_ptr(self):
        return self.place


rand, float32, float16, int64 = Tensor, "float32", "float16", "int64"


class cuda:
    class Stream:
        cuda_stream = 0x77

        def __init__(self):
            tensorrt.GPU.tails[self.cuda_stream] = 0.0

        def synchronize(self):
            tensorrt.note("synchronize")
            tensorrt.GPU.synchronize(self.cuda_stream)

    @staticmethod
    def synchronize():
        pass
"""


class Told(NamedTuple):
    """What a process left: exit code, standard output and error, what the stand-in was called with."""

    code: int
    out: str
    err: str
    calls: list[list[Any]]

    def of(self, name: str) -> list[list[Any]]:
        """The calls of one name, without it."""
        return [words[1:] for words in self.calls if words[0] == name]


def onnx(path: Path, **given: Any) -> Path:
    """Write what the stand-in takes for an ONNX file."""
    file: dict[str, Any] = {
        "inputs": {"images": ["FLOAT", [1, 3, 8, 16]]},
        "outputs": {"output0": ["FLOAT", [1, 84, 21]], "output1": ["FLOAT", [1, 2]]},
        "layers": [["CONVOLUTION", "FLOAT"], ["CONSTANT", None]],
        "ms": 4.0,
        "size": 2 << 20,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**file, **given}))
    return path


HALF: dict[str, Any] = {
    "layers": [["CAST", "HALF"], ["CONVOLUTION", "HALF"]],
    "inputs": {"images": ["HALF", [1, 3, 8, 16]]},
}
QUANTIZED: dict[str, Any] = {"layers": [["QUANTIZE", "INT8"], ["DEQUANTIZE", "FLOAT"], ["CONVOLUTION", "FLOAT"]]}
FILES: dict[str, dict[str, Any]] = {"fp32": {}, "fp16": HALF, "int8": QUANTIZED}


def run(
    program_file: Path, *words: str, modules: dict[str, str] | None = None, path: str | None = None, **world: Any
) -> Told:
    """Run a program where TensorRT and the CUDA driver are stand-ins, or what `modules` says they are."""
    place = program_file.parent / "stand-in"
    place.mkdir(exist_ok=True)
    log = place / "log"
    log.unlink(missing_ok=True)
    for name, text in (modules or {"tensorrt": STAND_IN}).items():
        (place / f"{name}.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "YOLO_PRUNE": "0"}
    env.update(STAND_IN=json.dumps({"gpus": 1, **world}), STAND_IN_LOG=str(log))
    if path is not None:
        env["PATH"] = path
    done = subprocess.run(
        [sys.executable, str(program_file), *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Told(done.returncode, done.stdout, done.stderr, calls)


def pair(folder: Path, precision: str = "fp16", sparse: bool = False, kind: str = "fp32") -> Path:
    """Write two files of a kind, the pruned one half as slow and half as large, and the program for them."""
    files = {"dense": onnx(folder / "dense.onnx", **FILES[kind])}
    files["pruned"] = onnx(folder / "best.onnx", **{**FILES[kind], "ms": 2.0, "size": 1 << 20})
    return tensorrt_kit.write(folder, files, precision=precision, sparse=sparse)
