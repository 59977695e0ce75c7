# yolo-prune, AGPL-3.0 license
"""A stock model copied, and a stock model that is used and then is as it was."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def copy_of(model: nn.Module) -> nn.Module:
    """A copy without the loss, which holds the model: copying that would copy all twice.

    Nor has it the host's own hooks: those of a distilled student hold what its layers put out last, which torch does
    not copy (ultralytics 8.4.190, nn/distill_model.py). A user's hooks are copied, for they may change what a layer is.
    """
    criterion = model.__dict__.pop("criterion", None)
    hooks = [(module, module._forward_hooks) for module in model.modules() if module._forward_hooks]
    computed = [  # at each call, such as the weight of torch.nn.utils.weight_norm; torch does not copy these
        (vars(module), key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.grad_fn is not None
    ]
    try:
        for module, known in hooks:
            module._forward_hooks = OrderedDict(
                (key, one) for key, one in known.items() if not home_of(one).startswith("ultralytics.")
            )
        for holder, key, value in computed:
            holder[key] = value.detach()
        with torch.no_grad():  # else a scripted module's copy has parameters that are computed from the model's
            return deepcopy(model)
    finally:
        for module, known in hooks:
            module._forward_hooks = known
        for holder, key, value in computed:
            holder[key] = value
        if criterion is not None:
            model.criterion = criterion


def release(modules: Iterable[nn.Module]) -> None:
    """Let go of the tensors of a copy that is used no more, given by all its modules.

    The copy may be part of a circle of references (torch-pruning's graph is one, and blocks that know their parents),
    which would keep its tensors until Python looks for circles; a look of our own costs as much as a forward.
    """
    for module in modules:
        if not isinstance(module, torch.jit.ScriptModule):
            module._parameters.clear()
            module._buffers.clear()


@contextlib.contextmanager
def removed_after(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Take hooks away again, those too that are put into the list meanwhile."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """The tensor that a layer was called with, be it by position or by name: `self.conv(input=x)`."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))


def home_of(hook: object) -> str:
    """The module in which a hook is written: a function, a partial of one, or an object that is called."""
    return str(getattr(getattr(hook, "func", hook), "__module__", ""))


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Give every module's attributes back at the end: modes, settings, what heads remember; not tensors' values."""
    before = [(m, dict(vars(m)), dict(m._modules), dict(m._buffers)) for m in model.modules()]
    try:
        yield
    finally:
        for module, attributes, children, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._modules.clear()
            module._modules.update(children)
            module._buffers.clear()
            module._buffers.update(buffers)
