# yolo-prune, AGPL-3.0 license
"""Where every channel goes: forward passes in which each channel carries a name of its own.

Tensors carry the ids of their channels through the model's own forward: activations and pooling hand them on, `cat` and
`chunk` join and part the lists, `+` and `*` of two tensors make pairs of ids one, and what reads the tensor notes which
id stands at which position (trace.py).

Nothing is guessed: an operation that is not in the tables below *fixes* the ids that go into it, with its name and
place as the reason, so a block that nobody has taught is protected whole. Where a block splits a tensor into parts that
its own code needs equally wide, the parts are noted (`equal`). What a block does beyond plain operations (attention's
reshape by heads) is taught in blocks.py.

Three passes are made: in evaluation, in training mode, because heads run branches in one that they skip in the other,
and at a second size, which tells how the work grows. BatchNorms stay in evaluation; nothing in the model is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from yolo_prune.trace import LAYERS, NONE, Lesson, Trace, layer


class Label(NamedTuple):
    """The ids of a tensor's channels, and the dimension they lie along, counted from the end (-3 in B, C, H, W)."""

    ids: np.ndarray
    dim: int


# One tensor or several of one shape -> a tensor of that shape, channel by channel.
_ELEMENTWISE = {
    *("add", "add_", "sub", "mul", "mul_", "div", "__add__", "__radd__", "__iadd__", "__sub__", "__mul__", "__rmul__"),
    *("__imul__", "__truediv__", "relu", "relu_", "relu6", "silu", "silu_", "leaky_relu", "leaky_relu_", "hardswish"),
    *("hardswish_", "hardsigmoid", "hardtanh", "hardtanh_", "sigmoid", "sigmoid_", "tanh", "gelu", "mish", "softplus"),
    *("elu", "selu", "dropout", "dropout_", "contiguous", "clone", "float", "half", "double", "to", "type", "detach"),
    *("type_as", "clamp", "alias", "requires_grad_"),
}
# Channels stay, pixels change.
_SPATIAL = {
    *("max_pool2d", "_max_pool2d", "boolean_dispatch", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("interpolate", "upsample", "pad", "zero_pad2d"),
}
# Nothing of what the tensor holds goes into the result.
_BLIND = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
    "new_tensor",
}

_LABEL = "yolo_prune_label"  # the attribute of a tensor that holds its label, so that both are freed together


class _Mode(TorchFunctionMode):
    """Sees every torch function of a forward pass and hands the labels on."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.mark = object()  # labels of another pass do not count
        self.hidden = 0  # above 0 inside a layer or a taught block: its hook does the labelling
        self.path: list[str] = []

    def of(self, tensor: Any) -> Label | None:
        mark, label = getattr(tensor, _LABEL, (None, None)) if isinstance(tensor, torch.Tensor) else (None, None)
        return label if mark is self.mark else None

    def put(self, tensor: torch.Tensor, ids: np.ndarray, dim: int) -> None:
        setattr(tensor, _LABEL, (self.mark, Label(ids, dim)))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.hidden:
            return out
        tensors = list(_tensors((args, list(kwargs.values()))))
        labelled = [(tensor, label) for tensor in tensors if (label := self.of(tensor)) is not None]
        if labelled and any(True for _ in _tensors(out)):
            name = getattr(func, "__name__", str(func))
            if name not in _BLIND and not self._handed_on(name, args, kwargs, tensors, labelled, out):
                self._stop(name, labelled)
        return out

    def _stop(self, name: str, labelled: list[tuple[torch.Tensor, Label]]) -> None:
        """Fix what goes into an operation that nobody has taught."""
        where = self.path[-1] if self.path else "the model"
        if where in self.trace.decoders:
            why = f"output of the model, which {where} decodes"
        else:
            why = f"goes through {name} in {where}, which the tracer does not follow"
            if any(i != NONE and i not in self.trace.fixed for _, label in labelled for i in label.ids.tolist()):
                self.trace.untaught.setdefault(where, name)
        for _, label in labelled:
            self.trace.fix(label.ids, why)

    def _handed_on(
        self,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[torch.Tensor],
        labelled: list[tuple[torch.Tensor, Label]],
        out: Any,
    ) -> bool:
        """Label the result of a known operation; False where it is not known, or not in this use of it."""
        first, label = labelled[0]
        if name == "type_as" and args[0] is not first:
            return True  # only its type is read
        if name in _ELEMENTWISE:
            return self._elementwise(tensors, labelled, out)
        if name in _SPATIAL and label.dim == -3 and out.ndim == first.ndim and out.shape[-3] == len(label.ids):
            self.put(out, label.ids, -3)
            return True
        if name in ("cat", "concat", "concatenate"):
            return self._cat(list(args[0]), kwargs.get("dim", args[1] if len(args) > 1 else 0), out)
        if name in ("chunk", "split", "split_with_sizes", "tensor_split"):
            return self._split(first, label, kwargs.get("dim", args[2] if len(args) > 2 else 0), out)
        if name == "stack" and kwargs.get("dim", args[1] if len(args) > 1 else 0) == 0:
            return self._elementwise(tensors, labelled, out)
        if name == "sum" and kwargs.get("dim", args[1] if len(args) > 1 else None) == 0 and first.ndim > -label.dim:
            self.put(out, label.ids, label.dim)
            return True
        return self._moved(name, args, kwargs, first, label, out)

    def _elementwise(self, tensors: list[torch.Tensor], labelled: list[tuple[torch.Tensor, Label]], out: Any) -> bool:
        _, label = labelled[0]
        known = {id(tensor) for tensor, _ in labelled}
        for tensor in tensors:
            if id(tensor) not in known and tensor.ndim >= -label.dim and tensor.shape[label.dim] > 1:
                return False  # a value a channel that no label tells of
        if any(other.dim != label.dim or len(other.ids) != len(label.ids) for _, other in labelled):
            return False
        if out.ndim < -label.dim or out.shape[label.dim] != len(label.ids):
            return False
        for _, other in labelled[1:]:
            self.trace.join(label.ids, other.ids, "is combined with channels of no layer")
        self.put(out, label.ids, label.dim)
        return True

    def _cat(self, parts: list[torch.Tensor], dim: int, out: torch.Tensor) -> bool:
        labels = [self.of(part) for part in parts]
        along = {label.dim for label in labels if label is not None}
        if len(along) != 1:
            return False
        (where,) = along
        if dim - out.ndim * (dim >= 0) != where:
            return all(label is not None for label in labels) and self._elementwise(
                parts, [(part, label) for part, label in zip(parts, labels, strict=True) if label is not None], out
            )
        ids = [np.full(p.shape[where], NONE) if lab is None else lab.ids for p, lab in zip(parts, labels, strict=True)]
        self.put(out, np.concatenate(ids), where)
        return True

    def _split(self, tensor: torch.Tensor, label: Label, dim: int, out: Any) -> bool:
        parts: list[np.ndarray] = []
        for part in out:
            if dim - tensor.ndim * (dim >= 0) == label.dim:
                start = sum(len(ids) for ids in parts)
                parts.append(label.ids[start : start + part.shape[label.dim]])
                self.put(part, parts[-1], label.dim)
            else:
                self.put(part, label.ids, label.dim)
        if parts:
            where = self.path[-1]
            for index, ids in enumerate(parts):
                self.trace.tag(ids, f"{where}|split", index)
            if where not in self.trace.uneven:
                self.trace.equal.append((where, [(ids, 1) for ids in parts]))
        return True

    def _moved(self, name: str, args: Any, kwargs: Any, tensor: torch.Tensor, label: Label, out: Any) -> bool:
        """Operations that move the dimension of the channels and nothing else."""
        if not isinstance(out, torch.Tensor):
            return False
        at = label.dim + tensor.ndim
        if name == "permute":
            order = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else args[1:]
            self.put(out, label.ids, list(order).index(at) - out.ndim)
            return True
        if name in ("transpose", "swapaxes"):
            a, b = (d % tensor.ndim for d in args[1:3])
            self.put(out, label.ids, {a: b, b: a}.get(at, at) - out.ndim)
            return True
        if name == "flatten" and out.ndim > at and out.shape[at] == len(label.ids):
            self.put(out, label.ids, at - out.ndim)
            return True
        if name in ("view", "reshape") and tensor.ndim == 1 and out.numel() == tensor.numel():
            self.put(out, label.ids, out.shape.index(len(label.ids)) - out.ndim)
            return True
        return False


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):  # "feats" are what a head hands through for the loss to read their sizes
        yield from _tensors([item for key, item in value.items() if key != "feats"])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def follow(
    model: nn.Module,
    lessons: Mapping[nn.Module, Lesson],
    vectors: Iterable[str] = (),
    uneven: Iterable[str] = (),
    decoders: Iterable[str] = (),
) -> Trace:
    """Follow the channels of a model.

    Args:
        model: a stock model on the CPU in float32; it is not changed.
        lessons: block -> what it does with ids, in place of its own operations.
        vectors: full names of parameters that hold one value a channel.
        untaught: block -> an operation in it that the tracer does not follow, so that what goes into it is fixed.
        decoders: blocks whose own operations turn the last layers' outputs into predictions.
        uneven: blocks that split by sizes of their own, where others need equal parts.
        decoders: blocks that turn the last layers' outputs into predictions by operations of their own.

    Returns:
        Where every channel goes.
    """
    # The queries of RT-DETR's decoder are chosen among the image's cells, all of them where there are fewer than 300.
    small = 64 if not any(hasattr(module, "num_queries") for module in model.modules()) else 192
    trace = Trace(sizes=(small, small, 2 * small), uneven=frozenset(uneven), decoders=frozenset(decoders))
    training = {module: module.training for module in model.modules()}
    try:
        for number, size in enumerate(trace.sizes):
            for module in model.modules():
                module.training = number == 1 and not isinstance(module, nn.modules.batchnorm._BatchNorm)
            _pass(model, trace, lessons, vectors, number, size)
    finally:
        for module, was in training.items():
            module.training = was
    trace.settle()
    return trace


def _pass(
    model: nn.Module,
    trace: Trace,
    lessons: Mapping[nn.Module, Lesson],
    vectors: Iterable[str],
    number: int,
    size: int,
) -> None:
    mode = _Mode(trace)
    names = {module: name for name, module in model.named_modules()}
    for name in vectors:
        vector = model.get_parameter(name)
        seen = trace.uses.get((name, "out"))
        mode.put(vector, trace.use(name, "out", trace.new(len(vector)) if seen is None else seen), -1)
    with torch.no_grad(), _hooked(model, mode, names, lessons, number), mode:
        channels = next(p for p in model.parameters() if p.ndim == 4).shape[1]
        result = model(torch.zeros(1, channels, size, size))
    for tensor in _tensors(result):
        label = mode.of(tensor)
        if label is not None:
            trace.fix(label.ids, "output of the model")
            trace.outputs.update(i for i in label.ids.tolist() if i != NONE)


@contextmanager
def _hooked(
    model: nn.Module, mode: _Mode, names: Mapping[nn.Module, str], lessons: Mapping[nn.Module, Lesson], number: int
) -> Iterator[None]:
    trace = mode.trace

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        mode.path.append(names[module])
        if not mode.hidden:
            labels = [mode.of(tensor) for tensor in _tensors((args, kwargs))]
            ids = {i for label in labels if label is not None for i in label.ids.tolist()}
            trace.entered.setdefault(names[module], set()).update(ids - {NONE})
        if isinstance(module, (*LAYERS, nn.BatchNorm2d)) or module in lessons:
            mode.hidden += 1

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        name = mode.path.pop()
        if isinstance(module, (*LAYERS, nn.BatchNorm2d)) or module in lessons:
            mode.hidden -= 1
            if not mode.hidden:
                _label(module, name, args[0], out)
        if isinstance(out, torch.Tensor) and out.ndim > 2:
            trace.channels[name] = out.shape[-3] if out.ndim == 4 else out.shape[-1]
            if isinstance(module, (*LAYERS, nn.BatchNorm2d)):
                trace.area.setdefault(name, [0.0] * len(trace.sizes))[number] += _area(module, args[0], out)

    def _label(module: nn.Module, name: str, given: torch.Tensor, out: torch.Tensor) -> None:
        dim = -1 if isinstance(module, nn.Linear) else -3
        label = mode.of(given)
        if label is not None and label.dim != dim:
            trace.fix(label.ids, f"goes into {name} along another dimension")
            label = None
        ids = np.full(given.shape[dim], NONE) if label is None else label.ids
        if module in lessons:
            trace.number, trace.pixels = number, out.shape[-2:].numel()
            mode.put(out, lessons[module](trace, name, module, ids), dim)
        else:
            mode.put(out, layer(trace, name, module, ids), dim)

    hooks = []
    for module in model.modules():
        hooks += [
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(leave),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _area(module: nn.Module, given: torch.Tensor, out: torch.Tensor) -> float:
    """At how many places a layer's weights are applied."""
    if isinstance(module, nn.Linear):
        return float(out.shape[:-1].numel())
    return float((given if isinstance(module, nn.ConvTranspose2d) else out).shape[-2:].numel())
