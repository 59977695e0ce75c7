# yolo-prune, AGPL-3.0 license
"""Does a model still run, and still compute the same, once a plan has cut it? A copy is cut first to see.

The tracer (graph/tracer.py) reads what a model does with its channels; a block that does something which it cannot
see, such as a size that the block remembers or a channel that it finds by its position, is found here. The copy is
run before and after the cut, in evaluation and in training mode:

- where the cut copy fails, the deepest module that was entered and not left is at fault;
- where the predictions change their shape, or a module's output in more than its channels, that module is;
- the channels that go were made and read as 0 before (the oracle of tests/graph/test_oracle.py), so that every module
  must put out the same numbers after the cut, without the channels that went. The first that does not is at fault.
  What is computed from them (the activation of a 0 need not be 0) does not matter, for nobody reads
  it. A block that any cut moves a little (`approximate` in graph/blocks.py) hands its input on in both runs.

A forward may change what a model remembers: running statistics in training mode, a size, a cache. Every run that is
compared therefore starts from the same state, on a copy of its own. Modules that differ from themselves without any cut
(noise) are not compared; dropout, which is noise of which we know that it is no fault, is left out of all runs.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from yolo_prune import log
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import LayerError, first_line
from yolo_prune.graph import blocks, image_shape
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.convolutions import inputs_first
from yolo_prune.graph.model_state import copy_of, release
from yolo_prune.graph.operations import name_of
from yolo_prune.surgery import cut_channels

_APART = 1e-2  # of the root mean square of what a module puts out: numbers that differ by more are not rounding


class Fault(NamedTuple):
    """What is wrong with a cut model: the name of the module where it shows, and how."""

    name: str
    words: str


def examine(model: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> Fault | None:
    """Cut a copy by a plan, and see whether it does what it did.

    Args:
        model: a stock model on any device, in any mode; it is not changed, and no random state is.
        graph: its groups. plan: what stays of them.

    Returns:
        The first fault, or None. A model that runs on no small image before the cut is not judged, and that is said.
    """
    if not plan.keep and not plan.blocks and not plan.heads:
        return None
    with _copied(model) as shadow:
        return _examine(model, shadow, graph, plan)


def _examine(model: nn.Module, shadow: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> Fault | None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        with _removed(shadow, plan):
            _silence(shadow, graph, plan)
            images, before = _run_uncut(shadow)
        if any(run.fault is not None for run in before):
            name, words = next(run.fault for run in before if run.fault is not None)
            if plan.blocks and all(run.fault is None for run in _run_uncut(shadow)[1]):
                return Fault(name, f"{words} without {', '.join(plan.blocks)}")
            log.say(f"no cut can be tried on a copy first: uncut, {name or 'the model'} {words} on two random images")
            return None
        try:
            cut_channels.apply(shadow, graph, plan)
        except LayerError as error:
            return Fault(error.layer, f"cannot be cut: {error}")
        for run in before:
            fault = _run_copy(shadow, images, run.training, run).fault
            if fault is not None and fault.name in run.numbers:
                fault = _run_copy(shadow, images, run.training, run, _unsteady(model, images, run.training)).fault
            if fault is not None:
                return fault
    return None


def _run_uncut(shadow: nn.Module) -> tuple[torch.Tensor, list[_Pass]]:
    """The smallest images that a copy runs on (on none: the largest tried), and its runs in both modes."""
    for side in image_shape.tried(shadow):
        images = torch.rand(2, image_shape.channels(shadow), side, side, generator=torch.Generator().manual_seed(0))
        # Once in each mode first: what a block remembers of the uncut model's forward is there before the cut.
        runs = [_run(shadow, images, training) for training in (False, True)]
        if all(run.fault is None for run in runs):
            runs = [_run_copy(shadow, images, training) for training in (False, True)]
        if all(run.fault is None for run in runs):
            break
    return images, runs


@contextlib.contextmanager
def _copied(model: nn.Module) -> Iterator[nn.Module]:
    """A copy on the CPU in FP32, whose memory is given back at the end."""
    shadow = copy_of(model).to(device="cpu", dtype=torch.float32).requires_grad_(False)
    modules = list(shadow.modules())
    try:
        yield shadow
    finally:
        release(modules)


def _unsteady(model: nn.Module, images: torch.Tensor, training: bool) -> set[str]:
    """Modules that put out something else each time in a mode, uncut: noise tells nothing of a cut."""
    with _copied(model) as shadow:
        first = _run_copy(shadow, images, training)
        _run_copy(shadow, images, not training)  # what it changes outside the copy, as in a class, shows below
        return _run_copy(shadow, images, training, first, seed=1).different


class _WithoutDropout(TorchFunctionMode):
    """Lets dropout of any kind hand its input on, also where a block calls it in evaluation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "dropout" in name_of(func):
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


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


def _silence(shadow: nn.Module, graph: ChannelGraph, plan: PrunePlan) -> None:
    """Make and read as 0 what the plan drops, in place."""
    modules = dict(shadow.named_modules())
    for group in graph.groups:
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
        numbers: modules whose numbers are compared. different: modules that were not what they were in an earlier run.
        fault: where the run failed, or was first not what an earlier one was.
    """

    training: bool
    given: dict[tuple[str, int], list[torch.Tensor]] = field(default_factory=dict)
    shapes: list[torch.Size] = field(default_factory=list)
    numbers: set[str] = field(default_factory=set)
    different: set[str] = field(default_factory=set)
    fault: Fault | None = None


def _run_copy(shadow: nn.Module, images: torch.Tensor, *args: Any, **options: Any) -> _Pass:
    """`_run` of a copy that shares the parameters, so that the forward changes no buffer or attribute of `shadow`."""
    copy = deepcopy(shadow, {id(parameter): parameter for parameter in shadow.parameters()})
    try:
        return _run(copy, images, *args, **options)
    finally:
        release(copy.modules())


def _run(
    shadow: nn.Module,
    images: torch.Tensor,
    training: bool,
    earlier: _Pass | None = None,
    ignored: Collection[str] = (),
    seed: int = 0,
) -> _Pass:
    """Run a copy in a mode, its BatchNorms in evaluation; with an earlier run, compare the two but for `ignored`."""
    run = _Pass(training)
    path: list[str] = []
    calls: dict[str, int] = {}
    run.numbers = _judged(shadow)
    shared = _shared(shadow)

    def enter(name: str) -> Callable[..., None]:
        return lambda module, args: path.append(name)

    def leave(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, out: Any) -> None:
            while path.pop() != name:
                pass
            calls[name] = calls.get(name, 0) + 1
            if name in ignored:
                return
            tensors = list(_tensors(out))
            if earlier is None:
                run.given[name, calls[name]] = [tensor.clone() for tensor in tensors]
                return
            block = _unshared(name, path, shared)
            words = _difference(earlier.given.get((name, calls[name])), tensors, block in run.numbers)
            if words and name:
                run.different.add(name)
                run.fault = run.fault or Fault(block, words + " in training mode" * training)

        return look

    handles = []
    for name, module in shadow.named_modules():
        module.training = training and not isinstance(module, nn.modules.batchnorm._BatchNorm)
        if not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
            if blocks.entry_of(module).approximate:
                handles.append(module.register_forward_hook(_handed_on, with_kwargs=True))
            handles.append(module.register_forward_hook(leave(name)))
    torch.manual_seed(seed)
    try:
        with _WithoutDropout():
            result = shadow(images)
        run.shapes = [tensor.shape for tensor in _tensors(result, feats=False)]
    except Exception as error:  # whatever a block raises, it is that block's fault
        block = _unshared(path[-1] if path else "", path, shared)
        run.fault = Fault(block, f"fails in {_mode(training)} ({first_line(error)[:160]})")
    finally:
        for handle in handles:
            handle.remove()
    if run.fault is None and earlier is not None and run.shapes != earlier.shapes:
        was, now = ([tuple(shape) for shape in shapes] for shapes in (earlier.shapes, run.shapes))
        run.fault = Fault("", f"puts out {now} in {_mode(training)} where it was {was}")
    return run


def _shared(shadow: nn.Module) -> set[str]:
    """Modules that stand at several places, by their first: one activation may be all convolutions' (`default_act`)."""
    places = Counter(module for _, module in shadow.named_modules(remove_duplicate=False))
    return {name for name, module in shadow.named_modules() if places[module] > 1}


def _unshared(name: str, path: list[str], shared: Collection[str]) -> str:
    """The module, or, where its name does not tell the place, the innermost block on the way whose name does."""
    return next((one for one in (name, *reversed(path)) if one not in shared), "")


def _handed_on(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
    """In the place of what a block gives that any cut moves: its input, or ones where that has another shape."""
    given = next(_tensors((args, kwargs)), None)
    if not isinstance(out, torch.Tensor):
        return out
    return given if given is not None and given.shape == out.shape else torch.ones_like(out)


def _mode(training: bool) -> str:
    return "training mode" if training else "evaluation"


def _judged(shadow: nn.Module) -> set[str]:
    """Modules whose numbers a cut must not change.

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
