# yolo-prune, AGPL-3.0 license
"""What an export can become: the formats that this project proves, and what each needs of the machine.

Names and precisions are the host's (ultralytics 8.4.190, engine/exporter.py: `export_formats`, `FP16_FORMATS`,
`INT8_FORMATS`), less those that nothing here can run. This file runs on a device too, in the kit's .pyz
(device/probe_kit.py): standard library, Python 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

QUANTIZE = {8: "int8", 16: "fp16"}  # the host's quantize= -> the precision that it adds


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        runtime: what runs it, by the name that people know.
        export: what the host imports to make it, and would try to install: module -> what pip calls it.
        run: the same for what runs it. precisions: that the host offers for it on a CPU, or on a GPU where `gpu`.
        gpu: whether it is made and run on an NVIDIA GPU alone. suffix: of its file or folder.
        calibrated: whether the host's INT8 of it wants data; MNN's is of the weights alone.
        trained: whether it can hold what a training with quantize=8 (QAT) learned.
        profiled: whether a device can be measured in it, so that milliseconds are predicted (prune_format=).
    """

    runtime: str
    export: Mapping[str, str]
    run: Mapping[str, str]
    precisions: tuple[str, ...]
    suffix: str
    gpu: bool = False
    calibrated: bool = True
    trained: bool = False
    profiled: bool = False


_ONNX = {"onnx": "onnx", "onnxslim": "onnxslim"}

FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        "ONNX Runtime",
        _ONNX,
        {"onnxruntime": "onnxruntime"},
        ("fp32", "fp16", "int8"),
        ".onnx",
        trained=True,
        profiled=True,
    ),
    "openvino": Format(
        "OpenVINO",
        {"openvino": "openvino"},
        {"openvino": "openvino"},
        ("fp32", "fp16", "int8"),
        "_openvino_model",
        profiled=True,
    ),
    "ncnn": Format(
        "ncnn",
        {"pnnx": "pnnx", "ncnn": "ncnn"},
        {"ncnn": "ncnn"},
        ("fp32", "fp16"),
        "_ncnn_model",
        profiled=True,
    ),
    "mnn": Format("MNN", {**_ONNX, "MNN": "MNN"}, {"MNN": "MNN"}, ("fp32", "fp16", "int8"), ".mnn", calibrated=False),
    "litert": Format(
        "LiteRT",
        {"litert_torch": "litert-torch", "ai_edge_litert": "ai-edge-litert"},
        {"ai_edge_litert": "ai-edge-litert"},
        ("fp32", "int8"),
        ".tflite",
    ),
    "torchscript": Format("torch", {}, {"torch": "torch"}, ("fp32",), ".torchscript"),
    "engine": Format(
        "TensorRT",
        {**_ONNX, "tensorrt": "tensorrt"},
        {"tensorrt": "tensorrt"},
        ("fp32", "fp16", "int8"),
        ".engine",
        gpu=True,
        trained=True,
        profiled=True,
    ),
}
PROFILED = tuple(kind for kind, entry in FORMATS.items() if entry.profiled)

_ALIASES = {"tensorrt": "engine", "trt": "engine", "tflite": "litert"}  # the host's (8.4.190, engine/exporter.py)
_FOR_INT8 = {"openvino": {"nncf": "nncf"}, "onnx": {"onnxruntime": "onnxruntime"}}


def name_of(word: str) -> str:
    """A name in FORMATS, of a word as the host's `format=` takes it, in any case, or an alias. Others stay."""
    lower = word.strip().lower()
    return _ALIASES.get(lower, lower)


def missing(kind: str, precision: str = "fp32", run: bool = True) -> list[str]:
    """What pip must install before the host can export to a format, and, with `run`, before it can be run here."""
    entry = FORMATS[kind]
    needed = {**entry.export, **(entry.run if run else {})}
    if precision == "int8":
        needed = {**needed, **_FOR_INT8.get(kind, {})}
    return [package for module, package in needed.items() if find_spec(module) is None]
