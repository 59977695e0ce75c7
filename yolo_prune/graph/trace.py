# yolo-prune, AGPL-3.0 license
"""What is known of where channels go: the result of tracer.py, and what a layer does to it.

Every output channel of a convolution or linear layer gets a number, an *id*, and each layer notes which id stands at
which position. Ids that end up in the same places form a channel group. For `Conv2d(a) -> BN -> Conv2d(b)`, `a` of 16
outputs:

    ids 0..15 are made by a;   ("a", "out"): 0..15;   ("bn", "out"): 0..15;   ("b", "in"): 0..15
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import nn

from yolo_prune.allocation.units import Head
from yolo_prune.graph.convolutions import is_depthwise
from yolo_prune.graph.model_state import home_of

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Side = Literal["out", "in", "work"]
NONE = -1  # the id of a channel that no layer of the model makes, such as the image's


@dataclass
class Trace:
    """What one model's passes found.

    Attributes:
        uses: (module name, side) -> ids at each position; side is "out" (rows, entries of a vector), "in" (columns)
            or "work" (a product without weights, which costs something for each channel).
            A parameter that is a vector of its own stands under its full name.
        fixed: id -> why it is never cut. outputs: ids that leave the model as its predictions.
        equal: (name of the block that wants it, parts); each part is (ids, times): all parts keep one count, times
            their own factor. C2f splits into (first half, 1), (second half, 1).
        tags: id -> marks that keep channels apart that stand in the same places (one half from the other).
        heads: id -> the head that the channel belongs to.
        untaught: block -> an operation in it that the tracer does not follow, so that what goes into it is fixed.
        decoders: blocks whose own operations turn the last layers' outputs into predictions.
        uneven: blocks that split by sizes of their own.
        channels: module name -> channels of what it gives, in the last pass.
        sizes: pixels of the image in each pass; the second is the pass in training mode.
        area: layer name -> output pixels or tokens of one image in each pass, added up over the layer's calls.
        products: attention's matrix products: name -> (ids, multiply-adds for each of them in each pass).
        entered: module name -> ids of the tensors that it was called with.
        opaque: block -> why nothing that goes into it or is made in it is cut: a function in it hides what it does.
        splits: (block, ids of a tensor that it splits) -> the number of this split.
        used_elsewhere: layer -> why neither its outputs nor its inputs are cut: something besides it uses its weights.
    """

    uses: dict[tuple[str, Side], np.ndarray] = field(default_factory=dict)
    fixed: dict[int, str] = field(default_factory=dict)
    outputs: set[int] = field(default_factory=set)
    equal: list[tuple[str, list[tuple[np.ndarray, int]]]] = field(default_factory=list)
    tags: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    heads: dict[int, Head] = field(default_factory=dict)
    uneven: frozenset[str] = frozenset()
    decoders: frozenset[str] = frozenset()
    untaught: dict[str, str] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    sizes: tuple[int, int, int] = (64, 64, 128)
    area: dict[str, list[float]] = field(default_factory=dict)
    products: dict[str, tuple[np.ndarray, list[float]]] = field(default_factory=dict)
    entered: dict[str, set[int]] = field(default_factory=dict)
    opaque: dict[str, str] = field(default_factory=dict)
    used_elsewhere: dict[str, str] = field(default_factory=dict)
    splits: dict[tuple[str, bytes], int] = field(default_factory=dict)
    parent: list[int] = field(default_factory=list)
    number: int = 0  # of the pass, while a lesson runs
    pixels: int = 0  # of the taught block's output

    def work(self, name: str, ids: np.ndarray, each: float) -> None:
        """Note a matrix product of this pass: multiply-adds for each of these channels."""
        self.products.setdefault(name, (ids, [0.0] * len(self.sizes)))[1][self.number] += each
        self.use(name, "work", ids)

    def new(self, count: int) -> np.ndarray:
        """Make ids."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, i: int) -> int:
        """The id that stands for `i` and all that were made one with it."""
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, first: np.ndarray, second: np.ndarray, why: str) -> None:
        """Make ids one, position by position; an id that meets a channel of no layer is fixed."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            if a == NONE or b == NONE:
                self.fix(np.array([a, b]), why)
                continue
            a, b = self.find(a), self.find(b)
            if a != b:
                self.parent[max(a, b)] = min(a, b)

    def fix(self, ids: np.ndarray, why: str) -> None:
        """Protect channels: they are in no group that is cut."""
        for i in ids.tolist():
            if i != NONE:
                self.fixed.setdefault(i, why)

    def use(self, name: str, side: Side, ids: np.ndarray) -> np.ndarray:
        """Note ids at the positions of a layer; a layer that is run again joins what it saw before."""
        before = self.uses.setdefault((name, side), ids)
        if before is not ids:
            self.join(before, ids, f"{name} is run on different tensors")
        return before

    def inside(self, name: str) -> set[int]:
        """The ids that go into a module, or are made or read by a layer in it."""
        ids = set(self.entered.get(name, ()))
        for (module, _), places in self.uses.items():
            if not name or module == name or module.startswith(f"{name}."):
                ids.update(places.tolist())
        return ids - {NONE}

    def tag(self, ids: np.ndarray, name: str, part: int) -> None:
        """Keep these channels apart from those with another mark."""
        for i in ids.tolist():
            if i != NONE and (name, part) not in self.tags.setdefault(i, []):
                self.tags[i].append((name, part))

    def split(self, where: str, ids: np.ndarray) -> str:
        """The name of the marks of one split: a block may split a tensor, and the parts of it once more."""
        return f"{where}|split {self.splits.setdefault((where, ids.tobytes()), len(self.splits))}"

    def head(self, ids: np.ndarray, name: str, number: int, side: Literal["key", "value"]) -> None:
        """These are the queries and keys, or the values, of one head of an attention."""
        self.tag(ids, f"{name}|{side}", number)
        self.heads.update((i, Head(name, number, side)) for i in ids.tolist() if i != NONE)

    def resolve(self) -> None:
        """Fix what is around hidden functions, and rewrite everything in terms of the ids that stand for others."""
        for name, why in self.opaque.items():
            self.fix(np.array(sorted(self.inside(name)), dtype=int), why)
        for name, why in self.used_elsewhere.items():
            for side in ("out", "in"):
                self.fix(self.uses.get((name, side), np.array([], dtype=int)), why)
        root = np.array([self.find(i) for i in range(len(self.parent))] + [NONE])  # NONE indexes the last entry
        self.uses = {key: root[ids] for key, ids in self.uses.items()}
        self.equal = [(name, [(root[part], times) for part, times in parts]) for name, parts in self.equal]
        self.heads = {int(root[i]): head for i, head in self.heads.items()}
        self.outputs = {int(root[i]) for i in self.outputs}
        self.products = {name: (root[ids], work) for name, (ids, work) in self.products.items()}
        self.entered = {name: {int(root[i]) for i in ids} for name, ids in self.entered.items()}
        fixed: dict[int, str] = {}
        for i, why in self.fixed.items():
            fixed.setdefault(int(root[i]), why)
        self.fixed = fixed
        tags: dict[int, list[tuple[str, int]]] = {}
        for i, marks in self.tags.items():
            mine = tags.setdefault(int(root[i]), [])
            mine.extend(mark for mark in marks if mark not in mine)
        self.tags = tags


# Their hooks look, and change nothing.
_HOOKING = {
    "yolo_prune",
    "ultralytics",
    "torch",
    "thop",
    "modelopt",
    "wandb",
    "comet_ml",
    "clearml",
    "fvcore",
    "torchinfo",
}
_OWN: dict[type, set[str]] = {
    nn.Conv2d: {"weight", "bias"},
    nn.ConvTranspose2d: {"weight", "bias"},
    nn.Linear: {"weight", "bias"},
    nn.BatchNorm2d: {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
}


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer that the tool cuts: a convolution, a linear layer or a BatchNorm, and nothing else.

    A subclass with a forward of its own is another layer. So is one whose weight is computed from other tensors at each
    call (weight norm, spectral norm, the masks of torch.nn.utils.prune) or that has further ones.
    """
    kind = next((kind for kind in _OWN if isinstance(module, kind)), None)
    if kind is None or "forward" in vars(module):
        return False
    for name in ("forward", "_conv_forward", "_check_input_dim", "_output_padding", "__call__", "_call_impl"):
        if getattr(type(module), name, None) is not getattr(kind, name, None):
            return False
    own = {*module._parameters, *module._buffers}
    return own <= _OWN[kind] and _OWN[kind] - own <= {"num_batches_tracked"} and not _is_hooked(module)


def _is_hooked(module: nn.Module) -> bool:
    """Whether a user's hook may change what goes into a layer or comes out of it."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    homes = [home_of(hook) for hook in hooks]
    return any(home.partition(".")[0] not in _HOOKING for home in homes)


def why_none(module: nn.Module) -> str:
    """What keeps a convolution, a linear layer or a BatchNorm from being one of `is_layer`."""
    kind = next(kind.__name__ for kind in _OWN if isinstance(module, kind))
    own = {*module._parameters, *module._buffers}
    if set(own) - _OWN[next(kind for kind in _OWN if isinstance(module, kind))] or "weight" not in own:
        return f"is a {kind} whose weight is computed from {', '.join(sorted(own - {'bias'})) or 'other tensors'}"
    if _is_hooked(module):
        return f"is a {kind} with a hook that may change what it gives"
    return f"is a {type(module).__name__}, a {kind} with a forward of its own"


# What a block does beyond plain operations: (trace, its name, the module, ids of its input) -> ids of its output.
Lesson = Callable[[Trace, str, Any, np.ndarray], np.ndarray]


def layer(trace: Trace, name: str, module: Any, ids: np.ndarray) -> np.ndarray:
    """What a layer does with ids: a BatchNorm and a depthwise convolution hand them on, the others make new ones.

    Args:
        trace: to note it in. name: the layer's. module: the layer. ids: of its input.

    Returns:
        The ids of its output.
    """
    if isinstance(module, nn.BatchNorm2d):
        return trace.use(name, "out", ids)
    groups: int = getattr(module, "groups", 1)
    if groups > 1 and is_depthwise(module):
        return trace.use(name, "out", ids)
    count = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    made = trace.uses.get((name, "out"))
    made = trace.use(name, "out", trace.new(count)) if made is None else made
    trace.use(name, "in", ids)
    if groups > 1:
        trace.fix(ids, f"goes into {name}, a grouped convolution")
        trace.fix(made, f"comes from {name}, a grouped convolution")
    return made
