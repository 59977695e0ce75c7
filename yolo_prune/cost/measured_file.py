# yolo-prune, AGPL-3.0 license
"""The JSON files that a measurement leaves (a device profile, sensitivities): read once, checked whole, refused in one
line that names the file and the field. Pure.

They travel between machines and by hand, so nothing in them is believed: not their size, their nesting, their numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from yolo_prune.cost.latency_model import TERMS
from yolo_prune.errors import PruneError, first_line
from yolo_prune.recipe.value_checks import shown

_LARGEST = 1 << 26  # bytes; a profile of a large model is about a megabyte
_DEEPEST = 20  # levels of lists and objects; a profile has six
_MOST = 6  # faults that a message lists
_HUGE = 1e15  # no figure of ours is larger; sums and products of smaller ones stay finite

_Ms = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=4096)]
_Percent = Annotated[float, Field(ge=0, le=_HUGE, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
_Finite = Annotated[float, Field(ge=-_HUGE, le=_HUGE, allow_inf_nan=False)]


class _Model(BaseModel):
    """What else stands in a file is kept for the record, and read by nobody."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Machine(_Model):
    """The device that was measured."""

    name: _Text


class StepsRow(_Model):
    """The channel steps of a device; see latency_model.ChannelGrain."""

    out: Annotated[int, Field(ge=1, le=4096)]
    inp: Annotated[int, Field(ge=1, le=4096)]
    tail: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class ErrorRow(_Model):
    """How far held-out measurements were from what is predicted, in percent."""

    mean: _Percent
    largest: _Percent = 0.0
    count: Annotated[int, Field(ge=0)] = 0


class Errors(_Model):
    """Of single layers and of whole networks."""

    shapes: ErrorRow
    networks: ErrorRow


class ProfileFile(_Model):
    """A device profile (docs/profiles.md); `kinds` has four figures a kind of layer, `network` seven weights."""

    model: _Text
    format: _Text
    precision: _Text
    imgsz: Annotated[int, Field(ge=1, le=8192)]
    threads: Annotated[int, Field(ge=1, le=65536)]
    end2end: bool
    machine: Machine
    steps: StepsRow
    kinds: dict[_Text, Annotated[list[_Ms], Field(min_length=4, max_length=4)]]
    network: Annotated[list[_Ms], Field(min_length=len(TERMS), max_length=len(TERMS))]
    error: Errors
    dense_ms_between: Annotated[list[_Ms], Field(min_length=2, max_length=2)] | None = None
    versions: dict[_Text, _Text] | None = None
    when: _Text | None = None

    @model_validator(mode="after")
    def _costs(self) -> ProfileFile:
        """A device on which nothing costs anything was not measured."""
        if not self.kinds or max(self.network) < 1e-6 or max(map(max, self.kinds.values())) < 1e-12:
            raise PydanticCustomError("costs", "its figures are no costs: nothing takes any time")
        return self


class GroupRow(_Model):
    """What one channel group loses; see planning/sensitivity.py."""

    size: Annotated[int, Field(ge=1, le=1_000_000)]
    losses: list[_Finite]
    weight: float

    @field_validator("weight")
    @classmethod
    def _positive(cls, given: float) -> float:
        if not 0 < given <= 1e9:
            raise PydanticCustomError("weight", "a weight is not above 0, or no number")
        return given


class SensitivityFile(_Model):
    """What `yolo-prune inspect data= out=` writes."""

    kind: Literal["yolo-prune sensitivity"]
    loss: Annotated[float, Field(ge=0, le=_HUGE, allow_inf_nan=False)]
    shares: Annotated[list[_Share], Field(min_length=1, max_length=99)]
    groups: dict[_Text, GroupRow]

    @model_validator(mode="after")
    def _agrees(self) -> SensitivityFile:
        if sorted(set(self.shares)) != self.shares:
            raise PydanticCustomError("shares", "shares do not rise")
        for name, row in self.groups.items():
            if len(row.losses) != len(self.shares):
                text = f"groups.{shown(name)}.losses: {len(row.losses)} of {len(self.shares)} losses are there"
                raise PydanticCustomError("losses", "{text}", {"text": text})
        return self


_Checked = TypeVar("_Checked", bound=_Model)


def load(path: str | Path, argument: str, missing: str) -> Any:
    """The JSON in a file, with no number in it that is not finite and none that is huge.

    Args:
        path: the file. argument: what the user's words call it. missing: what the line says where there is none.

    Raises:
        PruneError: it cannot be read, is no JSON, too large, nested too deeply, or has such a number.
    """
    words = f"{argument}={shown(path)}"
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise PruneError(f"{words} is larger than {_LARGEST >> 20} MiB: no file that yolo-prune wrote")
        content = json.loads(raw.decode("utf-8-sig"))
    except FileNotFoundError:
        raise PruneError(f"{words}: {missing}") from None
    except RecursionError:
        raise PruneError(f"{words} cannot be read as JSON: nested too deeply") from None
    except PruneError:
        raise
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or first_line(error)
        raise PruneError(f"{words} cannot be read as JSON: {text}") from None
    for where, value in _leaves(content, words):
        if isinstance(value, float) and not math.isfinite(value):
            raise PruneError(f"{words} is damaged (its figures are no costs: {where} is {value}); measure again")
        if isinstance(value, int) and abs(value) > _HUGE:
            raise PruneError(f"{words} is damaged ({where} is a huge number); measure again")
    return content


def check(model: type[_Checked], content: Any, words: str, again: str) -> _Checked:
    """Hold content to a model.

    Args:
        model: `ProfileFile` or `SensitivityFile`. content: of `load`. words: what the line calls the file. again: what
            to do about a damaged one.

    Raises:
        PruneError: fields are missing or wrong; each is named.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors(include_url=False)]
        more = [f"and {len(faults) - _MOST} more"] if len(faults) > _MOST else []
        raise PruneError(f"{words} is damaged ({'; '.join([*faults[:_MOST], *more])}); {again}") from None


def _fault(one: Any) -> str:
    """One of pydantic's faults: where, what is there, what is wrong."""
    where = ".".join(shown(part) for part in one["loc"])
    if one["type"] == "missing":
        return f"{where} is missing"
    value = "" if isinstance(one["input"], (dict, list, BaseModel)) else f" {shown(one['input'])}"
    text = str(one["msg"]).partition("\n")[0]
    text = text[:1].lower() + text[1:]
    figures = "its figures are no costs: " if one["loc"][:1] in (("network",), ("kinds",)) else ""
    return f"{figures}{where}{value}: {text}" if where else text


def _leaves(content: Any, words: str) -> Iterator[tuple[str, Any]]:
    """(field, value) of every value that is no list and no object; without recursion."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while stack:
        where, value = stack.pop()
        if len(where) > _DEEPEST:
            raise PruneError(f"{words} cannot be read: nested too deeply at {shown('.'.join(where))}")
        if isinstance(value, dict):
            stack += [((*where, str(key)), item) for key, item in value.items()]
        elif isinstance(value, list):
            stack += [((*where, str(index)), item) for index, item in enumerate(value)]
        else:
            yield shown(".".join(where)), value
