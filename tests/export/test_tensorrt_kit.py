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
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.helpers.checkout import ROOT
from yolo_prune.errors import PruneError
from yolo_prune.export import tensorrt_kit
from yolo_prune.export.on_device import tensorrt_compare as program

SOURCE = ROOT / "yolo_prune" / "export" / "on_device" / "tensorrt_compare.py"
V8, V10, V11 = "8.6.1", "10.3.0", "11.4.0.106"

STAND_IN = r'''
import ctypes, enum, json, os, time

WORLD = json.loads(os.environ["STAND_IN"])
__version__ = WORLD["version"]
MAJOR = int(__version__.split(".")[0])
BY_NAME = {8: 0, 10: 1}.get(MAJOR, 2)
LOG = open(os.environ["STAND_IN_LOG"], "a", buffering=1)


def note(*words):
    LOG.write(json.dumps(words) + "\n")


def need(value, kind):
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"incompatible function arguments: {value!r} is no {kind}")


def members(name, *names):
    return enum.IntEnum(name, {key: index for index, key in enumerate(names)})


Severity = members("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
common = ("DEBUG", "GPU_FALLBACK", "REFIT", "DISABLE_TIMING_CACHE", "TF32", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE")
BuilderFlag = members("BuilderFlag", *common, *(() if MAJOR >= 11 else ("FP16", "INT8", "FP8")))
NetworkDefinitionCreationFlag = members(
    "NetworkDefinitionCreationFlag",
    *(("EXPLICIT_BATCH", "EXPLICIT_PRECISION"), ("EXPLICIT_BATCH", "STRONGLY_TYPED"), ("STRONGLY_TYPED",))[BY_NAME],
)
DataType = members("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64")
SIZES = {"FLOAT": 4, "HALF": 2, "INT8": 1, "INT32": 4, "BOOL": 1, "UINT8": 1, "INT64": 8, "BF16": 2}
TensorIOMode = members("TensorIOMode", "NONE", "INPUT", "OUTPUT")
MemoryPoolType = members("MemoryPoolType", "WORKSPACE", "DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "TACTIC_DRAM")
LayerType = members("LayerType", "CONVOLUTION", "CAST", "ACTIVATION", "CONSTANT", "QUANTIZE", "DEQUANTIZE")


class Strict:
    """As a binding's class: an attribute that it does not have cannot be set."""

    def __setattr__(self, name, value):
        if not name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        object.__setattr__(self, name, value)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity
    _started = False

    def __init__(self):
        self._started = True


class Logger(ILogger):
    def __init__(self, min_severity=Severity.WARNING):
        ILogger.__init__(self)

    def log(self, severity, msg):
        pass


def started(logger, what):
    need(logger, ILogger)
    if not logger._started:
        raise TypeError("__init__() must be called when overriding __init__")
    if WORLD.get("refuses") == what:
        logger.log(Severity.ERROR, "CUDA initialization failure with error: 35\nmore of it")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    return logger


class ITensor(Strict):
    def __init__(self, name, shape, dtype):
        self._all = name, tuple(shape), dtype

    name = property(lambda self: self._all[0])
    shape = property(lambda self: self._all[1])
    dtype = property(lambda self: self._all[2])


class ILayer(Strict):
    def __init__(self, kind, dtype):
        self._kind, self._dtype = kind, dtype

    type = property(lambda self: LayerType[self._kind])
    num_outputs = property(lambda self: 1)

    def get_output(self, index):
        need(index, int)
        return ITensor("x", (1,), DataType[self._dtype]) if self._dtype else None


class INetworkDefinition(Strict):
    def __init__(self):
        self._file = None

    num_layers = property(lambda self: len(self._file["layers"]))
    num_inputs = property(lambda self: len(self._file["inputs"]))

    def get_layer(self, index):
        return ILayer(*self._file["layers"][index])

    def get_input(self, index):
        name, (kind, shape) = list(self._file["inputs"].items())[index]
        return ITensor(name, shape, DataType[kind])


class IOptimizationProfile(Strict):
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        if not tuple(min) == tuple(opt) == tuple(max) or -1 in tuple(opt):
            raise ValueError("inconsistent")
        self._shapes[input] = list(opt)


class IBuilderConfig(Strict):
    def __init__(self):
        self._flags, self._limits, self._profiles = [], {}, []

    def set_flag(self, flag):
        need(flag, BuilderFlag)
        self._flags.append(flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        need(pool, MemoryPoolType)
        need(pool_size, int)
        self._limits[pool.name] = pool_size

    def add_optimization_profile(self, profile):
        need(profile, IOptimizationProfile)
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1


class IHostMemory(Strict):
    def __init__(self, file, shapes):
        self._file, self._shapes = file, shapes

    nbytes = property(lambda self: self._file["size"])


class Builder(Strict):
    def __init__(self, logger):
        self._logger = started(logger, "Builder")

    def create_network(self, flags=0):
        need(flags, int)
        if flags not in ((1,), (0, 1), (0,))[BY_NAME]:  # 10 has the flag still, and does not look at it
            raise ValueError(f"network flags {flags}")
        note("create_network", flags)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        need(network, INetworkDefinition)
        need(config, IBuilderConfig)
        file, flags = network._file, config._flags
        note("build", file["file"], sorted(flags), config._limits, config._profiles)
        kinds = {kind for kind, _ in file["layers"]}, {dtype for _, dtype in file["layers"]}
        fault = file.get("build_fault")
        if MAJOR < 11 and "QUANTIZE" in kinds[0] and "INT8" not in flags:
            fault = "Networks with INT8 Q/DQ layers require INT8 builder mode"
        if MAJOR < 11 and "HALF" in kinds[1] and "FP16" not in flags:
            fault = "FP16 tensors without BuilderFlag.FP16"
        open_ones = [name for name, (_, shape) in file["inputs"].items() if -1 in shape]
        if open_ones and [list(one) for one in config._profiles] != [open_ones]:
            fault = "Network has dynamic or shape inputs, but no optimization profile has been defined."
        if fault:
            self._logger.log(Severity.WARNING, "a warning")
            self._logger.log(Severity.INTERNAL_ERROR, fault + "\nmore of it")
            self._logger.log(Severity.ERROR, "a second error")
            return None
        if "SPARSE_WEIGHTS" in flags:
            self._logger.log(Severity.INFO, "(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b")
        self._logger.log(Severity.VERBOSE, "a page of words")
        GPU.now += 1500.0
        return IHostMemory(file, {name: s for one in config._profiles for name, s in one.items()})


class ParserError(Strict):
    def __init__(self, words):
        self._words = words

    def desc(self):
        return self._words


class OnnxParser(Strict):
    def __init__(self, network, logger):
        need(network, INetworkDefinition)
        need(logger, ILogger)
        self._network, self._errors, self._logger = network, [], logger

    num_errors = property(lambda self: len(self._errors))

    def parse_from_file(self, model):
        need(model, str)
        note("parse", os.path.basename(model))
        return self._read(open(model, "rb").read(), model)

    def parse(self, model, path=None):
        need(model, (bytes, bytearray, memoryview))
        note("parse", None)
        return self._read(bytes(model), "")

    def _read(self, content, name):
        file = json.loads(content)
        file["file"] = os.path.basename(name)
        self._errors = file.get("parse_faults", [])
        self._network._file = file
        if "parse_faults" in file:
            self._logger.log(Severity.ERROR, "what the log says")
        return "parse_faults" not in file

    def get_error(self, index):
        return ParserError(self._errors[index])


class Runtime(Strict):
    def __init__(self, logger):
        self._logger = started(logger, "Runtime")

    def deserialize_cuda_engine(self, serialized_engine):
        need(serialized_engine, IHostMemory)
        note("deserialize", serialized_engine._file["file"])
        if serialized_engine._file.get("no_engine"):
            self._logger.log(Severity.ERROR, "the plan is of another version")
            return None
        return ICudaEngine(serialized_engine)


class ICudaEngine(Strict):
    def __init__(self, plan):
        self._file = plan._file
        self._io = {**self._file["inputs"], **self._file["outputs"]}

    num_io_tensors = property(lambda self: len(self._io))

    def get_tensor_name(self, index):
        return list(self._io)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._file["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType[self._io[name][0]]

    def get_tensor_shape(self, name):
        return tuple(self._io[name][1])

    def create_execution_context(self):
        return None if self._file.get("no_context") else IExecutionContext(self)


class IExecutionContext(Strict):
    def __init__(self, engine):
        self._engine, self._shapes, self._places, self._calls = engine, {}, {}, 0

    def set_input_shape(self, name, shape):
        need(shape, (tuple, list))
        self._shapes[name] = tuple(shape)
        return self._engine.get_tensor_mode(name) == TensorIOMode.INPUT

    def get_tensor_shape(self, name):
        inputs = self._engine._file["inputs"]
        if any(-1 in shape and other not in self._shapes for other, (_, shape) in inputs.items()):
            return tuple(self._engine.get_tensor_shape(name))
        fixed = self._engine._file.get("fixed", {}).get(name)
        return self._shapes.get(name) or tuple(fixed or self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name, memory):
        need(memory, int)
        size = SIZES[self._engine.get_tensor_dtype(name).name]
        for side in self.get_tensor_shape(name):
            size *= side
        if GPU.memory[memory] < size:
            raise MemoryError(f"{name}: {size} bytes in {GPU.memory[memory]}")
        note("address", self._engine._file["file"], name, size)
        self._places[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        need(stream_handle, int)
        file = self._engine._file
        if set(self._places) != set(self._engine._io):
            raise RuntimeError("a tensor has no address")
        if not WORLD.get("unfilled") and not {self._places[name] for name in file["inputs"]} <= GPU.written:
            raise RuntimeError("an input was not copied")
        note("execute", file["file"])
        GPU.enqueue(stream_handle, file["ms"] + 0.001 * self._calls)
        self._calls += 1
        return not file.get("no_run")


# The driver -----------------------------------------------------------------------------------------------------------

HOST = {}


class GPU:
    now, memory, written, tails, events = 0.0, {}, set(), {}, {}

    @classmethod
    def enqueue(cls, stream, ms):
        cls.tails[stream] = max(cls.tails[stream], cls.now) + ms

    @classmethod
    def synchronize(cls, stream):
        cls.now = max(cls.now, cls.tails[stream])


def perf_counter():
    if any(tail > GPU.now for tail in GPU.tails.values()):
        raise RuntimeError("time is read before the stream is synchronised")
    return GPU.now / 1e3


time.perf_counter = perf_counter


class P:
    """A pointer argument to one of a type, made by ctypes.byref."""

    def __init__(self, kind):
        self.kind = kind


I, U, F, S, V, A = ctypes.c_int, ctypes.c_uint, ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint64
ARGUMENTS = {
    "cuInit": (U,),
    "cuDeviceGetCount": (P(I),),
    "cuDeviceGet": (P(I), I),
    "cuDeviceGetName": (ctypes.Array, I, I),
    "cuDeviceGetAttribute": (P(I), I, I),
    "cuDevicePrimaryCtxRetain": (P(V), I),
    "cuCtxSetCurrent": (V,),
    "cuMemAlloc_v2": (P(A), S),
    "cuMemAllocHost_v2": (P(V), S),
    "cuStreamCreate": (P(V), U),
    "cuStreamSynchronize": (V,),
    "cuEventCreate": (P(V), U),
    "cuEventRecord": (V, V),
    "cuEventElapsedTime": (P(F), V, V),
    "cuMemcpyHtoDAsync_v2": (A, V, S, V),
    "cuMemcpyDtoHAsync_v2": (V, A, S, V),
    "cuGetErrorString": (I, P(ctypes.c_char_p)),
}


class Driver:
    def __getattr__(self, name):
        kinds, function = ARGUMENTS[name], globals()[name]

        def call(*values):
            assert len(values) == len(kinds), name
            plain = []
            for value, kind in zip(values, kinds):
                if isinstance(kind, P):
                    value = value._obj
                assert isinstance(value, kind.kind if isinstance(kind, P) else kind), (name, value, kind)
                plain.append(value if isinstance(kind, P) or kind is ctypes.Array else value.value)
            if name == WORLD.get("fails"):
                return 2
            if name not in ("cuInit", "cuDeviceGetCount", "cuGetErrorString"):
                assert "context" in HOST or not name.startswith(("cuMem", "cuStream", "cuEvent")), "no context"
            return function(*plain) or 0

        return call


def cuInit(flags):
    return 100 if WORLD.get("gpus") is None else 0


def cuDeviceGetCount(count):
    count.value = WORLD["gpus"]


def cuDeviceGet(device, ordinal):
    device.value = ordinal + 7


def cuDeviceGetName(name, length, device):
    assert (length, device) == (len(name), 7)
    name.value = b"Orin"


def cuDeviceGetAttribute(value, which, device):
    value.value = {75: WORLD.get("capability", [8, 7])[0], 76: WORLD.get("capability", [8, 7])[1]}[which]


def cuDevicePrimaryCtxRetain(context, device):
    context.value = 0x99


def cuCtxSetCurrent(context):
    assert context == 0x99
    HOST["context"] = True


def cuMemAlloc_v2(address, size):
    address.value = (1 << 40) + (len(GPU.memory) << 20)
    GPU.memory[address.value] = size


def cuMemAllocHost_v2(address, size):
    room = ctypes.create_string_buffer(size)
    address.value = ctypes.addressof(room)
    HOST[address.value] = (size, room)


def cuStreamCreate(stream, flags):
    assert flags == 1
    stream.value = 0x1000 + len(GPU.tails)
    GPU.tails[stream.value] = 0.0


def cuStreamSynchronize(stream):
    GPU.synchronize(stream)


def cuEventCreate(event, flags):
    event.value = 0x2000 + len(GPU.events)
    GPU.events[event.value] = None


def cuEventRecord(event, stream):
    GPU.events[event] = max(GPU.tails[stream], GPU.now)


def cuEventElapsedTime(took, start, end):
    if GPU.events[end] is None or GPU.events[end] > GPU.now:
        return 600
    took.value = GPU.events[end] - GPU.events[start]


def cuMemcpyHtoDAsync_v2(address, place, size, stream):
    assert size == HOST[place][0] == GPU.memory[address]
    GPU.written.add(address)
    GPU.enqueue(stream, 0.25)


def cuMemcpyDtoHAsync_v2(place, address, size, stream):
    assert size == HOST[place][0] == GPU.memory[address]
    GPU.enqueue(stream, 0.5)


def cuGetErrorString(code, words):
    words.value = {2: b"out of memory", 100: b"no CUDA-capable device is detected"}[code]


_real = ctypes.CDLL


def open_library(name, *rest, **named):
    if name not in ("libcuda.so.1", "nvcuda.dll"):
        return _real(name, *rest, **named)
    if WORLD.get("no_driver"):
        raise OSError(f"{name}: cannot open shared object file")
    return Driver()


ctypes.CDLL = open_library
'''

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
        assert line.endswith(f"{row['engine_bytes'] / (1 << 20):.2f}  {row['file']}")
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
    for n in range(1, 120, 3):
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
    assert tensorrt_kit.write(tmp_path, {"dense": tmp_path / "dense.onnx"}, precision="fp16", sparse=False) == (
        tmp_path / "dense-tensorrt.py"
    )


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
    ours = tensorrt_kit.trtexec(Path("my model.onnx"), precision, True, 4)
    assert ours == (
        f"trtexec '--onnx=my model.onnx' {words}--sparsity=enable --memPoolSize=workspace:4096 --iterations=200 "
        "--useCudaGraph --useSpinWait --noDataTransfers"
    )
    given = {"precision": precision, "sparse": True, "workspace": 4.0, "repeats": 200, "shape": None}
    assert program.trtexec(Path("my model.onnx"), given, typed=False) == ours
    assert program.trtexec(Path("my model.onnx"), given, typed=True) == ours.replace(words, "")
    assert "--sparsity" not in tensorrt_kit.trtexec("x.onnx", precision, False, 0.5)
    assert "workspace:512 " in tensorrt_kit.trtexec("x.onnx", precision, False, 0.5)


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
    with pytest.raises(PruneError, match="precision=half"):
        tensorrt_kit.trtexec(file, "half", False, 4)


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
