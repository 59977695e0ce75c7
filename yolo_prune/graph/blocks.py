# yolo-prune, AGPL-3.0 license
"""What the tool must be taught about the host's blocks: one small entry a block class, all of them in this file.

Most blocks need none: tracer.py follows convolutions, concatenation, `chunk` and addition by itself. A block needs an
`Entry` where it does something with channels that is more than that (a lesson), keeps a size beside its layers
(set_sizes), holds a vector of its own (vectors), or can be removed whole (adds, concatenates).

A worked example, `Attention` with two heads, keys of 2 and values of 4 channels. Its `qkv` makes 16 channels, which the
block's own code reshapes to (heads, 2 + 2 + 4):

    head 0: q0 q1 k0 k1 v0 v1 v2 v3    head 1: q0 q1 k0 k1 v0 v1 v2 v3

- q_i and k_i of a head are multiplied, so they go together: the lesson joins their ids.
- The block's code reshapes by `key_dim` and `head_dim`, one number for all heads: heads keep equal counts (`equal`).
- `x.view(B, C, H, W)` takes C from the block's *input*, so the input keeps as many channels as all heads' values: the
  part (input, times 2) keeps twice the count of the part (values of head 0, times 1).
- The softmax is scaled by `key_dim ** -0.5`. A narrower key would change the temperature, so the queries take over the
  factor: scores of the keys that stay mean the same.

After a cut `set_sizes` sets `key_dim`, `head_dim` and `scale` to what the layers have now.

docs/adding-a-block.md walks through a new entry. Read in ultralytics 8.4.190: nn/modules/block.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from ultralytics.nn.modules import block as host

from yolo_prune.errors import LayerError, first_line
from yolo_prune.graph.trace import LAYERS, Lesson, Trace, layer

KeptOutputs = Mapping[str, np.ndarray]  # layer's name in its block -> positions of its outputs that were kept


@dataclass(frozen=True)
class Entry:
    """What the tool knows of a block class.

    Attributes:
        lesson: what the block does with ids, in place of its own operations; None lets the tracer look.
        set_sizes: (block, kept) -> None: set the sizes that it keeps beside its layers to what its layers have. Where
            weights were just cut, `kept` has, by the layer's name in the block, the positions of its outputs that were
            kept, and a factor may be moved; where it is None, the block is rebuilt, and only attributes change.
        convs: its parts that are the host's Conv; where one is another class, nothing is known of the block.
        sizes: its attributes that its layers do not tell (plain data); a checkpoint carries them.
        heads: that of `sizes` which holds its number of attention heads, which the lesson has told apart.
        uneven: whether it splits by sizes of its own; the parts of every other split keep equal counts.
        vectors: its parameters that hold one value a channel.
        adds: block -> whether its output is its input plus what it computes, so that without it its input flows on.
        concatenates: whether its `cv2` reads all that `cv1` and each entry of its list `m` give, in this order.
        own_forward: whether its forward is a user's, so that nothing is known of what that does with the sizes.
        approximate: whether any cut moves its output a little, as it does a mean over the channels. A trial
            (planning/trial.py) does not compare what it computes, and lets its input go on in its place.
    """

    lesson: Lesson | None = None
    set_sizes: Callable[[Any, KeptOutputs | None], None] | None = None
    convs: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    heads: str = ""
    uneven: bool = False
    vectors: tuple[str, ...] = ()
    adds: Callable[[Any], bool] | None = None
    concatenates: bool = False
    own_forward: bool = False
    approximate: bool = False


class Removable(NamedTuple):
    """A block that can be removed whole: its name, and the convolution that reads its output beside others, or ""."""

    name: str
    consumer: str


# Attention ------------------------------------------------------------------------------------------------------------


def _conv(trace: Trace, name: str, block: Any, ids: np.ndarray) -> np.ndarray:
    """The host's Conv: a convolution and its BatchNorm."""
    return layer(trace, f"{name}.bn", block.bn, layer(trace, f"{name}.conv", block.conv, ids))


def _attention(trace: Trace, name: str, block: Any, ids: np.ndarray) -> np.ndarray:
    """`Attention` of C2PSA, PSA and C3k2 (YOLOv10, YOLO11, YOLO26)."""
    made = _conv(trace, f"{name}.qkv", block.qkv, ids).reshape(block.num_heads, -1)
    queries, keys, values = np.split(made, [block.key_dim, 2 * block.key_dim], axis=1)
    for head in range(block.num_heads):
        trace.join(queries[head], keys[head], f"{name} multiplies queries and keys")
        trace.head(queries[head], name, head, "key")
        trace.head(values[head], name, head, "value")
    trace.work(f"{name}.key", queries.reshape(-1), trace.pixels**2)
    trace.work(f"{name}.value", values.reshape(-1), trace.pixels**2)
    trace.equal.append((f"{name}.key", [(q, 1) for q in queries]))
    trace.equal.append((f"{name}.value", [*((v, 1) for v in values), (ids, block.num_heads)]))
    positions = _conv(trace, f"{name}.pe", block.pe, values.reshape(-1))
    return _conv(trace, f"{name}.proj", block.proj, positions)


def _sizes_of_attention(block: Any, kept: KeptOutputs | None) -> None:
    block.head_dim = block.proj.conv.in_channels // block.num_heads
    before, block.key_dim = block.key_dim, (block.qkv.conv.out_channels // block.num_heads - block.head_dim) // 2
    block.scale = block.key_dim**-0.5
    if kept is not None:
        _move_temperature(block, before, block.key_dim)


def _area_attention(trace: Trace, name: str, block: Any, ids: np.ndarray) -> np.ndarray:
    """`AAttn` of A2C2f (YOLO12): one width for queries, keys and values of every head."""
    made = _conv(trace, f"{name}.qkv", block.qkv, ids).reshape(block.num_heads, 3, block.head_dim)
    for head in range(block.num_heads):
        trace.join(made[head, 0], made[head, 1], f"{name} multiplies queries and keys")
        trace.head(made[head, 0], name, head, "key")
        trace.head(made[head, 2], name, head, "value")
    trace.work(f"{name}.key", made[:, 0].reshape(-1), trace.pixels**2 / block.area)
    trace.work(f"{name}.value", made[:, 2].reshape(-1), trace.pixels**2 / block.area)
    # Newer hosts reshape by `all_head_dim`, 8.4.0 by the channels of the input: tied to it the block runs on both.
    parts = [*((one, 1) for one in (*made[:, 0], *made[:, 2])), (ids, block.num_heads)]
    trace.equal.append((f"{name}.head", parts))
    positions = _conv(trace, f"{name}.pe", block.pe, made[:, 2].reshape(-1))
    return _conv(trace, f"{name}.proj", block.proj, positions)


def _sizes_of_area_attention(block: Any, kept: KeptOutputs | None) -> None:
    before, block.head_dim = block.head_dim, block.pe.conv.out_channels // block.num_heads
    block.all_head_dim = block.head_dim * block.num_heads
    if kept is not None:
        _move_temperature(block, before, block.head_dim)


def _move_temperature(block: Any, before: int, now: int) -> None:
    """The scores are divided by the root of the keys' width, less now: the queries are made smaller to match."""
    if before != now:
        for vector in (block.qkv.bn.weight, block.qkv.bn.bias):
            vector.data.view(block.num_heads, -1)[:, :now].mul_((now / before) ** 0.5)


# Sizes ----------------------------------------------------------------------------------------------------------------


def _sizes_of_half(block: Any, kept: KeptOutputs | None) -> None:
    """`c`: half of what `cv1` makes."""
    block.c = block.cv1.conv.out_channels // 2


def _size_of_halves(block: Any, kept: KeptOutputs | None) -> None:
    """`c` of a C2f whose forward is a user's: so many stay of the first `c` outputs.

    The host's exporter runs `forward_split` in the place of that forward, by `c` (8.4.190, engine/exporter.py).
    """
    if kept is not None and "cv1.conv" in kept:
        block.c = int(np.sum(kept["cv1.conv"] < block.c))


def _sizes_of_down(block: Any, kept: KeptOutputs | None) -> None:
    block.c = block.cv1.conv.out_channels


def _sizes_of_rep(block: Any, kept: KeptOutputs | None) -> None:
    """What the identity branch is as wide as when the host fuses it into one convolution."""
    if hasattr(block, "conv1"):  # not fused yet
        conv = block.conv1.conv
        block.c1, block.c2, block.g = conv.in_channels, conv.out_channels, conv.groups


def _sizes_of_parts(block: Any, kept: KeptOutputs | None) -> None:
    """`c2s`: how many channels each part of what `conv` makes has."""
    if kept is not None and "conv" in kept:
        ends = np.cumsum([0, *block.c2s])
        block.c2s = np.histogram(kept["conv"], ends)[0].tolist()


def _sizes_of_slopes(block: Any, kept: KeptOutputs | None) -> None:
    block.num_parameters = block.weight.numel()


def _has_shortcut(block: Any) -> bool:
    return bool(block.add)


def _always(block: Any) -> bool:
    return True


_ATTENTION = ("qkv", "pe", "proj")
_ENTRIES = {
    "Attention": Entry(_attention, _sizes_of_attention, _ATTENTION, sizes=("num_heads",), heads="num_heads"),
    "AAttn": Entry(_area_attention, _sizes_of_area_attention, _ATTENTION, sizes=("num_heads",), heads="num_heads"),
    "C2f": Entry(set_sizes=_sizes_of_half, convs=("cv1",), concatenates=True),  # C3k2, C2fCIB and C2fPSA are C2f
    "A2C2f": Entry(vectors=("gamma",), concatenates=True),
    "C2": Entry(set_sizes=_sizes_of_half, convs=("cv1",)),
    "C2PSA": Entry(set_sizes=_sizes_of_half, convs=("cv1",)),
    "PSA": Entry(set_sizes=_sizes_of_half, convs=("cv1",)),
    "RepNCSPELAN4": Entry(set_sizes=_sizes_of_half, convs=("cv1",)),
    "C2fAttn": Entry(set_sizes=_sizes_of_half, convs=("cv1",)),
    "ADown": Entry(set_sizes=_sizes_of_down, convs=("cv1",)),
    "RepConv": Entry(set_sizes=_sizes_of_rep, convs=("conv1",)),
    "CBLinear": Entry(set_sizes=_sizes_of_parts, sizes=("c2s",), uneven=True),
    "Bottleneck": Entry(adds=_has_shortcut),
    "CIB": Entry(adds=_has_shortcut),
    "PSABlock": Entry(adds=_has_shortcut),
    "ABlock": Entry(adds=_always),
}
BLOCKS: dict[type, Entry] = {
    getattr(host, name): entry for name, entry in _ENTRIES.items() if hasattr(host, name)
}  # not every host has them all
_OWN_C2F = Entry(set_sizes=_size_of_halves, convs=("cv1",), sizes=("c",), own_forward=True)
_OWN_REP = Entry(set_sizes=_sizes_of_rep, convs=("conv1",), own_forward=True)  # the host fuses subclasses too
BLOCKS[nn.PReLU] = Entry(set_sizes=_sizes_of_slopes, vectors=("weight",))  # of one slope a channel


def entry_of(block: nn.Module) -> Entry:
    """A block's entry: its class's, or that of the class whose forward it inherits; an empty one for other blocks."""
    entry = _entry_by_class(block)
    return Entry() if _no_conv(block, entry) else entry


def unlike_their_class(model: nn.Module) -> dict[str, str]:
    """Blocks of a known class that were built of other parts than its entry takes -> which part it is."""
    found = {name: _no_conv(block, _entry_by_class(block)) for name, block in model.named_modules()}
    parts = {name: (part, model.get_submodule(f"{name}.{part}")) for name, part in found.items() if part}
    return {name: f"{part}, a {type(module).__name__}" for name, (part, module) in parts.items()}


def _no_conv(block: nn.Module, entry: Entry) -> str:
    """The first of the entry's `convs` that is in the block another class."""
    for name in entry.convs:
        part = getattr(block, name, None)
        if part is not None and not isinstance(part, host.Conv):
            return name
    return ""


def _entry_by_class(block: nn.Module) -> Entry:
    for kind in type(block).__mro__:
        if kind in BLOCKS:
            if _runs_as(block, kind):
                return BLOCKS[kind]
            if kind is host.C2f and isinstance(getattr(block, "c", None), int):
                return _OWN_C2F
            return _OWN_REP if kind is host.RepConv else Entry()
    return Entry()


def _runs_as(block: nn.Module, kind: type) -> bool:
    """Whether a block's forward is that of a class, be it put on the block itself as the host's exporter does."""
    own = vars(block).get("forward")
    forward = type(block).forward if own is None else getattr(own, "__func__", own)
    return forward in (kind.forward, getattr(kind, "forward_split", None))  # type: ignore[attr-defined]


def vectors(model: nn.Module, single: bool = False) -> list[str]:
    """Full names of a model's parameters that hold one value a channel.

    Args:
        single: whether with those of a single value, which is of one channel that was left, or of all channels alike.
    """
    return [
        f"{name}.{vector}"
        for name, block in model.named_modules()
        for vector in entry_of(block).vectors
        if isinstance(getattr(block, vector, None), nn.Parameter) and (single or getattr(block, vector).numel() > 1)
    ]


def heads(model: nn.Module) -> dict[str, int]:
    """Attentions whose heads are known to the tool -> how many heads they have."""
    return {
        name: getattr(block, entry_of(block).heads) for name, block in model.named_modules() if entry_of(block).heads
    }


def decoders(model: nn.Module) -> list[str]:
    """Names of what turns the last layers' outputs into predictions: the host's head itself, and its DFL.

    A user's own head is a block as any other: what it does may be more than that.
    """
    last = model.model[-1]  # type: ignore[index]
    stock = type(last).__module__.startswith("ultralytics.")
    return [name for name, block in model.named_modules() if (block is last and stock) or isinstance(block, host.DFL)]


def remove_heads(block: nn.Module, count: int) -> None:
    """Tell an attention that so many of its heads are gone; `set_sizes` must follow."""
    name = entry_of(block).heads
    setattr(block, name, getattr(block, name) - count)


def sizes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """What blocks keep beside their layers and a checkpoint must carry: block -> attribute -> value, plain data."""
    return {
        name: {size: getattr(block, size) for size in entry_of(block).sizes}
        for name, block in model.named_modules()
        if entry_of(block).sizes
    }


def set_sizes(model: nn.Module, kept: KeptOutputs | None = None) -> None:
    """Set the sizes that stock blocks keep beside their layers to what their layers have, in place.

    Args:
        model: a stock model, or a part of one. kept: layer -> positions of its outputs that were kept, where weights
            were just cut; where a block derives the scale of its softmax from a size, its queries take over the
            difference. None where it is rebuilt.

    Raises:
        LayerError: a block has not what its entry reads.
    """
    for name, block in model.named_modules():
        set_own = entry_of(block).set_sizes
        if set_own is not None:
            prefix = f"{name}." if name else ""
            own = None if kept is None else {k[len(prefix) :]: rows for k, rows in kept.items() if k.startswith(prefix)}
            try:
                set_own(block, own)
            except Exception as error:  # a block of a user's that is not as its entry takes it
                raise LayerError(name, first_line(error)) from error
    for top in getattr(model, "model", ()):
        top.np = sum(p.numel() for p in top.parameters())


# Whole blocks ---------------------------------------------------------------------------------------------------------


def removable(model: nn.Module) -> list[Removable]:
    """The residual blocks that can be removed whole: entries of a list `m` that fans out, and of any Sequential.

    The layers of the model's own list stay: the host counts them. So do lists with an entry that stands at two places,
    or that has a layer which does: it is needed at the other.

    Args:
        model: a stock model; its layers are `model.model`.
    """
    removable: list[Removable] = []
    taken: set[nn.Module] = {model.model}  # type: ignore[arg-type]
    # An activation may be one for the whole model (8.4.190, nn/tasks.py: `Conv.default_act`), with a slope of its own.
    named = model.named_modules(remove_duplicate=False)
    places = Counter(module for _, module in named if isinstance(module, (*LAYERS, nn.BatchNorm2d)))
    for name, block in model.named_modules():
        entries = block.m if entry_of(block).concatenates else block
        if any(places[module] > 1 for module in entries.modules()):
            continue
        if entry_of(block).concatenates:
            if type(block.cv2).forward is not host.Conv.forward:
                continue  # a user's: it has no columns that would read the input twice
            for key, item in block.m.named_children():
                if _adds(item):
                    removable.append(Removable(f"{name}.m.{key}", f"{name}.cv2.conv"))
                    taken.update(item.modules())
        elif _is_sequence(block) and block not in taken:
            removable += [Removable(f"{name}.{key}", "") for key, item in block.named_children() if _adds(item)]
    return removable


def _is_sequence(block: nn.Module) -> bool:
    """Whether a block runs its entries one after the other, and nothing else."""
    return isinstance(block, nn.Sequential) and type(block).forward is nn.Sequential.forward


def _adds(block: nn.Module) -> bool:
    if _is_sequence(block):
        return len(block) > 0 and all(_adds(item) for item in block)  # type: ignore[arg-type,attr-defined]
    adds = entry_of(block).adds
    return adds is not None and adds(block)


def remove(model: nn.Module, name: str) -> None:
    """Take a residual block out of its list, in place; the names of the others stay as they are.

    The host's code walks these lists and never indexes them, so a list with a gap (keys "0", "2") runs as it is.
    """
    owner, _, key = name.rpartition(".")
    del model.get_submodule(owner)._modules[key]
