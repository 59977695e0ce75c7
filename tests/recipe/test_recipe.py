# yolo-prune, AGPL-3.0 license
"""Recipes and arguments: what each request means, and the line that each mistake gets."""

from __future__ import annotations

import itertools
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from yolo_prune.errors import RecipeError
from yolo_prune.recipe import resources
from yolo_prune.recipe.arguments import ARGUMENTS, arguments_table, from_arguments, load, shipped
from yolo_prune.recipe.bounds import Bound
from yolo_prune.recipe.file import RENAMED
from yolo_prune.recipe.settings import GOALS, LISTS, Recipe, Settings

ROOT = Path(__file__).resolve().parents[2]
DEVICES = ["intel-cpu", "jetson-agx-orin", "jetson-nano", "jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5"]
SHIPPED = sorted(["aggressive", "auto", "balanced", "gentle", "oneshot", *DEVICES])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(**args: object) -> Any:
    """The recipe of these arguments, typed loosely: its bounds are known to be there."""
    found = from_arguments(args)
    assert isinstance(found, Recipe)
    return found


def recipe(**values: Any) -> Recipe:
    return Recipe(name="x", **values)


def refused(**args: object) -> str:
    with pytest.raises(RecipeError) as caught:
        from_arguments(args)
    return str(caught.value)


def refused_file(content: str | bytes, **args: object) -> str:
    """The error of `prune=bad.yaml` with this content, in the current directory."""
    Path("bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return refused(prune="bad.yaml", **args)


# What is shipped


def test_the_shipped_recipes_are_there_and_say_what_they_promise() -> None:
    assert shipped() == SHIPPED
    assert {name: str(load(name).flops) for name in SHIPPED} == {
        "aggressive": "30%",
        "auto": "None",
        "balanced": "50%",
        "gentle": "70%",
        "intel-cpu": "50%",
        "jetson-agx-orin": "60%",
        "jetson-nano": "40%",
        "jetson-orin-nano": "50%",
        "oneshot": "50%",
        "raspberry-pi-4": "40%",
        "raspberry-pi-5": "50%",
    }
    one = load("oneshot")
    assert (one.schedule, one.steps, one.start) == ("oneshot", 1, one.end)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_found_by_name_from_anywhere(name: str, folder: Path) -> None:
    assert asked(prune=name) == load(name)
    assert load(name).name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_explains_itself(name: str) -> None:
    lines = (resources.folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {name}: ")
    comments = sum(line.startswith("#") for line in lines)
    keys = sum(bool(line) and not line.startswith("#") for line in lines)
    assert comments >= keys
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_has_a_runtime_a_precision_and_a_multiple_and_says_what_was_measured(name: str) -> None:
    text = (resources.folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    found = load(name)
    assert found.format is not None
    assert found.precision is not None
    assert found.round in (8, 16, 32)
    assert "Not measured by us on " in text
    assert f"format={found.format} precision={found.precision} imgsz=640 kit=profile.pyz" in text


def test_the_defaults_of_the_schema_are_those_of_balanced() -> None:
    text = (resources.folder("recipes") / "balanced.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)
    several = asked(prune=0.5, prune_schedule="cubic")
    for key in ("schedule", "end", "steps"):  # what they are depends on one another, so that they stand as comments
        assert f"\n# {key}: {getattr(several, key)}\n" in text
        written[key] = Settings.model_fields[key].default
    defaults = {key: field.default for key, field in Settings.model_fields.items() if field.default is not None}
    assert written.pop("flops") == "50%"
    for key in LISTS:
        assert tuple(written.pop(key)) == defaults.pop(key)
    assert written == defaults


# What requests mean


@pytest.mark.parametrize(("fraction", "percent"), [(0.5, 50.0), (0.7, 30.0), (0.1, 90.0), (0.999, 0.1), (0.29, 71.0)])
def test_a_fraction_removes_that_much_of_the_flops(fraction: float, percent: float) -> None:
    found = asked(prune=fraction)
    assert (found.name, found.flops.kind, found.flops.value) == ("balanced", "percent", percent)
    assert str(found.flops) == f"{percent:g}%"
    assert found.params is None


@settings(deadline=None)
@given(st.floats(1e-6, 1 - 1e-6))
def test_any_fraction_is_a_bound_on_what_is_left(fraction: float) -> None:
    assert asked(prune=fraction).flops.limit(1e9) == pytest.approx((1 - fraction) * 1e9, rel=1e-9)


@pytest.mark.parametrize("args", [{}, {"prune": None}, {"prune": False}, {"prune": None, "prune_flops": None}])
def test_nothing_asked_is_none(args: dict[str, object]) -> None:
    assert from_arguments(args) is None


def test_false_turns_everything_off() -> None:
    assert from_arguments({"prune": False, "prune_flops": "50%"}) is None


def test_other_arguments_of_the_host_are_left_alone() -> None:
    assert from_arguments({"epochs": 3, "pruned": "x", "model": "yolov8n.pt"}) is None
    assert asked(epochs=30, prune=0.5, lr0=float("nan")) == asked(prune=0.5)


@pytest.mark.parametrize("words", [{"prune": "auto"}, {"prune": 0.5, "prune_max_drop": 0.01}, {"prune_end": 0.9}])
def test_a_short_run_takes_fewer_steps_than_a_shipped_recipe_has(words: dict[str, object]) -> None:
    words = {"prune_flops": "50%", **words}
    wanted, usual = asked(epochs=3, **words), asked(**words)
    assert wanted.steps == 3
    assert wanted.model_copy(update={"steps": usual.steps}) == usual


def test_steps_that_the_user_wrote_are_not_changed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("flops: 50%\nsteps: 5\n")
    for words in ({"prune": 0.5, "prune_steps": 5}, {"prune": str(mine)}):
        wanted = asked(epochs=3, **words)
        assert wanted is not None
        assert wanted.steps == 5


def test_bounds_alone_activate_the_default_recipe_with_only_those_bounds() -> None:
    found = asked(prune_params="60%")
    assert (found.name, found.flops, str(found.params)) == ("balanced", None, "60%")


def test_a_bound_overrides_that_of_a_recipe_and_leaves_the_others(folder: Path) -> None:
    Path("mine.yaml").write_text("flops: 30%\nparams: 1.5M\n")
    found = asked(prune="mine.yaml", prune_flops="40%")
    assert (str(found.flops), str(found.params), found.name) == ("40%", "1.5M", "mine")


@pytest.mark.parametrize(("given_", "left"), [("40%", 40.0), ("60%", 50.0)])
def test_of_a_fraction_and_a_percentage_the_tighter_holds(given_: str, left: float) -> None:
    assert asked(prune=0.5, prune_flops=given_).flops.limit(100.0) == left


def test_of_a_fraction_and_a_figure_the_tighter_holds_for_any_model() -> None:
    bound = asked(prune=0.5, prune_flops="4.0G").flops
    assert bound.limit(8.7e9) == 4.0e9
    assert bound.limit(6.0e9) == 3.0e9
    assert str(bound) == "4.0G and 50%"


def test_a_fraction_and_a_params_bound_both_hold() -> None:
    found = asked(prune=0.5, prune_params="1.5M")
    assert (str(found.flops), found.params.limit(3.2e6)) == ("50%", 1.5e6)


@pytest.mark.parametrize(
    ("key", "text", "limit"),
    [
        ("flops", "50%", 4.35e9),
        ("flops", "12.5 %", 1.0875e9),
        ("flops", "4.0G", 4.0e9),
        ("flops", "4G", 4.0e9),
        ("flops", "900M", 9.0e8),
        ("flops", ".5T", 5.0e11),
    ],
)
def test_bounds_in_figures(key: str, text: str, limit: float) -> None:
    bound = getattr(asked(**{f"prune_{key}": text}), key)
    assert bound.limit(8.7e9) == limit
    assert str(bound) == text


def test_params_bounds_in_figures() -> None:
    assert asked(prune_params="1.5M").params == Bound(kind="absolute", value=1.5e6, text="1.5M")
    assert asked(prune_params="800k").params.value == 8e5


def test_every_scalar_can_be_overridden() -> None:
    found = asked(
        prune="balanced",
        prune_importance="bn",
        prune_scope="uniform",
        prune_schedule="linear",
        prune_start=0,
        prune_end=1,
        prune_steps=7,
        prune_round=16,
        prune_min_channels=4,
        prune_max_cut=0.5,
    )
    assert (found.importance, found.scope, found.schedule) == ("bn", "uniform", "linear")
    assert (found.start, found.end, found.steps) == (0.0, 1.0, 7)
    assert (found.round, found.min_channels, found.max_cut) == (16, 4, 0.5)


def test_oneshot_over_a_recipe_of_several_steps_is_one_step_at_the_start() -> None:
    found = asked(prune=0.5, prune_schedule="oneshot")
    assert (found.steps, found.start, found.end) == (1, 0.15, 0.15)
    assert asked(prune="oneshot", prune_start=0.6).end == 0.6
    assert asked(prune=0.5, prune_schedule="oneshot", prune_start=0.6).end == 0.6


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, ("oneshot", 0.15, 0.15, 1)),
        ({"prune_start": 0.7}, ("oneshot", 0.7, 0.7, 1)),
        ({"prune_steps": 1}, ("oneshot", 0.15, 0.15, 1)),
        ({"prune_steps": 3}, ("cubic", 0.15, 0.6, 3)),
        ({"prune_end": 0.5}, ("cubic", 0.15, 0.5, 5)),
        ({"prune_max_drop": 0.01}, ("cubic", 0.15, 0.6, 5)),
        ({"prune_schedule": "linear"}, ("linear", 0.15, 0.6, 5)),
        ({"prune_schedule": "oneshot", "prune_max_drop": 0.01}, ("oneshot", 0.15, 0.15, 1)),
        ({"prune_start": 0.1, "prune_end": 0.4, "prune_steps": 2}, ("cubic", 0.1, 0.4, 2)),
    ],
)
def test_one_step_unless_several_are_asked_for(args: dict[str, object], expected: tuple[object, ...]) -> None:
    for prune in (0.5, "balanced", "gentle", "raspberry-pi-5"):
        found = asked(prune=prune, **args)
        assert (found.schedule, found.start, found.end, found.steps) == expected
    keys = {key.removeprefix("prune_"): value for key, value in args.items()}
    alone = recipe(flops="50%", **keys)
    assert (alone.schedule, alone.start, alone.end, alone.steps) == expected


def test_a_file_is_found_relative_to_the_current_directory_and_as_a_path(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ("mine.yml", "sub/mine.yaml", "sub/plain"):
        (folder / name).write_text("\ufeffflops: 45%  # mine\r\nprotect: [model.0, model.22.*]\r\n", encoding="utf-8")
    for place in ("mine.yml", "./mine.yml", "sub/mine.yaml", Path("sub/mine.yaml"), folder / "mine.yml"):
        found = asked(prune=place)
        assert (found.name, str(found.flops), found.protect) == ("mine", "45%", ("model.0", "model.22.*"))
    assert asked(prune="sub/plain").name == "plain"
    assert load("mine.yml") == load(folder / "mine.yml")


def test_a_name_wins_over_a_file_without_an_ending_and_a_path_over_a_name(folder: Path) -> None:
    (folder / "balanced").write_text("flops: 11%\n")
    (folder / "balanced.yaml").write_text("flops: 22%\n")
    assert str(asked(prune="balanced").flops) == "50%"
    assert str(asked(prune="balanced.yaml").flops) == "22%"
    assert str(asked(prune="./balanced").flops) == "11%"


def test_numbers_of_a_file_are_numbers_and_the_rest_is_text(folder: Path) -> None:
    """YAML 1.2's core schema: in 1.1, which PyYAML speaks, 2:4 is 124, 010 is 8 and 1:30 is 90."""
    Path("mine.yaml").write_text(
        "sparsity: 2:4\nsteps: 010\nstart: 1e-1\nrestart_lr: TRUE\nprofile: 2024-01-01\nend: +.5\n"
    )
    found = asked(prune="mine.yaml")
    assert (found.sparsity, found.steps, found.start, found.restart_lr) == ("2:4", 10, 0.1, True)
    assert (found.profile, found.end) == ("2024-01-01", 0.5)


def test_a_line_that_the_shipped_recipe_shows_can_be_switched_on(folder: Path) -> None:
    text = (resources.folder("recipes") / "balanced.yaml").read_text(encoding="utf-8")
    shown = ["# sparsity: 2:4", "# steps: 5", "# end: 0.6", "# schedule: cubic", "# round: 8"]
    assert [line for line in shown if line not in text.splitlines()] == []
    for line in shown:
        text = text.replace(f"\n{line}\n", f"\n{line.removeprefix('# ')}\n")
    Path("mine.yaml").write_text(text)
    found = asked(prune="mine.yaml")
    assert (found.sparsity, found.steps, found.end, found.schedule, found.round) == ("2:4", 5, 0.6, "cubic", 8)


@pytest.mark.parametrize("share", [0.9999999, 1e-7, 0.123456789, 0.5])
def test_a_share_of_zeros_keeps_all_its_digits(share: float) -> None:
    found = asked(prune=0.5, prune_sparsity=share)
    assert float(str(found.sparsity)) == share
    assert Recipe(**found.as_dict()) == found


def test_max_drop_alone_is_enough_and_cuts_as_auto_does(folder: Path) -> None:
    assert asked(prune_max_drop=0.05) == load("auto").model_copy(update={"max_drop": 0.05})
    assert asked(prune_max_drop=0.05, prune_steps=3).steps == 3
    Path("mine.yaml").write_text("max_drop: 0.05\n")
    assert asked(prune="mine.yaml").max_drop == 0.05
    both = asked(prune_max_drop=0.05, prune_flops="50%")
    assert (str(both.flops), both.max_drop, both.name) == ("50%", 0.05, "balanced")
    assert "prune_max_drop=0.01" in refused(prune_start=0.2)


def test_a_null_in_a_file_is_not_set(folder: Path) -> None:
    Path("mine.yaml").write_text("flops: null\nparams: 60%\nmax_drop: ~\n")
    assert asked(prune="mine.yaml").flops is None


# The type


def test_a_recipe_is_frozen_strict_and_forbids_unknown_keys() -> None:
    found = load("balanced")
    with pytest.raises(ValidationError, match="frozen"):
        found.steps = 3
    with pytest.raises(ValidationError, match="valid integer"):
        recipe(flops="50%", steps="3")
    with pytest.raises(ValidationError, match="Extra inputs"):
        recipe(flops="50%", colour="red")
    with pytest.raises(ValidationError, match=r"start=0\.9 is after end=0\.6"):
        recipe(flops="50%", start=0.9, steps=2)
    with pytest.raises(ValidationError, match="does not say how much"):
        recipe()
    assert hash(found) == hash(load("balanced"))


@pytest.mark.parametrize(
    "args",
    [{"prune": 0.5, "prune_flops": "4.0G"}, {"prune": "oneshot"}, {"prune_params": "1.5M", "prune_flops": "33.3%"}],
)
def test_a_recipe_goes_through_json_and_pickle(args: dict[str, object]) -> None:
    found = asked(**args)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert Recipe(**plain) == found
    assert pickle.loads(pickle.dumps(found)) == found


def test_as_dict_is_plain() -> None:
    assert load("balanced").as_dict() == {
        "name": "balanced",
        "flops": "50%",
        "params": None,
        "latency": None,
        "importance": "obdc",
        "scope": "global",
        "schedule": "oneshot",
        "start": 0.15,
        "end": 0.15,
        "steps": 1,
        "round": None,
        "min_channels": 16,
        "max_cut": 0.8,
        "depth": 0.0,
        "heads": 0.0,
        "max_drop": None,
        "reconstruct": "weights",
        "warmup": 0.0,
        "restart_lr": False,
        "distill": 0.0,
        "regularize": "none",
        "regularize_strength": None,
        "sparsity": None,
        "profile": None,
        "format": None,
        "precision": None,
        "sensitivity": None,
        "layer_loss": None,
        "protect": [],
        "deploy": [],
    }


@pytest.mark.parametrize("given_", ["model.0, model.22.*", "model.0,model.22.*,", ["model.0", "model.22.*"]])
def test_a_list_is_words_with_commas_between_them(given_: object, folder: Path) -> None:
    assert asked(prune=0.5, prune_protect=given_).protect == ("model.0", "model.22.*")
    Path("mine.yaml").write_text("flops: 50%\nprotect: [model.9]\n")
    assert asked(prune="mine.yaml", prune_protect=given_).protect == ("model.0", "model.22.*")
    assert asked(prune="mine.yaml", prune_deploy="onnx").deploy == ("onnx",)


# Faults of the arguments: (arguments, what the one line must say)

LIST = "aggressive, auto, balanced, gentle, intel-cpu"
ARGUMENT_FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"prune": 1.5}, ["prune=1.5 must be above 0 and below 1", "prune=0.5"]),
    ({"prune": 0}, ["prune=0 must be above 0 and below 1", "prune=False is off"]),
    ({"prune": 1}, ["prune=1 must be above 0 and below 1"]),
    ({"prune": -0.5}, ["prune=-0.5 must be above 0 and below 1"]),
    ({"prune": 50}, ["prune=50 must be above 0 and below 1"]),
    ({"prune": float("nan")}, ["prune=nan must be above 0 and below 1"]),
    ({"prune": float("inf")}, ["prune=inf must be above 0 and below 1"]),
    ({"prune": 10**400}, ["prune=1000", "… must be above 0 and below 1"]),
    ({"prune": 10**5000}, ["prune=a huge int must be above 0 and below 1"]),
    ({"prune": "abc"}, ["prune=abc is no recipe", LIST]),
    ({"prune": "ballanced"}, ["prune=ballanced is no recipe: did you mean prune=balanced?", LIST]),
    ({"prune": "missing.yaml"}, ["prune=missing.yaml is no such file in /", LIST]),
    ({"prune": "sub/missing"}, ["prune=sub/missing is no such file in /", LIST]),
    ({"prune": Path("missing.yaml")}, ["prune=missing.yaml is no such file in /"]),
    ({"prune": "balanced.yaml"}, ["prune=balanced.yaml is no such file", "the shipped recipe is prune=balanced"]),
    ({"prune": "x" * 5000 + ".yaml"}, ["prune=xxx", "… is no such file"]),
    ({"prune": "a\0b.yaml"}, [r"prune='a\x00b.yaml' is no such file"]),
    ({"prune": True}, ["prune=True does not say how much", "prune=0.5", LIST]),
    ({"prune": "50%"}, ["prune=50% is no recipe", "prune_flops=50%", "prune=0.5"]),
    ({"prune": "0.5"}, ["prune=0.5 is text", "without quotes"]),
    ({"prune": ""}, ["prune= is no recipe", LIST]),
    ({"prune": [0.5]}, ["prune=[0.5] is no recipe", LIST]),
    ({"prune": {"flops": "50%"}}, ["is no recipe", LIST]),
    ({"prune_flops": "0%"}, ["prune_flops=0% must be above 0% and below 100%", "50%"]),
    ({"prune_flops": "150%"}, ["prune_flops=150% must be above 0% and below 100%"]),
    ({"prune_flops": "100%"}, ["prune_flops=100% must be above 0% and below 100%"]),
    ({"prune_flops": 0.5}, ["prune_flops=0.5 has no unit: write 50% (of the original) or 4.0G"]),
    ({"prune_flops": "0.5"}, ["prune_flops=0.5 has no unit: write 50% (of the original) or 4.0G"]),
    ({"prune_params": 1500000}, ["prune_params=1500000 has no unit: write 50% (of the original) or 1.5M"]),
    ({"prune_flops": float("nan")}, ["prune_flops=nan has no unit"]),
    ({"prune_flops": "nan%"}, ["prune_flops=nan% is no bound: write 50%"]),
    ({"prune_flops": "-5%"}, ["prune_flops=-5% is no bound: write 50%"]),
    ({"prune_flops": "4.0g"}, ["prune_flops=4.0g has an unknown unit g", "4.0G"]),
    ({"prune_params": "1.5T"}, ["prune_params=1.5T has an unknown unit T", "1.5M"]),
    ({"prune_flops": "12ms"}, ["prune_flops=12ms has an unknown unit ms"]),
    ({"prune_flops": "0G"}, ["prune_flops=0G must be above 0", "4.0G"]),
    ({"prune_flops": "9" * 400 + "G"}, ["must be above 0 and finite"]),
    ({"prune_flops": True}, ["prune_flops=True must be a percentage of the original or a figure with its unit"]),
    ({"prune_flops": ["50%"]}, ["prune_flops=['50%'] must be a percentage"]),
    ({"prune_latency": "0.6"}, ["prune_latency=0.6 has no unit: write 50% (of the original) or 12ms"]),
    ({"prune_latency": "12G"}, ["prune_latency=12G has an unknown unit G", "ms"]),
    ({"prune": 0.5, "prune_max_drop": 2}, ["prune_max_drop=2 must be a drop of fitness", "0.01"]),
    ({"prune": 0.5, "prune_max_drop": 0}, ["prune_max_drop=0 must be a drop of fitness", "0.01"]),
    ({"prune": 0.5, "prune_profile": 3}, ["prune_profile=3 must be a file that yolo-prune profile wrote"]),
    ({"prune": 0.5, "prune_format": "trt"}, ["prune_format=trt must be onnx, openvino, ncnn or engine"]),
    ({"prune": 0.5, "prune_precision": "int8"}, ["prune_precision=int8 must be fp32 or fp16"]),
    (
        {"prune": 0.5, "prune_scope": "globl"},
        ["prune_scope=globl must be uniform, global, latency or isomorphic", "did you mean global?"],
    ),
    ({"prune": 0.5, "prune_schedule": 3}, ["prune_schedule=3 must be oneshot, linear or cubic"]),
    ({"prune": 0.5, "prune_importance": 2}, ["prune_importance=2 must be the name of an importance", "l2"]),
    ({"prune": 0.5, "prune_start": 0.6, "prune_end": 0.2}, ["prune_start=0.6 is after prune_end=0.2", "0.6 or later"]),
    ({"prune": 0.5, "prune_start": 0.7, "prune_steps": 2}, ["prune_start=0.7 is after end=0.6"]),
    ({"prune": 0.5, "prune_start": -0.1}, ["prune_start=-0.1 must be a fraction of the epochs", "0.05"]),
    ({"prune": 0.5, "prune_end": float("inf")}, ["prune_end=inf must be a fraction of the epochs", "from 0 to 1"]),
    ({"prune": 0.5, "prune_start": True}, ["prune_start=True must be a fraction of the epochs"]),
    ({"prune": 0.5, "prune_start": "0.1"}, ["prune_start=0.1 must be a fraction", "without quotes"]),
    ({"prune": 0.5, "prune_steps": 2.5}, ["prune_steps=2.5 must be a whole number from 1", "for example 5"]),
    ({"prune": 0.5, "prune_steps": 0}, ["prune_steps=0 must be a whole number from 1"]),
    ({"prune": 0.5, "prune_steps": True}, ["prune_steps=True must be a whole number from 1"]),
    ({"prune": 0.5, "prune_steps": 10**400}, ["must be a whole number from 1"]),
    ({"prune": 0.5, "prune_round": 0}, ["prune_round=0 must be a whole number from 1", "8"]),
    ({"prune": 0.5, "prune_min_channels": "8x"}, ["prune_min_channels=8x must be a whole number from 1"]),
    ({"prune": 0.5, "prune_max_cut": 0}, ["prune_max_cut=0 must be a number above 0 and up to 1", "0.8"]),
    ({"prune": 0.5, "prune_max_cut": float("nan")}, ["prune_max_cut=nan must be a number above 0 and up to 1"]),
    ({"prune": 0.5, "prune_flop": "5%"}, ["prune_flop=5% is unknown: did you mean prune_flops?"]),
    ({"prune": 0.5, "prune_deploy": "onnx,coreml"}, ["prune_deploy=onnx,coreml must be names", "=onnx,openvino"]),
    (
        {"prune": 0.5, "prune_protect": 3},
        ["prune_protect=3 must be names with commas", "prune_protect=model.0,model.22"],
    ),
    ({"prune": 0.5, "prune_protect": ","}, ["prune_protect=, must be names with commas between them"]),
    ({"prune_floor": 0.01}, ["prune_floor=0.01 is unknown: its name is prune_max_drop now"]),
    ({"prune": 0.5, "prune_compensate": "none"}, ["prune_compensate=none is unknown: its name is prune_reconstruct"]),
    ({"prune": 0.5, "prune_sparse": "bn"}, ["prune_sparse=bn is unknown: its name is prune_regularize now"]),
    ({"prune": 0.5, "prune_sparse_strength": 1}, ["unknown: its name is prune_regularize_strength now"]),
    ({"prune": 0.5, "prune_rewarm": 1}, ["prune_rewarm=1 is unknown: its name is prune_warmup now"]),
    ({"prune": 0.5, "prune_restart": True}, ["prune_restart=True is unknown: its name is prune_restart_lr now"]),
    ({"prune": 0.5, "prune_reconstruct": "refit"}, ["prune_reconstruct=refit is called weights now"]),
    ({"prune": 0.5, "prune_reconstruct": "mean"}, ["prune_reconstruct=mean is called bias now"]),
    ({"prune": 0.5, "prune_name": "x"}, ["prune_name=x is unknown"]),
    ({"prune_start": 0.2}, ["prune_start=0.2 prunes nothing alone", "prune=0.5", "prune_flops=50%"]),
    ({"prune": "oneshot", "prune_steps": 4}, ["prune_steps=4 does not go with oneshot.yaml:", "linear or cubic"]),
    (
        {"prune": 0.5, "prune_schedule": "oneshot", "prune_steps": 4},
        ["prune_steps=4 does not go with prune_schedule=o"],
    ),
]


@pytest.mark.parametrize(("args", "parts"), ARGUMENT_FAULTS, ids=[str(i) for i in range(len(ARGUMENT_FAULTS))])
def test_a_wrong_argument_gets_one_clear_line(args: dict[str, Any], parts: list[str], folder: Path) -> None:
    message = refused(**args)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
    assert len(message) < 450 + len(str(folder))


def test_all_faults_of_the_arguments_at_once() -> None:
    message = refused(prune=1.5, prune_flops=0.5, prune_stps=3, prune_steps=2.5, prune_start=0.6, prune_end=0.2)
    assert message.splitlines() == [
        "5 faults in what is asked of yolo-prune:",
        "  prune_stps=3 is unknown: did you mean prune_steps?",
        "  prune=1.5 must be above 0 and below 1, the fraction of the FLOPs to remove, for example prune=0.5; "
        "prune=False is off",
        "  prune_flops=0.5 has no unit: write 50% (of the original) or 4.0G",
        "  prune_steps=2.5 must be a whole number from 1 to 10000, for example 5",
        "  prune_start=0.6 is after prune_end=0.2: the end must be 0.6 or later, up to 1",
    ]


def test_a_missing_file_hides_no_fault_of_the_arguments_and_invents_none(folder: Path) -> None:
    lines = refused(prune="missing.yaml", prune_steps=0, prune_start=0.6, prune_end=0.2).splitlines()
    assert [line.split(" is ")[0].split(" must ")[0].strip() for line in lines[1:]] == [
        "prune=missing.yaml",
        "prune_steps=0",
        "prune_start=0.6",
    ]
    assert "\n" not in refused(prune="missing.yaml", prune_start=0.6)  # after balanced's end, which does not count here


def test_a_file_beside_is_offered(folder: Path) -> None:
    Path("mine.yaml").write_text("flops: 50%\n")
    assert "did you mean the file, prune=mine.yaml?" in refused(prune="mine")


# Faults of a file


def test_two_unknown_keys_and_a_wrong_type_all_at_once(folder: Path) -> None:
    message = refused_file("# mine\nflosp: 50%\n\nscoop: global\nsteps: 2.5\n")
    assert message.splitlines() == [
        "3 faults in what is asked of yolo-prune:",
        "  bad.yaml:2: flosp: 50% is unknown: did you mean flops?",
        "  bad.yaml:4: scoop: global is unknown: did you mean scope?",
        "  bad.yaml:5: steps: 2.5 must be a whole number from 1 to 10000, for example 5",
    ]


FILE_FAULTS: list[tuple[str | bytes, list[str]]] = [
    ("- flops\n", ["bad.yaml:1: a list, not a mapping", "flops: 50%"]),
    ("\n50%\n", ["bad.yaml:2: the value 50%, not a mapping", "flops: 50%"]),
    ("", ["bad.yaml:1: empty", "flops: 50%"]),
    ("# only this\n", ["bad.yaml:1: empty"]),
    ("{}", ["recipe bad does not say how much is to be cut", "flops: 50%"]),
    ("steps: 3\n", ["recipe bad does not say how much is to be cut"]),
    ("flops: [", ["bad.yaml:1: not YAML", "flops: 50%"]),
    ("flops: 50%\n\tsteps: 3", [r"bad.yaml:2: not YAML: found character '\t'"]),
    ("flops: 50%\n\x07", [r"bad.yaml:2: not YAML: character '\x07' is not allowed"]),
    ("flops: 50%\n---\nflops: 4%", ["bad.yaml:2: not YAML", "another document"]),
    ("[" * 5000, ["bad.yaml:1: nested too deeply"]),
    ("x" * 100_000, ["bad.yaml: larger than 64 KiB"]),
    (b"flops: 50%\nround: \xff8", ["bad.yaml:2: byte 0xff is not UTF-8 text", "UTF-8"]),
    ("flops: 50%\n".encode("utf-16"), ["bad.yaml:1: byte 0xff is not UTF-8 text"]),
    ("flops: 50%\n\nflops: 40%", ["bad.yaml:3: flops: 40% is a duplicate of flops in line 1"]),
    (
        "steps: !!python/object/apply:os.system ['touch owned']\nflops: 5%",
        ["bad.yaml:1: steps", "tag !!python/object/"],
    ),
    ("!!python/object:os.x {flops: 50%}", ["bad.yaml:1: the tag !!python/object:os.x, not a mapping"]),
    ("flops: 50%\nsteps: !mine 3", ["bad.yaml:2: steps: 3 has the tag !mine", "remove the tag"]),
    ("flops: 50%\nsteps: !a%0Ab 3", [r"bad.yaml:2: steps: 3 has the tag '!a\nb'"]),
    ("flops: 50%\nround: !!int abc", ["bad.yaml:2: round: abc cannot be read as !!int"]),
    ("flops: 50%\nsteps: " + "9" * 5000, ["bad.yaml:2: steps: 999", "must be a whole number from 1"]),
    ("flops: 50%\nsteps: 1" + "0" * 400, ["bad.yaml:2: steps: 1000", "must be a whole number from 1"]),
    ("flops: 50%\nstart: 1" + "0" * 400, ["bad.yaml:2: start: 1000", "must be a fraction of the epochs"]),
    ("flops: 50%\nsparsity: 1" + "0" * 400, ["bad.yaml:2: sparsity: 1000", "must be a share above 0"]),
    ("flops: 1" + "0" * 400, ["bad.yaml:1: flops: 1000", "has no unit"]),
    ("flops: 50%\nwarmup: 1e999", ["bad.yaml:2: warmup: 1e999 must be a number of epochs"]),
    ("flops: .nan", ["bad.yaml:1: flops: .nan is no bound"]),
    ("flops: 50%\nsteps: 1:30", ["bad.yaml:2: steps: 1:30 must be a whole number from 1 to 10000"]),
    ("flops: 50%\nsteps: 1_0", ["bad.yaml:2: steps: 1_0 must be a whole number", "without quotes and underscores"]),
    ("flops: 50%\nround: 0x10", ["bad.yaml:2: round: 0x10 must be a whole number"]),
    ("flops: 50%\nrestart_lr: yes", ["bad.yaml:2: restart_lr: yes must be True or False"]),
    ("flops: 50%\nrestart_lr: on", ["bad.yaml:2: restart_lr: on must be True or False"]),
    ("flops: 50%\nround: !!int 2:4", ["bad.yaml:2: round: 2:4 cannot be read as !!int"]),
    ("flops: 50%\nrestart_lr: !!bool yes", ["bad.yaml:2: restart_lr: yes cannot be read as !!bool"]),
    ('flops: 50%\nprofile: "\\UFFFFFFFF"', ["bad.yaml:2: not YAML: an escape that is no character"]),
    (b"\xff\xfef\x00l\x00", ["bad.yaml:1: byte 0xff is not UTF-8 text"]),
    (b"\x00\x01\x02", ["bad.yaml:1: not YAML: character"]),
    ("flops: 50%\n\tsteps: 3", ["bad.yaml:2: not YAML"]),
    ("[" * 60_000, ["bad.yaml:1: nested too deeply"]),
    ("flops: 0.5", ["bad.yaml:1: flops: 0.5 has no unit: write 50%"]),
    ("flops: 50%\nstart: .inf", ["bad.yaml:2: start: .inf must be a fraction of the epochs"]),
    ("flops: 50%\nstart: 1e1", ["bad.yaml:2: start: 1e1 must be a fraction"]),
    ("flops: 50%\nsteps:\n", ["bad.yaml:2: steps: is empty"]),
    ("flops: 50%\nsteps: ~\n", ["bad.yaml:2: steps: ~ must be a whole number"]),
    ("flops: 50%\nscope: no", ["bad.yaml:2: scope: no must be uniform, global, latency or isomorphic"]),
    ("flops: 50%\nround: 2024-13-45", ["bad.yaml:2: round: 2024-13-45 must be a whole number"]),
    ("flops: 50%\ndeploy: [onnx, coreml]", ["bad.yaml:2: deploy: coreml must be a list of formats, of onnx, openvino"]),
    ("flops: 50%\nprotect: model.0", ["bad.yaml:2: protect: model.0 must be a list", "[model.0, model.22.*]"]),
    ("flops: 50%\nprotect:\n- model.0\n- 3", ["bad.yaml:4: protect: 3 must be a list of module names"]),
    ("flops: 50%\nprotect: ['']", ["bad.yaml:2: protect: must be a list of module names"]),
    ("flops: &a [*a]", ["bad.yaml:1: flops: […] must be a percentage"]),
    ("flops: {a: b}", ["bad.yaml:1: flops: {…} must be a percentage"]),
    ("prune_flops: 50%", ["bad.yaml:1: prune_flops: 50% is unknown: did you mean flops?"]),
    ("flops: 50%\nmin-channels: 4", ["bad.yaml:2: min-channels: 4 is unknown: did you mean min_channels?"]),
    ("flops: 50%\nfloor: 0.01", ["bad.yaml:2: floor: 0.01 is unknown: its name is max_drop now"]),
    ("flops: 50%\nreconstruct: refit", ["bad.yaml:2: reconstruct: refit is called weights now"]),
    ("flops: 50%\nname: mine", ["bad.yaml:2: name: mine is unknown"]),
    ("<<: {flops: 50%}", ["bad.yaml:1: <<: {…} is unknown"]),
    ("? [a]\n: 3", ["bad.yaml:1: [a]: 3 is unknown"]),
    ("1: 2\n", ["bad.yaml:1: 1: 2 is unknown"]),
    ("flops: 50%\nsteps: 3\nstart: 0.9", ["bad.yaml:3: start: 0.9 is after end=0.6"]),
    ("flops: 50%\nend: 0.1\nstart: 0.9", ["bad.yaml:3: start: 0.9 is after bad.yaml:2: end: 0.1"]),
    (
        "flops: 50%\nschedule: oneshot\nsteps: 3",
        ["bad.yaml:3: steps: 3 does not go with bad.yaml:2: schedule: oneshot"],
    ),
    ("flops: 50%\nprecision: int8", ["bad.yaml:2: precision: int8 must be fp32 or fp16"]),
    ("latency: 12", ["bad.yaml:1: latency: 12 has no unit: write 50% (of the original) or 12ms"]),
]


@pytest.mark.parametrize(("content", "parts"), FILE_FAULTS, ids=[str(i) for i in range(len(FILE_FAULTS))])
def test_a_wrong_file_gets_one_clear_line(content: str | bytes, parts: list[str], folder: Path) -> None:
    message = refused_file(content)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
    assert not Path("owned").exists()
    with pytest.raises(RecipeError) as caught:
        load("bad.yaml")
    assert str(caught.value) == message


def test_a_bomb_of_aliases_and_a_file_of_faults_are_bounded(folder: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxy"
    bomb = [f"{letters[0]}: &{letters[0]} [x]"]
    bomb += [f"{x}: &{x} [{', '.join([f'*{y}'] * 9)}]" for y, x in itertools.pairwise(letters)]
    message = refused_file("\n".join(bomb))
    assert message.startswith("25 faults")
    assert len(message) < 25 * 400
    many = refused_file("".join(f"key{n}: 1\n" for n in range(5000)))
    assert many.startswith("5000 faults in what is asked of yolo-prune:\n  bad.yaml:1: key0: 1 is unknown")
    assert many.endswith("and 4960 more")
    assert len(many.splitlines()) == 42


def test_faults_of_a_file_come_by_line_and_before_those_of_the_arguments(folder: Path) -> None:
    message = refused_file("steps: 0\nflosp: 5%\nend: 7\nscope:\nflops: 1\n", prune_scope="x", prune_stps=1)
    starts = [line.strip().split(" ")[0] for line in message.splitlines()]
    assert starts == [
        "7",
        "bad.yaml:1:",
        "bad.yaml:2:",
        "bad.yaml:3:",
        "bad.yaml:4:",
        "bad.yaml:5:",
        "prune_stps=1",
        "prune_scope=x",
    ]


def test_a_bad_value_in_a_file_is_a_fault_although_an_argument_overrides_it(folder: Path) -> None:
    assert refused_file("flops: 50%\nsteps: 0\n", prune_steps=3).startswith("bad.yaml:2: steps: 0 must be")


def test_a_missing_bound_in_a_file_can_come_from_an_argument(folder: Path) -> None:
    Path("mine.yaml").write_text("steps: 3\n")
    assert (asked(prune="mine.yaml", prune_flops="40%").steps, asked(prune=0.5).steps) == (3, 1)


def test_a_folder_and_an_unreadable_file(folder: Path) -> None:
    (folder / "sub.yaml").mkdir()
    assert "prune=sub.yaml is a folder: name a recipe file, such as" in refused(prune="sub.yaml")
    assert f"prune={folder} is a folder" in refused(prune=folder)  # a path is told whole, however long


def test_a_file_that_is_no_text_is_not_read_whole(folder: Path) -> None:
    Path("weights").mkdir()
    Path("weights/best.pt").write_bytes(b"PK\x03\x04" + bytes(200_000))
    assert "weights/best.pt: larger than 64 KiB" in refused(prune="weights/best.pt")


signs = "flops: 50%\n\t-[]{}&*!?<>|\"'#,.~é\0"  # what YAML cares about


@settings(deadline=None)
@given(content=st.binary(max_size=200) | st.text(signs, max_size=60).map(str.encode))
def test_any_bytes_get_a_recipe_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load(file)
    assert all(line.isprintable() for line in str(caught.value).splitlines())


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(signs, max_size=12)
    | st.sampled_from(["50%", "4.0G", "global", "cubic", "oneshot", "l2", "balanced", 0.5, 0.1, 8])
    | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None)  # the files of the shipped recipes are read
@given(st.dictionaries(st.sampled_from([*ARGUMENTS, "prune_x"]), values))
def test_any_arguments_give_a_recipe_none_or_a_recipe_error(args: dict[str, object]) -> None:
    try:
        found = from_arguments(args)
    except RecipeError as error:
        lines = str(error).splitlines()
        assert all(line.isprintable() for line in lines)
        wrong = sum(line.startswith("  ") for line in lines)
        assert len(lines) == 1 or lines[0].startswith(f"{wrong} faults")
        return
    if found is not None:
        assert any(getattr(found, key) is not None for key in GOALS)
        assert found.start <= found.end
        assert Recipe(**found.as_dict()) == found


# The documentation, and what the module may touch


def test_every_setting_of_a_recipe_has_an_argument() -> None:
    assert set(ARGUMENTS) == {"prune", *(f"prune_{key}" for key in set(Recipe.model_fields) - {"name"})}
    assert all(ARGUMENTS.values())


def test_the_table_has_a_row_for_every_argument_with_the_default_of_balanced() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in arguments_table().splitlines()]
    assert [row[0] for row in rows[2:]] == [f"`{name}=`" for name in ARGUMENTS]
    assert {len(row) for row in rows} == {4}
    defaults = {row[0].strip("`=").removeprefix("prune_"): row[2].strip("`") for row in rows[3:]}
    balanced = load("balanced").as_dict()
    assert defaults == {key: "" if balanced[key] in (None, []) else str(balanced[key]) for key in defaults}


def test_the_readme_has_the_table_of_the_schema() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    between = text.split("<!-- arguments -->", 1)[1].split("<!-- /arguments -->", 1)[0]
    assert between.strip() == arguments_table()


@pytest.mark.parametrize(
    ("wing", "strangers"),
    [("recipe", ["torch", "ultralytics", "numpy", "cv2"]), ("allocation", ["torch", "ultralytics", "cv2"])],
)
def test_a_pure_wing_loads_without_torch_and_the_host(wing: str, strangers: list[str]) -> None:
    modules = [path.stem for path in sorted((ROOT / "yolo_prune" / wing).glob("*.py")) if path.stem != "__init__"]
    assert len(modules) > 3
    imports = "".join(f"import yolo_prune.{wing}.{name};" for name in modules)
    load = "yolo_prune.recipe.arguments.load('balanced');" if wing == "recipe" else ""
    code = f"import sys; {imports}{load} print([m for m in {strangers!r} if m in sys.modules])"
    # -S: a start-up line of the environment must not count as an import of these modules
    paths = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_docs_name_arguments_that_exist() -> None:
    """A word such as prune_steps= in the docs is an argument, or one of those that had another name."""
    known = {*ARGUMENTS, *(f"prune_{old}" for old in RENAMED)}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "recipes").glob("*.yaml"))]
    words = {(page.name, word) for page in pages for word in re.findall(r"\b(prune_[a-z_]+)=", page.read_text("utf-8"))}
    assert len(words) > 20
    assert [pair for pair in sorted(words) if pair[1] not in known] == []
