# yolo-prune, AGPL-3.0 license
"""The `prune…=` arguments and the recipe file they name -> a Recipe, or all that is wrong with them at once.

A worked example: `prune=my-recipe.yaml prune_steps=2.5` where the file says `flosp: 50%` raises one RecipeError,

    2 faults in what is asked of yolo-prune:
      my-recipe.yaml:3: flosp: 50% is unknown: did you mean flops?
      prune_steps=2.5 must be a whole number from 1 to 10000, for example 5

Pure: no torch.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from yolo_prune.errors import RecipeError
from yolo_prune.recipe import resources
from yolo_prune.recipe.bounds import BOUNDS, after_removing, is_figure, tighter
from yolo_prune.recipe.disagreements import GOALS, disagreements
from yolo_prune.recipe.file import Given, RecipeFile, read
from yolo_prune.recipe.setting_names import REMOVED_VALUES, RENAMED_VALUES, near
from yolo_prune.recipe.settings import LISTS, Recipe, Settings
from yolo_prune.recipe.value_checks import shown

DEFAULT = "balanced"
UNBOUNDED = "auto"  # the recipe of a `max_drop` that stands alone: it cuts as far as that allows
_MOST = 40  # faults that a message lists
ARGUMENTS: dict[str, str] = {
    "prune": "remove this fraction of the FLOPs, or follow this recipe",
    **{f"prune_{key}": field.description or "" for key, field in Settings.model_fields.items()},
}
# Arguments of which `none` is a value, where a command line reads that word as "not given".
WITH_NONE = frozenset(
    f"prune_{key}" for key, field in Settings.model_fields.items() if "none" in get_args(field.annotation)
)


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
    overrides = {key.removeprefix("prune_"): _given(key, value) for key, value in given.items()}
    for key in [key for key in overrides if key not in Settings.model_fields]:
        faults.append(f"{overrides.pop(key).label} is unknown: {near(f'prune_{key}', ARGUMENTS)}")
    base = _base(prune, overrides, faults)
    recipe = _recipe(base, overrides, faults, keep_flops=is_figure(prune))
    if prune is None or is_figure(prune):  # no recipe was named: what the default's file says was not asked for
        recipe.model_fields_set.intersection_update({"name", "flops", *overrides})
    epochs = args.get("epochs")
    own_steps = "steps" in overrides or not (prune is None or is_figure(prune) or prune in shipped())
    if not own_steps and isinstance(epochs, int) and 0 < epochs < recipe.steps:
        return recipe.model_copy(update={"steps": epochs})
    return recipe


def _base(prune: object, overrides: Mapping[str, Given], faults: list[str]) -> RecipeFile:
    """The recipe file that the arguments are laid over; what is wrong with `prune=` goes into `faults`."""
    if prune is None:
        if overrides and not overrides.keys() & set(GOALS):
            words = ", ".join(one.label for one in overrides.values())
            faults.append(
                f"{words} prunes nothing alone: add prune=0.5 (or a recipe), a bound such as prune_flops=50%, or "
                "prune_max_drop=0.01"
            )
        drop_alone = "max_drop" in overrides and not overrides.keys() & {*BOUNDS, "sparsity"}
        return _shipped(UNBOUNDED) if drop_alone else _without_bounds(_shipped(DEFAULT))
    if is_figure(prune):
        base = _without_bounds(_shipped(DEFAULT))
        left = after_removing(prune)
        if left is None:
            faults.append(
                f"prune={shown(prune)} must be above 0 and below 1, the fraction of the FLOPs to remove, "
                "for example prune=0.5; prune=False is off"
            )
        else:
            base.given["flops"] = Given(left, f"prune={shown(prune)}")
        return base
    try:
        return _find(prune)
    except RecipeError as error:
        faults.append(str(error))
        return RecipeFile(DEFAULT)


def _given(name: str, value: object) -> Given:
    """An argument; the text of a list is split at its commas."""
    label = f"{name}={shown(value)}"
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


def _recipe(base: RecipeFile, overrides: dict[str, Given], faults: list[str], *, keep_flops: bool = False) -> Recipe:
    """Lay the arguments over the recipe file, check each and all, and raise once.

    Args:
        base: the file. overrides: the arguments by field. faults: those of the arguments so far.
        keep_flops: keep the file's FLOPs bound beside the argument's (prune=0.5 prune_flops=4.0G), not replace it.
    """
    file_bad, file_faults = _check(base.given)
    overrides_bad, overrides_faults = _check(overrides)
    bad = file_bad | overrides_bad
    in_file = sorted([*base.faults, *file_faults], key=lambda fault: fault[0])
    every = [*(words for _, words in in_file), *faults, *(words for _, words in overrides_faults)]

    below = _left_of_file(base.given, overrides)
    merged = {**below, **overrides}
    legal = Settings.model_validate({key: one.value for key, one in merged.items() if key not in bad})
    fields = {key: getattr(legal, key) for key in Settings.model_fields}
    if keep_flops and fields["flops"] is not None and {"flops"} <= below.keys() & overrides.keys():
        first = Settings.model_validate({"flops": below["flops"].value}).flops
        fields["flops"] = tighter(first, fields["flops"])

    def say(key: str) -> str:
        if key == "name":
            return f"recipe {base.name}"
        return merged[key].label if key in merged else f"{key}={fields[key]}"

    unclear = bool(base.faults or faults)
    unread = unclear and not base.given
    for one in disagreements(fields, say):
        if one.about & bad:
            continue
        if one.blamed == "flops" and unclear:  # the missing bound may be what an unknown key or a missing file meant
            continue
        if unread and one.about - overrides.keys():  # nor do settings of an unread file disagree
            continue
        every.append(one.words)
    if every:
        raise RecipeError(_lines(every))
    return Recipe(name=base.name, **fields)


def _left_of_file(file: Mapping[str, Given], overrides: Mapping[str, Given]) -> dict[str, Given]:
    """What of a recipe file the arguments leave: the steps and end of several steps mean nothing to a single one."""
    below = dict(file)
    schedule = {**below, **overrides}.get("schedule")
    if schedule is not None and schedule.value == "oneshot":
        if "schedule" in overrides:
            below.pop("steps", None)
        if overrides.keys() & {"schedule", "start"}:
            below.pop("end", None)
    return below


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
    if isinstance(value, str) and value in REMOVED_VALUES.get(key, {}):
        return "was removed; in its place {} {}".format(*REMOVED_VALUES[key][value])
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


def _find(named: object) -> RecipeFile:
    """Read the recipe that `prune=` names. Raises RecipeError when there is none; the faults inside it are in it."""
    label = f"prune={shown(named)}"
    names = ", ".join(shipped())
    forms = f"write a number above 0 and below 1, a .yaml file, or a shipped recipe: {names}"
    if isinstance(named, Path):
        return _open(Path(os.path.expanduser(named)), str(named), label)
    if named is True:
        raise RecipeError(f"{label} does not say how much: {forms}, for example prune=0.5")
    if not isinstance(named, str) or not named.strip():
        raise RecipeError(f"{label} is no recipe: {forms}")
    if named.lower().endswith((".yaml", ".yml")) or "/" in named or "\\" in named:
        return _open(Path(os.path.expanduser(named)), named, label)
    if named in shipped():
        return _shipped(named)
    if re.fullmatch(r"[\d.]+%", named):
        raise RecipeError(
            f"{label} is no recipe: for a bound write prune_flops={named}; as the fraction to remove, prune=0.5"
        )
    if _is_number(named):
        raise RecipeError(
            f"{label} is text: write the number without quotes, above 0 and below 1, for example prune=0.5"
        )
    near = get_close_matches(named, shipped(), 1)
    hint = f"did you mean prune={near[0]}? Otherwise " if near else ""
    ending = next((end for end in (".yaml", ".yml") if os.path.isfile(named + end)), None)
    if ending:
        hint = f"did you mean the file, prune={named}{ending}? Otherwise "
    raise RecipeError(f"{label} is no recipe: {hint}{forms}")


def _shipped(name: str) -> RecipeFile:
    return _open(resources.folder("recipes") / f"{name}.yaml", f"{name}.yaml", f"prune={name}")


def _without_bounds(file: RecipeFile) -> RecipeFile:
    return RecipeFile(file.name, {k: v for k, v in file.given.items() if k not in BOUNDS}, file.faults)


def _open(path: Path, called: str, label: str) -> RecipeFile:
    try:
        return read(path, called, Settings.model_fields)
    except RecipeError as error:
        ours = f"the shipped recipe is prune={path.stem}" if path.stem in shipped() else ""
        known = ours or f"shipped recipes are {', '.join(shipped())}"
        raise RecipeError(f"{label} {error}; {known}") from error


def _lines(faults: list[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    more = [f"and {len(faults) - _MOST} more"] if len(faults) > _MOST else []
    return "\n  ".join([f"{len(faults)} faults in what is asked of yolo-prune:", *faults[:_MOST], *more])
