# yolo-prune, AGPL-3.0 license
"""Bytes of the file that a model is deployed as, counted without exporting it.

What a file holds is the fused model (layer_shapes.deployed): convolutions with their biases, the branch of an
end-to-end head that is deployed, vectors. To it come, whatever the widths are,

- for each layer its node, the nodes around it (an activation) and their names: `Layout.layer` bytes, measured;
- the points that a head adds its boxes to, (imgsz / stride)^2 of a stride, constants of a few numbers each;
- in ONNX, the names of the classes.

A worked example, yolov8n at 640 in ONNX FP32: 3,151,904 parameters * 4 + 64 layers * 1180 + 8400 points * 5 * 4 + the
names of 80 classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from yolo_prune.cost import layer_shapes
from yolo_prune.graph.convolutions import is_depthwise

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Deployment:
    """What a model is exported as: runtime, precision, and pixels of its image's side."""

    format: str = "onnx"
    precision: str = "fp32"
    imgsz: int = 640

    def __str__(self) -> str:
        return f"{'ncnn' if self.format == 'ncnn' else 'ONNX'} {self.precision} at {self.imgsz}"


DEFAULT = Deployment()


class Layout(NamedTuple):
    """Bytes in a file: of a weight, of a bias or another value, of a number of a point, of what each layer brings."""

    weight: int
    value: int
    point: int
    layer: int


# `layer` is measured on files of the host's exporter (8.4.190) of yolov8n, yolo11n and yolo26n, dense and cut at
# random. What they have beside parameters and points is, names of classes aside, 1,130 to 1,210 bytes a layer in ONNX
# (of yolov9t 1,240), 3,090 to 3,390 in ONNX INT8 (QuantizeLinear and DequantizeLinear around each), and in ncnn 257 to
# 259 in the .param file and a flag of 4 before each weight.
_LAYOUTS = {
    ("onnx", "fp32"): Layout(4, 4, 4, 1180),
    ("onnx", "fp16"): Layout(2, 2, 2, 1180),
    ("onnx", "int8"): Layout(1, 4, 4, 3250),
    ("ncnn", "fp32"): Layout(4, 4, 4, 262),
    ("ncnn", "fp16"): Layout(2, 4, 4, 262),
}
# Numbers that a file holds of each point, by a word in the head's class. Both corners of a box have the point's two,
# and it has its stride; key points have all three once more; a turned box has no corners. ncnn holds none twice.
_NUMBERS = {"onnx": {"Pose": 8, "OBB": 3, "": 5}, "ncnn": {"Pose": 5, "": 3}}


def _layout(deployment: Deployment) -> Layout:
    """The layout of a deployment's file; of formats without one it is that of the ONNX file that they are made of."""
    kind = deployment.format if deployment.format == "ncnn" else "onnx"
    return _LAYOUTS[kind, deployment.precision]


class Rate(NamedTuple):
    """What a layer's channels cost: bytes for each pair of an output and an input, and for each output."""

    per_pair: float
    per_output: float


def bytes_of(fused: nn.Module, deployment: Deployment) -> int:
    """Bytes of the file of a model.

    Args:
        fused: as layer_shapes.deployed makes it. deployment: what it is exported as.
    """
    kind = _layout(deployment)
    layers = [module for module in fused.modules() if isinstance(module, _LAYERS)]
    weights = sum(module.weight.numel() for module in layers)
    others = sum(value.numel() for value in fused.parameters()) - weights
    total = kind.weight * weights + kind.value * others + kind.layer * len(layers)
    total += kind.point * _numbers(fused, deployment)
    return total if deployment.format == "ncnn" else total + len(str(getattr(fused, "names", "")))


def rates(fused: nn.Module, names: set[str], deployment: Deployment) -> Iterator[tuple[str, Rate]]:
    """Yield what each layer's channels cost in a file, by its name in the model before it was fused.

    Args:
        fused: as of `bytes_of`. names: of the layers of the model before. deployment: what it is exported as.
    """
    kind = _layout(deployment)
    own = {name for name in names if not name.endswith(".bn")}
    for name, module in fused.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            yield name, Rate(0, kind.value * sum(p.numel() for p in module.parameters()) / module.num_features)
        if not isinstance(module, _LAYERS):
            continue
        window = math.prod(getattr(module, "kernel_size", (1,)))
        deep = not isinstance(module, nn.Linear) and is_depthwise(module)
        each = kind.weight * window / (1 if deep else getattr(module, "groups", 1))
        bias = 0 if module.bias is None else kind.value
        yield layer_shapes.own_name(name, own), Rate(0, each + bias) if deep else Rate(each, bias)
    for name, value in fused.named_parameters():
        if name in names and value.ndim == 1:
            yield name, Rate(0, kind.value)


def _numbers(model: nn.Module, deployment: Deployment) -> int:
    """How many constants the points of a head come to; 0 where boxes are no distances from points."""
    head: Any = next((module for module in model.modules() if hasattr(module, "reg_max")), None)
    if head is None:
        return 0
    by_head = _NUMBERS["ncnn" if deployment.format == "ncnn" else "onnx"]
    each = next(count for word, count in by_head.items() if word in type(head).__name__)
    strides = torch.as_tensor(head.stride).flatten()
    return each * sum(math.ceil(deployment.imgsz / int(stride)) ** 2 for stride in strides)
