# yolo-prune, AGPL-3.0 license
"""Does a model still run, and still compute the same, once a plan has cut it? A copy is cut first to see.

The tracer (graph/tracer.py) reads what a model does with its channels; a block that does something which it cannot
see, such as a size that the block remembers or a channel that it finds by its position, is found here. The copy is
run before and after the cut, in evaluation and in training mode:

- where the cut copy fails, the deepest module that was entered and not left is at fault;
- where the predictions change their shape, or a module's output in more than its channels, that module is;
- in evaluation the channels that go were made and read as 0 before (the oracle of tests/graph/test_oracle.py), so
  that every module must put out the same numbers after the cut, without the channels that went. The first that does
  not is at fault. What is computed from them (the activation of a 0 need not be 0) does not matter, for nobody reads
  it.

What goes into the block at fault, and what it makes, is protected, and the choice is made again.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from yolo_prune import log
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import BoundError, PruneError, first_line
from yolo_prune.graph import blocks, channel_groups, image_shape
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.convolutions import inputs_first
from yolo_prune.graph.model_state import copy_of
from yolo_prune.planning import choice
from yolo_prune.planning.choice import Baseline
from yolo_prune.recipe.settings import Recipe
from yolo_prune.surgery import cut_channels

_ROUNDS = 10  # blocks that may be found at fault, one after the other; all of one class of the user's count once
_APART = 1e-2  # of the root mean square of what a module puts out: numbers that differ by more are not rounding
_REASON = "cut in a trial, "  # begins the reason of what is protected here

Worth = Callable[[ChannelGraph], dict[str, np.ndarray]]


class Fault(NamedTuple):
    """What is wrong with a cut model: the name of the module where it shows, and how."""

    name: str
    words: str


def choose(
    model: nn.Module,
    recipe: Recipe,
    baseline: Baseline,
    bounds: Mapping[str, float],
    worth: Worth | None = None,
    avoid: dict[str, str] | None = None,
    frozen: Collection[str] = (),
) -> tuple[ChannelGraph, PrunePlan]:
    """What `choice.choose` chooses, tried on a copy; the model is not changed.

    Args:
        model, recipe, baseline, bounds, worth: see `choice.choose`.
        avoid: block -> why it is protected; what is found here is added to it, and said in the log.
        frozen: see `choice.choose`.

    Returns:
        The groups and a plan after which the model runs.

    Raises:
        BoundError: a bound is out of reach, perhaps because of what is protected here. PruneError: the model fails
            after the cut whatever is protected.
    """
    known: dict[str, str] = {} if avoid is None else avoid

    def attempt() -> tuple[ChannelGraph, PrunePlan]:
        return choice.choose(model, recipe, baseline, bounds, worth, known, frozen)

    return _settled(model, attempt, known)


def rehearse(
    model: nn.Module, recipe: Recipe, baseline: Baseline, avoid: dict[str, str], frozen: Collection[str] = ()
) -> dict[str, str]:
    """Before a training: halve every group of a copy, so that what would fail in some later step is found now.

    Args:
        model: a stock model; it is not changed. recipe, baseline: see `choice.plan`. avoid, frozen: as in `choose`.

    Returns:
        `avoid`, with what was found.

    Raises:
        BoundError, PruneError: as in `choose`.
    """

    def attempt() -> tuple[ChannelGraph, PrunePlan]:
        found = channel_groups.build(model, recipe.protect, avoid, frozen).without_trace()
        choice.check_reachable(model, found, recipe, baseline)
        return found, _halves(found)

    _settled(model, attempt, avoid)
    return avoid


def _halves(found: ChannelGraph) -> PrunePlan:
    """A plan that keeps half of every group, drawn at random; tied groups keep equal counts."""
    random = np.random.default_rng(0)
    keep = {}
    for group in found.groups:
        count = max(group.size // group.times // 2, 1) * group.times
        if count < group.size:
            keep[group.name] = np.sort(random.choice(group.size, count, replace=False))
    return PrunePlan(keep)


def _settled(
    model: nn.Module, attempt: Callable[[], tuple[ChannelGraph, PrunePlan]], avoid: dict[str, str]
) -> tuple[ChannelGraph, PrunePlan]:
    """Choose until the choice holds."""
    fault: Fault | None = None
    for _ in range(_ROUNDS):
        try:
            found, plan = attempt()
        except BoundError as error:
            if not avoid:
                raise
            raise BoundError(f"{error}. Protected, because a cut fails there: {_listed(model, avoid)}") from error
        fault = examine(model, found, plan)
        gc.collect()  # the copy may be part of a circle: without this it stays beside what comes next
        if fault is None:
            return found, plan
        blamed = _blamed(model, fault.name, avoid)
        if not blamed:
            break
        words = f"{_REASON}{blamed[0]} ({type(model.get_submodule(blamed[0])).__name__}) {fault.words}"
        avoid.update(dict.fromkeys(blamed, words))
        more = f" and into {len(blamed) - 1} more of its class" if len(blamed) > 1 else ""
        log.say(
            f"{words}: what goes into it{more} and what it makes is protected. "
            "docs/adding-a-block.md says how to teach a block"
        )
    assert fault is not None
    raise PruneError(
        f"cut in a trial, {fault.name or 'the model'} {fault.words}, though everything is protected in "
        f"{_listed(model, avoid) or 'no block'}: protect what goes into it (protect: in a recipe file), or teach "
        "the block (docs/adding-a-block.md). Nothing was cut"
    )


def _listed(model: nn.Module, avoid: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({type(model.get_submodule(name)).__name__})" for name in avoid)


def _blamed(model: nn.Module, name: str, avoid: Mapping[str, str]) -> list[str]:
    """Which block to protect for a fault: the smallest that is none of the plain layers and not protected yet.

    It is the module itself or one that holds it; after these, what the layer of the model's own list reads. Blocks of
    a user's class go together. Empty where nothing is left.
    """
    modules = dict(model.named_modules())
    parts = name.split(".")
    chain = [".".join(parts[:end]) for end in range(len(parts), 1, -1)]
    top = chain[-1] if chain else f"model.{len(model.model) - 1}"  # type: ignore[arg-type]
    around = [one for one in chain if not _plain(modules[one])] or [top]
    if top not in around:
        around.append(top)
    for one in around:
        if one not in avoid:
            kind = type(modules[one])
            if kind.__module__.startswith(("ultralytics.", "torch.")):
                return [one]
            return [one, *(other for other, m in modules.items() if type(m) is kind and other not in (one, *avoid))]
    number = int(top.rpartition(".")[2])
    given = getattr(modules[top], "f", -1)
    reads = [number + f if f < 0 else f for f in (given if isinstance(given, list) else [given])]
    return [f"model.{one}" for one in reads if one >= 0 and f"model.{one}" not in avoid]


def _plain(module: nn.Module) -> bool:
    """Whether a module is a layer of torch, a list of them, or the host's convolution with its norm."""
    kind = type(module).__module__
    return kind.startswith("torch.") or kind == "ultralytics.nn.modules.conv"


# One trial ------------------------------------------------------------------------------------------------------------


def examine(model: nn.Module, found: ChannelGraph, plan: PrunePlan) -> Fault | None:
    """Cut a copy by a plan, and see whether it does what it did.

    Args:
        model: a stock model on any device, in any mode; it is not changed, and no random state is.
        found: its groups. plan: what stays of them.

    Returns:
        The first fault, or None. A model that does not run on an image of this size before the cut is not judged.
    """
    if not plan.keep and not plan.blocks and not plan.heads:
        return None
    shadow = copy_of(model).to(device="cpu", dtype=torch.float32).requires_grad_(False)
    side = (
        64 if not any(hasattr(module, "num_queries") for module in shadow.modules()) else 192
    )  # as in graph/tracer.py
    images = torch.rand(2, image_shape.channels(shadow), side, side, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        with _removed(shadow, plan):
            _silence(shadow, found, plan)
            before = [_run(shadow, images, training) for training in (False, True)]
        if any(run.fault is not None for run in before):
            return None
        try:
            cut_channels.apply(shadow, found, plan)
        except cut_channels.LayerError as error:
            return Fault(error.layer, f"cannot be cut: {error}")
        for run in before:
            fault = _run(shadow, images, run.training, run).fault
            if fault is not None and (fault.name not in run.numbers or _is_steady(model, images)):
                return fault
    return None


def _is_steady(model: nn.Module, images: torch.Tensor) -> bool:
    """Whether what a module puts out in evaluation is the same each time: noise tells nothing of a cut."""
    shadow = copy_of(model).to(device="cpu", dtype=torch.float32).requires_grad_(False)
    first = _run(shadow, images, False)
    torch.manual_seed(1)
    return _run(shadow, images, False, first).fault is None


@contextlib.contextmanager
def _removed(shadow: nn.Module, plan: PrunePlan) -> Iterator[None]:
    """Let what is to be removed whole hand its input on for now."""
    taken = {}
    for name in plan.blocks:
        owner, _, key = name.rpartition(".")
        held = shadow.get_submodule(owner)
        taken[name] = held._modules[key]
        held._modules[key] = nn.Identity()
    try:
        yield
    finally:
        for name, block in taken.items():
            owner, _, key = name.rpartition(".")
            shadow.get_submodule(owner)._modules[key] = block


def _silence(shadow: nn.Module, found: ChannelGraph, plan: PrunePlan) -> None:
    """Make and read as 0 what the plan drops, in place."""
    modules = dict(shadow.named_modules())
    for group in found.groups:
        kept = plan.keep.get(group.name)
        if kept is None:
            continue
        gone = np.setdiff1d(np.arange(group.size), kept)
        for member in group.members:
            where = torch.as_tensor(member.positions[np.isin(member.channels, gone)])
            if member.side == "work":
                continue
            module = modules.get(member.module)
            if module is None:  # a parameter that is a vector of its own; or its block is removed
                block, _, vector = member.module.rpartition(".")
                weight = getattr(modules.get(block), vector, None)
            else:
                weight = getattr(module, "weight", None)
            if not isinstance(weight, torch.Tensor):
                continue
            # An output is dimension 0 of a weight, an input dimension 1; of a transposed convolution the other way.
            transposed = inputs_first(module)
            if (member.side == "in") != transposed and weight.ndim > 1:
                weight[:, where] = 0
            else:
                weight[where] = 0
            bias = getattr(module, "bias", None)
            if member.side == "out" and isinstance(bias, torch.Tensor):
                bias[where] = 0


@dataclass
class _Pass:
    """What one run of a copy showed.

    Attributes:
        training: the mode. given: (module, number of its call) -> the tensors it put out. shapes: of the predictions.
        numbers: modules whose numbers are compared. fault: where the run failed, or was not what an earlier one was.
    """

    training: bool
    given: dict[tuple[str, int], list[torch.Tensor]] = field(default_factory=dict)
    shapes: list[torch.Size] = field(default_factory=list)
    numbers: set[str] = field(default_factory=set)
    fault: Fault | None = None


def _run(shadow: nn.Module, images: torch.Tensor, training: bool, earlier: _Pass | None = None) -> _Pass:
    """Run a copy in a mode, its BatchNorms in evaluation; with an earlier run, compare the two."""
    run = _Pass(training)
    path: list[str] = []
    calls: dict[str, int] = {}
    run.numbers = set() if training else _judged(shadow)

    def enter(name: str) -> Callable[..., None]:
        return lambda module, args: path.append(name)

    def leave(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, out: Any) -> None:
            while path.pop() != name:
                pass
            calls[name] = calls.get(name, 0) + 1
            if run.fault is not None:
                return
            tensors = list(_tensors(out))
            if earlier is None:
                run.given[name, calls[name]] = [tensor.clone() for tensor in tensors]
                return
            words = _difference(earlier.given.get((name, calls[name])), tensors, name in run.numbers)
            run.fault = Fault(name, words) if words and name else None

        return look

    handles = []
    for name, module in shadow.named_modules():
        module.training = training and not isinstance(module, nn.modules.batchnorm._BatchNorm)
        if not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(module.register_forward_hook(leave(name)))
    torch.manual_seed(0)
    try:
        result = shadow(images)
        run.shapes = [tensor.shape for tensor in _tensors(result, feats=False)]
    except Exception as error:  # whatever a block raises, it is that block's fault
        run.fault = Fault(path[-1] if path else "", f"fails in {_mode(training)} ({first_line(error)[:160]})")
    finally:
        for handle in handles:
            handle.remove()
    if run.fault is None and earlier is not None and run.shapes != earlier.shapes:
        was, now = ([tuple(shape) for shape in shapes] for shapes in (earlier.shapes, run.shapes))
        run.fault = Fault("", f"puts out {now} in {_mode(training)} where it was {was}")
    return run


def _mode(training: bool) -> str:
    return "training mode" if training else "evaluation"


def _judged(shadow: nn.Module) -> set[str]:
    """Modules whose numbers a cut must not change in evaluation.

    Inside a block that has been taught, a cut may move a factor from one layer to another (graph/blocks.py). What
    picks the best predictions picks others where two are almost equal, so decoders are not judged, nor what follows a
    choice of queries.
    """
    names = dict(shadow.named_modules())
    inside = {name for name, block in names.items() if blocks.entry_of(block).lesson is not None}
    choosing = {name for name, block in names.items() if hasattr(block, "num_queries")}
    skipped = {"", *blocks.decoders(shadow), *choosing}
    return {
        name
        for name in names
        if name not in skipped and not any(name.startswith(f"{other}.") for other in inside | choosing)
    }


def _tensors(value: Any, feats: bool = True) -> Iterator[torch.Tensor]:
    """Every tensor in what a module puts out; "feats" are what a head hands through, as wide as what it reads."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if feats or key != "feats":
                yield from _tensors(item, feats)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, feats)


def _difference(before: list[torch.Tensor] | None, after: list[torch.Tensor], numbers: bool) -> str:
    """How the outputs of a module differ by more than channels that are gone; empty where they do not."""
    if before is None:
        return ""  # it is called more often than before: what it then puts out shows further on
    if len(before) != len(after):
        return f"puts out {len(after)} tensors where it was {len(before)}"
    for old, new in zip(before, after, strict=True):
        changed = [d for d, (a, b) in enumerate(zip(old.shape, new.shape, strict=False)) if a != b]
        if old.ndim != new.ndim or len(changed) > 1 or any(new.shape[d] > old.shape[d] for d in changed):
            return f"puts out {tuple(new.shape)} where it was {tuple(old.shape)}"
        if numbers and old.is_floating_point() and not _same(old, new, changed[0] if changed else None):
            return "computes something else than before"
    return ""


def _same(old: torch.Tensor, new: torch.Tensor, dim: int | None) -> bool:
    """Whether two tensors agree, where along `dim` some channels of the old one are gone and the others keep order."""
    if not old.numel() or not new.numel() or not bool(torch.isfinite(old).all()):
        return True
    scale = float(old.square().mean().sqrt())
    if dim is None:
        return bool((old - new).square().mean().sqrt() <= _APART * scale)
    left, right = (tensor.movedim(dim, 0).flatten(1).double() for tensor in (old, new))
    # A channel is told by two sums of its values, weighted at random: rounding moves them by far less than _APART.
    weights = torch.randn(left.shape[1], 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    margin = 4 * _APART * scale * left.shape[1] ** 0.5
    marks, wanted = (left @ weights).tolist(), (right @ weights).tolist()
    position = 0
    for first, second in marks:
        if position < len(wanted):
            a, b = wanted[position]
            position += abs(a - first) <= margin and abs(b - second) <= margin
    return position == len(wanted)
