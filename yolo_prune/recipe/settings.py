# yolo-prune, AGPL-3.0 license
"""What is asked for: recipe files and `prune…=` arguments -> a frozen Recipe, or all that is wrong with them at once.

A worked example: `prune=my-recipe.yaml prune_steps=2.5` where the file says `flosp: 50%` raises one RecipeError,

    2 faults in what is asked of yolo-prune:
      my-recipe.yaml:3: flosp: 50% is unknown: did you mean flops?
      prune_steps=2.5 must be a whole number from 1 to 10000, for example 5

Pure: pydantic, no torch. Units are never guessed: a bound says % or G, M, k itself.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from yolo_prune.errors import RecipeError
from yolo_prune.recipe import resources
from yolo_prune.recipe.file import RENAMED_VALUES, Given, RecipeFile, near, read, show
from yolo_prune.recipe.formats import FORMATS
from yolo_prune.recipe.schedule import SCHEDULES, step_epochs
from yolo_prune.recipe.sparsity_pattern import parse

DEFAULT = "balanced"
UNBOUNDED = "auto"  # the recipe of a `max_drop` that stands alone: it cuts as far as that allows
BOUNDS = ("flops", "params", "latency")
GOALS = (*BOUNDS, "max_drop", "sparsity")  # one of these says how much is to go
_MOST = 40  # faults that a message lists
_STEPS, _END = 5, 0.6  # where there are several steps: how many, and when the last one is
# Also what importance/register.py registers. The functions are in allocation/scopes.py, which needs numpy; this file
# does not.
SCOPE_NAMES = {"uniform", "global", "isomorphic", "latency"}


# Types of single values


class Bound(BaseModel):
    """An upper bound on one cost of the final model.

    Attributes:
        kind: "percent" of the original model, or "absolute".
        value: the percentage, in (0, 100); or the figure in units of 1 (4.0G is 4e9), latency in milliseconds.
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


_SCALES = {
    "flops": {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "params": {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}
_ABSOLUTE = {"flops": "4.0G", "params": "1.5M", "latency": "12ms"}
_FIGURE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z%]*)")


def _is_figure(given: object) -> TypeGuard[float]:
    return isinstance(given, Real) and given is not True and given is not False


def _fault(text: str) -> PydanticCustomError:
    return PydanticCustomError("prune", "{text}", {"text": text})


def _bound(cost: str, given: object) -> object:
    """Read a bound on `cost`; what is no text is left to pydantic, but for numbers, whose unit nobody can know."""
    example = f"50% (of the original) or {_ABSOLUTE[cost]}"
    if _is_figure(given):
        raise _fault(f"has no unit: write {example}")
    if not isinstance(given, str):
        return given
    if " and " in given:  # as `str(Bound)` writes two of them
        first, rest = (_bound(cost, part) for part in given.split(" and ", 1))
        return first.model_copy(update={"also": rest}) if isinstance(first, Bound) else first
    match = _FIGURE.fullmatch(given.strip())
    if match is None:
        raise _fault(f"is no bound: write {example}")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise _fault(f"has no unit: write {example}")
    if unit == "%":
        if not 0 < number < 100:
            raise _fault("must be above 0% and below 100% of the original, for example 50%")
        return Bound(kind="percent", value=number, text=given.strip())
    if unit not in _SCALES[cost]:
        raise _fault(f"has an unknown unit {unit}: known are % and {', '.join(_SCALES[cost])}, for example {example}")
    value = number * _SCALES[cost][unit]
    if not 0 < value < float("inf"):
        raise _fault(f"must be above 0 and finite, for example {_ABSOLUTE[cost]}")
    return Bound(kind="absolute", value=value, text=given.strip())


def _patterns(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given  # a tuple, so that a Recipe is frozen all through


def _pattern(given: object) -> object:
    """Check a sparsity; a share may be written as a number."""
    text = repr(given) if _is_figure(given) and 0 < given < 1 else given
    if isinstance(text, str):
        try:
            return str(parse(text))
        except (ValueError, OverflowError):
            raise PydanticCustomError("value_error", "no pattern") from None
    return given


def _one_of(table: Container[str], given: object) -> object:
    """Refuse a text that is no name in a table; `hooks.register` adds to these tables."""
    if isinstance(given, str) and given not in table:
        raise PydanticCustomError("literal_error", "unknown")
    return given


def _setting(default: Any, meaning: str, values: str, right: str) -> Any:
    """A field of `Settings`: what it means and takes (for the table), and what would be right (for the errors)."""
    return Field(default, description=meaning, json_schema_extra={"values": values, "right": right})


_BOUND_RIGHT = "must be a percentage of the original or a figure with its unit, for example 50% or "
_Flops = Annotated[Bound | None, BeforeValidator(partial(_bound, "flops"))]
_Params = Annotated[Bound | None, BeforeValidator(partial(_bound, "params"))]
_Latency = Annotated[Bound | None, BeforeValidator(partial(_bound, "latency"))]
_Scope = Annotated[str, BeforeValidator(partial(_one_of, SCOPE_NAMES))]
_Schedule = Annotated[str, BeforeValidator(partial(_one_of, SCHEDULES))]
_Format = Literal["onnx", "openvino", "ncnn", "engine"] | None
_Precision = Literal["fp32", "fp16"] | None
_Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
_Drop = Annotated[float | None, Field(gt=0, lt=1, allow_inf_nan=False)]
_Sparsity = Annotated[str | None, BeforeValidator(_pattern)]
_Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_File = Annotated[str | None, Field(min_length=1, max_length=4096)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
_Formats = Annotated[tuple[Annotated[str, BeforeValidator(partial(_one_of, FORMATS))], ...], BeforeValidator(_patterns)]
_Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=500)], ...],
    BeforeValidator(_patterns),
]
_Steps = Annotated[int, Field(ge=1, le=10_000)]
_Count = Annotated[int, Field(ge=1, le=4096)]


# The schema


class Settings(BaseModel):
    """All that a recipe file may say, each with the default it has when the file leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    flops: _Flops = _setting(
        None,
        "upper bound on the FLOPs of the final model",
        "`50%` of the original, or `4.0G`",
        f"{_BOUND_RIGHT}{_ABSOLUTE['flops']}",
    )
    params: _Params = _setting(
        None,
        "upper bound on its parameters; with several bounds all hold",
        "`60%` of the original, or `1.5M`",
        f"{_BOUND_RIGHT}{_ABSOLUTE['params']}",
    )
    latency: _Latency = _setting(
        None,
        "upper bound on its latency on the measured device (`prune_profile`; without one, this machine is measured)",
        "`60%` of the original, or `12ms`",
        f"{_BOUND_RIGHT}{_ABSOLUTE['latency']}",
    )
    importance: _Name = _setting(
        "obdc",
        "how channels are scored; those of low score are cut: by weights, or by gradients (`obdc`, `fisher`, `taylor`) "
        "or activations (`activation`) of the training between steps",
        "`l1`, `l2`, `bn`, `lamp`, `fpgm`, `obdc`, `fisher`, `taylor`, `activation`, `random`, or a registered name",
        "must be the name of an importance: l1, l2, bn, lamp, fpgm, obdc, fisher, taylor, activation, random or a "
        "registered one",
    )
    scope: _Scope = _setting(
        "global",
        "how the cut is spread: the same share of every layer; more where it loses least for what it saves of the "
        "bound, or of milliseconds; the same share of each kind of layers",
        "`uniform`, `global`, `latency`, `isomorphic`, or a registered name",
        "must be uniform, global, latency or isomorphic",
    )
    schedule: _Schedule = _setting(
        "oneshot",
        "all in one step, equal steps, or large steps first; left out, `cubic` where `prune_steps`, `prune_end` or "
        "`prune_max_drop` ask for several steps",
        "`oneshot`, `linear`, `cubic`, or a registered name",
        "must be oneshot, linear or cubic",
    )
    start: _Fraction = _setting(
        0.15,
        "when the first step happens, as a fraction of the epochs",
        "0 to 1",
        "must be a fraction of the epochs, a number from 0 to 1, for example 0.05",
    )
    end: _Fraction = _setting(
        _END,
        f"when the last step happens, as a fraction of the epochs; the rest fine-tunes; left out, {_END} where there "
        "are several",
        "0 to 1, not before the start",
        "must be a fraction of the epochs, a number from 0 to 1, for example 0.6",
    )
    steps: _Steps = _setting(
        1,
        f"how many pruning steps, at most one an epoch; left out, {_STEPS} where `prune_schedule`, `prune_end` or "
        "`prune_max_drop` ask for several",
        "1 to 10000",
        "must be a whole number from 1 to 10000, for example 5",
    )
    round: Annotated[int | None, Field(ge=1, le=4096)] = _setting(
        None,
        "channel counts that change become multiples of this; left out, of what the device profile found, or of 8",
        "1 to 4096",
        "must be a whole number from 1 to 4096, for example 8",
    )
    min_channels: _Count = _setting(
        16,
        "no layer is cut below this many channels",
        "1 to 4096",
        "must be a whole number from 1 to 4096, for example 16",
    )
    max_cut: _Share = _setting(
        0.8,
        "largest share of the channels of one layer that may be cut in all",
        "above 0, up to 1",
        "must be a number above 0 and up to 1, for example 0.8",
    )
    depth: _Fraction = _setting(
        0.0,
        "largest share of the residual blocks that may be removed whole, where that loses less than cutting channels",
        "0 to 1",
        "must be a share of the residual blocks, a number from 0 (none) to 1, for example 0.25",
    )
    heads: _Fraction = _setting(
        0.0,
        "largest share of the heads of each attention that may be removed whole; the widths of heads are cut anyway",
        "0 to 1; one head always stays",
        "must be a share of the heads, a number from 0 (none) to 1, for example 0.5",
    )
    max_drop: _Drop = _setting(
        None,
        "largest drop of fitness allowed; the first step after which more is missing is undone and is the last; with "
        "no bound it cuts as far as that goes",
        "above 0, below 1, in the unit of fitness",
        "must be a drop of fitness, a number above 0 and below 1, for example 0.01",
    )
    reconstruct: Literal["none", "bias", "bn", "weights"] = _setting(
        "weights",
        "what makes up for a cut at once, on a few training images: nothing; the means of what goes, added to the "
        "biases; new BatchNorm statistics, too; and weights fitted anew, so that layers put out what they did before",
        "`none`, `bias`, `bn`, `weights`",
        "must be none, bias, bn or weights",
    )
    warmup: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = _setting(
        0.0,
        "over how many epochs the learning rate comes back after each step, from low; 0 leaves it as it is",
        "0 to 100, also 0.5",
        "must be a number of epochs from 0 to 100, for example 1",
    )
    restart_lr: bool = _setting(
        False,
        "whether the learning rate goes through its whole schedule once more after the last step",
        "`True`, `False`",
        "must be True or False",
    )
    distill: _Weight = _setting(
        0.0,
        "after the first step, learn from the model as it was before it, with this weight of the host's distillation "
        "loss (its `dis`); costs a pass of the dense model for every batch, from the start",
        "0 to 1000; the host's own is 6",
        "must be a weight from 0 (none) to 1000, for example 6",
    )
    regularize: Literal["none", "bn", "group", "growing"] = _setting(
        "none",
        "a penalty until the last step that drives channels to zero: L1 on BatchNorm scales, group lasso on whole "
        "groups, or one that grows on what the next step will take",
        "`none`, `bn`, `group`, `growing`",
        "must be none, bn, group or growing",
    )
    regularize_strength: Annotated[float | None, Field(gt=0, le=1e6, allow_inf_nan=False)] = _setting(
        None,
        "its strength: the share that a typical channel shrinks by in a step at a learning rate of 1; left out, what "
        "suits its kind",
        "above 0",
        "must be a number above 0, for example 0.5",
    )
    sparsity: _Sparsity = _setting(
        None,
        "single weights that become zero and stay so, reached with the last step: a share of all, or n of every m "
        "along the input channels; smaller files, and faster only where a runtime knows sparse weights",
        "`0.5` (half go), `2:4` (two of four stay)",
        "must be a share above 0 and below 1, for example 0.5, or n:m, for example 2:4",
    )
    profile: _File = _setting(
        None,
        "device profile that latencies are of, as `yolo-prune profile` writes it",
        "a file",
        "must be a file that yolo-prune profile wrote, for example device.json",
    )
    format: _Format = _setting(
        None,
        "the runtime that it will be deployed with; left out, the profile's, or `onnx`",
        "`onnx`, `openvino`, `ncnn`, `engine`",
        "must be onnx, openvino, ncnn or engine",
    )
    precision: _Precision = _setting(
        None,
        "the precision that it will be deployed in; left out, the profile's, or `fp32`",
        "`fp32`, `fp16`",
        "must be fp32 or fp16",
    )
    sensitivity: _File = _setting(
        None,
        "measured sensitivity of the channel groups, as `yolo-prune inspect data=... out=` writes it; the scopes "
        "global and latency then spare what is sensitive",
        "a file",
        "must be a file that yolo-prune inspect wrote, for example sensitivity.json",
    )
    layer_loss: _Drop = _setting(
        None,
        "with `prune_sensitivity`: no layer is cut so far that this cut alone, without training, would raise the loss "
        "by more than this share of it",
        "above 0, below 1",
        "must be a share of the loss, a number above 0 and below 1, for example 0.1",
    )
    protect: _Patterns = _setting(
        (),
        "modules whose channels are never cut, as patterns of their names",
        "names with commas between them, such as `model.0,model.22.*`; in a file a list",
        "must be a list of module names or patterns, for example [model.0, model.22.*]",
    )
    deploy: _Formats = _setting(
        (),
        "formats that the trained model is exported to at the end, each proven as by `yolo-prune export`",
        "names with commas between them, such as `onnx,openvino`; in a file a list",
        f"must be a list of formats, of {', '.join(FORMATS)}; for example [onnx, openvino]",
    )

    @model_validator(mode="before")
    @classmethod
    def _timing(cls, data: Any) -> Any:
        """What is left out of schedule, start, end and steps follows from what is given of them.

        A single step has no end of its own: where that is not given, it is the start.
        """
        if not isinstance(data, dict):
            return data
        start = data.get("start", cls.model_fields["start"].default)
        ends_later = data.get("end") not in (None, start)
        several = ends_later or data.get("max_drop") is not None or data.get("steps", 1) != 1
        schedule = data.get("schedule", "cubic" if several else "oneshot")
        if schedule != "oneshot":
            return {"schedule": schedule, "steps": _STEPS, **data}
        fraction = _is_figure(start) and 0 <= start <= 1
        return {"schedule": schedule, "steps": 1, **({"end": start} if fraction else {}), **data}


class Recipe(Settings):
    """What is asked for, checked: every field has a legal value, and they agree with one another.

    Attributes:
        name: "balanced", or the file's stem.

    Raises:
        pydantic.ValidationError: from the constructor. `load` and `from_arguments` raise RecipeError instead.
    """

    name: str

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        values = {key: getattr(self, key) for key in type(self).model_fields}
        faults = [text for _, text in _disagreements(values, lambda key: f"{key}={values[key]}")]
        if faults:
            raise _fault("; ".join(faults))
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain values for the record; bounds as written. `Recipe(**…)` reads it back."""
        plain = {key: getattr(self, key) for key in type(self).model_fields}
        plain.update({key: str(plain[key]) for key in BOUNDS if plain[key] is not None})
        plain.update({key: list(plain[key]) for key in LISTS})
        return {"name": plain.pop("name"), **plain}


def _disagreements(values: Mapping[str, Any], say: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield (key to blame, fault) for legal values that do not go together. `say` gives a key as the user wrote it."""
    if all(values[key] is None for key in GOALS):
        yield (
            "flops",
            f"{say('name')} does not say how much is to be cut: add a bound, prune_flops=50% or flops: 50%, or the "
            "largest drop of fitness, prune_max_drop=0.01",
        )
    if values["layer_loss"] is not None and values["sensitivity"] is None:
        yield (
            "layer_loss",
            f"{say('layer_loss')} needs what was measured: add prune_sensitivity=, a file that yolo-prune inspect "
            "data=... out= writes",
        )
    if values["regularize_strength"] is not None and values["regularize"] == "none":
        yield (
            "regularize_strength",
            f"{say('regularize_strength')} is of no penalty: add prune_regularize=bn, group or growing",
        )
    if values["start"] > values["end"]:
        yield "start", f"{say('start')} is after {say('end')}: the end must be {values['start']:g} or later, up to 1"
    if values["schedule"] == "oneshot" and values["steps"] != 1:
        yield "steps", f"{say('steps')} does not go with {say('schedule')}: write 1, or a linear or cubic schedule"


# Lists in a recipe file; as an argument, words with commas between them.
LISTS = {"protect": "model.0,model.22.*", "deploy": "onnx,openvino"}
ARGUMENTS: dict[str, str] = {
    "prune": "remove this fraction of the FLOPs, or follow this recipe",
    **{f"prune_{key}": field.description or "" for key, field in Settings.model_fields.items()},
}


# From what the user wrote to a Recipe


def from_arguments(args: Mapping[str, object]) -> Recipe | None:
    """Read the plugin's arguments, and the recipe file they name.

    Args:
        args: argument name -> value, such as {"prune": 0.5, "prune_flops": "40%"}; None is not given. Names that do not
            start with "prune" are other people's and are left alone, but for "epochs": a run of fewer epochs than the
            steps of a shipped recipe takes as many steps as it has epochs.

    Returns:
        What is asked for; None when nothing asks for pruning, or when `prune=False` turns it off.

    Raises:
        RecipeError: all faults of the arguments and of the file, one a line.
    """
    given = {k: v for k, v in args.items() if (k == "prune" or k.startswith("prune_")) and v is not None}
    prune = given.pop("prune", None)
    if prune is False or (prune is None and not given):
        return None
    faults: list[str] = []
    asked = {key.removeprefix("prune_"): _given(key, value) for key, value in given.items()}
    for key in [key for key in asked if key not in Settings.model_fields]:
        faults.append(f"{asked.pop(key).label} is unknown: {near(f'prune_{key}', ARGUMENTS)}")
    base = RecipeFile(DEFAULT)
    if prune is None:
        drop_alone = "max_drop" in asked and not asked.keys() & {*BOUNDS, "sparsity"}
        base = _shipped(UNBOUNDED) if drop_alone else _without_bounds(_shipped(DEFAULT))
        if asked and not asked.keys() & set(GOALS):
            words = ", ".join(one.label for one in asked.values())
            faults.append(
                f"{words} prunes nothing alone: add prune=0.5 (or a recipe), a bound such as prune_flops=50%, or "
                "prune_max_drop=0.01"
            )
    elif _is_figure(prune):
        base = _without_bounds(_shipped(DEFAULT))
        removed = _removed(prune)
        if removed is None:
            faults.append(
                f"prune={show(prune)} must be above 0 and below 1, the fraction of the FLOPs to remove, "
                "for example prune=0.5; prune=False is off"
            )
        else:
            base.given["flops"] = Given(removed, f"prune={show(prune)}")
    else:
        try:
            base = _find(prune)
        except RecipeError as error:
            faults.append(str(error))
    wanted = _recipe(base, asked, faults, tighter=_is_figure(prune))
    if prune is None or _is_figure(prune):  # no recipe was named: what the default's file says was not asked for
        wanted.model_fields_set.intersection_update({"name", "flops", *asked})
    epochs = args.get("epochs")
    own_steps = "steps" in asked or not (prune is None or _is_figure(prune) or prune in shipped())
    if not own_steps and isinstance(epochs, int) and 0 < epochs < wanted.steps:
        return wanted.model_copy(update={"steps": epochs})
    return wanted


def _given(name: str, value: object) -> Given:
    """An argument; the text of a list is split at its commas."""
    label = f"{name}={show(value)}"
    if name.removeprefix("prune_") not in LISTS:
        return Given(value, label)
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()] or value
    return Given(list(value) if isinstance(value, tuple) else value, label)


def load(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by its name, or a recipe file.

    Args:
        name_or_path: a name in `shipped()`; or a path, which ends in .yaml or .yml or has a separator in it.

    Returns:
        The recipe.

    Raises:
        RecipeError: there is no such recipe, or all faults of the file, one a line.
    """
    return _recipe(_find(name_or_path), {}, [])


def shipped() -> list[str]:
    """Return the names of the recipes that travel with the package."""
    return sorted(path.stem for path in resources.folder("recipes").glob("*.yaml"))


def check_epochs(recipe: Recipe, epochs: int) -> None:
    """Check that the recipe's steps fit into a run.

    Raises:
        RecipeError: more steps than epochs, in all or between start and end.
    """
    step_epochs(recipe, epochs)


def arguments_table() -> str:
    """Return the plugin's arguments as a markdown table, from the schema and the recipe `balanced`."""
    balanced = load(DEFAULT)
    rows = [("prune", "a fraction above 0 and below 1, a recipe's name, or a `.yaml` file", None, ARGUMENTS["prune"])]
    for key, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        values = str(extra["values"]) if isinstance(extra, dict) else ""
        default = None if key in LISTS else getattr(balanced, key)
        rows.append((f"prune_{key}", values, default, ARGUMENTS[f"prune_{key}"]))
    lines = ["| argument | values | default (`balanced`) | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{a}=` | {v} | {'' if d is None else f'`{d}`'} | {m} |" for a, v, d, m in rows]
    return "\n".join(lines)


def _recipe(base: RecipeFile, asked: dict[str, Given], faults: list[str], *, tighter: bool = False) -> Recipe:
    """Lay the arguments over the recipe file, check each and all, and raise once.

    Args:
        base: the file. asked: the arguments by field. faults: those found so far.
        tighter: keep the file's FLOPs bound beside the argument's (prune=0.5 prune_flops=4.0G), not replace it.
    """
    file_bad, file_faults = _check(base.given)
    asked_bad, asked_faults = _check(asked)
    bad = file_bad | asked_bad
    unclear = bool(base.faults or faults)
    in_file = sorted([*base.faults, *file_faults], key=lambda fault: fault[0])
    faults = [*(words for _, words in in_file), *faults, *(words for _, words in asked_faults)]

    below = dict(base.given)
    schedule = {**below, **asked}.get("schedule")
    if schedule is not None and schedule.value == "oneshot":
        # A single step laid over a file of several: the file's own steps and end mean nothing then.
        if "schedule" in asked:
            below.pop("steps", None)
        if asked.keys() & {"schedule", "start"}:
            below.pop("end", None)
    merged = {**below, **asked}
    values = {key: one.value for key, one in merged.items() if key not in bad}
    legal = Settings.model_validate(values)
    fields = {key: getattr(legal, key) for key in Settings.model_fields}
    if tighter and fields["flops"] is not None and {"flops"} <= below.keys() & asked.keys():
        first = Settings.model_validate({"flops": below["flops"].value}).flops
        fields["flops"] = _tighter(first, fields["flops"])

    def say(key: str) -> str:
        if key == "name":
            return f"recipe {base.name}"
        return merged[key].label if key in merged else f"{key}={fields[key]}"

    concerned = {
        "flops": set(GOALS),
        "start": {"start", "end"},
        "steps": {"steps", "schedule"},
        "layer_loss": {"layer_loss", "sensitivity"},
        "regularize_strength": {"regularize_strength", "regularize"},
    }
    for key, text in _disagreements(fields, say):
        if concerned[key] & bad:
            continue
        if key == "flops" and unclear:  # the missing bound may be what an unknown key or a missing file meant
            continue
        if unclear and not base.given and concerned[key] - asked.keys():  # nor do settings of an unread file disagree
            continue
        faults.append(text)
    if faults:
        raise RecipeError(_lines(faults))
    return Recipe(name=base.name, **fields)


def _check(given: Mapping[str, Given]) -> tuple[set[str], list[tuple[int, str]]]:
    """Check each value by itself: the keys that are wrong, and (line, words) for each fault."""
    try:
        Settings.model_validate({key: one.value for key, one in given.items()})
    except ValidationError as error:
        faults: dict[str, tuple[int, str]] = {}
        bad: set[str] = set()
        for fault in error.errors(include_url=False, include_input=False):
            key, inner = str(fault["loc"][0]), fault["loc"][1:]
            one = given[key]
            label = one.items[inner[0]] if one.items and inner and isinstance(inner[0], int) else one.label
            faults[label] = (one.line, f"{label} {_right(key, fault['type'], fault['msg'], one)}")
            bad.add(key)
        return bad, list(faults.values())
    return set(), []


def _right(key: str, kind: str, text: str, given: Given) -> str:
    """What would be right in place of a value."""
    value = given.value
    if kind == "prune":
        return text
    if isinstance(value, str) and value in RENAMED_VALUES.get(key, {}):
        return f"is called {RENAMED_VALUES[key][value]} now"
    if key in LISTS and not given.line:
        return f"must be names with commas between them, for example prune_{key}={LISTS[key]}"
    extra = Settings.model_fields[key].json_schema_extra
    right = str(extra["right"]) if isinstance(extra, dict) else text
    options = re.findall(r"\w+", right) if kind == "literal_error" else []
    near = get_close_matches(value, options, 1) if isinstance(value, str) else []
    if near:
        return f"{right}: did you mean {near[0]}?"
    if isinstance(value, str) and not isinstance(Settings.model_fields[key].default, str) and _is_number(value):
        return f"{right} (a number without quotes and underscores)"
    return right


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _removed(fraction: float) -> Bound | None:
    """The FLOPs bound that removing a fraction leaves: 0.7 -> 30%. None unless it is above 0% and below 100%."""
    number = float(fraction) if 0 < fraction < 1 else 0.0
    left = float(100 - 100 * Decimal(repr(number)))  # decimal, so that 0.7 leaves 30% and not 30.000000000000004%
    return Bound(kind="percent", value=left, text=f"{left:.12g}%") if 0 < left < 100 else None


def _tighter(first: Bound | None, second: Bound) -> Bound:
    if first is None:
        return second
    if first.kind == second.kind:
        return min(first, second, key=lambda bound: bound.value)
    return second.model_copy(update={"also": first})


def _find(asked: object) -> RecipeFile:
    """Read the recipe that `prune=` names. Raises RecipeError when there is none; the faults inside it are in it."""
    label = f"prune={show(asked)}"
    names = ", ".join(shipped())
    forms = f"write a number above 0 and below 1, a .yaml file, or a shipped recipe: {names}"
    if isinstance(asked, Path):
        return _open(Path(os.path.expanduser(asked)), str(asked), label)
    if asked is True:
        raise RecipeError(f"{label} does not say how much: {forms}, for example prune=0.5")
    if not isinstance(asked, str) or not asked.strip():
        raise RecipeError(f"{label} is no recipe: {forms}")
    if asked.lower().endswith((".yaml", ".yml")) or "/" in asked or "\\" in asked:
        return _open(Path(os.path.expanduser(asked)), asked, label)
    if asked in shipped():
        return _shipped(asked)
    if re.fullmatch(r"[\d.]+%", asked):
        raise RecipeError(
            f"{label} is no recipe: for a bound write prune_flops={asked}; as the fraction to remove, prune=0.5"
        )
    if _is_number(asked):
        raise RecipeError(
            f"{label} is text: write the number without quotes, above 0 and below 1, for example prune=0.5"
        )
    near = get_close_matches(asked, shipped(), 1)
    hint = f"did you mean prune={near[0]}? Otherwise " if near else ""
    beside = next((end for end in (".yaml", ".yml") if os.path.isfile(asked + end)), None)
    if beside:
        hint = f"did you mean the file, prune={asked}{beside}? Otherwise "
    raise RecipeError(f"{label} is no recipe: {hint}{forms}")


def _shipped(name: str) -> RecipeFile:
    return _open(resources.folder("recipes") / f"{name}.yaml", f"{name}.yaml", f"prune={name}")


def _without_bounds(file: RecipeFile) -> RecipeFile:
    return RecipeFile(file.name, {k: v for k, v in file.given.items() if k not in BOUNDS}, file.faults)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the file system refuses: too long, a null byte
        return False


def _open(path: Path, shown: str, label: str) -> RecipeFile:
    try:
        return read(path, shown, Settings.model_fields)
    except RecipeError as error:
        ours = f"the shipped recipe is prune={path.stem}" if path.stem in shipped() else ""
        known = ours or f"shipped recipes are {', '.join(shipped())}"
        raise RecipeError(f"{label} {error}; {known}") from error


def _lines(faults: list[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    more = [f"and {len(faults) - _MOST} more"] if len(faults) > _MOST else []
    return "\n  ".join([f"{len(faults)} faults in what is asked of yolo-prune:", *faults[:_MOST], *more])
