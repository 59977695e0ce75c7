# yolo-prune, AGPL-3.0 license
"""What a sweep is asked for: how it is read, what is refused in one line, and when a folder is of the same sweep."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ultralytics.cfg import parse_key_value_pair

from yolo_prune.commands.sweep import sweep
from yolo_prune.errors import PruneError
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.sweeps import artifacts, checks, folder, job, points, request
from yolo_prune.sweeps.request import Request

DEFAULTS = {
    name: one.default
    for name, one in inspect.signature(sweep).parameters.items()
    if name not in ("model", "data", "more")
}


def read(**given: Any) -> Request:
    """A request as the command reads it; of one cut, where nothing else is given to compare."""
    own = {name: value for name, value in given.items() if name in {"model", "data", *DEFAULTS}}
    more = {name: value for name, value in given.items() if name not in own}
    return request.read({"model": "best.pt", "data": "my.yaml", **DEFAULTS, "flops": "50%", **own}, more)


def test_lists_are_texts_numbers_tuples_or_one_value() -> None:
    asked = read(flops="70%, 50%", params=("1.5M",), imgsz=(640, 512), devices=0, baselines=["a.pt", Path("b.pt")])
    assert asked.bounds == (("flops", "70%"), ("flops", "50%"), ("params", "1.5M"))
    assert (asked.imgsz, asked.devices, asked.baselines) == ((640, 512), ("0",), ("a.pt", "b.pt"))
    assert read(imgsz="640,512,640").imgsz == (640, 512)
    assert read(latency="12ms,8ms").latency == "12ms"
    assert read(quantize=8).precisions == ("fp32", "int8")
    assert replace(read(quantize=16), base="fp16").precisions == ("fp16",)
    assert read(batch=8, prune_scope="global").settings == {"batch": 8, "prune_scope": "global"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"epochs": "sixty"}, "epochs=sixty: a whole number is needed, 0 for the cuts alone"),
        (
            {"flops": "70%,fifty", "size": 2},
            "flops=fifty is no bound: write 50% (of the original) or 4.0G; size=2 has no",
        ),
        ({"epochs": -1}, "epochs=-1: a whole number of 1 or more is needed"),
        ({"epochs": False}, "epochs=False: a whole number"),
        ({"flop": "50%"}, "unknown argument flop (did you mean flops?)"),
        ({"bach": 8}, "unknown argument bach (did you mean batch?)"),
        ({"project": "x"}, "unknown argument project"),
        ({"prune_flops": "50%"}, "unknown argument prune_flops"),
        ({"engine": "spark"}, "engine=spark: there is local and ray"),
        ({"gpus": 0.5}, "gpus=0.5: these are of engine=ray"),
        ({"engine": "ray", "devices": "0,1"}, "devices=0,1: Ray chooses them"),
        ({"engine": "ray", "gpus": 2}, "gpus=2: 0 to 1 is needed"),
        ({"engine": "ray", "cpus": 1.5}, "cpus=1.5: a whole number, or a part of one CPU, is needed"),
        ({"devices": "0,gpu1"}, "devices=gpu1: numbers of GPUs are needed, one a training, or cpu or mps"),
        ({"train": "some"}, "train=some: promising or all is needed"),
        ({"max_drop": "1%"}, "max_drop=1%: a drop of mAP"),
        ({"quantize": 4}, "quantize=4: 8 (INT8) or 16 (FP16) is needed"),
        ({"format": "onx"}, "format=onx (did you mean onnx?): one of onnx,"),
        ({"imgsz": "640,big"}, "imgsz=big: a whole number of 1 or more is needed"),
        ({"flops": [None]}, "values with commas between them are needed, such as flops=70%,50%"),
        ({"baselines": ","}, "baselines=,: values with commas"),
        ({"teacher": True}, "teacher=True is for baselines="),
        ({"flops": None}, "nothing to compare the model with: add flops=70%,50% (pruned models)"),
        ({"flops": None, "imgsz": 64, "importance": "l2"}, "importance=: nothing is pruned; add a bound"),
        ({"flops": None, "imgsz": 64, "prune_scope": "global"}, "prune_scope=: nothing is pruned; add a bound"),
        ({"epochs": 0, "freeze": 2}, "freeze=: of a training, and epochs=0 has none"),
        ({"jobs": 0}, "jobs=0: a whole number of 1 or more is needed"),
        ({"model": ""}, "model= is no name of a file"),
    ],
)
def test_what_is_wrong_is_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(PruneError) as caught:
        read(**given)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_precision_that_the_format_lacks_is_refused_though_a_profile_knows_the_milliseconds() -> None:
    asked = replace(read(flops="50%", profile="board.json", quantize=8), format="ncnn", base="fp32")
    with pytest.raises(PruneError, match=r"quantize= with ncnn: it has no int8, but fp32 and fp16"):
        checks._require_format(asked)
    checks._require_format(replace(asked, quantize=16))


def test_where_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "find_spec", lambda name: None)
    with pytest.raises(PruneError) as caught:
        read(engine="ray", gpus=0.5)
    assert str(caught.value) == 'engine=ray: Ray is not installed here: pip install "yolo-prune[ray]"'
    monkeypatch.setattr(request, "find_spec", lambda name: name)
    assert read(engine="ray", gpus=0.5, cpus=4).gpus == 0.5


WORDS = st.text("ab1,.%= /", max_size=8)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.just("50%"), st.just(b"a"))
VALUES = st.one_of(ANYTHING, st.lists(ANYTHING, max_size=3), st.tuples(ANYTHING), st.dictionaries(WORDS, ANYTHING))


def read_or_line(arguments: dict[str, Any]) -> Request | str:
    """A request, or the line that refuses it."""
    try:
        return read(**arguments)
    except PruneError as error:
        return str(error)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["model", "data", *DEFAULTS, "batch", "prune_scope"]), VALUES, max_size=4))
def test_whatever_is_given_is_a_request_or_one_line(arguments: dict[str, Any]) -> None:
    came = read_or_line(arguments)
    asked = came if isinstance(came, Request) else read()
    assert "\n" not in str(came) or came is asked
    assert json.loads(json.dumps(asked.as_dict(), default=repr))["data"] == asked.data
    every = points.of(replace(asked, imgsz=asked.imgsz or (64,)))
    assert len({point.name.lower() for point in every}) == len(every) > 0


# Points ---------------------------------------------------------------------------------------------------------------


def test_the_points_of_the_example() -> None:
    asked = replace(read(flops="50%", baselines="yolo11n.pt"), imgsz=(640, 512))
    every = points.of(asked)
    assert [point.name for point in every] == [
        *("dense-640", "flops50-640", "yolo11n-640"),
        *("dense-512", "flops50-512", "yolo11n-512"),
    ]
    assert [point.small for point in every] == [False] * 3 + [True] * 3
    assert [point.label for point in every][:2] == ["dense at 640", "pruned flops=50% at 640"]
    assert points.command(every[4], asked) == (
        "yolo train model=best.pt data=my.yaml epochs=100 imgsz=512 prune_flops=50%"
    )
    longer = replace(asked, epochs=101)
    assert points.command(every[4], longer).endswith(" patience=101")
    assert points.command(every[4], replace(longer, settings={"patience": 7})).endswith(" patience=7")


def test_settings_of_a_cut_are_what_the_arguments_of_a_training_take() -> None:
    settings = {"prune_round": 8, "prune_start": 0.0, "prune_heads": 0.5, "prune_protect": ["backbone", "model.22.*"]}
    asked = replace(read(flops="50%", **settings), imgsz=(64,))
    (_, pruned) = points.of(asked)
    wanted = from_arguments(pruned.cut)
    assert wanted is not None
    assert {key: getattr(wanted, key.removeprefix("prune_")) for key in settings} == {
        **settings,
        "prune_protect": ("backbone", "model.22.*"),
    }
    assert points.command(pruned, asked).endswith(
        "prune_round=8 prune_start=0.0 prune_heads=0.5 'prune_protect=backbone,model.22.*'"
    )
    assert points.command(pruned, replace(asked, epochs=0)).endswith("heads=0.5 'protect=backbone,model.22.*'")


def test_cuts_are_every_recipe_with_every_bound_and_importance_and_teachers_are_points_of_their_own() -> None:
    asked = replace(
        read(flops="50%,4.0G", recipe="gentle", importance="l2,bn", prune_scope="global", epochs=0), imgsz=(64,)
    )
    every = points.of(asked)
    assert [point.name for point in every] == [
        "dense-64",
        *("gentle-flops50-l2-64", "gentle-flops50-bn-64", "gentle-flops4.0G-l2-64", "gentle-flops4.0G-bn-64"),
    ]
    expected = {"prune": "gentle", "prune_flops": "50%", "prune_importance": "l2", "prune_scope": "global"}
    assert every[1].cut == expected
    assert points.command(every[1], asked) == (
        "yolo-prune apply model=best.pt data=my.yaml imgsz=64 recipe=gentle flops=50% importance=l2 scope=global"
    )
    taught = points.of(replace(read(baselines="a.pt", teacher=True, flops=None), imgsz=(64,)))
    assert len({point.family for point in taught}) == 3, "before training they are alike: nothing to time"
    assert [point.teacher for point in taught] == [None, None, "best.pt"]
    assert "distill_model=best.pt" in points.words(taught[2], read(), Path("/runs"))


def test_names_of_folders_are_safe_and_each_stands_once() -> None:
    asked = replace(read(baselines="x/a b.pt,y/a b.pt,z/A b.pt", flops=None), imgsz=(64,))
    every = points.of(asked)
    assert [point.name for point in every] == ["dense-64", "x-a-b-64", "y-a-b-64", "A-b-64"]
    assert [point.label for point in every] == ["dense", "x/a b", "y/a b", "A b"]
    alike = replace(asked, baselines=("r/a/weights/best.pt", "r/b/weights/best.pt", "yolo11n.pt"), recipe=())
    assert [point.label for point in points.of(alike)][1:] == ["a/weights/best", "b/weights/best", "yolo11n"]
    same = replace(asked, baselines=("a/b.pt", "a/B.pt"))
    assert [point.name for point in points.of(same)][1:] == ["b-64", "B-64-2"], "of file systems that know no case"


def test_a_bound_on_latency_has_the_profile_of_its_image_size() -> None:
    asked = replace(read(latency="50%", out="runs/x", flops=None), imgsz=(64, 32), profile_at={64: "board.json"})
    cuts = [point.cut for point in points.of(asked) if point.cut]
    sized = replace(read(size="1MB", format="ncnn", flops=None), imgsz=(64,))
    assert points.of(sized)[1].cut == {"prune_size": "1MB", "prune_format": "ncnn"}
    assert [cut["prune_profile"] for cut in cuts] == ["board.json", str(Path("runs/x/device-onnx-1-32.json"))]


def test_cuts_are_for_the_device_that_was_named() -> None:
    asked = replace(
        read(flops="50%", profile="board.json"), imgsz=(64, 32), profile_at={64: "board.json"}, format="ncnn"
    )
    cuts = [point.cut for point in points.of(asked) if point.cut]
    assert [cut.get("prune_profile") for cut in cuts] == ["board.json", None]
    assert [cut.get("prune_format") for cut in cuts] == [None, "ncnn"]
    half = replace(read(flops="50%", recipe="jetson-orin-nano,gentle", profile="board.json"), imgsz=(64,))
    half = replace(half, profile_at={64: "board.json"}, format="ncnn")
    own = {str(point.cut["prune"]): point.cut.get("prune_profile") for point in points.of(half) if point.cut}
    assert own == {"jetson-orin-nano": None, "gentle": "board.json"}, "a recipe may say what it is deployed as"
    mnn = replace(read(flops="50%", format="mnn"), imgsz=(64,))
    assert points.of(mnn)[1].cut == {"prune_flops": "50%"}, "of which no profile can be"


@pytest.mark.parametrize(
    ("layers", "typed"),
    [([0, 1], "freeze=[0,1]"), ([2], "freeze=[2]"), (2, "freeze=2"), (["9.cv1"], "freeze=['9.cv1']")],
)
def test_a_list_of_the_hosts_stays_one(layers: Any, typed: str) -> None:
    """freeze=2 is layers 0 and 1, freeze=[2] is layer 2, and a tuple freezes nothing (8.4.190, engine/trainer.py)."""
    asked = replace(read(flops="50%", freeze=layers), imgsz=(64,))
    assert typed in points.words(points.of(asked)[1], asked)
    assert parse_key_value_pair(typed) == ("freeze", layers)


def test_a_cut_alone_is_shown_as_apply_takes_it() -> None:
    asked = replace(read(flops="50%", epochs=0, prune_start=0.2, prune_round=8), imgsz=(64,))
    (_, pruned) = points.of(asked)
    assert points.command(pruned, asked) == "yolo-prune apply model=best.pt data=my.yaml imgsz=64 flops=50% round=8"


def test_the_cuts_that_are_not_trained_are_decided_once_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    every = [point for point in points.of(replace(read(flops="70%,50%,30%"), imgsz=(64,))) if point.cut]
    names = [point.name for point in every]
    asked = read(flops="70%,50%,30%")

    def rows(failed: str | None, *figures: tuple[float, float]) -> list[dict[str, Any]]:
        return [
            {"name": name, "metric": metric, "ms": ms, "failed": "no memory" if name == failed else None}
            for name, (metric, ms) in zip(names, figures, strict=True)
        ]

    first = rows(names[0], (None, None), (0.5, 2.0), (0.2, 2.0))  # type: ignore[arg-type]
    assert job._chosen(asked, every, first, tmp_path) == [names[1]]
    again = rows(None, (0.6, 3.0), (0.5, 2.0), (0.9, 1.0))
    assert job._chosen(asked, every, again, tmp_path) == names[:2], "the third was beaten when it was judged"
    fails_now = rows(names[1], (0.6, 3.0), (None, None), (0.9, 1.0))  # type: ignore[arg-type]
    assert job._chosen(asked, every, fails_now, tmp_path) == names[:1]
    assert job._chosen(asked, every, again, tmp_path) == names[:2]


def test_a_precision_that_cannot_be_made_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(read(flops="50%", quantize=8), imgsz=(64,))
    point = points.of(asked)[1]

    def make(request: Request, place: Path, point: Any, stage: str, outcome: Any, precision: str) -> Any:
        if precision in broken:
            raise PruneError(f"no {precision}")
        return tmp_path, {"bytes": 1}

    monkeypatch.setattr(artifacts, "_make", make)
    broken = {"int8"}
    made, failed = artifacts.of_point(asked, tmp_path, point, "trained", {})
    assert ([one.precision for one in made], failed) == (["fp32"], {"int8": "no int8"})
    (tmp_path / point.name / "artifacts-trained.json").unlink()
    broken = {"fp32"}
    with pytest.raises(PruneError, match="no fp32"):
        artifacts.of_point(asked, tmp_path, point, "trained", {})


# The folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"jobs": 2, "devices": "cpu", "max_drop": 0.02, "seconds": 9}, None),
        ({"flops": "40%"}, "(bounds= was flops=50% and is flops=40%)"),
        ({"epochs": 9}, "(epochs= was 60 and is 9)"),
        ({"batch": 4}, "batch= was not given and is 4"),
        ({"baselines": "a.yaml"}, "(baselines= was not given and is a.yaml)"),
    ],
)
def test_a_folder_is_of_the_same_request_or_says_in_what_it_differs(
    changed: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    base: dict[str, Any] = {"flops": "50%", "epochs": 60, "out": str(tmp_path)}
    folder.note(tmp_path, read(**base))
    if words is None:
        folder.require_same(tmp_path, read(**{**base, **changed}))
    else:
        with pytest.raises(PruneError) as caught:
            folder.require_same(tmp_path, read(**{**base, **changed}))
        assert words in str(caught.value)
        assert f"such as out={tmp_path}2" in str(caught.value)
    assert folder.read(tmp_path / "sweep.json")["request"]["epochs"] == 60


def test_trainings_may_follow_a_sweep_of_cuts_and_a_model_of_another_content_may_not(tmp_path: Path) -> None:
    model = tmp_path / "best.pt"
    model.write_bytes(b"one")
    (tmp_path / "out").mkdir()
    given = {"model": str(model), "flops": "50%", "out": str(tmp_path / "out")}
    folder.note(tmp_path / "out", read(epochs=0, **given))
    folder.require_same(tmp_path / "out", read(epochs=60, **given))
    (tmp_path / "s.json").write_text("1")
    (tmp_path / "two").mkdir()
    measured = {**given, "out": str(tmp_path / "two"), "prune_sensitivity": str(tmp_path / "s.json")}
    folder.note(tmp_path / "two", read(**measured))
    (tmp_path / "s.json").write_text("2")
    with pytest.raises(PruneError, match=r"s\.json is another file now"):
        folder.require_same(tmp_path / "two", read(**measured))
    model.write_bytes(b"two")
    with pytest.raises(PruneError, match=r"best\.pt is another file now"):
        folder.require_same(tmp_path / "out", read(epochs=60, **given))


def test_one_sweep_at_a_time_and_no_other_files(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from yolo_prune.sweeps import folder, request\n"
        "folder.take(request.Request('best.pt', 'my.yaml', 1, out=sys.argv[1]))\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(PruneError, match="another sweep is at work in"):
            folder.take(read(out=str(tmp_path / "out")))
        holder.kill()
    held = folder.take(read(out=str(tmp_path / "out")))  # a killed one holds nothing
    folder.give_back(held)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(PruneError, match="holds other files and no sweep"):
        folder.take(read(out=str(tmp_path / "mine")))


def test_a_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    best = old / "dense-64" / "weights" / "best.pt"
    best.parent.mkdir(parents=True)
    best.touch()
    monkeypatch.chdir(tmp_path)
    folder.finish(old, "dense-64", "trained", {"weights": str(best)})
    folder.finish(old, "dense-64", "cut", {"weights": "weights/best.pt"})  # the user's, as it was given
    folder.write(old / "dense-64" / "absolute.json", {"weights": str(best)})  # of an earlier version
    folder.write(old / "dense-64" / "given.json", {"weights": "weights/best.pt"})
    other = tmp_path / "other" / "dense-64" / "weights" / "best.pt"  # the user's, of another sweep
    other.parent.mkdir(parents=True)
    other.touch()
    folder.write(old / "dense-64" / "other.json", {"weights": str(other)})
    assert folder.read(old / "dense-64" / "trained.json") == {"weights": "dense-64/weights/best.pt"}
    assert folder.outcome(old, "dense-64", "trained") == {"weights": str(best)}
    old.rename(new)
    stages = ("trained", "cut", "absolute", "given", "other")
    moved = {stage: folder.outcome(new, "dense-64", stage) or {} for stage in stages}
    assert {stage: Path(one["weights"]).as_posix() for stage, one in moved.items()} == {
        "trained": (new / "dense-64" / "weights" / "best.pt").as_posix(),
        "cut": (tmp_path / "weights" / "best.pt").as_posix(),
        "absolute": (new / "dense-64" / "weights" / "best.pt").as_posix(),
        "given": "weights/best.pt",
        "other": other.as_posix(),
    }


def test_what_a_kill_left_half_written_is_not_finished(tmp_path: Path) -> None:
    folder.finish(tmp_path, "dense-64", "cut", {"params": 1})
    assert folder.outcome(tmp_path, "dense-64", "cut") == {"params": 1}
    for content in ("", "{", "[1]", "null", "\0"):
        (tmp_path / "dense-64" / "cut.json").write_text(content)
        assert folder.outcome(tmp_path, "dense-64", "cut") is None
