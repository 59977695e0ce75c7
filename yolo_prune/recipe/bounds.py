# yolo-prune, AGPL-3.0 license
"""An upper bound on a cost of the final model: `50%` of the original, or a figure with its unit, `4.0G`. Pure.

Units are never guessed: a bound says % or G, M, k, ms, MB itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Annotated, Literal, TypeGuard

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

BOUNDS = ("flops", "params", "latency", "size")
EXAMPLES = {"flops": "4.0G", "params": "1.5M", "latency": "12ms", "size": "1.5MB"}
_SCALES = {
    "flops": {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "params": {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9},  # of ten, as disks and stores count: 1 MB is 1e6
}
_FIGURE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z%]*)")


class Bound(BaseModel):
    """An upper bound on one cost of the final model.

    Attributes:
        kind: "percent" of the original model, or "absolute".
        value: the percentage, in (0, 100); or the figure in units of 1 (4.0G is 4e9), latency in ms, size in bytes.
        text: what the user wrote; `str()` gives it back.
        also: a second bound on the same cost, from `prune=0.5 prune_flops=4.0G`: the tighter of the two holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["percent", "absolute"]
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    text: str
    also: Bound | None = None

    def limit(self, original: float) -> float:
        """Return the bound as an absolute figure, in the unit of `original`, the cost of the model before any cut."""
        own = original * self.value / 100 if self.kind == "percent" else self.value
        return own if self.also is None else min(own, self.also.limit(original))

    def __str__(self) -> str:
        return self.text if self.also is None else f"{self.text} and {self.also}"


def is_figure(given: object) -> TypeGuard[float]:
    """Whether a value is a number; True and False are none."""
    return isinstance(given, Real) and given is not True and given is not False


def fault(text: str) -> PydanticCustomError:
    """An error whose text is the line that the user reads."""
    return PydanticCustomError("prune", "{text}", {"text": text})


def read_bound(cost: str, given: object) -> object:
    """Read a bound on `cost`; what is no text is left to pydantic, but for numbers, whose unit nobody can know."""
    example = f"50% (of the original) or {EXAMPLES[cost]}"
    if is_figure(given):
        raise fault(f"has no unit: write {example}")
    if not isinstance(given, str):
        return given
    if " and " in given:  # as `str(Bound)` writes two of them
        first, rest = (read_bound(cost, part) for part in given.split(" and ", 1))
        return first.model_copy(update={"also": rest}) if isinstance(first, Bound) else first
    match = _FIGURE.fullmatch(given.strip())
    if match is None:
        raise fault(f"is no bound: write {example}")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise fault(f"has no unit: write {example}")
    if unit == "%":
        if not 0 < number < 100:
            raise fault("must be above 0% and below 100% of the original, for example 50%")
        return Bound(kind="percent", value=number, text=given.strip())
    if unit not in _SCALES[cost]:
        raise fault(f"has an unknown unit {unit}: known are % and {', '.join(_SCALES[cost])}, for example {example}")
    value = number * _SCALES[cost][unit]
    if not 0 < value < float("inf"):
        raise fault(f"must be above 0 and finite, for example {EXAMPLES[cost]}")
    return Bound(kind="absolute", value=value, text=given.strip())


def faults_of(bounds: Iterable[tuple[str, str]]) -> list[str]:
    """What is wrong with bounds, given as what they are on and their text: one line for each that is none."""
    lines = []
    for cost, text in bounds:
        try:
            read_bound(cost, text)
        except PydanticCustomError as error:
            lines.append(f"{cost}={text} {error.message()}")
    return lines


def after_removing(fraction: float) -> Bound | None:
    """The FLOPs bound that removing a fraction leaves: 0.7 -> 30%. None unless it is above 0% and below 100%."""
    number = float(fraction) if 0 < fraction < 1 else 0.0
    left = float(100 - 100 * Decimal(repr(number)))  # decimal, so that 0.7 leaves 30% and not 30.000000000000004%
    return Bound(kind="percent", value=left, text=f"{left:.12g}%") if 0 < left < 100 else None


def tighter(first: Bound | None, second: Bound) -> Bound:
    """The tighter of two bounds; both of them, where only the model can say which that is."""
    if first is None:
        return second
    if first.kind == second.kind:
        return min(first, second, key=lambda bound: bound.value)
    return second.model_copy(update={"also": first})
