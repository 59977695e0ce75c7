# yolo-prune, AGPL-3.0 license
"""INT8 that is put into an ONNX file: each runtime computes in integers what it does of a deployed file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from yolo_prune.cost import exported_file
from yolo_prune.cost.layer_shapes import LayerShape
from yolo_prune.device import int8_nodes, probes, runtimes

CONV = LayerShape("a", "conv", (3, 3), (1, 1), (1, 1), (8, 8), (8, 8), 16, 32, activation="silu")
BARE = LayerShape("a", "conv", (1, 1), (1, 1), (0, 0), (8, 8), (8, 8), 16, 32)
DEEP = LayerShape("a", "depthwise", (3, 3), (1, 1), (1, 1), (8, 8), (8, 8), 16, 16, activation="silu")
LINEAR = LayerShape("a", "linear", (1, 1), (1, 1), (0, 0), (1, 20), (1, 20), 16, 32)


def kinds_of(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def optimized(path: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return kinds_of(path.with_suffix(".optimized"))


@pytest.mark.parametrize("layer", [CONV, BARE, DEEP, LINEAR], ids=["conv", "bare", "depthwise", "linear"])
def test_a_layer_is_quantized_as_the_host_has_it_done_for_onnxruntime(layer: LayerShape, tmp_path: Path) -> None:
    """And so computes the same: which nodes become integer ones depends on the processor."""
    host = pytest.importorskip("ultralytics.utils.export.onnx")
    plain = probes.write(layer, 16, layer.out, tmp_path / "plain", "onnx")
    ours = probes.write(layer, 16, layer.out, tmp_path / "ours", "onnx", "int8")
    size = [16, 8, 8] if layer is not LINEAR else [20, 16]
    image = np.random.default_rng(0).random((1, *size), dtype=np.float32)
    host.onnx_int8_quantize(str(plain), str(tmp_path / "theirs.onnx"), [image], lambda one: one, "x")
    assert kinds_of(ours) == kinds_of(tmp_path / "theirs.onnx")
    assert kinds_of(ours)["QuantizeLinear"] == 2
    assert optimized(ours) == optimized(tmp_path / "theirs.onnx")
    assert runtimes.load(ours, "onnx", 1, "int8")()


@pytest.mark.parametrize("layer", [CONV, LINEAR], ids=["conv", "linear"])
def test_openvino_computes_a_layer_in_integers_from_end_to_end(layer: LayerShape, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path = probes.write(layer, 16, 32, tmp_path / "layer", "openvino", "int8")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    types: dict[str, tuple[str, str]] = {}
    for node in compiled.get_runtime_model().get_ops():
        told = node.get_rt_info()
        kind = told["layerType"].astype(str)
        types[kind] = told["runtimePrecision"].astype(str), told["outputPrecisions"].astype(str)
    assert types["FullyConnected" if layer is LINEAR else "Convolution"] == ("u8", "u8"), "its activation is fused"
    assert types["Input"][1] == types["Output"][1] == "u8"
    assert runtimes.load(path, "openvino", 1, "int8")()


def test_tensorrt_gets_zero_points_of_zero_and_biases_in_floating_point(tmp_path: Path) -> None:
    path = probes.write(CONV, 16, 32, tmp_path / "layer", "onnx")
    assert exported_file.convolutions(path, "onnx").total() == 1
    before = exported_file.convolutions(path, "onnx")
    int8_nodes.insert_into(path, "engine")
    assert exported_file.convolutions(path, "onnx") == before, "the weight is found behind its integers"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    zeros = [value for name, value in constants.items() if name.endswith("zero")]
    assert len(zeros) == 2
    assert not any(np.any(zero) for zero in zeros)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    assert constants[conv.input[2]].dtype == np.float32
    assert {value.dtype for value in constants.values()} == {np.dtype(np.int8), np.dtype(np.float32)}
    assert kinds_of(path) == {"QuantizeLinear": 1, "DequantizeLinear": 2, "Conv": 1, "Sigmoid": 1, "Mul": 1}
    weights = next(node for node in model.graph.node if node.output[0] == conv.input[1])
    assert [a.i for a in weights.attribute if a.name == "axis"] == [0], "a scale for each output channel"
    assert constants[weights.input[1]].shape == (32,)


def test_a_tensor_that_two_layers_read_is_quantized_once() -> None:
    conv = onnx.helper.make_node("Conv", ["x", "w"], ["a"])
    other = onnx.helper.make_node("Conv", ["x", "w"], ["b"])
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8, 8])
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "ab"]
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([conv, other], "two", [image], made, [weight]))
    nodes = Counter(node.op_type for node in int8_nodes.insert(model, "engine").graph.node)
    assert nodes["QuantizeLinear"] == 1
