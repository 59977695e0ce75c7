# yolo-prune, AGPL-3.0 license
"""How fast are a dense and a pruned network in TensorRT on this machine? It builds both and times them in turns.

    python best-tensorrt.py [precision=fp16|fp32|int8] [sparse=True|False] [workspace=4] [repeats=200]
                            [seconds=60] [dense=dense.onnx] [pruned=best.onnx] [shape=1x3x640x640]

Python 3.8, numpy and TensorRT 8.5 or newer are needed, and nothing else: GPU memory and clocks come from the driver of
CUDA itself, which lies wherever TensorRT runs. workspace= is in GiB; shape= is for files exported with dynamic=True.

Up to TensorRT 10 precision= sets builder flags: fp16 lets every layer compute in FP16, int8 also gives INT8 to what has
Q/DQ nodes. From 11 on a file says its own precision, and precision= must agree with it. sparse=True lets TensorRT use
sparse tensor cores (Ampere and newer) for weights of which two of every four neighbours along the input channels are 0.

They take turns (dense, pruned, pruned, dense), repeats= times each and on until the median of the ratios is known to
3%, for seconds= at most. Where it is not known by then the exit code is 3, and neither is called faster.

GPU compute is what lies between two events on the GPU; with transfers is the wall clock from the image in page-locked
memory of the host to the outputs there. Both have the launching of kernels in them, most of which trtexec's
--useCudaGraph takes away. It follows the Python API of TensorRT 8.6, 10 and 11, and was not run on a GPU.

All of it is one file, longer than others of the project, because one file is what is copied to a device.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ImportError:
    sys.exit("tensorrt: numpy is missing here: pip install numpy")

# A copy that lies beside ONNX files has their names in this line. They are of files beside the copy.
DEFAULTS = json.loads('{"dense": "", "pruned": "", "precision": "fp16", "sparse": false}')

ROLES = ("dense", "pruned")
PRECISIONS = ("fp16", "fp32", "int8")
OLDEST = (8, 5)  # the first with set_tensor_address and execute_async_v3
TYPED = 11  # from this major version on every network is strongly typed: flags for a precision are gone
SPARSE_CORES = (8, 0)  # compute capability of Ampere
NARROW = 0.03  # half-width of an interval, as a share of its median, below which a ratio is known
OUTSIDE = 0.01  # how often the true median lies outside of its interval
WARM_UP = 20  # calls of each that are not counted, at least; half as many as are counted where that is more

# TensorRT's names. Its own nptype() asks numpy for np.bool in 8.5, which numpy 1.24 does not have.
NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}

_INT8_FILE = "yolo-prune export format=onnx quantize=8 data=..."
_FP16_FILE = "yolo export format=onnx quantize=16"


class DeviceError(Exception):
    """What the user is told, in one line."""


def main(words: list[str], folder: Path) -> int:
    """Build, measure and print; write tensorrt.json.

    Args:
        words: the arguments, key=value. folder: where this program lies, and the files that `DEFAULTS` names.

    Returns:
        The exit code.

    Raises:
        DeviceError: an argument is wrong, something is missing here, or TensorRT cannot build a file.
    """
    given = arguments(words, folder)
    missing: DeviceError | None = None
    try:
        trt = tensorrt()
    except DeviceError as error:  # the trtexec lines are of use all the same
        trt, missing = None, error
    lines = _lines_by_hand(given, trt is not None and major(trt) >= TYPED)
    if missing is not None:
        raise missing
    cuda = Cuda()
    if given["sparse"] and cuda.capability < SPARSE_CORES:
        print(f"sparse=True: {cuda.name} has no sparse tensor cores (Ampere and newer have them); expect no gain")
    logger = _logger(trt)
    runtime = _made(trt.Runtime, logger)
    rows, networks = [], []
    for role, path in given["files"].items():
        print(f"building {role}: {path.name}; this takes minutes", flush=True)
        began = time.perf_counter()
        plan = build(trt, logger, path, given)
        took = round(time.perf_counter() - began, 1)
        networks.append(Network(trt, cuda, runtime, logger, plan, path, given["shape"]))
        rows.append(_row(role, path, plan, took, networks[-1], logger, lines[role]))
    timings, shares = time_in_turns(networks, given["repeats"], given["seconds"])
    for row, timing in zip(rows, timings):  # noqa: B905 (Python 3.8 has no strict)
        row.update(timing)
    record = _record(trt, cuda, given, rows, shares)
    print(table(record))
    out = folder / "tensorrt.json"
    write(out, record)
    print(f"saved {out}")
    return 0 if record["settled"] else 3


def _lines_by_hand(given: dict[str, Any], typed: bool) -> dict[str, str]:
    """Print the command of TensorRT's own program for each file; role -> the line."""
    lines = {role: trtexec(path, given, typed) for role, path in given["files"].items()}
    print("by hand, with TensorRT's own program (on a Jetson /usr/src/tensorrt/bin/trtexec):")
    for line in lines.values():
        print(f"  {line}")
    return lines


def _row(role: str, path: Path, plan: Any, took: float, network: Any, logger: Any, line: str) -> dict[str, Any]:
    """What is known of an engine before it is timed; what TensorRT logged of its sparsity is taken from the logger.

    Args:
        plan: the built engine. took: seconds. network: the same, ready to run. line: of trtexec.
    """
    row = {
        "role": role,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "engine_bytes": int(plan.nbytes),
        "build_seconds": took,
        "inputs": network.shapes,
        "sparsity": logger.sparsity[:],
        "trtexec": line,
    }
    logger.sparsity.clear()
    return row


def _record(
    trt: Any,
    cuda: Any,
    given: dict[str, Any],
    rows: list[dict[str, Any]],
    shares: dict[str, tuple[float, float, float]],
) -> dict[str, Any]:
    """The content of tensorrt.json."""
    return {
        "tensorrt": str(trt.__version__),
        "gpu": cuda.name,
        "compute_capability": "{}.{}".format(*cuda.capability),
        "machine": board(),
        "power_mode": power_mode(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "precision": given["precision"],
        "sparse": given["sparse"],
        "workspace_gib": given["workspace"],
        "repeats": given["repeats"],
        "seconds": given["seconds"],
        "warm_up": warm_up(given["repeats"]),
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()) + " UTC",
        "rows": rows,
        "ratio": ratio(rows, shares),
        "ratio_interval": {key: [_finite(end) for end in share[::2]] for key, share in shares.items()},
        "settled": all(known(*share) for share in shares.values()),
    }


# What was asked for ---------------------------------------------------------------------------------------------------


def arguments(words: list[str], folder: Path) -> dict[str, Any]:
    """Read `key=value` words over `DEFAULTS`.

    Returns:
        precision, sparse, workspace (GiB), repeats, seconds, shape (None where not given) and files: role -> an
        existing file.

    Raises:
        DeviceError: a word or value is wrong, or a file is not there.
    """
    given: dict[str, Any] = {"workspace": 4.0, "repeats": 200, "seconds": 60.0, "shape": None, **DEFAULTS}
    files = {role: folder / given.pop(role) for role in ROLES if given.get(role)}
    for word in words:
        name, equals, text = word.partition("=")
        if name in ROLES and equals:
            files.pop(name, None)
            if text:
                files[name] = Path(text)
            continue
        try:
            given[name] = _READ[name](text)
        except (KeyError, ValueError):
            wanted = ["precision=fp16|fp32|int8", "sparse=True|False", "workspace=4", "repeats=200", "seconds=60"]
            wanted += ["dense=dense.onnx", "pruned=best.onnx", "shape=1x3x640x640"]
            near = [other for other in wanted if name and other.startswith(f"{name}=")] or wanted
            raise DeviceError(f"{word}: write {' '.join(near)}") from None
    if not files:
        raise DeviceError("no file to measure: write dense=dense.onnx pruned=best.onnx, or one of them")
    for role, path in files.items():
        if not path.is_file():
            raise DeviceError(f"{role}={path}: there is no such file")
    if not os.access(str(folder), os.W_OK):
        raise DeviceError(f"{folder}: tensorrt.json cannot be written there; copy this program and the files elsewhere")
    given["files"] = {role: files[role] for role in ROLES if role in files}
    return given


def _precision(text: str) -> str:
    if text not in PRECISIONS:
        raise ValueError(text)
    return text


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < 1 << 20:
        raise ValueError(text)
    return number


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_READ: dict[str, Any] = {
    "precision": _precision,
    "sparse": lambda text: {"true": True, "false": False}[text.lower()],
    "workspace": _above_zero,
    "repeats": _whole,
    "seconds": _above_zero,
    "shape": lambda text: tuple(_whole(side) for side in text.split("x")),
}


def trtexec(path: Path, given: dict[str, Any], typed: bool) -> str:
    """The same measurement by TensorRT's own program, as a line for a shell.

    Args:
        path: the ONNX file. given: as of `arguments`. typed: whether TensorRT is 11 or newer, whose trtexec takes no
            precision.
    """
    words = ["trtexec", f"--onnx={path}"]
    if not typed:
        words += {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[given["precision"]]
    if given["sparse"]:
        words.append("--sparsity=enable")
    if given["shape"]:
        words.append(f"--shapes=images:{_by(given['shape'])}")  # as ultralytics names its input
    words += [f"--memPoolSize=workspace:{int(1024 * given['workspace'])}", f"--iterations={given['repeats']}"]
    words += ["--useCudaGraph", "--useSpinWait", "--noDataTransfers"]
    return " ".join(shlex.quote(word) for word in words)


# TensorRT -------------------------------------------------------------------------------------------------------------


def tensorrt() -> Any:
    """The module.

    Raises:
        DeviceError: it is not there, cannot be loaded, or is too old.
    """
    try:
        import tensorrt as trt
    except ImportError as error:
        if getattr(error, "name", None) == "tensorrt":
            raise DeviceError(
                "TensorRT is missing for this Python: on a Jetson sudo apt install python3-libnvinfer (a virtual "
                "environment sees it with --system-site-packages), elsewhere pip install tensorrt"
            ) from None
        raise DeviceError(f"TensorRT cannot be loaded here: {_line(error)}") from None
    except Exception as error:  # its libraries are looked for as it is imported, and say OSError and more
        raise DeviceError(f"TensorRT cannot be loaded here: {_line(error)}") from None
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST:
        raise DeviceError(f"TensorRT {trt.__version__} is too old for this program (8.5 is needed); trtexec will do")
    return trt


def major(trt: Any) -> int:
    """Its major version."""
    return int(trt.__version__.split(".")[0])


def _logger(trt: Any) -> Any:
    """A logger that keeps errors, and what TensorRT says of sparse weights; the rest is dropped."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # by name: a binding's base class must be started this way
            self.errors: list[str] = []
            self.sparsity: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)
            elif "(Sparsity)" in msg:
                self.sparsity.append(msg.strip())

    return Logger()


def _made(kind: Any, logger: Any) -> Any:
    """A builder or a runtime; without a usable GPU the bindings raise TypeError (of a null pointer)."""
    try:
        return kind(logger)
    except TypeError:
        raise DeviceError(f"TensorRT cannot start on this GPU: {_first(logger)}") from None


def build(trt: Any, logger: Any, path: Path, given: dict[str, Any]) -> Any:
    """Build an engine of an ONNX file.

    Returns:
        The serialized engine, an `IHostMemory`.

    Raises:
        DeviceError: the file's precision is another one, or TensorRT cannot read or build it.
    """
    logger.errors.clear()
    builder = _made(trt.Builder, logger)
    # Up to 8 an explicit batch must be asked for; 10 has no other kind, 11 no such flag.
    flags = 0 if major(trt) >= 10 else 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):  # by name, not by content: large weights may lie in a file beside it
        words = _line(parser.get_error(0).desc()) if parser.num_errors else _first(logger)
        raise DeviceError(f"TensorRT cannot read {path.name}: {words}{_symmetric(words)}")
    _check_precision(trt, network, path, given["precision"])
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(given["workspace"] * (1 << 30)))
    for flag in builder_flags(major(trt), given["precision"], given["sparse"]):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    _fix_shapes(builder, network, config, path, given["shape"])
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError(f"TensorRT cannot build {path.name}: {_first(logger)}")
    return plan


def builder_flags(version: int, precision: str, sparse: bool) -> list[str]:
    """Names of the builder flags for a precision and sparse weights in a major version."""
    flags = []
    if version < TYPED:  # with int8, too, what has no Q/DQ nodes takes FP16, as the host builds it
        flags += {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}[precision]
    if sparse:
        flags.append("SPARSE_WEIGHTS")
    return flags


def _check_precision(trt: Any, network: Any, path: Path, precision: str) -> None:
    """Hold what was asked for to what the file has: Q/DQ nodes, tensors in FP16."""
    quantized = half = False
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        quantized |= layer.type == trt.LayerType.QUANTIZE
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        half |= any(output is not None and output.dtype == trt.DataType.HALF for output in outputs)
    if precision == "int8" and not quantized:
        raise DeviceError(
            f"precision=int8: {path.name} has no Q/DQ nodes, and calibrating needs data; export one with them: "
            f"{_INT8_FILE}"
        )
    if precision != "int8" and quantized:
        raise DeviceError(f"precision={precision}: {path.name} has Q/DQ nodes of INT8; write precision=int8")
    if precision == "fp32" and half:
        raise DeviceError(f"precision=fp32: {path.name} is in FP16; write precision=fp16")
    if precision == "fp16" and not half and major(trt) >= TYPED:
        raise DeviceError(
            f"precision=fp16: TensorRT {trt.__version__} computes in what the file says, and {path.name} says FP32; "
            f"export one in FP16: {_FP16_FILE}, or write precision=fp32"
        )


def _fix_shapes(builder: Any, network: Any, config: Any, path: Path, shape: tuple[int, ...] | None) -> None:
    """Give inputs whose sizes the file leaves open (-1) the shape that was asked for."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    open_ones = [one for one in inputs if -1 in tuple(one.shape)]
    if not open_ones:
        return
    if shape is None:
        raise DeviceError(f"{path.name} leaves the sizes of its input open (dynamic=True): write shape=1x3x640x640")
    profile = builder.create_optimization_profile()
    for one in open_ones:
        sides = tuple(one.shape)
        if len(sides) != len(shape) or any(a not in (-1, b) for a, b in zip(sides, shape)):  # noqa: B905
            raise DeviceError(f"shape={_by(shape)}: {path.name} takes {_by(sides)}, where -1 is open")
        profile.set_shape(one.name, shape, shape, shape)
    config.add_optimization_profile(profile)


class Network:
    """An engine that is ready to run, with memory for its inputs and outputs on the GPU and on the host."""

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        runtime: Any,
        logger: Any,
        plan: Any,
        path: Path,
        shape: tuple[int, ...] | None,
    ) -> None:
        self.cuda, self.path = cuda, path
        self.engine: Any = runtime.deserialize_cuda_engine(plan)
        self.context: Any = None if self.engine is None else self.engine.create_execution_context()
        if self.context is None:
            raise DeviceError(f"TensorRT cannot load the engine of {path.name}: {_first(logger)}")
        self.stream, self.start, self.end = cuda.stream(), cuda.event(), cuda.event()
        self.into: list[tuple[int, Any]] = []  # (address on the GPU, bytes on the host) of each input
        self.out: list[tuple[int, Any]] = []
        self.shapes: dict[str, list[int]] = {}
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in inputs:
            if -1 in tuple(self.engine.get_tensor_shape(name)) and not self.context.set_input_shape(name, shape):
                raise DeviceError(f"TensorRT does not take {shape} for {name} of {path.name}")
        for name in names:
            self._place(name, name in inputs)
        for address, content in self.into:
            cuda.copy_in(address, content, self.stream)
        cuda.synchronize(self.stream)

    def _place(self, name: str, is_input: bool) -> None:
        sides, kind = tuple(self.context.get_tensor_shape(name)), self.engine.get_tensor_dtype(name).name
        if any(side < 0 for side in sides):
            raise DeviceError(f"{self.path.name} decides the size of {name} as it runs; export it without nms=True")
        if kind not in NUMPY:
            raise DeviceError(f"{self.path.name} has {kind} in {name}, which numpy does not know")
        content: Any = np.zeros(sides, NUMPY[kind])
        if is_input:
            content[...] = np.random.default_rng(0).random(sides)  # an image of noise, 0..1
        address, on_host = self.cuda.memory(content.nbytes), self.cuda.pinned(content.nbytes)
        on_host[:] = content.reshape(-1).view(np.uint8)
        if not self.context.set_tensor_address(name, address):
            raise DeviceError(f"TensorRT does not take memory for {name} of {self.path.name}")
        (self.into if is_input else self.out).append((address, on_host))
        if is_input:
            self.shapes[name] = list(sides)

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self.stream):
            raise DeviceError(f"TensorRT cannot run {self.path.name}")

    def compute(self) -> float:
        """Run once; milliseconds on the GPU."""
        self.cuda.record(self.start, self.stream)
        self._enqueue()
        self.cuda.record(self.end, self.stream)
        self.cuda.synchronize(self.stream)
        return self.cuda.milliseconds_between(self.start, self.end)

    def with_transfers(self) -> float:
        """Copy the inputs to the GPU, run once, copy the outputs back; milliseconds of the wall clock."""
        began = time.perf_counter()
        for address, content in self.into:
            self.cuda.copy_in(address, content, self.stream)
        self._enqueue()
        for address, content in self.out:
            self.cuda.copy_out(content, address, self.stream)
        self.cuda.synchronize(self.stream)
        return 1e3 * (time.perf_counter() - began)


def warm_up(repeats: int) -> int:
    """How many calls of each come before those that are counted: clocks need a while to rise."""
    return max(WARM_UP, repeats // 2)


def time_in_turns(
    networks: list[Network], repeats: int, seconds: float
) -> tuple[list[dict[str, dict[str, float]]], dict[str, tuple[float, float, float]]]:
    """Time networks in turns, every second turn in the reverse order, so that the machine's moods fall on all of them.

    Args:
        networks: one, or the dense and the pruned one. repeats: turns, at least. seconds: at most so long, beyond the
            repeats until the ratios are known.

    Returns:
        For each: compute_ms and with_transfers_ms, each with median, p10 and p90. For the two: pruned over dense of
        both, the median of the ratios of two turns with the ends of its interval: low, median, high.
    """
    kinds = [lambda network: network.compute(), lambda network: network.with_transfers()]
    milliseconds: Any = [[[] for _ in kinds] for _ in networks]
    shares: dict[str, tuple[float, float, float]] = {}
    gc.disable()  # a collection would fall on whoever is running
    turn, look, began = 0, warm_up(repeats) + repeats, time.monotonic()
    while turn < look:
        order = range(len(networks))
        for at in order if turn % 2 == 0 else reversed(order):
            for kind, times in zip(kinds, milliseconds[at]):  # noqa: B905
                took = kind(networks[at])
                if turn >= warm_up(repeats):
                    times.append(took)
        turn += 1
        if turn == look and len(networks) > 1:
            shares = {key: _share(*(times[i] for times in milliseconds)) for i, key in enumerate(_TIMES)}
            if not all(known(*share) for share in shares.values()) and time.monotonic() - began < seconds:
                look += 10
    gc.enable()
    rows = [
        {
            key: {name: round(float(np.percentile(one, at)), 4) for name, at in _PERCENTILES}
            for key, one in zip(_TIMES, times)  # noqa: B905
        }
        for times in milliseconds
    ]
    return rows, shares


_PERCENTILES = (("median", 50), ("p10", 10), ("p90", 90))


def _share(dense: list[float], pruned: list[float]) -> tuple[float, float, float]:
    """Pruned over dense, of the times of each two turns: low, median, high."""
    whole = len(dense) // 2 * 2
    sums = [np.array(times[:whole]).reshape(-1, 2).sum(1) for times in (dense, pruned)]
    return interval(sums[1] / np.maximum(sums[0], 1e-12)) if whole else (0.0, 1.0, float("inf"))


def interval(values: Any) -> tuple[float, float, float]:
    """The median of values (n,) and the interval that holds the true one with 99%: low, median, high.

    By the binomial law, whatever the law of the values; with fewer than 8 nothing is known: 0 and infinity.
    """
    ordered, median = np.sort(values), float(np.median(values))
    n, below, outside, one = len(ordered), 0, 0, 1
    most = 2**n // round(1 / OUTSIDE)  # in whole numbers: no float is as large as 2**1024
    while 2 * (outside + one) <= most and below < n // 2:
        outside += one
        one = one * (n - below) // (below + 1)
        below += 1
    if not below:
        return 0.0, median, float("inf")
    return float(ordered[below - 1]), median, float(ordered[n - below])


def known(low: float, median: float, high: float) -> bool:
    """Whether an interval is so narrow that its median counts as known."""
    return (high - low) / 2 <= NARROW * median


# The CUDA driver ------------------------------------------------------------------------------------------------------


class Cuda:
    """The first GPU, by the C functions of the CUDA driver (cuda.h). What is taken goes back as the process ends."""

    def __init__(self) -> None:
        library = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
        try:
            self._driver = ctypes.CDLL(library)
        except OSError:
            raise DeviceError(f"no NVIDIA GPU here: its driver ({library}) is missing") from None
        self._call("cuInit", ctypes.c_uint(0), fault="no NVIDIA GPU here")
        count, device = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count), fault="no NVIDIA GPU here")
        if not count.value:
            raise DeviceError("no NVIDIA GPU here: the driver counts none")
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, ctypes.c_int(len(name)), device)
        self.name = name.value.decode(errors="replace")
        self.capability = (self._attribute(75, device), self._attribute(76, device))
        context = ctypes.c_void_p()  # the one that TensorRT's CUDA runtime works in, too
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *values: Any, fault: str = "CUDA") -> None:
        code = getattr(self._driver, name)(*values)
        if code:
            words = ctypes.c_char_p()
            self._driver.cuGetErrorString(ctypes.c_int(code), ctypes.byref(words))
            raise DeviceError(f"{fault}: {name}: {(words.value or b'error').decode(errors='replace')} ({code})")

    def _attribute(self, which: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
        return value.value

    def memory(self, size: int) -> int:
        """The address of so many bytes on the GPU."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return address.value

    def pinned(self, size: int) -> Any:
        """So many bytes on the host that the GPU can copy from and to: an array (size,), uint8."""
        address = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address.value or 0))

    def stream(self) -> int:
        """A stream of its own: on the default stream TensorRT waits for the whole GPU."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # 1: it does not wait for the default one
        return stream.value or 0

    def event(self) -> int:
        """An event that notes the time."""
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event.value or 0

    def record(self, event: int, stream: int) -> None:
        """Note the time once the stream has come this far."""
        self._call("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def milliseconds_between(self, start: int, end: int) -> float:
        """Milliseconds between two events that have happened."""
        took = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(took), ctypes.c_void_p(start), ctypes.c_void_p(end))
        return took.value

    def copy_in(self, address: int, content: Any, stream: int) -> None:
        """Enqueue a copy from the host (an array of `pinned`) to the GPU."""
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), *_where(content), ctypes.c_void_p(stream))

    def copy_out(self, content: Any, address: int, stream: int) -> None:
        """Enqueue a copy from the GPU to the host (an array of `pinned`)."""
        place, size = _where(content)
        self._call("cuMemcpyDtoHAsync_v2", place, ctypes.c_uint64(address), size, ctypes.c_void_p(stream))

    def synchronize(self, stream: int) -> None:
        """Wait until the stream has done all that was enqueued."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))


def _where(content: Any) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(content.ctypes.data), ctypes.c_size_t(content.nbytes)


# What is told ---------------------------------------------------------------------------------------------------------


def ratio(rows: list[dict[str, Any]], shares: dict[str, tuple[float, float, float]]) -> dict[str, float | None] | None:
    """Pruned over dense, of the times and of the engines' sizes; None where one of the two was not measured.

    Args:
        rows: of the record. shares: of `time_in_turns`; one that is not known is None.
    """
    by_role = {row["role"]: row for row in rows}
    if set(by_role) != set(ROLES):
        return None
    ratios: dict[str, float | None] = {
        key: round(share[1], 4) if known(*share) else None for key, share in shares.items()
    }
    ratios["engine_bytes"] = round(by_role["pruned"]["engine_bytes"] / max(by_role["dense"]["engine_bytes"], 1), 4)
    return ratios


def _finite(value: float) -> float | None:
    """A figure for JSON, which knows no infinity."""
    return round(value, 4) if value < float("inf") else None


def _told(value: float | None) -> str:
    return "too noisy" if value is None else f"{value:.3f}"


_TIMES = ("compute_ms", "with_transfers_ms")


def table(record: dict[str, Any]) -> str:
    """The record as lines for a reader."""
    place = ", ".join(filter(None, (record["gpu"], record["machine"])))
    mode = f", power mode {record['power_mode']}" if record["power_mode"] else ""
    shapes = ", ".join(f"{name} {_by(sides)}" for name, sides in record["rows"][0]["inputs"].items())
    lines = [
        "",
        f"TensorRT {record['tensorrt']}, {place}{mode}",
        f"{record['precision']}{', sparse weights' if record['sparse'] else ''}, {shapes}; medians of "
        f"at least {record['repeats']} calls in turns, and their 10th and 90th percentile",
        "",
        f"{'':<16}{'GPU compute, ms':<26}{'with transfers, ms':<26}{'engine, MB':>11}  file",
    ]
    for row in record["rows"]:
        cells = [f"{t['median']:.3f} ({t['p10']:.3f}-{t['p90']:.3f})" for t in (row[key] for key in _TIMES)]
        size = row["engine_bytes"] / 1e6
        lines.append(f"{row['role']:<16}{cells[0]:<26}{cells[1]:<26}{size:>11.2f}  {row['file']}")
    if record["ratio"] is not None:
        shares = [_told(record["ratio"][key]) for key in (*_TIMES, "engine_bytes")]
        lines.append(f"{'pruned / dense':<16}{shares[0]:<26}{shares[1]:<26}{shares[2]:>11}")
        ends = ["-".join(map(_told, record["ratio_interval"][key])) for key in _TIMES]
        lines.append(f"{'  99% interval':<16}{ends[0]:<26}{ends[1]:<26}")
        if not record["settled"]:
            lines.append("THE MACHINE WAS TOO BUSY TO TELL WHICH IS FASTER: stop what else runs, or give more seconds=")
    for row in record["rows"]:
        lines += [f"{row['role']}: {words[:200]}" for words in row["sparsity"]]
    return "\n".join([*lines, ""])


def board() -> str:
    """A board's own name, such as "NVIDIA Jetson Orin Nano Developer Kit"; else system and architecture."""
    try:
        return Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    except OSError:
        return f"{platform.system()} {platform.machine()}"


def power_mode() -> str | None:
    """A Jetson's power mode, as nvpmodel tells it; None where there is no such program or it does not tell."""
    if shutil.which("nvpmodel") is None:
        return None
    try:
        done = subprocess.run(["nvpmodel", "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith("NV Power Mode:"):
            return line.partition(":")[2].strip()
    return None


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(str(temporary), str(path))
    except OSError as error:
        raise DeviceError(f"{path} cannot be written: {error}") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def _line(error: object) -> str:
    """The first line of what an error says."""
    return str(error).strip().partition("\n")[0]


def _first(logger: Any) -> str:
    """The first error that TensorRT logged, in one line."""
    return _line(logger.errors[0]) if logger.errors else "it does not say why"


def _by(sides: Iterable[int]) -> str:
    return "x".join(map(str, sides))


def _symmetric(words: str) -> str:
    """Why TensorRT refuses Q/DQ nodes: by default ONNX Runtime's quantizer has zero points and quantizes biases."""
    if not any(word in words.lower() for word in ("quantizelinear", "zero point", "zeropoint", "zeropt")):
        return ""
    return "; TensorRT reads INT8 with zero points of 0 and biases in floating point only"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
    except DeviceError as fault:
        sys.exit(f"tensorrt: {fault}")
    except BrokenPipeError:  # whoever read our words has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("tensorrt: stopped; nothing was written", file=sys.stderr)
        sys.exit(130)
