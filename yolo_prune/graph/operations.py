# yolo-prune, AGPL-3.0 license
"""What torch's operations do to channels: which keep them, join, part or move them. What is not here stops them.

A rule says "followed" only where the operation does the same to whatever channels are left after a cut. So an operation
that names a position, a count of channels or one value for each channel is not followed, however simple it looks:
`y[:, :8]`, `split((c, c), 1)`, `view(b, 64, -1)`, `softmax(1)`. Arguments are read by position and by keyword, with
torch's aliases of numpy's names (torch 2.14, python_arg_parser.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
import torch

from yolo_prune.graph.channel_counts import Count, counts_in
from yolo_prune.graph.operation_names import ALONG, ELEMENTWISE, EQUAL_PARTS, MOVES, REDUCTIONS, SIZED_PARTS, SPATIAL
from yolo_prune.graph.trace import NONE, Trace


class Label(NamedTuple):
    """The ids of a tensor's channels, and the dimension they lie along, counted from the end (-3 in B, C, H, W)."""

    ids: np.ndarray
    dim: int


def name_of(func: Any) -> str:
    """The operation's name; a property's with "get " before it."""
    name = getattr(func, "__name__", None) or str(func)
    library = getattr(func, "_qualified_op_name", "aten::")
    if not library.startswith("aten::"):
        return str(library)  # an operator of some extension: its name may be that of another operation
    if name == "__get__":
        return f"get {getattr(getattr(func, '__self__', None), '__name__', '?')}"
    return name.removesuffix(".default").removesuffix(".Tensor").removesuffix(".Scalar")


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested containers, but "feats": what a head hands through for the loss to read their sizes."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in([item for key, item in value.items() if key != "feats"])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from tensors_in(item)


class Call(NamedTuple):
    """One call of an operation that a labelled tensor goes into.

    Attributes:
        name: of the operation. args, kwargs: as it was called. out: what it gave. tensors: all that went in.
        labels: the label of each of them, None where it has none. where: the block that calls. trace: to note it in.
        put: (tensor, ids, dim) -> None: labels a result. sized: whether the block's sizes are known to the tool, so
            that they follow a cut. uneven: whether its parts need not be equally wide.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    tensors: list[torch.Tensor]
    labels: list[Label | None]
    where: str
    trace: Trace
    put: Callable[[torch.Tensor, np.ndarray, int], None]
    sized: bool
    uneven: bool = False

    @property
    def first(self) -> tuple[torch.Tensor, Label]:
        """The first tensor that has a label."""
        return next((t, label) for t, label in zip(self.tensors, self.labels, strict=True) if label is not None)

    def given(self, place: int, *names: str, default: Any = None) -> Any:
        """An argument, by its position or one of its names."""
        for name in names:
            if name in self.kwargs:
                return self.kwargs[name]
        return self.args[place] if len(self.args) > place else default


def followed(call: Call) -> bool:
    """Label the result of an operation; False where it is not known, or not in this use of it."""
    name = call.name
    if name.removesuffix("_") in ELEMENTWISE:  # in place; other forms in place have moved what is looked at here
        name = name.removesuffix("_")
    if name in ("max", "min") and isinstance(call.given(1, "other", "x2"), torch.Tensor):
        name = "maximum"
    if name in ("type_as", "to"):
        return _cast(call)
    if name in ELEMENTWISE:
        return _elementwise(call)
    if name == "prelu":
        return _prelu(call)
    rules: list[tuple[AbstractSet[str], Callable[[Call], bool]]] = [
        (SPATIAL, _spatial),
        ({"cat", "concat", "concatenate"}, _cat),
        ({"stack"}, _stack),
        (EQUAL_PARTS | SIZED_PARTS, _split_into_parts),
        (REDUCTIONS, _reduced),
        (set(ALONG), _along),
        (MOVES, _moved),
        ({"__getitem__"}, _indexed),
        ({"view", "reshape"}, _reshaped),
        ({"expand", "repeat"}, _expanded),
    ]
    return next((rule(call) for names, rule in rules if name in names), False)


# Channel by channel ---------------------------------------------------------------------------------------------------


def _cast(call: Call) -> bool:
    """Of a second tensor only the type is read."""
    if call.tensors[0] is not call.first[0]:
        return True
    call.put(call.out, call.first[1].ids, call.first[1].dim)
    return True


def _elementwise(call: Call) -> bool:
    """One tensor or several of one shape -> a tensor of that shape, channel by channel."""
    labels = [label for label in call.labels if label is not None]
    widest = max(labels, key=lambda label: len(label.ids))
    count, dim = len(widest.ids), widest.dim
    for tensor, label in zip(call.tensors, call.labels, strict=True):
        if label is None and tensor.ndim >= -dim and tensor.shape[dim] > 1:
            return False  # a value a channel that no label tells of
    if any(label.dim != dim or len(label.ids) not in (1, count) for label in labels):
        return False
    if not isinstance(call.out, torch.Tensor) or call.out.ndim < -dim or call.out.shape[dim] != count:
        return False
    for label in labels:
        if len(label.ids) == count:
            call.trace.join(widest.ids, label.ids, "is combined with channels of no layer")
        else:
            call.trace.fix(label.ids, "is one channel that is combined with many")
    call.put(call.out, widest.ids, dim)
    return True


def _prelu(call: Call) -> bool:
    """One slope for all channels, or one for each: a vector that blocks.py names."""
    weight = call.given(1, "weight")
    if weight.numel() == 1:
        return _elementwise(call._replace(tensors=call.tensors[:1], labels=call.labels[:1]))
    label, slopes = call.labels[0], call.labels[1]
    if label is None or slopes is None or label.dim != 1 - call.out.ndim:
        return False
    call.trace.join(label.ids, slopes.ids, "is scaled by a vector of no layer")
    call.put(call.out, label.ids, label.dim)
    return True


def _spatial(call: Call) -> bool:
    """Pooling and padding: each channel by itself."""
    tensor, label = call.first
    pad = call.given(1, "pad", default=()) if call.name == "pad" else ()
    if sum(other is not None for other in call.labels) > 1 or label.dim != -3 or len(pad) > 4:
        return False
    outs = [call.out] if isinstance(call.out, torch.Tensor) else list(call.out)
    if any(out.ndim != tensor.ndim or out.shape[-3] != len(label.ids) for out in outs):
        return False
    for out in outs:  # max_pool2d may give indices of pixels too
        call.put(out, label.ids, -3)
    return True


def _along(call: Call) -> bool:
    """Softmax and the like: along the pixels they leave channels apart."""
    tensor, label = call.first
    place = ALONG[call.name.removesuffix("_")]
    dim = call.given(place, "dim", "axis", default=1 if call.name == "normalize" else None)
    if not isinstance(dim, int) or dim % tensor.ndim == label.dim + tensor.ndim:
        return False
    call.put(call.out, label.ids, label.dim)
    return True


def _reduced(call: Call) -> bool:
    """Sums, means and the like over the images or pixels."""
    tensor, label = call.first
    dims = call.given(1, "dim", "axis")
    dims = (dims,) if isinstance(dims, int) and not isinstance(dims, bool) else dims
    if not isinstance(dims, (list, tuple)) or not dims or len(call.tensors) > 1:
        return False
    gone = {d % tensor.ndim for d in dims}
    at = label.dim + tensor.ndim
    if at in gone:
        return False
    for out in tensors_in(call.out):
        kept = out.ndim == tensor.ndim
        call.put(out, label.ids, label.dim if kept else label.dim + sum(d > at for d in gone))
    return True


# Several tensors, several parts ---------------------------------------------------------------------------------------


def _cat(call: Call) -> bool:
    parts, dim = list(call.given(0, "tensors")), call.given(1, "dim", "axis", default=0)
    if len(parts) != len(call.labels):
        return False
    along = {label.dim for label in call.labels if label is not None}
    if len(along) != 1:
        return False
    (where,) = along
    if dim - call.out.ndim * (dim >= 0) != where:
        return all(label is not None for label in call.labels) and _same_channels(call)
    pairs = zip(parts, call.labels, strict=True)
    ids = [np.full(part.shape[where], NONE) if label is None else label.ids for part, label in pairs]
    call.put(call.out, np.concatenate(ids), where)
    return True


def _stack(call: Call) -> bool:
    dim = call.given(1, "dim", "axis", default=0) % call.out.ndim
    labels = [label for label in call.labels if label is not None]
    at = labels[0].dim + call.out.ndim - 1  # of the channels, in each part
    if len(labels) != len(call.tensors):
        return False
    return _same_channels(call, labels[0].dim - (dim > at))


def _same_channels(call: Call, dim: int | None = None) -> bool:
    """Several tensors of the same channels laid beside each other along another dimension."""
    labels = [label for label in call.labels if label is not None]
    if len({(label.dim, len(label.ids)) for label in labels}) > 1:
        return False
    for label in labels[1:]:
        call.trace.join(labels[0].ids, label.ids, "is combined with channels of no layer")
    call.put(call.out, labels[0].ids, labels[0].dim if dim is None else dim)
    return True


def _split_into_parts(call: Call) -> bool:
    """Parts of a tensor: along the pixels, or along the channels where the block's code finds them after a cut too."""
    tensor, label = call.first
    seen = [_places(part, label) or _alone(part, tensor, label) for part in _again(call, tensor, label)]
    if any(one is None for one in seen):
        return False
    places = [one for one in seen if one is not None]
    if all(len(positions) == len(label.ids) for _, positions in places):
        for part, (dim, _) in zip(call.out, places, strict=True):
            call.put(part, label.ids, dim)
        return True
    counted = call.name in EQUAL_PARTS or (
        call.name == "tensor_split" and isinstance(call.given(1, "indices_or_sections", "sections"), int)
    )
    if not counted and not call.sized:
        return False  # by sizes that the block may remember
    split = call.trace.split(call.where, label.ids)
    for index, (part, (dim, positions)) in enumerate(zip(call.out, places, strict=True)):
        ids = label.ids[positions]
        call.put(part, ids, dim)
        call.trace.tag(ids, split, index)
    if not call.uneven:
        call.trace.equal.append((call.where, [(label.ids[positions], 1) for _, positions in places]))
    return True


def _alone(part: torch.Tensor, tensor: torch.Tensor, label: Label) -> tuple[int, np.ndarray] | None:
    """As `_places`, of a part of one channel, which does not tell where it lies: a split moves no dimension."""
    if part.ndim != tensor.ndim or part.shape[label.dim] != 1 or not part.numel():
        return None
    return label.dim, part.flatten()[:1].numpy()


# Moved dimensions -----------------------------------------------------------------------------------------------------


def _numbers(tensor: torch.Tensor, label: Label) -> torch.Tensor:
    """A tensor of the same shape that holds the position of each of its channels."""
    shape = [1] * tensor.ndim
    shape[label.dim] = len(label.ids)
    return torch.arange(len(label.ids)).view(shape).expand(tensor.shape)


def _again(call: Call, tensor: torch.Tensor, label: Label) -> Any:
    """What the operation gives for a tensor that holds the position of each of its channels."""
    swap = {id(tensor): _numbers(tensor, label)}
    args = [swap.get(id(value), value) for value in call.args]
    kwargs = {key: swap.get(id(value), value) for key, value in call.kwargs.items()}
    if call.name == "__getitem__":
        return args[0][args[1]]
    if call.name.startswith("get "):
        return getattr(args[0], call.name[4:])
    return _of_tensor(call.name, args, kwargs)


def _of_tensor(name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The method of the same name: it takes all forms, where torch's functions take one and name the tensor."""
    kwargs = dict(kwargs)
    rest = list(args)
    for key in ("input", "tensor", "self", "x"):
        if key in kwargs:
            rest.insert(0, kwargs.pop(key))
            break
    if not hasattr(torch.Tensor, name):
        return getattr(torch, name)(*rest, **kwargs)
    if name == "split" and "split_size_or_sections" in kwargs:
        kwargs["split_size"] = kwargs.pop("split_size_or_sections")
    return getattr(rest[0], name)(*rest[1:], **kwargs)


def _places(out: Any, label: Label) -> tuple[int, np.ndarray] | None:
    """(dimension from the end, position of the channel at each place) of a result that holds positions, or None."""
    if not isinstance(out, torch.Tensor) or len(label.ids) < 2 or not out.numel():
        return None  # a single channel does not tell where it lies
    for dim in range(out.ndim):
        if out.shape[dim] > 1 or out.ndim == 1:
            lines = out.movedim(dim, 0).reshape(out.shape[dim], -1)
            positions = lines[:, 0].numpy()
            if (np.diff(positions) == 1).all() and bool((lines == lines[:, :1]).all()):
                return dim - out.ndim, positions
    return None


def _moved(call: Call) -> bool:
    """Operations that move the dimension of the channels and nothing else."""
    tensor, label = call.first
    seen = _places(_again(call, tensor, label), label)
    if seen is not None and len(seen[1]) == len(label.ids):
        call.put(call.out, label.ids, seen[0])
        return True
    return False


def _indexed(call: Call) -> bool:
    """Slices of images and pixels; the channels' own dimension must be taken whole, by `:`."""
    tensor, label = call.first
    if len(call.tensors) > 1:
        return False
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if not all(item is None or item is Ellipsis or type(item) in (int, slice) for item in index):
        return False
    at, taken = 0, label.dim + tensor.ndim
    named = sum(item is not None and item is not Ellipsis for item in index)
    for item in index:
        if item is None:
            continue
        if item is Ellipsis:
            at += tensor.ndim - named
            continue
        if at == taken and item != slice(None):
            return False
        at += 1
    return _moved(call)


def _sizes(call: Call) -> list[Any]:
    """The size of each dimension that an operation of SHAPES asks for."""
    given = call.given(1, "size", "shape", "sizes", "repeats")
    return list(given) if isinstance(given, (list, tuple)) else list(call.args[1:])


def _agrees(call: Call, sizes: list[Any], dim: int, label: Label) -> bool:
    """Whether a shape leaves the channels as many as they are: by -1, or by a count of channels tied to them."""
    size = sizes[dim]
    if any(True for _ in counts_in([*sizes[: dim % len(sizes)], *sizes[dim % len(sizes) + 1 :]])):
        return False
    if isinstance(size, Count) and size.whole and len(size.ids) == len(label.ids):
        call.trace.join(label.ids, size.ids, "is reshaped by the number of channels of no layer")
        return True
    return type(size) is int and size == -1


def _reshaped(call: Call) -> bool:
    """A vector laid along one dimension of a shape of ones; pixels laid in one or several dimensions."""
    tensor, label = call.first
    if tensor.ndim == 1 and call.out.numel() == tensor.numel():
        call.put(call.out, label.ids, list(call.out.shape).index(len(label.ids)) - call.out.ndim)
        return True
    sizes = _sizes(call)
    seen = _places(_numbers(tensor, label).reshape([int.__add__(size, 0) for size in sizes]), label)
    if seen is None or len(seen[1]) != len(label.ids) or not _agrees(call, sizes, seen[0], label):
        return False
    call.put(call.out, label.ids, seen[0])
    return True


def _expanded(call: Call) -> bool:
    """One image or pixel made several; the channels as many as they are."""
    _, label = call.first
    sizes = _sizes(call)
    if call.name == "repeat":
        sizes = [-1 if type(size) is int and size == 1 else size for size in sizes]
    if len(sizes) < -label.dim or not _agrees(call, sizes, label.dim, label):
        return False
    call.put(call.out, label.ids, label.dim)
    return True
