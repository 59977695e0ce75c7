# yolo-prune, AGPL-3.0 license
"""How much memory the tensors of an ONNX file take at once: its nodes in their order, sizes by onnx's own inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

_SAME = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"}  # no copies
_OVER = {"Sigmoid", "Add", "Mul", "Sub", "Div", "Relu", "Silu"}  # write over an operand that nobody reads later


def peak_bytes(path: Path) -> int:
    """Bytes of what lives at once, at most: inputs and outputs of a node, and what later nodes read."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True).graph
    constants = {item.name for item in graph.initializer} | {""}
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
        sizes[value.name] = itemsize * int(np.prod([side.dim_value for side in kind.shape.dim]))
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    names: dict[str, str] = {}  # of one that is no copy -> of what it is the same as
    steps: list[tuple[str, list[str], list[str]]] = []
    fused: list[str] = []  # outputs of the Mul of x * sigmoid(x), which is one operation on a device
    for node in graph.node:
        read = [names.get(name, name) for name in node.input if name not in constants]
        later = readers.get(node.output[0], [])
        if not read:
            constants |= set(node.output)
        elif node.op_type in _SAME:
            names[node.output[0]] = read[0]
        elif node.op_type == "Sigmoid" and [set(one.input) for one in later] == [{node.input[0], node.output[0]}]:
            fused.append(later[0].output[0])
            steps.append(("Silu", read, [later[0].output[0]]))
        elif node.output[0] not in fused:
            steps.append((node.op_type, read, list(node.output)))
    ends = {name: number for number, (_, read, _) in enumerate(steps) for name in read}
    ends |= {names.get(value.name, value.name): len(steps) for value in graph.output}
    most, alive = 0, {value.name for value in graph.input}
    for number, (operation, read, made) in enumerate(steps):
        going = {name for name in read if ends[name] == number}
        over = operation in _OVER and any(sizes[old] >= sizes[made[0]] for old in going)
        most = max(most, sum(sizes[name] for name in alive) + (0 if over else sum(sizes[name] for name in made)))
        alive = (alive - going) | {name for name in made if ends.get(name, -1) > number}
    return most
