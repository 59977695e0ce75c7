# yolo-prune, AGPL-3.0 license
"""How much memory the tensors of one call take at once, in the graph that a model is deployed as.

The deployed copy (layer_shapes.py) runs once, its convolutions not computed, and every operation is noted. (On torch's
meta device nothing would be computed, but that imports a compiler first: 1.5 s.) Then each tensor lives from the
operation that makes it to the last that reads it; the peak is the largest sum of what lives at once while an operation
runs: what it reads, what it makes, what is read later.

As in an exported graph a part of a tensor (split, slice) and a transposed one are copies, and a reshaped one is none.
An elementwise operation (an activation, an addition) writes over an operand that nobody reads later, as runtimes do.
Weights, constants and what a runtime needs within one operation come on top. So does the image in FP32 that the host's
FP16 ONNX files take and cast.

In INT8 the host's ONNX files (QDQ) hand on FP32 between operations, and its MNN files have weights of INT8 alone; in
OpenVINO, LiteRT and TensorRT a tensor has a byte a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from yolo_prune.cost.file_size import Deployment
from yolo_prune.graph import image_shape
from yolo_prune.graph.operations import tensors_in

VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
_FLOAT_BETWEEN = frozenset(("onnx", "mnn"))  # files of INT8 whose tensors stay in FP32

_SAME = frozenset(  # names of functions and methods of torch, without underscores around them
    (
        *("view", "view_as", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "expand", "expand_as"),
        *("clone", "contiguous", "detach", "alias", "to", "type", "type_as", "float", "half", "get", "dropout"),
    )
)
_ELEMENTWISE = frozenset(
    (
        *("silu", "relu", "relu6", "sigmoid", "gelu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "mish"),
        *("tanh", "exp", "elu", "softplus", "log", "add", "radd", "sub", "rsub", "mul", "rmul", "div", "truediv"),
        *("rtruediv", "neg", "pow", "sqrt", "clamp", "abs"),
    )
)
# What takes of a tensor its kind and device alone: in an exported graph it is a constant.
_CONSTANTS = frozenset(("new_full", "new_zeros", "new_ones", "new_tensor", "new_empty", "zeros_like", "ones_like"))


class Operation(NamedTuple):
    """One operation: the tensors that it reads and makes, by number, and whether it may write over what it reads."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    in_place: bool = False


def peak(operations: Sequence[Operation], sizes: Sequence[int], kept: Sequence[int] = ()) -> int:
    """The largest sum of the sizes of tensors that live at once.

    Args:
        operations: in their order. sizes: of each tensor. kept: tensors that live to the end, the outputs.
    """
    last = {tensor: number for number, one in enumerate(operations) for tensor in one.reads}
    last |= dict.fromkeys(kept, len(operations))
    made = {tensor for one in operations for tensor in one.makes}
    alive = {tensor for tensor in last if tensor not in made}  # the image
    most = sum(sizes[tensor] for tensor in alive)
    for number, one in enumerate(operations):
        ending = {tensor for tensor in one.reads if last[tensor] == number}
        total = sum(sizes[tensor] for tensor in alive | set(one.makes))
        if one.in_place and any(sizes[old] >= sizes[new] for old in ending for new in one.makes):
            total -= sum(sizes[new] for new in one.makes)
        most = max(most, total)
        alive = (alive | {tensor for tensor in one.makes if last.get(tensor, -1) > number}) - ending
    return most


def peak_bytes(fused: nn.Module, deployment: Deployment) -> int | None:
    """Bytes of the tensors that live at once in one call of a model with one image.

    Args:
        fused: as layer_shapes.deployed makes it; its heads are set to what they put out in an exported graph.
        deployment: the precision and the image's size.

    Returns:
        None where the model does not run like that, which an export of it says.
    """
    for module in fused.modules():
        if hasattr(module, "export"):
            vars(module).update(export=True, format="onnx")
    side = image_shape.rounded(fused, deployment.imgsz)
    like = next(fused.parameters())
    image = torch.zeros(1, image_shape.channels(fused), side, side, device=like.device, dtype=like.dtype)
    in_float = deployment.precision == "int8" and deployment.format in _FLOAT_BETWEEN
    noted = _Noted(VALUE_BYTES["fp32" if in_float else deployment.precision])
    noted.number(image)
    try:
        with torch.no_grad(), noted:
            outputs = fused(image)
    except Exception:  # a block of the user's own raises anything, and this is no more than a figure
        return None
    return peak(noted.operations, noted.sizes, [noted.number(tensor) for tensor in tensors_in(outputs)])


class _Noted(TorchFunctionMode):
    """Notes every operation on tensors that come of the image. Attributes: see `peak`.

    A tensor carries its number itself, for an identity may be that of one that is gone.
    """

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value
        self.operations: list[Operation] = []
        self.sizes: list[int] = []

    def number(self, tensor: Any) -> int:
        """The number of a tensor, a new one where it has none."""
        if _number(tensor) is None:
            self.sizes.append(tensor.numel() * (self.value if tensor.is_floating_point() else tensor.element_size()))
            tensor._yolo_prune_number = len(self.sizes) - 1
        return int(tensor._yolo_prune_number)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _convolved(*args) if func is nn.functional.conv2d and not kwargs and len(args) == 7 else None
        if result is None:
            result = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self._note(func.__name__, (args, kwargs or {}), result)
        return result

    def _note(self, name: str, given: Any, result: Any) -> None:
        numbers = (_number(tensor) for tensor in tensors_in(given))
        read = tuple(dict.fromkeys(number for number in numbers if number is not None))
        new: list[Any] = [tensor for tensor in tensors_in(result) if _number(tensor) is None]
        plain = name.strip("_")
        if not read or plain in _CONSTANTS:
            return
        if not new:  # no tensor, or one that was written over
            self.operations.append(Operation(read, ()))
            return
        if plain in _SAME or plain == name.rstrip("_") != name:
            for tensor in new:
                tensor._yolo_prune_number = read[0]
            return
        made = tuple(self.number(tensor) for tensor in new)
        self.operations.append(Operation(read, made, plain in _ELEMENTWISE))


def _convolved(
    image: torch.Tensor, weight: torch.Tensor, bias: object, stride: Any, padding: Any, dilation: Any, groups: int
) -> torch.Tensor | None:
    """What a convolution puts out, all zeros: only its size counts. None where the padding is a word."""
    if isinstance(padding, str) or image.ndim != 4:
        return None
    sides = [
        (size + 2 * pad - step * (kernel - 1) - 1) // each + 1
        for size, kernel, each, pad, step in zip(
            image.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    return image.new_zeros((image.shape[0], weight.shape[0], *sides))


def _number(tensor: torch.Tensor) -> int | None:
    return getattr(tensor, "_yolo_prune_number", None)
