# yolo-prune, AGPL-3.0 license
"""Arguments as users give them: names that look like numbers, numbers that are none, keywords with a letter missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO

import yolo_prune
from yolo_prune import api, cli
from yolo_prune.commands.apply import apply
from yolo_prune.commands.inspect import inspect
from yolo_prune.commands.write_yaml import write_yaml
from yolo_prune.device import measurement, profile
from yolo_prune.errors import PruneError
from yolo_prune.export import bundle as bundling
from yolo_prune.export import job as exporting
from yolo_prune.export import results
from yolo_prune.host import datasets
from yolo_prune.recipe import value_checks
from yolo_prune.recipe.settings import Recipe


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "best.pt"
    YOLO("yolov8n.yaml").save(path)
    return path


def _line(function: Callable[..., object], *values: Any, **named: Any) -> str:
    with pytest.raises(PruneError) as caught:
        function(*values, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("out=2024", "2024"),
        ("out=1.10", "1.10"),
        ("dense=0", "0"),
        ("protect={0}", "{0}"),
        ("model=[1]", "[1]"),
        ("data=True", "True"),
        ("out='a.pt'", "a.pt"),
        ("data=none", None),
        ("imgsz=2024", 2024),
        ("recipe=0.5", 0.5),
    ],
)
def test_what_names_something_keeps_its_text(word: str, value: object) -> None:
    found = cli.parse("apply", [word], [word.partition("=")[0]])
    assert found == {word.partition("=")[0]: value}


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(Path("/home/me")))
    assert value_checks.path("model", "~/best.pt", "a.pt") == Path("/home/me/best.pt")
    assert value_checks.data_set("~/my.yaml") == str(Path("/home/me/my.yaml"))
    assert value_checks.path("model", "~\0b", "a.pt") == Path("~\0b")  # no user's home, and no error of looking for it
    assert value_checks.path("out", 2024, "a.pt") == Path("2024")
    assert value_checks.path("out", "a.pt", "b.pt", (".pt",)) == Path("a.pt")
    assert value_checks.path("out", Path("x"), "b.pt") == Path("x")
    for wrong in (None, True, 0.5, {0}, [], "", " ", b"x", object()):
        assert _line(value_checks.path, "out", wrong, "b.pt").endswith("is no name of a file or folder: write out=b.pt")
    assert "a file that ends in .pt is needed, such as out=b.pt" in _line(
        value_checks.path, "out", 2024, "b.pt", (".pt",)
    )


def test_data_sets() -> None:
    for address in ("ul://me/datasets/x", "https://example.com/x.zip?token=a//b"):
        assert value_checks.data_set(address) == address
    assert value_checks.data_set(Path("a/my.yaml")) == str(Path("a/my.yaml"))
    assert value_checks.data_set(2024) == "2024"
    assert _line(value_checks.data_set, {0}) == "data={0} is no name of a file or folder: write data=my.yaml"


def test_whole_numbers() -> None:
    value_checks.whole(imgsz=64, batch=None, threads=np.int64(2))
    for wrong in ("abc", 0, -64, 64.0, True, [64], (64, 64), float("nan")):
        assert _line(value_checks.whole, imgsz=wrong) == f"imgsz={wrong}: a whole number of 1 or more is needed"
    assert (
        _line(value_checks.whole, imgsz=0, threads="x") == "imgsz=0, threads=x: a whole number of 1 or more is needed"
    )
    assert _line(value_checks.whole, imgsz=10**30).startswith("imgsz=1000000000")
    assert "a huge int" in _line(value_checks.whole, imgsz=10**5000)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flop": "50%"}, "unknown setting flop (did you mean flops?); known are check_latency, deploy, depth, "),
        ({"flops": "50%", "imagesz": 64}, "unknown setting imagesz (did you mean imgsz?)"),
        (
            {"flops": "50%", "importanc": "l2", "zzz": 1},
            "unknown setting importanc (did you mean importance?), zzz; kn",
        ),
        ({"flops": "50%", "compensate": "none"}, "unknown setting compensate (its name is reconstruct now)"),
        ({"flops": "50%", "reconstruct": "refit"}, "reconstruct=refit is called weights now"),
        ({"flops": "50%", "imgsz": "abc"}, "imgsz=abc: a whole number of 1 or more is needed"),
        ({"flops": "50%", "data": {0}}, "data={0} is no name of a file or folder: write data=my.yaml"),
        ({"max_drop": 0.05}, "max_drop=0.05 is kept by a training"),
        ({"recipe": 3}, "recipe=3 must be above 0 and below 1"),
        ({}, "nothing to aim at: give a bound"),
    ],
)
def test_a_wrong_call_of_prune_is_one_line(settings: dict[str, Any], words: str, best: Path) -> None:
    for call in (lambda **named: yolo_prune.prune(torch.nn.Linear(1, 1), **named), lambda **n: apply(str(best), **n)):
        assert words in _line(call, **settings)


def test_a_wrong_call_of_attach_is_one_line() -> None:
    yolo = YOLO("yolov8n.yaml")
    assert "unknown setting flop (did you mean flops?)" in _line(yolo_prune.attach, yolo, flop="50%")
    assert "unknown setting recip (did you mean recipe?)" in _line(yolo_prune.attach, yolo, recip="auto")
    removed = "unknown setting layer_loss (it was removed; in its place sensitivity spares"
    assert removed in _line(yolo_prune.attach, yolo, 0.5, layer_loss=0.1)
    wanted = Recipe(name="mine", flops="50%")
    assert "takes no further settings" in _line(yolo_prune.attach, yolo, wanted, flops="40%")
    assert not hasattr(yolo, "yolo_prune_recipe")


def _no_work(*_: object, **__: object) -> None:
    pytest.fail("work was begun")


@pytest.mark.parametrize("out", ["taken/x", "folder"])
def test_the_place_is_tried_before_the_work(
    out: str, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("mine")
    for suffix in (".pt", ".json", ".pyz", ".yaml", ""):
        (tmp_path / f"folder{suffix}").mkdir()
    monkeypatch.setattr(api, "prune", _no_work)
    monkeypatch.setattr(datasets, "read", _no_work)
    monkeypatch.setattr(profile, "_make", _no_work)
    monkeypatch.setattr(results, "make", _no_work)
    place = str(tmp_path / out)
    assert "cannot be written" in _line(apply, str(best), flops="50%", out=f"{place}.pt", safe=False)
    assert "cannot be written" in _line(inspect, str(best), data="x.yaml", out=f"{place}.json", safe=False)
    assert "cannot be written" in _line(profile.profile, str(best), out=f"{place}.json", safe=False)
    assert "cannot be written" in _line(profile.profile, str(best), kit=f"{place}.pyz", safe=False)
    assert "cannot be written" in _line(write_yaml, str(best), out=f"{place}.yaml", safe=False)
    if out == "folder":
        (tmp_path / "folder" / "export.json").mkdir()
    assert "written" in _line(exporting.export, str(best), out=place, safe=False)
    (tmp_path / "other" / "best.onnx").mkdir(parents=True, exist_ok=True)
    line = _line(exporting.export, str(best), out=str(tmp_path / "other"), safe=False)
    assert "best.onnx: a folder of that name is in the way" in line
    assert (tmp_path / "taken").read_text() == "mine"


def test_folders_are_made(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_make", lambda *_: None)
    monkeypatch.setattr(measurement, "measure", lambda *_: {"made": "up"})
    monkeypatch.setattr(measurement, "summary", lambda _: "")
    profile.profile(str(best), out=str(tmp_path / "a" / "b" / "device.json"), safe=False)
    assert (tmp_path / "a" / "b" / "device.json").read_text() == '{\n "made": "up"\n}\n'
    apply(str(best), flops="50%", importance="l2", out=str(tmp_path / "c" / "small.pt"), safe=False)
    write_yaml(str(tmp_path / "c" / "small.pt"), out=str(tmp_path / "d" / "small.yaml"), safe=False)
    assert YOLO(tmp_path / "d" / "small.yaml").model is not None


def test_models_that_are_none(best: Path, tmp_path: Path) -> None:
    whole = best.read_bytes()
    for name, content in {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello\n" * 9}.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
    held: dict[str, object] = {
        "list": [1],
        "tensor": torch.zeros(2),
        "dict": {"a": 1},
        "tensors": {"model": torch.zeros(2), "ema": torch.ones(2)},
        "state": YOLO("yolov8n.yaml").model.state_dict(),
    }
    for name, content in held.items():
        torch.save(content, tmp_path / f"{name}.pt")
    (tmp_path / "folder.pt").mkdir()
    names = ["truncated", "empty", "text", *held, "folder", "missing", "x" * 300, "a\0b"]
    for name in names:
        for call in (apply, inspect, write_yaml, profile.profile, exporting.export):
            named = {"flops": "50%"} if call is apply else {}
            line = _line(call, str(tmp_path / f"{name}.pt"), **named)
            assert line.startswith("model=")
    assert _line(apply, str(tmp_path / "missing.pt")).endswith("there is no such file"), "before a bound is asked for"
    assert "is a folder; name a .pt file" in _line(apply, ".", flops="50%")
    assert "the file holds no YOLO model, but a dict with a" in _line(inspect, str(tmp_path / "dict.pt"))
    assert "no such file" in _line(bundling.bundle, 2024)
    assert "there is no such file" in _line(bundling.bundle, "x" * 300)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"imgsz": "abc"}, "imgsz=abc: a whole number of 1 or more is needed"),
        ({"imgsz": -64}, "imgsz=-64: a whole number of 1 or more is needed"),
        ({"imgsz": 64.5}, "imgsz=64.5: a whole number of 1 or more is needed"),
        ({"epochs": 10**400}, "cannot be pruned in: it must be a whole number of at least 1, and at most"),
    ],
)
def test_a_wrong_size_of_a_training_is_one_line_before_the_data_are_read(settings: dict[str, Any], words: str) -> None:
    line = _line(YOLO("yolov8n.yaml").train, **{"data": "none.yaml", "epochs": 1, "prune": 0.5, **settings})
    assert words in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prune"], "prune has no value: write prune=..."),
        (["prune=0.5", "epochs"], "'epochs' is a valid YOLO argument but is missing an '=' sign"),
        (["prune=0.5", "epochs=abc"], "'epochs=abc' is of invalid type str"),
    ],
)
def test_the_stock_command_says_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "yolo_prune", "train", "model=yolov8n.yaml", "data=none.yaml", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"yolo-prune: {line}")
