# yolo-prune, AGPL-3.0 license
"""All or nothing: what a cut changes is put back as it was where the cut does not come to its end, whatever stops it.

Most of what a cut does puts a new tensor in the place of an old one, so that keeping the old ones by reference costs
nothing. What is changed within a tensor (statistics, biases, and the weights of layers that are not cut) is copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn


class Undo:
    """What there was, and how to put it back."""

    def __init__(self) -> None:
        self._acts: list[Callable[[], object]] = []

    def attributes(self, *items: Any) -> None:
        """Keep the attributes of objects; what these refer to is not copied."""
        for item in items:
            was = dict(vars(item))

            def back(item: Any = item, was: dict[str, Any] = was) -> None:
                vars(item).clear()
                vars(item).update(was)

            self._acts.append(back)

    def contents(self, plain: dict[str, Any]) -> None:
        """Keep a copy of what a dict of plain data holds."""
        was = deepcopy(plain)

        def back() -> None:
            plain.clear()
            plain.update(was)

        self._acts.append(back)

    def model(self, model: nn.Module) -> None:
        """Keep a model's modules, their attributes, tensors and flags, and the values of its vectors and statistics.

        `weights` must follow before a weight is changed in place.
        """
        for module in model.modules():
            self.attributes(module)
            for held in (module._parameters, module._buffers, module._modules):
                self._held(held)
        for parameter in model.parameters():
            self._flags(parameter)
        small = [p for p in model.parameters() if p.ndim < 2]
        self._values([*small, *model.buffers()])

    def weights(self, model: nn.Module, replaced: Collection[str]) -> None:
        """Keep the values of the weights that a cut does not replace.

        Args:
            model: of `model`. replaced: names of layers whose weights the cut puts new ones in the place of.
        """
        named = model.named_parameters()
        self._values([p for name, p in named if p.ndim > 1 and name.rpartition(".")[0] not in replaced])

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep an optimizer's groups and state; the tensors of the state are not copied, for a cut slices new ones."""
        groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
        state = {parameter: dict(entries) for parameter, entries in optimizer.state.items()}

        def back() -> None:
            for group, was in zip(optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(was)
            optimizer.state.clear()
            optimizer.state.update(state)

        self._acts.append(back)

    def also(self, act: Callable[[], object]) -> None:
        """Add a function that is called when everything is put back."""
        self._acts.append(act)

    def back(self) -> None:
        """Put everything back, what was noted last first."""
        for act in reversed(self._acts):
            act()

    def _held(self, held: Any) -> None:
        if not isinstance(held, dict):
            return  # a scripted module's own, which a cut does not change
        was = dict(held)

        def back() -> None:
            held.clear()
            held.update(was)

        self._acts.append(back)

    def _flags(self, parameter: nn.Parameter) -> None:
        trained, gradient = parameter.requires_grad, parameter.grad

        def back() -> None:
            parameter.requires_grad_(trained)
            parameter.grad = gradient

        self._acts.append(back)

    def _values(self, tensors: list[torch.Tensor]) -> None:
        copies = [(tensor, tensor.detach().clone()) for tensor in tensors]

        def back() -> None:
            for tensor, copy in copies:
                tensor.data.copy_(copy)

        self._acts.append(back)


@contextlib.contextmanager
def all_or_nothing() -> Iterator[Undo]:
    """Whatever ends what is done inside before its time, an interrupt too: put back what was noted, then raise it."""
    undo = Undo()
    try:
        yield undo
    except BaseException:
        undo.back()
        raise
