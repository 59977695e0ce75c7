# yolo-prune, AGPL-3.0 license
"""Where every channel goes: forward passes in which each channel carries a name of its own.

Tensors carry the ids of their channels through the model's own forward: activations and pooling hand them on, `cat` and
`chunk` join and part the lists, `+` and `*` of two tensors make pairs of ids one, and what reads the tensor notes which
id stands at which position (trace.py).

Nothing is guessed: an operation that is not in operations.py, or not in this use of it, *fixes* the ids that go into
it, with its name and place as the reason, so a block that nobody has taught is protected whole. What a block does
beyond plain operations (attention's reshape by heads) is taught in blocks.py.

Some functions are not seen: scripted ones, numpy, `vmap`. Their results give them away. Each tensor that comes of what
was seen is marked; where one without a mark is used, everything around is fixed (`Trace.opaque`). So it is where a
tensor was changed in place since it was last seen.

Three passes are made: in evaluation, in training mode, because heads run branches in one that they skip in the other,
and at a second size, which tells how the work grows. BatchNorms stay in evaluation; nothing in the model is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from yolo_prune.errors import PruneError
from yolo_prune.graph import image_shape
from yolo_prune.graph.channel_counts import count, counts_in, shape_of
from yolo_prune.graph.operation_names import BLIND, READS, SHAPES
from yolo_prune.graph.operations import Call, Label, followed, name_of, tensors_in
from yolo_prune.graph.trace import LAYERS, NONE, Lesson, Trace, is_layer, layer, why_none

_LABEL = "yolo_prune_label"  # the attribute of a tensor that holds its label, so that both are freed together
_OF_TORCH = frozenset(vars(nn.Module()))  # the attributes that every module has
_VERSION = "yolo_prune_version"  # that of a tensor, not of its views, which counts its changes in place


@dataclass(frozen=True)
class Known:
    """What is known of a model's blocks before it runs.

    Attributes:
        lessons: block -> what it does with ids, in place of its own operations.
        vectors: full names of parameters that hold one value a channel.
        sized: blocks whose sizes follow a cut, so that they may split by them.
        uneven: blocks that split by sizes of their own, where others need equal parts.
        decoders: blocks that turn the last layers' outputs into predictions by operations of their own.
        head: that of them which is the model's last layer; what comes into it is no output yet.
        unlike: blocks of a known class that have another part than it -> that part: nothing around them is cut.
    """

    lessons: Mapping[nn.Module, Lesson] = field(default_factory=dict)
    vectors: tuple[str, ...] = ()
    sized: frozenset[str] = frozenset()
    uneven: frozenset[str] = frozenset()
    decoders: frozenset[str] = frozenset()
    head: str = ""
    unlike: Mapping[str, str] = field(default_factory=dict)


class _Mode(TorchFunctionMode):
    """Sees every torch function of a forward pass and hands the labels on."""

    def __init__(self, trace: Trace, known: Known, owners: Mapping[int, str]) -> None:
        super().__init__()
        self.trace = trace
        self.known = known
        self.owners = owners  # id of a layer's parameter or buffer -> the layer
        self.mark = object()  # labels of another pass do not count
        self.hidden = 0  # above 0 inside a layer or a taught block: its hook does the labelling
        self.path: list[str] = []
        self.own = False  # while code of this module looks at tensors

    @property
    def where(self) -> str:
        """The block whose code runs."""
        return self.path[-1] if self.path else ""

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let code of this module look at tensors, unseen."""
        was, self.own = self.own, True
        try:
            yield
        finally:
            self.own = was

    def of(self, tensor: Any) -> Label | None:
        mark, label = getattr(tensor, _LABEL, (None, None)) if isinstance(tensor, torch.Tensor) else (None, None)
        return label if mark is self.mark else None

    def seen(self, tensor: torch.Tensor) -> bool:
        """Whether it is known where a tensor comes from, and that nothing has changed it since."""
        mark, label = getattr(tensor, _LABEL, (None, None))
        if mark is not self.mark:
            return False
        whole = tensor if tensor._base is None else tensor._base
        mark, version = getattr(whole, _VERSION, (None, 0))
        return label is None or mark is not self.mark or version == _version_of(tensor)

    def put(self, tensor: torch.Tensor, ids: np.ndarray, dim: int) -> None:
        setattr(tensor, _LABEL, (self.mark, Label(ids, dim)))

    def plain(self, tensor: torch.Tensor) -> None:
        """It has no channels of a layer, and comes of what was seen."""
        if getattr(tensor, _LABEL, (None, None))[0] is not self.mark:
            setattr(tensor, _LABEL, (self.mark, None))

    def note(self, tensors: Iterable[torch.Tensor]) -> None:
        """How often these tensors have been changed in place by now."""
        for tensor in tensors:
            whole = tensor if tensor._base is None else tensor._base
            setattr(whole, _VERSION, (self.mark, _version_of(tensor)))

    def mark_opaque(self, where: str, tensors: Iterable[torch.Tensor]) -> None:
        """What comes of a function that torch does not show, or was changed by one, may hold any channel around."""
        why = f"may go through a function in {where or 'the model'} that the tracer cannot see"
        self.trace.opaque.setdefault(where, why)
        self.trace.untaught.setdefault(where, "a function that the tracer cannot see")
        for tensor in tensors:
            self.plain(tensor)
            label = self.of(tensor)
            if label is not None:
                self.trace.fix(label.ids, why)
        self.note(tensors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if self.hidden or self.own:
            return func(*args, **kwargs)
        if name in READS:
            return self._measured(name, args, kwargs, func(*args, **kwargs))
        tensors = list(tensors_in((args, list(kwargs.values()))))
        strange = [tensor for tensor in tensors if not self.seen(tensor)]
        if strange:
            self.mark_opaque(self.where, strange)
        self._foreign(name, tensors)
        out = func(*args, **kwargs)
        labels = [self.of(tensor) for tensor in tensors]
        goes_on = False
        if any(label is not None for label in labels) and name not in BLIND:
            where = self.where
            known = self.known
            call = Call(name, args, kwargs, out, tensors, labels, where, self.trace, self.put, where in known.sized)
            goes_on = self._followed(call._replace(uneven=where in known.uneven))
            if not goes_on:
                self._stop(name, [label for label in labels if label is not None])
                if name.endswith("_") and isinstance(out, torch.Tensor):  # in place: its channels may lie elsewhere now
                    setattr(out, _LABEL, (self.mark, None))
        if not (goes_on and name in SHAPES):  # these rules have looked at the counts
            for number in counts_in((args, kwargs)):
                self._counted(number.ids, name)
        made = list(tensors_in(out))
        for tensor in made:
            self.plain(tensor)
        self.note((*tensors, *made))
        return out

    def _measured(self, name: str, args: Any, kwargs: Any, out: Any) -> Any:
        """Sizes of a tensor, of which one is the count of its channels."""
        tensor = args[0] if args else kwargs.get("input")
        label = self.of(tensor)
        if label is None or name not in ("get shape", "size", "numel", "nelement"):
            return out
        at = label.dim + tensor.ndim
        if isinstance(out, torch.Size):
            return shape_of(out, at, label.ids, self._counted)
        if name == "size":
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            at_end = isinstance(dim, int) and dim % (at - label.dim) == at
            return count(out, label.ids, self._counted) if at_end else out
        return count(out, label.ids, self._counted, whole=False)

    def _counted(self, ids: np.ndarray, name: str = "arithmetic") -> None:
        """Fix channels whose number goes into an operation that nobody has taught."""
        where = self.where or "the model"
        if where in self.known.decoders:
            return
        if any(i != NONE and i not in self.trace.fixed for i in ids.tolist()):
            self.trace.untaught.setdefault(self.where, name)
        self.trace.fix(
            ids, f"is counted, and the number goes through {name} in {where}, which the tracer does not follow"
        )

    def _followed(self, call: Call) -> bool:
        try:
            return followed(call)
        except Exception:  # a form of the call that the rule does not know: what goes in is protected
            return False

    def _foreign(self, name: str, tensors: list[torch.Tensor]) -> None:
        """Weights of a layer that something else than the layer uses."""
        for tensor in tensors:
            owner = self.owners.get(id(tensor))
            if owner is not None and name not in BLIND and not (name in ("to", "type_as") and tensor is not tensors[0]):
                where = self.where or "the model"
                self.trace.used_elsewhere.setdefault(owner, f"has weights that {name} in {where} uses besides it")
                self.trace.untaught.setdefault(self.where, name)

    def _stop(self, name: str, labels: list[Label]) -> None:
        """Fix what goes into an operation that nobody has taught."""
        where = self.where or "the model"
        given = self.trace.entered.get(where, set()) if where == self.known.head else set()
        if where in self.known.decoders and not any(i in given for label in labels for i in label.ids.tolist()):
            why = f"output of the model, which {where} decodes"
        else:
            why = f"goes through {name} in {where}, which the tracer does not follow"
            if any(i != NONE and i not in self.trace.fixed for label in labels for i in label.ids.tolist()):
                self.trace.untaught.setdefault(self.where, name)
        for label in labels:
            self.trace.fix(label.ids, why)


def _version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; torch does not count it of those that are made in inference mode."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


def follow(model: nn.Module, known: Known) -> Trace:
    """Follow the channels of a model.

    Args:
        model: a stock model on the CPU in float32; it is not changed. known: of its blocks.

    Returns:
        Where every channel goes.

    Raises:
        PruneError: the model's own forward fails, at every size that was tried.
    """
    sizes = image_shape.tried(model)  # of the first pass: the first that the model takes; the other is twice as large
    training = {module: module.training for module in model.modules()}
    names = {module: name for name, module in model.named_modules()}
    faults: list[str] = []
    try:
        for small in sizes:
            for large in (2 * small, small):  # a block may be made for one size alone
                trace = Trace(sizes=(small, small, large), uneven=known.uneven, decoders=known.decoders)
                path: list[str] = []
                try:
                    _passes(model, trace, known, names, path)
                    trace.resolve()
                    return trace
                except Exception as error:  # whatever a block raises at a size that it is not made for
                    faults.append(f"{path[-1] or 'the model' if path else 'the model'}: {error}")
    finally:
        for module, was in training.items():
            _set_training(module, was)
    raise PruneError(f"the model's own forward fails on an empty image of {sizes[-1]} pixels, in {faults[-1]}")


def _passes(model: nn.Module, trace: Trace, known: Known, names: Mapping[nn.Module, str], path: list[str]) -> None:
    owners: dict[int, str] = {}
    for module, name in names.items():
        if not is_layer(module):
            if isinstance(module, (*LAYERS, nn.BatchNorm2d)):
                trace.untaught.setdefault(name, why_none(module))
            continue
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            other = None if tensor is None else owners.setdefault(id(tensor), name)
            if other is not None and other != name:
                trace.used_elsewhere[name] = trace.used_elsewhere[other] = f"{other} and {name} share their weights"
                trace.untaught.setdefault(name, f"weights of {other}")
    for name, part in known.unlike.items():
        trace.opaque[name] = f"comes to {name}, where {part}, stands in the place of a Conv of ultralytics"
        trace.untaught[name] = part
    for number, size in enumerate(trace.sizes):
        for module in names:
            _set_training(module, number == 1 and not isinstance(module, nn.modules.batchnorm._BatchNorm))
        mode = _Mode(trace, known, owners)
        mode.path = path
        path.clear()
        _pass(model, mode, names, number, size)


def _set_training(module: nn.Module, training: bool) -> None:
    try:
        module.training = training
    except (RuntimeError, AttributeError):  # a scripted module that has none
        return


def _pass(model: nn.Module, mode: _Mode, names: Mapping[nn.Module, str], number: int, size: int) -> None:
    trace = mode.trace
    for module in names:  # a model's own constants, registered or not
        for tensor in tensors_in([value for key, value in vars(module).items() if key not in _OF_TORCH]):
            if getattr(tensor, _LABEL, (None, None))[1] is None:  # else a block keeps what it made in the pass before
                mode.plain(tensor)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            mode.plain(tensor)
    for name in mode.known.vectors:
        vector = model.get_parameter(name)
        ids = trace.uses.get((name, "out"))
        mode.put(vector, trace.use(name, "out", trace.new(len(vector)) if ids is None else ids), -1)
    image = torch.zeros(1, image_shape.channels(model), size, size)
    mode.plain(image)
    with torch.no_grad(), _hooked(mode, names, number), mode:
        result = model(image)
    for tensor in tensors_in(result):
        label = mode.of(tensor)
        if label is not None:
            trace.fix(label.ids, "output of the model")
            trace.outputs.update(i for i in label.ids.tolist() if i != NONE)


@contextmanager
def _hooked(mode: _Mode, names: Mapping[nn.Module, str], number: int) -> Iterator[None]:
    trace, lessons = mode.trace, mode.known.lessons
    layers = {module for module in names if is_layer(module)}

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        mode.path.append(names[module])
        with mode.looking():
            look_at_inputs(module, args, kwargs)
        if module in layers or module in lessons:
            mode.hidden += 1

    def look_at_inputs(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not mode.hidden:
            tensors = list(tensors_in((args, kwargs)))
            strange = [tensor for tensor in tensors if not mode.seen(tensor)]
            if strange:
                mode.mark_opaque(mode.path[-2] if len(mode.path) > 1 else "", strange)
            labels = [mode.of(tensor) for tensor in tensors]
            ids = {i for label in labels if label is not None for i in label.ids.tolist()}
            trace.entered.setdefault(names[module], set()).update(ids - {NONE})

    def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        with mode.looking():
            look_at_outputs(module, mode.path.pop(), args, kwargs, out)

    def look_at_outputs(module: nn.Module, name: str, args: Any, kwargs: Any, out: Any) -> None:
        made = list(tensors_in(out))
        if module in layers or module in lessons:
            mode.hidden -= 1
            if not mode.hidden:
                _label(mode, module, name, next(tensors_in((args, kwargs)), None), out, number)
                mode.note(made)
        strange = [] if mode.hidden else [tensor for tensor in made if not mode.seen(tensor)]
        if strange:
            mode.mark_opaque(name, strange)
        if isinstance(out, torch.Tensor) and out.ndim > 2:
            trace.channels[name] = out.shape[-3] if out.ndim == 4 else out.shape[-1]
            given = next(tensors_in((args, kwargs)), None)
            if isinstance(module, (*LAYERS, nn.BatchNorm2d)) and given is not None:
                trace.area.setdefault(name, [0.0] * len(trace.sizes))[number] += _area(module, given, out)

    hooks = []
    for module in names:
        if isinstance(module, torch.jit.ScriptModule):
            continue  # takes no hooks; what it gives has no mark
        hooks += [
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _label(mode: _Mode, module: nn.Module, name: str, given: torch.Tensor | None, out: Any, number: int) -> None:
    """Label what a layer or a taught block gives."""
    trace, lessons = mode.trace, mode.known.lessons
    dim = -1 if isinstance(module, nn.Linear) else -3
    label = None if given is None else mode.of(given)
    if label is not None and label.dim != dim:
        trace.fix(label.ids, f"goes into {name} along another dimension")
        trace.untaught.setdefault(name, "channels along another dimension")
        label = None
    try:
        assert given is not None
        ids = np.full(given.shape[dim], NONE) if label is None else label.ids
        if module in lessons:
            trace.number, trace.pixels = number, out.shape[-2:].numel()
            mode.put(out, lessons[module](trace, name, module, ids), dim)
        else:
            mode.put(out, layer(trace, name, module, ids), dim)
    except Exception:  # a block that is not as its lesson takes it, or a layer called on tensors of unlike channels
        mode.mark_opaque(name, list(tensors_in(out)))


def _area(module: nn.Module, given: torch.Tensor, out: torch.Tensor) -> float:
    """At how many places a layer's weights are applied."""
    if isinstance(module, nn.Linear):
        return float(out.shape[:-1].numel())
    return float((given if isinstance(module, nn.ConvTranspose2d) else out).shape[-2:].numel())
