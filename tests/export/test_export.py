# yolo-prune, AGPL-3.0 license
"""The export's proof: what passes, what must fail, and what is said."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from tests.helpers import onnx_memory
from tests.helpers.untrained import QUICK, SIDE, save
from yolo_prune import log
from yolo_prune.errors import PruneError, VerifyError
from yolo_prune.export import job, prove, results
from yolo_prune.host import exporter, silence, validation
from yolo_prune.recipe import formats

FORMATS = ", ".join(formats.FORMATS)


# The job --------------------------------------------------------------------------------------------------------------


def _spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change the graph of every artifact between the host's export and the comparison."""
    import onnx

    stock = results.make

    def spoiled(*given: Any) -> Any:
        result = stock(*given)
        graph = onnx.load(result.file)
        change(graph)
        onnx.save(graph, result.file)
        return result

    monkeypatch.setattr(results, "make", spoiled)


def test_dense_and_pruned_side_by_side(
    model: Path, tiny_data: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks
    from ultralytics.utils import checks

    other = tmp_path / "old"
    other.mkdir()
    dense = save(other / "best.pt", 1)  # the same name, in a folder that must stay as it is
    threads, switches = torch.get_num_threads(), (tasks.SAFE_LOAD, checks.AUTOINSTALL)

    monkeypatch.setattr(log.Progress, "EVERY", 0.0)
    record = job.export(str(model), data=str(tiny_data), dense=str(dense), threads=2, **QUICK)

    assert "1 of 2: onnx, fp32" in said
    assert any(re.fullmatch(r"2 of 2: torch, about \d+ s to go", line) for line in said)
    left_of_val = [
        line for line in said if re.search(r"validating best\.(onnx|pt), images: \d of 4, about \d+ s", line)
    ]
    assert len(left_of_val) == 4 * 3  # of both models, both files of each; the last image has no line
    assert record == json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    left = {path.name for path in model.parent.iterdir()}
    assert left - {"export.log"} == {"best.onnx", "best.pt", "export.json", "export.png"}
    assert [path.name for path in other.iterdir()] == ["best.pt"]
    assert not (tmp_path / "runs").exists()  # the host's val would leave one in the current folder
    assert (torch.get_num_threads(), (tasks.SAFE_LOAD, checks.AUTOINSTALL)) == (threads, switches)

    assert record["passed"]
    assert record["sha256"] == hashlib.sha256((model.parent / "best.onnx").read_bytes()).hexdigest()
    assert record["images"] == {"source": "val split", "names": ["0.png", "2.png", "3.png"]}
    rows = record["rows"]
    assert [(row["role"], row["format"]) for row in rows] == [
        *(("dense", "pt"), ("model", "pt")),
        *(("dense", "onnx"), ("model", "onnx")),
    ]
    for torch_row, artifact_row in zip(rows[:2], rows[2:], strict=True):
        assert artifact_row["params"] == torch_row["params"] == 590_948  # as the host prints the small model
        assert artifact_row["map50_95"] == pytest.approx(torch_row["map50_95"], abs=1e-3)
        assert artifact_row["parity"]["boxes"] > 10
        assert artifact_row["parity"]["box_relative"] < prove.LIMITS["fp32"].raw / 10
        assert torch_row["speedup"] if torch_row["role"] == "model" else torch_row["speedup"] == 1.0
    assert len({row["parity"]["score_absolute"] for row in rows[2:]}) == 2  # two models, not one twice

    lives = onnx_memory.peak_bytes(model.parent / "best.onnx")
    assert [row["peak_activation_bytes"] for row in rows] == [None, None, lives, lives]  # of two models of equal widths
    assert any(f"model onnx {lives / 1e6:.2f} MB" in message for message in said)
    tables = [message for message in said if message.startswith("\nmodel")]
    assert len(tables) == 1
    lines = tables[0].strip().splitlines()
    heads = ["params", "GFLOPs", "mAP50-95", "mAP50", "ms (median)", "speed-up", "MB", "parity"]
    assert all(head in lines[0] for head in heads)
    assert [line.split()[:2] for line in lines[2:]] == [
        *(["dense", ".pt"], ["model", ".pt"]),
        *(["dense", "onnx"], ["model", "onnx"]),
    ]


def test_a_line_of_ours_is_seen_where_the_host_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def speak(words: str) -> None:
        os.write(1, f"{words}\n".encode())  # as native code does
        log.say(words)

    with caplog.at_level("INFO", "ultralytics"), silence.noise_to(tmp_path / "export.log"), silence.quiet() as aloud:
        speak("of the host")
        aloud(lambda: speak("of ours"))
        speak("of the host again")
    assert [message.partition(" ")[2] for message in caplog.messages] == ["of ours"]
    assert [line for line in capfd.readouterr().out.splitlines() if line.startswith("of ")] == ["of ours"]
    hidden = (tmp_path / "export.log").read_text(encoding="utf-8")
    assert hidden.count("of the host again") == 2
    assert "of ours" not in hidden


def test_without_data_it_says_so(model: Path, said: list[str], tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    out.mkdir()
    record = job.export(model, out=out, batch=2, **QUICK)
    assert sorted(path.name for path in out.iterdir()) == ["best.onnx", "export.json", "export.png"]
    assert [path.name for path in model.parent.iterdir()] == ["best.pt"]
    assert record["rows"]
    assert all(row["map50_95"] is None and row["speedup"] is None for row in record["rows"])
    assert record["batch"] == 2
    assert any("no data= was given" in message for message in said)


def test_a_perturbed_artifact_fails(model: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import numpy_helper

    def change(graph: Any) -> None:
        weights = [item for item in graph.graph.initializer if len(item.dims) == 4]
        item = weights[len(weights) // 2]
        array = numpy_helper.to_array(item) * 1.02
        item.CopyFrom(numpy_helper.from_array(array.astype("float32"), item.name))

    _spoil(monkeypatch, change)
    with pytest.raises(
        VerifyError, match=r"not proven, do not deploy it: best\.onnx \(model\): .*raw (box|score) outputs differ"
    ) as caught:
        job.export(model, **QUICK)
    assert "\n" not in str(caught.value)
    record = json.loads((model.parent / "export.json").read_text(encoding="utf-8"))
    assert record["passed"] is False
    assert record["rows"][-1]["parity"]["faults"]
    assert any("FAILED" in message for message in said if message.startswith("\nmodel"))


def test_an_artifact_of_another_map_fails(model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs agree on the few images that are compared, and mAP over all of them does not."""
    figures = iter(((0.5, 0.9), (0.45, 0.9)))
    monkeypatch.setattr(validation, "figures", lambda *_, **__: next(figures))
    with pytest.raises(VerifyError, match=r"mAP50-95 differs by 0\.0500 from torch"):
        job.export(model, data=tiny_data, **QUICK)


def test_val_is_asked_for_the_same_images_of_both(
    model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    stock = YOLO.val

    def val(self: Any, **settings: Any) -> Any:
        asked.append({key: settings[key] for key in ("data", "imgsz", "rect", "batch", "device")})
        return stock(self, **settings)

    monkeypatch.setattr(YOLO, "val", val)
    job.export(model, data=tiny_data, **QUICK)
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert (asked[0]["rect"], asked[0]["imgsz"]) == (False, SIDE)


def test_the_host_loads_in_its_restricted_way_and_installs_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks
    from ultralytics.utils import checks

    seen = []

    def look(*_: Any, **__: Any) -> str:
        seen.append((tasks.SAFE_LOAD, checks.AUTOINSTALL))
        raise RuntimeError("enough")

    monkeypatch.setattr(YOLO, "export", look)
    with pytest.raises(PruneError, match="enough"):
        job.export(model, **QUICK)
    assert seen == [(True, False)]


def test_mnns_converter_installs_and_reports_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone it installs a package for its log, and with it a protobuf that onnx cannot be imported with."""
    pytest.importorskip("MNN")
    for name in [name for name in sys.modules if name.startswith("MNN.tools")]:
        monkeypatch.delitem(sys.modules, name)
    commands: list[str] = []
    monkeypatch.setattr(os, "system", lambda command: commands.append(command) or 1)
    told = job.export(model, format="mnn", **QUICK)
    assert told["rows"][-1]["parity"]["passed"]
    assert commands == []
    assert sys.modules["MNN.tools.mnnconvert"].mnn_logger is None
    assert "MNN.tools.utils.log" not in sys.modules


def test_a_trained_model(weights: Callable[[str], Path], bccd: Path, tmp_path: Path) -> None:
    """Real weights, real images: final boxes of a model that is sure of what it sees."""
    path = Path(shutil.copyfile(weights("yolov8n-bccd.pt"), tmp_path / "cells.pt"))
    told = job.export(path, data=bccd, imgsz=160, images=4, repeats=2, out=tmp_path)
    parity = told["rows"][-1]["parity"]
    assert parity["passed"]
    assert parity["confidence"] == 0.25
    assert parity["matched"] == parity["boxes"] > 10


def test_a_fault_is_said_once(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One that was found in an artifact, and one of a format that could not be made."""
    from yolo_prune import cli

    stock, compare = exporter.by_host, prove.compare

    def by_host(staged: Path, network: Any, kind: str, precision: str, **rest: Any) -> Path:
        if kind == "torchscript":
            raise PruneError("no luck with it")
        return stock(staged, network, kind, precision, **rest)

    def broken(*given: Any) -> prove.Parity:
        parity = compare(*given)
        parity.faults.append("another box")
        return parity

    monkeypatch.setattr(exporter, "by_host", by_host)
    monkeypatch.setattr(prove, "compare", broken)
    words = [f"{name}={value}" for name, value in {**QUICK, "model": model, "format": "onnx,torchscript"}.items()]
    assert cli.main(["export", *words]) == 2
    text = "\n".join([*caplog.messages, capsys.readouterr().err])
    assert text.count("another box") == 1
    assert text.count("no luck with it") == 1


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"format": "coreml"}, f"format=coreml is not proven by this version; supported: {FORMATS}"),
        ({"format": "onnx,pb, paddle"}, f"format=pb,paddle are not proven by this version; supported: {FORMATS}"),
        ({"format": 3}, f"format=3 is not a format; supported: {FORMATS}"),
        ({"quantize": 4}, "quantize=4: 8 (INT8) or 16 (FP16) is needed"),
        ({"quantize": 8}, "quantize=8 is calibrated on images: name a data set with data="),
        ({"format": "ncnn", "quantize": 7}, "quantize=7: 8 (INT8)"),
        ({"imgsz": 0}, "imgsz=0: a whole number of 1 or more is needed"),
        ({"batch": 1.5, "threads": True}, "batch=1.5, threads=True: a whole number of 1 or more is needed"),
        ({"images": -1}, "images=-1: a whole number of 1 or more is needed"),
        ({"nms": True, "prune": 0.5}, "nms=True, prune=0.5: not supported by this version"),
        ({"out": __file__}, f"out={__file__}: nothing can be written there: a file is in the way"),
        ({"out": 3.5}, "out=3.5 is no name of a file or folder"),
        ({"dense": 0}, "dense=0: a PyTorch checkpoint of ultralytics is needed"),
        ({"imgsz": "abc"}, "imgsz=abc: a whole number of 1 or more is needed"),
        ({"imgsz": [64, 64]}, "imgsz=[64, 64]: a whole number of 1 or more is needed"),
        ({"imgsz": 10**12}, f"imgsz={10**12} is too large: 8192 at most"),
        ({"safe": "no"}, "safe=no: True or False is needed"),
        ({"workspace": "x"}, "workspace=x: GiB are needed, a number above 0, such as workspace=4"),
        ({"workspace": 4}, "workspace=4: no argument of ultralytics for onnx"),
        ({"formt": "onnx"}, "formt=onnx (did you mean format?): not supported by this version"),
        ({"data": "nowhere.yaml"}, "data=nowhere.yaml: not a data set that ultralytics can read."),
        ({"dense": "nowhere.pt"}, "dense=nowhere.pt: there is no such file"),
    ],
)
def test_bad_arguments_are_one_line_before_any_work(
    settings: dict[str, Any], line: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "make", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(PruneError) as caught:
        job.export(model, **settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_an_argument_of_one_format_is_left_out_for_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The host refuses an argument that a format has none of, so that right files would be lost with it."""
    given: dict[str, Any] = {}

    def make(subject: Any, kind: str, precision: str, place: Path, options: dict[str, Any]) -> Any:
        given[kind] = {name for name in options if name in job.HOST_ARGUMENTS}
        raise PruneError("no more is looked at")

    monkeypatch.setattr(results, "make", make)
    with caplog.at_level("WARNING", logger="ultralytics"), pytest.raises(PruneError, match="no more is looked at"):
        job.export(
            model, format="onnx,torchscript", opset=17, dynamic=True, simplify=True, fraction=0.5, out=tmp_path / "out"
        )
    assert given == {"onnx": {"opset", "dynamic", "simplify", "fraction"}, "torchscript": {"dynamic"}}
    assert "opset=17 is left out for torchscript, which has none" in caplog.text
    assert "fraction=0.5 is of INT8's calibration: it does nothing without quantize=8" in caplog.text


@pytest.mark.parametrize("yaml", ["yolov10n.yaml", "yolo12n.yaml", "yolo26n.yaml"])
def test_detectors_of_other_families(yaml: str, tmp_path: Path) -> None:
    told = job.export(save(tmp_path / "best.pt", 0, yaml), **QUICK)
    assert told["passed"]
    parity = told["rows"][1]["parity"]
    assert parity["matched"] + parity["borderline"] >= parity["boxes"] > 10
    assert 0 <= parity["score_relative"] < 1e-3


def test_a_model_that_is_no_yolo(tmp_path: Path, checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    files = {
        "truncated.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "image.pt": b"\x89PNG\r\n\x1a\n" + bytes(64),
        "pickle.pt": pickle.dumps({"model": Path("x")}),
        "best.onnx": whole,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PruneError, match=name) as caught:
            job.export(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_a_data_set_of_other_classes(model: Path, tiny_data: Path, tmp_path: Path) -> None:
    text = tiny_data.read_text(encoding="utf-8") + "  2: grey\n"
    (tmp_path / "three.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(PruneError, match=r"three\.yaml has 3 classes and .*best\.pt 2; they must be the same"):
        job.export(model, data=tmp_path / "three.yaml")


def _without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if these were not installed."""
    stock = formats.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name in modules else stock(name))


def test_a_missing_runtime_names_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "onnxruntime")
    with pytest.raises(PruneError, match=r"^format=onnx needs onnxruntime, .*: pip install onnxruntime$"):
        job.export(model)
