# yolo-prune, AGPL-3.0 license
"""Recipes: what is shipped, what each request means, the type, and the documentation."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.helpers.recipes import asked, recipe, refused
from yolo_prune.recipe import resources, schedule
from yolo_prune.recipe.arguments import from_arguments, load, shipped
from yolo_prune.recipe.bounds import Bound
from yolo_prune.recipe.settings import LISTS, Recipe, Settings

ROOT = Path(__file__).resolve().parents[2]
DEVICES = [
    "intel-cpu",
    "intel-cpu-int8",
    "jetson-agx-orin",
    "jetson-nano",
    "jetson-orin-nano",
    "raspberry-pi-4",
    "raspberry-pi-5",
]
SHIPPED = sorted(["aggressive", "auto", "balanced", "gentle", "oneshot", *DEVICES])


# What is shipped


def test_the_shipped_recipes_are_there_and_say_what_they_promise() -> None:
    assert shipped() == SHIPPED
    assert {name: str(load(name).flops) for name in SHIPPED} == {
        "aggressive": "30%",
        "auto": "None",
        "balanced": "50%",
        "gentle": "70%",
        "intel-cpu": "50%",
        "intel-cpu-int8": "50%",
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
    measured = f"format={found.format} precision={found.precision} imgsz=640 kit=profile.pyz" in text
    assert measured == (name != "jetson-nano")  # whose stock system runs no program of ours


def test_the_defaults_of_the_schema_are_those_of_balanced() -> None:
    text = (resources.folder("recipes") / "balanced.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)
    several = asked(prune=0.5, prune_schedule="cubic")
    assert f"\n# start: {schedule.ALONE}\n" in text
    for key in ("schedule", "end", "steps"):  # what they are depends on one another, so that they stand as comments
        assert f"\n# {key}: {getattr(several, key)}\n" in text
        written[key] = Settings.model_fields[key].default
    del written["end"]  # open, as the start is
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
    assert (found.steps, found.start, found.end) == (1, None, None)
    assert asked(prune="oneshot", prune_start=0.6).end == 0.6
    assert asked(prune=0.5, prune_schedule="oneshot", prune_start=0.6).end == 0.6


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, ("oneshot", None, None, 1)),
        ({"prune_start": 0.7}, ("oneshot", 0.7, 0.7, 1)),
        ({"prune_steps": 1}, ("oneshot", None, None, 1)),
        ({"prune_steps": 3}, ("cubic", 0.15, 0.6, 3)),
        ({"prune_end": 0.5}, ("cubic", 0.15, 0.5, 5)),
        ({"prune_end": 0.1}, ("cubic", 0.1, 0.1, 5)),
        ({"prune_max_drop": 0.01}, ("cubic", 0.15, 0.6, 5)),
        ({"prune_schedule": "linear"}, ("linear", 0.15, 0.6, 5)),
        ({"prune_schedule": "oneshot", "prune_max_drop": 0.01}, ("oneshot", None, None, 1)),
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
        "size": None,
        "importance": "obdc",
        "scope": "global",
        "schedule": "oneshot",
        "start": None,
        "end": None,
        "steps": 1,
        "round": None,
        "min_channels": None,
        "max_cut": 0.8,
        "depth": 0.0,
        "heads": 0.0,
        "max_drop": None,
        "reconstruct": "weights",
        "warmup": 0.0,
        "restart_lr": False,
        "nbs": None,
        "ema": 0.1,
        "frames": True,
        "distill_outputs": 0.0,
        "regularize": "none",
        "regularize_strength": None,
        "sparsity": None,
        "profile": None,
        "check_latency": True,
        "format": None,
        "precision": None,
        "sensitivity": None,
        "protect": [],
        "deploy": [],
        "qat": None,
    }


@pytest.mark.parametrize("given_", ["model.0, model.22.*", "model.0,model.22.*,", ["model.0", "model.22.*"]])
def test_a_list_is_words_with_commas_between_them(given_: object, folder: Path) -> None:
    assert asked(prune=0.5, prune_protect=given_).protect == ("model.0", "model.22.*")
    Path("mine.yaml").write_text("flops: 50%\nprotect: [model.9]\n")
    assert asked(prune="mine.yaml", prune_protect=given_).protect == ("model.0", "model.22.*")
    assert asked(prune="mine.yaml", prune_deploy="onnx").deploy == ("onnx",)


def test_a_format_may_have_the_other_names_that_the_host_knows_it_by() -> None:
    assert asked(prune=0.5, prune_format="TensorRT").format == "engine"
    assert asked(prune=0.5, prune_deploy="trt, ONNX,tflite").deploy == ("engine", "onnx", "litert")
