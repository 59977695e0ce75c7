# yolo-prune, AGPL-3.0 license
"""Run an exported network in the runtime it is meant for: ONNX Runtime, OpenVINO, ncnn, TensorRT.

Runs on the device too (kit.py packs it), so it needs the standard library, numpy and the runtime itself, and it is
written for Python 3.8. Read in onnxruntime 1.32, openvino 2026.4, ncnn 1.0.20261020; the TensorRT part follows the
Python API of TensorRT 8.6 and 10 and was not run.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from yolo_prune.errors import PruneError, first_line

FORMATS = ("onnx", "openvino", "ncnn", "engine")
PRECISIONS = ("fp32", "fp16")

# format -> (what is imported, what pip installs)
PACKAGES = {
    "onnx": ("onnxruntime", "onnxruntime"),
    "openvino": ("openvino", "openvino"),
    "ncnn": ("ncnn", "ncnn"),
    "engine": ("tensorrt", "tensorrt"),
}


def missing(kind: str) -> str | None:
    """What pip must install before a format can be run here; None when nothing is missing."""
    module, package = PACKAGES[kind]
    try:
        import_module(module)
    except ImportError:
        return package
    return None


def require(kind: str) -> None:
    """Raise PruneError with the pip command unless a format's runtime is there."""
    package = missing(kind)
    if package is not None:
        raise PruneError(f"format={kind} needs {package} on this machine: pip install {package}")


def check(kind: str, precision: str) -> None:
    """Raise PruneError unless the format and precision are known, and go together."""
    if kind not in FORMATS:
        raise PruneError(f"format={kind} is unknown; supported: {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise PruneError(f"precision={precision} is unknown; supported: {', '.join(PRECISIONS)}")
    if kind == "onnx" and precision == "fp16":
        raise PruneError(
            "precision=fp16 with format=onnx: ONNX Runtime on a CPU computes in fp32; write precision=fp32"
        )


def versions(kind: str) -> dict[str, str]:
    """Versions of the runtime and of what runs it."""
    module = import_module(PACKAGES[kind][0])
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        PACKAGES[kind][1]: str(getattr(module, "__version__", "unknown")),
    }


def machine() -> dict[str, Any]:
    """What this machine says of itself; cores are those that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "name": _board() or _processor() or platform.processor() or "unknown",
        "cores": cores,
    }


def _board() -> str:
    """A single-board computer's own name, such as "Raspberry Pi 5 Model B Rev 1.0"."""
    try:
        return Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def load(path: Path, kind: str, threads: int, precision: str = "fp32") -> Callable[[], object]:
    """Open a network and return what runs it once on an image of noise.

    Args:
        path: an .onnx file; for OpenVINO also an .xml, for ncnn the .param beside its .bin; for TensorRT an .onnx
            (which is built here) or an .engine file.
        kind: a name in FORMATS. threads: CPU threads. precision: a name in PRECISIONS.

    Raises:
        PruneError: the runtime cannot open the file.
    """
    try:
        return {"onnx": _onnx, "openvino": _openvino, "ncnn": _ncnn, "engine": _engine}[kind](path, threads, precision)
    except PruneError:
        raise
    except Exception as error:  # every runtime has its own, down to RuntimeError with a page of text
        words = first_line(error)
        raise PruneError(f"{PACKAGES[kind][1]} cannot open {path.name}: {words}") from error


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _onnx(path: Path, threads: int, precision: str) -> Callable[[], object]:
    from yolo_prune import latency

    session = latency.onnx_session(path, threads)
    given = session.get_inputs()[0]
    feed = {given.name: _noise(tuple(given.shape))}
    return lambda: session.run(None, feed)


def _openvino(path: Path, threads: int, precision: str) -> Callable[[], object]:
    import openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",  # as the host's backend asks
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "fp16": "f16"}[precision],
    }
    compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    request = compiled.create_infer_request()
    request.set_input_tensor(0, openvino.Tensor(_noise(tuple(compiled.input(0).shape))))
    return lambda: request.infer()


def _ncnn(path: Path, threads: int, precision: str) -> Callable[[], object]:
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    half = precision == "fp16"
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise PruneError(f"ncnn cannot open {path.name} and the .bin beside it")
    shape = _ncnn_input(path)
    image, into, out = _noise(shape), net.input_names()[0], list(net.output_names())

    def call() -> object:
        extractor = net.create_extractor()
        extractor.input(into, ncnn.Mat(image))
        return [extractor.extract(name)[1] for name in out]

    return call


def _ncnn_input(path: Path) -> tuple[int, ...]:
    """(channels, height, width) that a network takes: what its Input layer says, or input.json beside it."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == "Input":
            sizes = dict(word.split("=") for word in words[5:] if "=" in word)
            if {"0", "1", "2"} <= set(sizes):
                return int(sizes["2"]), int(sizes["1"]), int(sizes["0"])
    return tuple(json.loads(path.with_name("input.json").read_text()))


def _engine(path: Path, threads: int, precision: str) -> Callable[[], object]:
    import tensorrt as trt
    import torch  # device memory; comes with every Jetson image that runs ultralytics

    logger = trt.Logger(trt.Logger.WARNING)
    if path.suffix == ".engine":
        plan = path.read_bytes()
    else:
        builder = trt.Builder(logger)
        explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # the only kind from 10 on
        network = builder.create_network(0 if explicit is None else 1 << int(explicit))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(path.read_bytes()):
            raise PruneError(f"TensorRT cannot read {path.name}: {parser.get_error(0)}")
        config = builder.create_builder_config()
        if precision == "fp16":
            config.set_flag(trt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise PruneError(f"TensorRT cannot build {path.name}")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context, stream, kept = engine.create_execution_context(), torch.cuda.Stream(), []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        size = tuple(context.get_tensor_shape(name))
        kept.append(torch.rand(size, device="cuda"))  # fp32 in and out: precision is chosen inside
        context.set_tensor_address(name, kept[-1].data_ptr())

    def call() -> object:
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return kept

    return call
