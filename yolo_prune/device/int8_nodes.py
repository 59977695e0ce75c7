# yolo-prune, AGPL-3.0 license
"""INT8 in an ONNX file whose time alone counts: QuantizeLinear and DequantizeLinear where a deployed file has them.

Scales are made up, for time does not depend on them. Zero points are not 0 where those of a calibrated file are not:
with a zero point of 0 OpenVINO is some percent faster (measured with 2026.4 on AVX2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.onnx_ml_pb2 import GraphProto, ModelProto, NodeProto

_SCALE, _WEIGHT = 0.05, 0.01  # one step of activations, and of weights


@dataclass(frozen=True)
class Style:
    """Where one runtime's INT8 has its nodes.

    Attributes:
        activations: type and zero point of what convolutions read. operations: that are quantized.
        bias: whether biases are INT32. made: whether what they make is quantized right behind them.
        borders: whether the network takes and gives what is quantized already, as a layer within a network does.
    """

    activations: type
    zero: int
    operations: tuple[str, ...]
    bias: bool = False
    made: bool = False
    borders: bool = False


STYLES = {
    # onnxruntime's quantize_static as the host calls it (ultralytics 8.4.190, utils/export/onnx.py): what is between
    # the convolutions stays in floating point
    "onnx": Style(np.int8, -100, ("Conv", "MatMul", "Gemm"), bias=True, made=True),
    # NNCF (nncf 3.4): activations are quantized where the next convolution reads them, and stay so in between
    "openvino": Style(np.uint8, 16, ("Conv", "ConvTranspose", "MatMul", "Gemm"), borders=True),
    # TensorRT takes zero points of 0 and biases in floating point alone
    "engine": Style(np.int8, 0, ("Conv", "ConvTranspose", "MatMul", "Gemm")),
}


def insert(model: ModelProto, kind: str) -> ModelProto:
    """Quantize every weighted operation of a network that reads a constant weight.

    Args:
        model: it is not changed; weights are initializers. kind: a name in STYLES.

    Returns:
        The network in INT8, of the same inputs and outputs, those of `borders` apart.
    """
    return _Inserter(model, STYLES[kind]).model


class _Inserter:
    """One network while nodes are put into it."""

    def __init__(self, model: ModelProto, style: Style) -> None:
        self.model, self.style = ModelProto(), style
        self.model.CopyFrom(model)
        self.graph: GraphProto = self.model.graph
        self.constants = {item.name: item for item in self.graph.initializer}
        self.read: dict[str, str] = {}  # tensor -> what stands for it where it was quantized
        nodes = list(self.graph.node)
        del self.graph.node[:]
        self._constant("scale", np.array(_SCALE, np.float32))
        self._constant("zero", np.array(style.zero, style.activations))
        for node in nodes:
            quantized = node.op_type in style.operations and node.input[1] in self.constants
            if quantized:
                self._weighted(node)
            made = node.output[0]
            if quantized and style.made:
                node.output[0] = f"{made}_float"
            self.graph.node.append(node)
            if quantized and style.made:
                self._behind(node.output[0], made)
        if style.borders:
            self._borders()
        self._forget_unread()

    def _forget_unread(self) -> None:
        """Drop the constants that INT8 ones stand for now."""
        read = {name for node in self.graph.node for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _constant(self, name: str, value: np.ndarray) -> str:
        own = f"int8_{name}"
        self.graph.initializer.append(numpy_helper.from_array(value, own))
        return own

    def _add(self, kind: str, inputs: list[str], output: str, **options: int) -> str:
        self.graph.node.append(helper.make_node(kind, inputs, [output], name=f"{output}_node", **options))
        return output

    def _quantized(self, tensor: str) -> str:
        """A tensor quantized and back, once for all that read it."""
        if tensor not in self.read:
            whole = self._add("QuantizeLinear", [tensor, "int8_scale", "int8_zero"], f"{tensor}_int8")
            self.read[tensor] = self._add("DequantizeLinear", [whole, "int8_scale", "int8_zero"], f"{tensor}_back")
        return self.read[tensor]

    def _weighted(self, node: NodeProto) -> None:
        node.input[0] = self._quantized(node.input[0])
        weight, axis = node.input[1], _axis(node)
        shape = tuple(self.constants[weight].dims)
        per_channel = not self.style.bias
        scales = np.full(shape[axis], _WEIGHT, np.float32) if per_channel else np.array(_WEIGHT, np.float32)
        values = np.where(np.arange(shape[axis]) % 2, -63, 64).astype(np.int8)
        shaped = values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        names = [
            self._constant(f"{weight}_values", np.ascontiguousarray(np.broadcast_to(shaped, shape))),
            self._constant(f"{weight}_scale", scales),
            self._constant(f"{weight}_zero", np.zeros_like(scales, np.int8)),
        ]
        options = {"axis": axis} if per_channel else {}
        node.input[1] = self._add("DequantizeLinear", names, f"{weight}_back", **options)
        if self.style.bias and len(node.input) > 2:
            self._bias(node)

    def _bias(self, node: NodeProto) -> None:
        bias = node.input[2]
        count = tuple(self.constants[bias].dims)
        names = [
            self._constant(f"{bias}_values", np.full(count, 200, np.int32)),
            self._constant(f"{bias}_scale", np.array(_SCALE * _WEIGHT, np.float32)),
            self._constant(f"{bias}_zero", np.array(0, np.int32)),
        ]
        node.input[2] = self._add("DequantizeLinear", names, f"{bias}_back")

    def _behind(self, tensor: str, made: str) -> None:
        """Quantize what a node makes, and give it back under the name that it had."""
        whole = self._add("QuantizeLinear", [tensor, "int8_scale", "int8_zero"], f"{made}_int8")
        self._add("DequantizeLinear", [whole, "int8_scale", "int8_zero"], made)

    def _borders(self) -> None:
        """Let the network take and give integers."""
        image, output = self.graph.input[0], self.graph.output[0]
        first = next(node for node in self.graph.node if image.name in node.input)  # quantizes it, for one reader
        back = next(node for node in self.graph.node if first.output[0] in node.input)
        back.input[0] = image.name
        self.graph.node.remove(first)
        output.name = self._add("QuantizeLinear", [output.name, "int8_scale", "int8_zero"], f"{output.name}_int8")
        for border in (image, output):
            border.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(self.style.activations))


def _axis(node: NodeProto) -> int:
    """Which side of a weight its output channels are on."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)  # of Gemm
    return 0 if node.op_type == "Conv" or turned else 1


def insert_into(path: Path, kind: str) -> None:
    """Quantize a network in its file; see `insert`."""
    onnx.save(insert(onnx.load(str(path)), kind), str(path))
