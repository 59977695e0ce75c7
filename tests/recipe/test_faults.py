# yolo-prune, AGPL-3.0 license
"""The line that each mistake in arguments and recipe files gets."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.recipes import asked, refused, refused_file
from yolo_prune.errors import RecipeError
from yolo_prune.recipe.arguments import ARGUMENTS, from_arguments, load
from yolo_prune.recipe.disagreements import GOALS
from yolo_prune.recipe.settings import Recipe

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
    ({"prune_size": 1500000}, ["prune_size=1500000 has no unit: write 50% (of the original) or 1.5MB"]),
    ({"prune_size": "1.5M"}, ["prune_size=1.5M has an unknown unit M: known are % and B, kB, KB, MB, GB"]),
    ({"prune_size": "0%"}, ["prune_size=0% must be above 0% and below 100%"]),
    ({"prune_latency": "12G"}, ["prune_latency=12G has an unknown unit G", "ms"]),
    ({"prune": 0.5, "prune_max_drop": 2}, ["prune_max_drop=2 must be a drop of fitness", "0.01"]),
    ({"prune": 0.5, "prune_max_drop": 0}, ["prune_max_drop=0 must be a drop of fitness", "0.01"]),
    ({"prune": 0.5, "prune_profile": 3}, ["prune_profile=3 must be a file that yolo-prune profile wrote"]),
    ({"prune": 0.5, "prune_format": "mnn"}, ["prune_format=mnn must be onnx, openvino, ncnn or engine"]),
    ({"prune": 0.5, "prune_precision": "int4"}, ["prune_precision=int4 must be fp32, fp16 or int8"]),
    (
        {"prune_size": "1MB", "prune_precision": "int8", "prune_format": "ncnn"},
        ["prune_precision=int8 does not go with prune_format=ncnn: write fp32 or fp16"],
    ),
    (
        {"prune_latency": "50%", "prune_precision": "int8", "prune_format": "ncnn"},
        ["prune_precision=int8 does not go with prune_format=ncnn: write fp32 or fp16"],
    ),
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
    (
        {"prune": 0.5, "prune_regularize": "bn", "prune_start": 0},
        ["prune_regularize=bn acts in the epochs before a cut, and prune_start=0 leaves none"],
    ),
    ({"prune": 0.5, "prune_sparse": "bn"}, ["prune_sparse=bn is unknown: its name is prune_regularize now"]),
    ({"prune": 0.5, "prune_sparse_strength": 1}, ["unknown: its name is prune_regularize_strength now"]),
    ({"prune": 0.5, "prune_rewarm": 1}, ["prune_rewarm=1 is unknown: its name is prune_warmup now"]),
    ({"prune": 0.5, "prune_restart": True}, ["prune_restart=True is unknown: its name is prune_restart_lr now"]),
    (
        {"prune": 0.5, "prune_layer_loss": 0.1},
        ["prune_layer_loss=0.1 is unknown: it was removed; in its place prune_sensitivity spares sensitive layers by"],
    ),
    (
        {"prune": 0.5, "prune_distill": 6},
        ["prune_distill=6 is unknown: it was removed; in its place prune_distill_outputs"],
    ),
    (
        {"prune": 0.5, "prune_restart_lr": "cosine"},
        ["prune_restart_lr=cosine was removed; in its place True goes through the whole schedule once more"],
    ),
    ({"prune": 0.5, "prune_restart_lr": "linear"}, ["prune_restart_lr=linear must be True or False"]),
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


@pytest.mark.parametrize("prune", [0.5, "nofile.yaml"])
def test_a_wrong_scope_does_not_hide_a_precision_that_the_format_lacks(prune: float | str) -> None:
    message = refused(prune=prune, prune_precision="int8", prune_format="ncnn", prune_scope="wat")
    assert "prune_precision=int8 does not go with prune_format=ncnn: write fp32 or fp16" in message
    assert "prune_scope=wat" in message


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
    (
        "flops: 50%\nlayer_loss: 0.1",
        ["bad.yaml:2: layer_loss: 0.1 is unknown: it was removed; in its place sens"],
    ),
    ("flops: 50%\ndistill: 6", ["bad.yaml:2: distill: 6 is unknown: it was removed; in its place distill_outputs"]),
    ("flops: 50%\nrestart_lr: cosine", ["bad.yaml:2: restart_lr: cosine was removed; in its place True goes through"]),
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
    ("flops: 50%\nprecision: bf16", ["bad.yaml:2: precision: bf16 must be fp32, fp16 or int8"]),
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
    assert len(message) < 25 * 450
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
        assert None in (found.start, found.end) or found.start <= found.end
        assert Recipe(**found.as_dict()) == found
