# yolo-prune, AGPL-3.0 license
"""Damaged profiles and sensitivities are refused in one line that names the file and the field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

from tests.helpers.profile_header import HEADER
from yolo_prune.cost import measured_file, model_size, profile_file
from yolo_prune.cost.latency_model import Row
from yolo_prune.errors import PruneError
from yolo_prune.planning import sensitivity

PROFILE: dict[str, Any] = {
    **HEADER,
    "machine": {"name": "made up", "cores": 4},
    "steps": {"out": 8, "inp": 1, "tail": 0.0},
    "kinds": {"conv 3x3": [1e-6, 1e-5, 1e-5, 1e-3]},
    "network": [1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.2],
    "error": {part: {"mean": 1.0, "largest": 2.0, "count": 3} for part in ("shapes", "networks")},
    "versions": {"onnxruntime": "1.32"},
    "measured": {"networks": [{"ms": 3.5}]},
}
SENSITIVITY: dict[str, Any] = {
    "kind": sensitivity.KIND,
    "loss": 3.5,
    "shares": [0.25, 0.5],
    "groups": {"model.0.conv": {"size": 16, "losses": [0.1, -0.2], "weight": 1.0}},
    "data": "coco8.yaml",
}
READERS: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "profile": (PROFILE, profile_file.read),
    "sensitivity": (SENSITIVITY, sensitivity.load),
}


def _set(content: Any, where: str, value: object) -> Any:
    """A copy of content with another value at a dotted place; `...` removes it."""
    content = copy.deepcopy(content)
    *parents, last = (int(part) if part.isdigit() else part for part in where.split("/"))
    inner = content
    for part in parents:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


def _line(path: Path, text: str | bytes, reader: Callable[[Path], Any]) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PruneError) as caught:
        reader(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PROFILE))
    found = profile_file.read(path)
    assert (found.imgsz, found.steps.out, found.machine, found.multiple) == (320, 8, "made up", 8)
    assert found.content == PROFILE
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SENSITIVITY).encode())
    assert sensitivity.load(path) == SENSITIVITY


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("imgsz", "320", "(imgsz 320: input should be a valid integer"),
        ("imgsz", 0, "(imgsz 0: "),
        ("threads", 1.5, "(threads 1.5: "),
        ("threads", ..., "(threads is missing)"),
        ("end2end", 1, "(end2end 1: "),
        ("machine", "x", "(machine x: "),
        ("machine/name", ..., "(machine.name is missing)"),
        ("steps/out", 0, "(steps.out 0: "),
        ("steps/tail", -1, "(steps.tail -1: "),
        ("kinds/conv 3x3/2", -1.0, "kinds.conv 3x3.2 -1.0: "),
        ("kinds/conv 3x3", [1.0], "kinds.conv 3x3: "),
        ("kinds", {}, "nothing takes any time"),
        ("network/3", "x", "network.3 x: "),
        ("network", [1e-300] * 7, "nothing takes any time"),
        ("network/0", float("inf"), "network.0 is inf"),
        ("network/0", 10**400, "network.0 is a huge number"),
        ("measured/networks/0/ms", float("nan"), "measured.networks.0.ms is nan"),
        ("format", "tflite", "its format tflite fp32 is unknown"),
        ("format", 3, "(format 3: "),
        ("version", 1, "is of version 1, this one reads"),
        ("version", [1, "\n"], "is of version [1, "),
        ("error", 3, "(error 3: "),
        ("error/shapes/mean", None, "(error.shapes.mean None: "),
        ("versions/onnxruntime", 3, "(versions.onnxruntime 3: "),
        ("kind", 3, "is no device profile"),
    ],
)
def test_a_damaged_profile_names_the_field(where: str, value: object, words: str, tmp_path: Path) -> None:
    line = _line(tmp_path / "a.json", json.dumps(_set(PROFILE, where, value)), profile_file.read)
    assert line.startswith("prune_profile=")
    assert words in line


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("loss", "x", "(loss x: "),
        ("loss", -1, "(loss -1: "),
        ("loss", ..., "(loss is missing)"),
        ("shares", [], "(shares: "),
        ("shares", [0.5, 0.5], "(shares do not rise)"),
        ("shares/1", 1.5, "(shares.1 1.5: "),
        ("groups", [], "(groups: "),
        ("groups/model.0.conv", None, "(groups.model.0.conv None: "),
        ("groups/model.0.conv/size", 16.5, "(groups.model.0.conv.size 16.5: "),
        ("groups/model.0.conv/size", ..., "(groups.model.0.conv.size is missing)"),
        ("groups/model.0.conv/losses", [1.0], "(groups.model.0.conv.losses: 1 of 2 losses are there)"),
        ("groups/model.0.conv/losses/1", {}, "(groups.model.0.conv.losses.1: "),
        ("groups/model.0.conv/weight", 0, "(groups.model.0.conv.weight 0: a weight is not above 0"),
        ("groups/model.0.conv/weight", "1", "(groups.model.0.conv.weight 1: "),
        ("groups/model.0.conv/weight", float("nan"), "groups.model.0.conv.weight is nan"),
        ("kind", None, "it is no sensitivity file"),
    ],
)
def test_damaged_sensitivities_name_the_field(where: str, value: object, words: str, tmp_path: Path) -> None:
    line = _line(tmp_path / "a.json", json.dumps(_set(SENSITIVITY, where, value)), sensitivity.load)
    assert line.startswith("prune_sensitivity=")
    assert words in line
    assert "measure it again" in line or "measure again" in line or where == "kind"


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_is_no_json_at_all(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, reader = READERS[kind]
    whole, path = json.dumps(content), tmp_path / "a.json"
    assert "cannot be read as JSON: " in _line(path, whole[:49], reader)
    assert "cannot be read as JSON: 'utf-8' codec" in _line(path, b"\xff\xfe" + whole.encode("utf-16"), reader)
    assert "cannot be read as JSON: nested too deeply" in _line(path, "[" * 100_000, reader)
    assert "nested too deeply at " in _line(path, '{"a": ' * 30 + "1" + "}" * 30, reader)
    assert "cannot be read as JSON: " in _line(path, '{"a": 1' + "0" * 5000 + "}", reader)
    assert " is inf" in _line(path, '{"a": 1e999}', reader)
    for other in ("", "null", "3", "[]", '"x"', "{}"):
        _line(path, other, reader)
    monkeypatch.setattr(measured_file, "_LARGEST", 10)
    assert "larger than" in _line(path, whole, reader)
    for missing, words in ((tmp_path / "none.json", "there is no such file"), (tmp_path, "Is a directory")):
        with pytest.raises(PruneError, match=words):
            reader(missing)
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(PruneError, match="cannot be read"):
            reader(tmp_path / name)


def test_a_device_on_which_the_model_takes_no_time_is_refused() -> None:
    found = profile_file.of(_set(PROFILE, "network", [0.0, 0.0, 0.0, 0.0, 0.0, 1e-5, 0.0]), "x")
    with pytest.raises(PruneError, match="says 0 ms for this model, which cannot be"):
        found.predict([Row("conv 3x3", 0, 0, 0)])
    assert profile_file.of(PROFILE, "x").predict([Row("conv 3x3", 16, 16, 100)]) > 0.2


def test_a_profile_at_a_size_that_the_model_cannot_take_is_refused() -> None:
    """Of a damaged file, or of a model of a larger stride than the one that was measured (P6: 64)."""
    found = profile_file.of({**PROFILE, "imgsz": 321}, "x")
    with pytest.raises(PruneError, match="measured at 321 pixels, which this model cannot take: a multiple of 32"):
        model_size.latency_of(YOLO("yolov8n.yaml").model, found)
    with pytest.raises(PruneError, match="at 352 pixels, which this model cannot take: a multiple of 64"):
        model_size.latency_of(YOLO("yolov8n-p6.yaml").model, profile_file.of({**PROFILE, "imgsz": 352}, "x"))
