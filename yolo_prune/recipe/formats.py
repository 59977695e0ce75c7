# yolo-prune, AGPL-3.0 license
"""What an export can become: the formats that this project proves, and what each needs of the machine.

Names and precisions are the host's (ultralytics 8.4.190, engine/exporter.py: `export_formats`, `FP16_FORMATS`,
`INT8_FORMATS`), less those that nothing here can run.
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
        export: what the host imports to make it, and would try to install: module -> what pip calls it.
        run: the same for what runs it. precisions: that the host offers for it on a CPU, or on a GPU where `gpu`.
        gpu: whether it is made and run on an NVIDIA GPU alone. suffix: of its file or folder.
        calibrated: whether the host's INT8 of it wants data; MNN's is of the weights alone.
        trained: whether it can hold what a training with quantize=8 (QAT) learned.
    """

    export: Mapping[str, str]
    run: Mapping[str, str]
    precisions: tuple[str, ...]
    suffix: str
    gpu: bool = False
    calibrated: bool = True
    trained: bool = False


_ONNX = {"onnx": "onnx", "onnxslim": "onnxslim"}

FORMATS: Mapping[str, Format] = {
    "onnx": Format(_ONNX, {"onnxruntime": "onnxruntime"}, ("fp32", "fp16", "int8"), ".onnx", trained=True),
    "openvino": Format({"openvino": "openvino"}, {"openvino": "openvino"}, ("fp32", "fp16", "int8"), "_openvino_model"),
    "ncnn": Format({"pnnx": "pnnx", "ncnn": "ncnn"}, {"ncnn": "ncnn"}, ("fp32", "fp16"), "_ncnn_model"),
    "mnn": Format({**_ONNX, "MNN": "MNN"}, {"MNN": "MNN"}, ("fp32", "fp16", "int8"), ".mnn", calibrated=False),
    "litert": Format(
        {"litert_torch": "litert-torch", "ai_edge_litert": "ai-edge-litert"},
        {"ai_edge_litert": "ai-edge-litert"},
        ("fp32", "int8"),
        ".tflite",
    ),
    "torchscript": Format({}, {}, ("fp32",), ".torchscript"),
    "engine": Format(
        {**_ONNX, "tensorrt": "tensorrt"},
        {"tensorrt": "tensorrt"},
        ("fp32", "fp16", "int8"),
        ".engine",
        gpu=True,
        trained=True,
    ),
}

_FOR_INT8 = {"openvino": {"nncf": "nncf"}, "onnx": {"onnxruntime": "onnxruntime"}}


def missing(kind: str, precision: str = "fp32", run: bool = True) -> list[str]:
    """What pip must install before the host can export to a format, and, with `run`, before it can be run here."""
    entry = FORMATS[kind]
    needed = {**entry.export, **(entry.run if run else {})}
    if precision == "int8":
        needed |= _FOR_INT8.get(kind, {})
    return [package for module, package in needed.items() if find_spec(module) is None]
