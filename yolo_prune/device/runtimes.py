# yolo-prune, AGPL-3.0 license
"""Run an exported network in the runtime it is meant for: ONNX Runtime, OpenVINO, ncnn, TensorRT, MNN, LiteRT, torch.

Runs on the device too (probe_kit.py packs it), so it needs the standard library, numpy and the runtime itself, and it
is written for Python 3.8. Read in onnxruntime 1.32, openvino 2026.4, ncnn 1.0.20261020; the TensorRT part follows the
Python API of TensorRT 8.6 and 10 and was not run.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from yolo_prune.cost.profile_format import PRECISIONS
from yolo_prune.errors import PruneError, first_line
from yolo_prune.recipe.formats import FORMATS, PROFILED, name_of

if TYPE_CHECKING:  # not subscriptable in Python 3.8
    Run = Callable[[Any], list[np.ndarray]]  # an image (1, channels, height, width), float32, 0..1 -> its outputs


class Opened(NamedTuple):
    """A network: what runs it on an image, what makes arrays of what that returns, the image's shape and type."""

    call: Callable[[Any], Any]
    read: Callable[[Any], list[np.ndarray]]
    shape: Callable[[], tuple[int, ...]]
    type: str = "float32"  # of layers alone in INT8 another; see int8_nodes.py


# format -> (what is imported, what pip installs)
PACKAGES = {kind: next(iter(entry.run.items())) for kind, entry in FORMATS.items()}


def missing(kind: str) -> str | None:
    """What pip must install before a format can be run here; None when nothing is missing."""
    module, package = PACKAGES[kind]
    try:
        import_module(module)
    except (ImportError, OSError):  # OSError: a library that it loads is not there
        return package
    return None


def require(kind: str) -> None:
    """Raise PruneError with the pip command unless a format's runtime is there."""
    package = missing(kind)
    if package is not None:
        raise PruneError(f"format={kind} needs {package} on this machine: pip install {package}")


def known(given: str, precision: str) -> str:
    """The name of a format that a device can be measured in.

    Raises:
        PruneError: the format or the precision is unknown, or they do not go together.
    """
    kind = name_of(str(given))
    if kind not in PROFILED:
        raise PruneError(f"format={given} is unknown; supported: {', '.join(PROFILED)}")
    if precision not in PRECISIONS:
        raise PruneError(f"precision={precision} is unknown; supported: {', '.join(PRECISIONS)}")
    if kind == "ncnn" and precision == "int8":
        raise PruneError(
            "precision=int8 with format=ncnn: ultralytics writes ncnn in fp32 and fp16; write one of these"
        )
    if kind == "onnx" and precision == "fp16":
        raise PruneError(
            "precision=fp16 with format=onnx: ONNX Runtime on a CPU computes in fp32; write precision=fp32"
        )
    return kind


def versions(kind: str) -> dict[str, str]:
    """Versions of the runtime and of what runs it."""
    module = import_module(PACKAGES[kind][0])
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        PACKAGES[kind][1]: str(getattr(module, "__version__", "unknown")),
    }


def load(
    path: Path, kind: str, threads: int, precision: str = "fp32", shape: tuple[int, ...] | None = None
) -> Callable[[], object]:
    """Open a network and return what runs it once on an image of noise, as `yolo predict` would run it.

    ncnn and OpenVINO choose by themselves what they compute in.

    Args:
        path: an .onnx file; for OpenVINO also an .xml, for ncnn the .param beside its .bin; for TensorRT an .onnx
            (which is built here) or an .engine file; .mnn, .tflite and .torchscript files.
        kind: a name in FORMATS. threads: CPU threads. precision: "fp32", "fp16" or "int8".
        shape: of the image, (batch, channels, height, width); None asks the file.

    Raises:
        PruneError: the runtime cannot open the file.
    """
    try:
        if kind == "engine":
            return _engine(path, threads, precision)
        chooses = _BY_ITSELF.get(kind)
        opened = _OPENERS[kind](path, threads, precision) if chooses is None else chooses(path, threads, None)
        shape = shape or opened.shape()
    except PruneError:
        raise
    except Exception as error:  # every runtime has its own, down to RuntimeError with a page of text
        raise _cannot_open(path, kind, error) from error
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    if opened.type != "float32":
        noise = (100 * noise).astype(opened.type)
    return lambda: opened.call(noise)


def runner(path: Path, kind: str, threads: int, precision: str = "fp32") -> Run:
    """Open a network and return what runs it on images that are given; arguments and errors as of `load`.

    ncnn and OpenVINO are told to compute in that precision, so that outputs can be compared with torch's.

    Not of engines: the host's own backend runs those.
    """
    try:
        opened = _OPENERS[kind](path, threads, precision)
    except PruneError:
        raise
    except Exception as error:
        raise _cannot_open(path, kind, error) from error
    return lambda image: opened.read(opened.call(image))


def _cannot_open(path: Path, kind: str, error: BaseException) -> PruneError:
    words = first_line(error)
    return PruneError(f"{PACKAGES[kind][1]} cannot open {path.name}: {words}")


def _onnx(path: Path, threads: int, precision: str) -> Opened:
    from yolo_prune.device import timing

    session = timing.onnx_session(path, threads)
    given = session.get_inputs()[0]
    return Opened(
        lambda image: session.run(None, {given.name: image}),
        list,
        lambda: tuple(size if isinstance(size, int) else 1 for size in given.shape),
    )


def _openvino(path: Path, threads: int, precision: str | None) -> Opened:
    """precision: to compute in; None for what the host lets OpenVINO take, and so does detect.py of a bundle."""
    import openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",  # as the host's backend asks
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
    }
    if precision is not None or _is_held_to_fp32():
        # Unasked, a CPU that knows bfloat16 computes in it: scores of yolov8n were off by up to 0.1 (2026.4, AMX).
        options["INFERENCE_PRECISION_HINT"] = "f16" if precision == "fp16" else "f32"
    compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    request = compiled.create_infer_request()

    def call(image: Any) -> Any:
        request.set_input_tensor(0, openvino.Tensor(image))
        request.infer()
        return [request.get_output_tensor(i) for i in range(len(compiled.outputs))]

    return Opened(
        call,
        lambda outputs: [np.array(one.data) for one in outputs],
        lambda: tuple(compiled.input(0).shape),
        np.dtype(compiled.input(0).element_type.to_dtype()).name,
    )


def _is_held_to_fp32() -> bool:
    """Whether the host tells OpenVINO to compute in FP32 on this machine (8.4.190, nn/backends/openvino.py)."""
    on_arm = platform.machine().lower() in ("aarch64", "arm64")
    return platform.system() == "Windows" or (platform.system() == "Linux" and on_arm)


def computes_in(kind: str) -> str:
    """What a runtime computes an FP32 file in by itself, on the CPU: "f32", or for OpenVINO "bf16" or "f16"."""
    if kind != "openvino" or _is_held_to_fp32():
        return "f32"
    return str(import_module("openvino").Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())


def other_than_fp32(kind: str, precision: str) -> str | None:
    """A line where a runtime computes an FP32 file in another precision by itself, and is timed so; else None."""
    chosen = computes_in(kind) if precision == "fp32" else "f32"
    if chosen == "f32":
        return None
    return (
        f"OpenVINO computes in {chosen} on this processor, in `yolo predict` as well, and milliseconds are of that: it "
        "is faster than FP32, mostly in wide layers, so a cut, and INT8, gain less (yolo-prune help intel-cpu)"
    )


def _ncnn(path: Path, threads: int, precision: str | None) -> Opened:
    """precision: to compute in; None for what ncnn takes by itself, as the host and a bundle run it (8.4.190,
    nn/backends/ncnn.py): on an Arm that can, half precision, whatever the file has.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if precision is not None:
        half = precision == "fp16"
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise PruneError(f"ncnn cannot open {path.name} and the .bin beside it")
    into, out = net.input_names()[0], sorted(net.output_names())  # in the host's order

    def call(images: Any) -> Any:
        outputs = []
        for image in images:  # it knows no batches
            extractor = net.create_extractor()
            extractor.input(into, ncnn.Mat(image))
            outputs.append([extractor.extract(name)[1] for name in out])
        return outputs

    def read(outputs: Any) -> list[np.ndarray]:
        return [np.stack([np.array(of_image[i]) for of_image in outputs]) for i in range(len(out))]

    return Opened(call, read, lambda: (1, *_ncnn_input(path)))


def _mnn(path: Path, threads: int, precision: str) -> Opened:
    from MNN import expr, nn

    settings = {"precision": "normal" if precision == "fp32" else "low", "backend": "CPU", "numThread": threads}
    manager = nn.create_runtime_manager((settings,))
    net = nn.load_module_from_file(str(path), [], [], runtime_manager=manager, rearrange=True)
    shape = tuple(net.get_info()["inputs"][0].shape)

    def call(image: Any) -> Any:
        given = expr.const(image.ctypes.data, list(image.shape))
        return [one.read() for one in net.onForward([given])]  # it computes when it is read

    return Opened(call, lambda outputs: [np.array(one) for one in outputs], lambda: shape)


def _litert(path: Path, threads: int, precision: str) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    given, out = interpreter.get_input_details()[0], interpreter.get_output_details()

    def call(image: Any) -> Any:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return [interpreter.get_tensor(one["index"]) for one in out]

    return Opened(call, list, lambda: tuple(int(size) for size in given["shape"]))


def _torchscript(path: Path, threads: int, precision: str) -> Opened:
    import torch

    torch.set_num_threads(threads)
    extra = {"config.txt": ""}  # the host's metadata
    net = torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval()
    metadata = json.loads(extra["config.txt"])
    shape = (int(metadata["batch"]), int(metadata.get("channels", 3)), *(int(size) for size in metadata["imgsz"]))

    @torch.inference_mode()
    def call(image: Any) -> Any:
        outputs = net(torch.from_numpy(image))
        return outputs if isinstance(outputs, (tuple, list)) else (outputs,)

    return Opened(call, lambda outputs: [one.numpy() for one in outputs], lambda: shape)


_OPENERS: dict[str, Callable[[Path, int, str], Opened]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "ncnn": _ncnn,
    "mnn": _mnn,
    "litert": _litert,
    "torchscript": _torchscript,
}
# Those that choose what they compute in, where they are not told.
_BY_ITSELF: dict[str, Callable[[Path, int, None], Opened]] = {"ncnn": _ncnn, "openvino": _openvino}


def _ncnn_input(path: Path) -> tuple[int, ...]:
    """(channels, height, width) that a network takes: what its Input layer says, or input.json beside it."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == "Input":
            sizes = dict(word.split("=") for word in words[5:] if "=" in word)
            if {"0", "1", "2"} <= set(sizes):
                return int(sizes["2"]), int(sizes["1"]), int(sizes["0"])
    return tuple(json.loads(path.with_name("input.json").read_text()))


_TORCH_TYPES = {  # of tensorrt.DataType
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def _engine(path: Path, threads: int, precision: str) -> Callable[[], object]:
    import tensorrt as trt
    import torch  # device memory; comes with every Jetson image that runs ultralytics

    logger = trt.Logger(trt.Logger.WARNING)
    plan = _plan_of(path.read_bytes()) if path.suffix == ".engine" else _build(trt, logger, path, precision)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise PruneError(f"TensorRT {trt.__version__} cannot open {path.name}: build it anew on this device")
    stream, kept = torch.cuda.Stream(), []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        size = tuple(context.get_tensor_shape(name))
        if min(size, default=1) < 0:
            raise PruneError(f"{path.name} has open sizes {size}: export it without dynamic=True")
        kind = getattr(torch, _TORCH_TYPES[engine.get_tensor_dtype(name).name])
        kept.append(torch.rand(size, device="cuda").to(kind))
        context.set_tensor_address(name, kept[-1].data_ptr())
    torch.cuda.synchronize()  # inputs are filled on another stream

    def call() -> object:
        if context.execute_async_v3(stream.cuda_stream) is False:
            raise PruneError(f"TensorRT cannot run {path.name}")
        stream.synchronize()
        return kept

    return call


def _plan_of(content: bytes) -> bytes:
    """What TensorRT reads of an .engine file: ultralytics writes the length of its metadata, and these, before it."""
    length = int.from_bytes(content[:4], "little")
    try:
        json.loads(content[4 : 4 + length].decode())
    except ValueError:  # UnicodeDecodeError among them: no such header
        return content
    return content[4 + length :]


def _build(trt: Any, logger: Any, path: Path, precision: str) -> Any:
    """Build an engine of an ONNX file."""
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # the only kind from 10 on
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        words = parser.get_error(0).desc() if parser.num_errors else "no reason is given"
        raise PruneError(f"TensorRT cannot read {path.name}: {words}")
    config = builder.create_builder_config()
    for flag in {"fp16": ("FP16",), "int8": ("INT8", "FP16")}.get(precision, ()):
        if not hasattr(trt.BuilderFlag, flag):
            raise PruneError(
                f"precision={precision}: TensorRT {trt.__version__} takes the precision from the file: export it so"
            )
        config.set_flag(getattr(trt.BuilderFlag, flag))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PruneError(f"TensorRT cannot build {path.name}")
    return plan
