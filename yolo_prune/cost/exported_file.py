# yolo-prune, AGPL-3.0 license
"""Which convolutions are in a file that the host's exporter wrote? Read from ONNX, OpenVINO and ncnn files.

It holds the layers that latencies are counted of (layer_shapes.py) to what really runs on a device.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import onnx
import yaml

from yolo_prune.errors import PruneError, first_line

if TYPE_CHECKING:  # a bundle is made without torch
    from yolo_prune.cost.layer_shapes import LayerShape


class Convolution(NamedTuple):
    """One convolution of a file: input channels of a group, output channels, groups, kernel (height, width)."""

    inp: int
    out: int
    groups: int
    kernel: tuple[int, int]
    transposed: bool

    def __str__(self) -> str:
        kind = "deconv" if self.transposed else "conv"
        groups = f" of {self.groups} groups" if self.groups > 1 else ""
        return f"{kind} {self.kernel[0]}x{self.kernel[1]}, {self.inp * self.groups} -> {self.out}{groups}"


def convolutions(path: Path, kind: str) -> Counter[Convolution]:
    """Count the convolutions of a file.

    Args:
        path: the .onnx, .xml or .param file. kind: "onnx", "openvino" or "ncnn".
    """
    return Counter({"onnx": _of_onnx, "openvino": _of_openvino, "ncnn": _of_ncnn}[kind](path))


def end2end(path: Path, kind: str) -> bool:
    """Whether the host wrote the one-to-one branch of an end-to-end head, as the file's metadata say."""
    if kind == "onnx":
        metadata = {item.key: item.value for item in onnx.load(str(path), load_external_data=False).metadata_props}
        return metadata.get("end2end") == "True"
    return bool((yaml.safe_load(path.with_name("metadata.yaml").read_text(encoding="utf-8")) or {}).get("end2end"))


def require(layers: Sequence[LayerShape], path: Path, kind: str) -> None:
    """Raise PruneError unless a file has exactly the convolutions that are counted.

    Args:
        layers: of the model that the file was written of. path, kind: as of `convolutions`.
    """
    ours, theirs = Counter(map(_of_layer, filter(_is_convolution, layers))), convolutions(path, kind)
    if ours == theirs:
        return
    more, less = theirs - ours, ours - theirs
    parts = [f"{words} {next(iter(surplus))}" for words, surplus in (("it has", more), ("it has no", less)) if surplus]
    raise PruneError(
        f"ultralytics wrote {theirs.total()} convolutions to {path.name} where {ours.total()} are counted "
        f"({'; '.join(parts)}), so latencies of this model would be wrong: bound its FLOPs or params instead"
    )


def _is_convolution(layer: LayerShape) -> bool:
    return layer.operation != "linear"


def _of_layer(layer: LayerShape) -> Convolution:
    groups = layer.inp if layer.operation == "depthwise" else layer.groups
    return Convolution(layer.inp // groups, layer.out, groups, layer.kernel, layer.operation == "deconv")


def _of_onnx(path: Path) -> list[Convolution]:
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {item.name: tuple(item.dims) for item in graph.initializer}
    for node in graph.node:  # FP16 files and constants that were not folded
        if node.op_type == "Constant":
            weights[node.output[0]] = next((tuple(a.t.dims) for a in node.attribute if a.name == "value"), ())
    for node in graph.node:  # INT8 files: the integers that a weight is made of
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    layers = []
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(weights.get(node.input[1], ())) != 4:
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        a, b, *kernel = weights[node.input[1]]
        transposed = node.op_type == "ConvTranspose"
        inp, out = (a // groups, b * groups) if transposed else (b, a)
        layers.append(Convolution(inp, out, groups, (kernel[0], kernel[1]), transposed))
    return layers


def _of_openvino(path: Path) -> list[Convolution]:
    layers = []
    for layer in ElementTree.parse(path).getroot().iter("layer"):
        kind = str(layer.get("type"))
        if kind not in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"):
            continue
        ports = layer.findall("input/port")
        shape = [int(str(side.text)) for side in ports[1].findall("dim")]
        groups = shape.pop(0) if kind.startswith("Group") else 1
        a, b, *kernel = shape
        transposed = kind.endswith("BackpropData")
        inp, out = (a, b * groups) if transposed else (b, a * groups)
        layers.append(Convolution(inp, out, groups, (kernel[0], kernel[1]), transposed))
    return layers


def _of_ncnn(path: Path) -> list[Convolution]:
    """ncnn's text: 0= outputs, 1= and 11= the kernel's width and height, 6= weights in all, 7= groups."""
    layers = []
    for line in path.read_text(encoding="utf-8").splitlines()[2:]:
        words = line.split()
        kind = words[0] if words else ""
        if kind.removesuffix("DepthWise") not in ("Convolution", "Deconvolution"):
            continue
        values = dict(word.split("=") for word in words if "=" in word)
        out, wide = int(values["0"]), int(values["1"])
        high, groups = int(values.get("11", wide)), int(values.get("7", 1))
        inp = int(values["6"]) // (out * wide * high)
        layers.append(Convolution(inp, out, groups, (high, wide), kind.startswith("De")))
    return layers


def require_whole(param: Path, weights: Path, kind: str) -> None:
    """Raise PruneError where the file of weights is shorter than its network says: it was cut off on its way.

    Args:
        param: the .xml or .param file. weights: the .bin file. kind: "openvino" or "ncnn".
    """
    there = weights.stat().st_size
    try:
        least = _bytes_of_openvino(param) if kind == "openvino" else _bytes_of_ncnn(param, weights.read_bytes())
    except (ElementTree.ParseError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise PruneError(f"{param} is no network of {kind} that can be read: {first_line(error)}") from None
    if there < least:
        raise PruneError(
            f"{weights} has {there} bytes, and {param.name} wants {least} at least: it is not whole; export it again"
        )


def _bytes_of_openvino(param: Path) -> int:
    data = ElementTree.parse(param).getroot().iter("data")
    places = [(one.get("offset"), one.get("size")) for one in data]
    return max((int(offset) + int(size) for offset, size in places if offset and size), default=0)


_HALF = 0x01306B47  # what stands before weights of two bytes; 0 before those of four (ncnn, modelbin.cpp)


def _bytes_of_ncnn(param: Path, content: bytes) -> int:
    """Walk through the weights in the order of the layers, as far as they are of kinds that are known here."""
    at = 0
    for line in param.read_text(encoding="utf-8").splitlines()[2:]:
        words = line.split()
        kind = words[0] if words else ""
        values = dict(word.split("=") for word in words if "=" in word)
        if kind == "MemoryData":
            at += 4 * math.prod(int(values[key]) for key in ("0", "1", "2", "11") if int(values.get(key, 0)))
        elif kind == "InnerProduct" or kind.removesuffix("DepthWise") in ("Convolution", "Deconvolution"):
            count, bias = ("2", "1") if kind == "InnerProduct" else ("6", "5")
            flag = int.from_bytes(content[at : at + 4], "little")
            if flag not in (0, _HALF):
                break
            size = int(values[count]) * (2 if flag else 4)
            at += 4 + -(-size // 4) * 4 + 4 * int(values["0"]) * int(values.get(bias, "0"))
    return at
