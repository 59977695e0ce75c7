# yolo-prune, AGPL-3.0 license
"""Networks of one layer, to be timed: what a layer of a YOLO costs in a runtime as its channels shrink.

A probe is a convolution (plain, depthwise or transposed) or a linear layer with its activation. Weights are one small
constant each: the time of a call does not depend on them, and a kit of hundreds of probes packs into almost nothing.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from yolo_prune.cost.layer_shapes import LayerShape
from yolo_prune.device import int8_nodes


def write(layer: LayerShape, inp: int, out: int, path: Path, kind: str, precision: str = "fp32") -> Path:
    """Write a network of this layer with other channels.

    Args:
        layer: what is not channels. inp, out: channels. path: of the file, whose suffix is put there.
        kind: the runtime, one of formats.PROFILED. precision: "int8" makes an INT8 file; the others are the
            runtime's to choose.

    Returns:
        The .onnx file, or for ncnn the .param file, with the .bin file beside it.
    """
    if kind == "ncnn":
        param, weights = _ncnn(layer, inp, out)
        path.with_suffix(".param").write_text(param)
        path.with_suffix(".bin").write_bytes(weights)
        return path.with_suffix(".param")
    model = _onnx(layer, inp, out)
    if precision == "int8":
        model = int8_nodes.insert(model, kind)
    path.with_suffix(".onnx").write_bytes(model.SerializeToString())
    return path.with_suffix(".onnx")


def _weights(layer: LayerShape, inp: int, out: int) -> np.ndarray:
    """One constant in the shape of the layer's weights: 1 / fan-in keeps values near those of the input."""
    groups = inp if layer.operation == "depthwise" else layer.groups
    shape: tuple[int, ...] = (out, inp // groups, *layer.kernel)
    if layer.operation == "deconv":
        shape = (inp, out // groups, *layer.kernel)
    if layer.operation == "linear":
        shape = (out, inp)
    return np.full(shape, 1 / max(inp // groups * layer.kernel[0] * layer.kernel[1], 1), np.float32)


def _onnx(layer: LayerShape, inp: int, out: int) -> onnx.ModelProto:
    weights, bias = _weights(layer, inp, out), np.full(out, 0.1, np.float32)
    if layer.operation == "linear":
        size = [1, layer.size[1], inp]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["c"])]
        weights = np.ascontiguousarray(weights.T)
    else:
        size = [1, inp, *layer.size]
        options = {
            "kernel_shape": list(layer.kernel),
            "strides": list(layer.stride),
            "pads": [*layer.padding, *layer.padding],
            "group": inp if layer.operation == "depthwise" else layer.groups,
        }
        name = "ConvTranspose" if layer.operation == "deconv" else "Conv"
        nodes = [helper.make_node(name, ["x", "w", "b"], ["c"], **options)]
    last = "c"
    if layer.activation == "silu":
        nodes += [helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Mul", ["c", "s"], ["y"])]
        last = "y"
    elif layer.activation == "relu":
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
        last = "y"
    for node in nodes:
        node.name = node.output[0]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8  # of opset 17; runtimes on devices are older than the onnx package here
    return onnx.shape_inference.infer_shapes(model)


_NCNN = {
    "conv": "Convolution",
    "depthwise": "ConvolutionDepthWise",
    "deconv": "Deconvolution",
    "linear": "InnerProduct",
}


def _ncnn(layer: LayerShape, inp: int, out: int) -> tuple[str, bytes]:
    """ncnn's own text and weights (its docs/developer-guide: param-and-model-file-structure)."""
    weights = _weights(layer, inp, out)
    groups = inp if layer.operation == "depthwise" else layer.groups
    if layer.operation == "linear":
        source, words = f"0={inp} 1={layer.size[1]} 2=1", f"0={out} 1=1 2={weights.size}"
    else:
        source = f"0={layer.size[1]} 1={layer.size[0]} 2={inp}"
        words = (
            f"0={out} 1={layer.kernel[1]} 11={layer.kernel[0]} 3={layer.stride[1]} 13={layer.stride[0]} "
            f"4={layer.padding[1]} 14={layer.padding[0]} 5=1 6={weights.size}"
        )
        operation = _NCNN[layer.operation]
        if groups > 1:
            operation, words = operation.removesuffix("DepthWise") + "DepthWise", f"{words} 7={groups}"
    operation = "InnerProduct" if layer.operation == "linear" else operation
    lines = [f"Input in0 0 1 in0 {source}", f"{operation} layer 1 1 in0 c {words}"]
    if layer.activation != "none":
        lines.append(f"{'Swish' if layer.activation == 'silu' else 'ReLU'} act 1 1 c y")
    text = "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""])
    bias = np.full(out, 0.1, np.float32)
    return text, struct.pack("<I", 0) + weights.tobytes() + bias.tobytes()
