# yolo-prune, AGPL-3.0 license
"""Numbers of channels that a block reads off a tensor's shape: they remember of which channels they are the count.

`b, c, h, w = x.shape` gives a block a plain number. What it does with it (a reshape of another tensor, a scale) ties
the block to how many channels `x` has, though no channel of `x` goes in. So while a model is followed, `c` is a
`Count`: an int that keeps the ids of the channels it counts, through arithmetic too. An operation that gets one tells
whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

Escape = Callable[[np.ndarray], None]  # told the ids whose count is turned into a plain number


class Count(int):
    """How many channels there are, or a whole number computed from it.

    Attributes:
        ids: of the channels. whole: whether it is their count itself. escape: told where a plain number is made of it.
    """

    ids: np.ndarray
    whole: bool
    escape: Escape


class Ratio(float):
    """A number computed from a count of channels; attributes as of `Count`."""

    ids: np.ndarray
    whole: bool
    escape: Escape


def count(value: int, ids: np.ndarray, escape: Escape, whole: bool = True) -> Count:
    """The number of these channels."""
    one = Count(value)
    one.ids, one.whole, one.escape = ids, whole, escape
    return one


def _computed(value: Any, of: Any) -> Any:
    """The result of arithmetic with a count."""
    if isinstance(value, tuple):  # divmod
        return tuple(_computed(item, of) for item in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    one: Any = Count(value) if isinstance(value, int) else Ratio(value)
    one.ids, one.whole, one.escape = of.ids, False, of.escape
    return one


def _arithmetic(kind: type, name: str) -> Callable[..., Any]:
    plain = getattr(kind, name)

    def compute(self: Any, *others: Any) -> Any:
        value = plain(self, *others)
        if value is NotImplemented and others and isinstance(others[0], float) and kind is int:
            value = getattr(float, name)(float(int.__add__(self, 0)), *others)
        return value if value is NotImplemented else _computed(value, self)

    return compute


def _escaping(kind: type, name: str) -> Callable[..., Any]:
    plain = getattr(kind, name)

    def escape(self: Any, *others: Any) -> Any:
        self.escape(self.ids)
        return plain(self, *others)

    return escape


_TWO = ("add", "sub", "mul", "floordiv", "truediv", "mod", "divmod", "pow")
_NAMES = [*(f"__{name}__" for name in _TWO), *(f"__r{name}__" for name in _TWO), "__neg__", "__abs__", "__pos__"]
for _kind, _plain in ((Count, int), (Ratio, float)):
    for _name in _NAMES:
        setattr(_kind, _name, _arithmetic(_plain, _name))
    for _name in ("__int__", "__float__", "__trunc__", "__floor__", "__ceil__", "__round__"):
        setattr(_kind, _name, _escaping(_plain, _name))


def shape_of(shape: torch.Size, dim: int, ids: np.ndarray, escape: Escape) -> torch.Size:
    """A tensor's shape that says whose count its entry `dim` is."""
    sizes: list[int] = list(shape)
    sizes[dim] = count(sizes[dim], ids, escape)
    return torch.Size(sizes)


def counts_in(value: Any) -> Iterator[Count | Ratio]:
    """Every number in nested arguments that comes of a count of channels."""
    if isinstance(value, (Count, Ratio)):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from counts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from counts_in(item)
    elif isinstance(value, slice):
        yield from counts_in((value.start, value.stop, value.step))
