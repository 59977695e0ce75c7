# yolo-prune, AGPL-3.0 license
"""The scripts of a bundle, where they run: words, sources, what is saved, faults, and the benchmark."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
from ultralytics.utils import ASSETS

from tests.helpers.environments import Done
from yolo_prune import cli
from yolo_prune.export.bundle import bundle

# On the device --------------------------------------------------------------------------------------------------------


def _words(detect: ModuleType, *words: str) -> str:
    with pytest.raises(detect.DeviceError) as caught:
        detect.main(list(words))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_words_of_the_script(detect: ModuleType) -> None:
    assert "source= is missing" in _words(detect)
    assert "sorce=a: write source=..." in _words(detect, "sorce=a")
    assert "conf=high: a number is needed" in _words(detect, "source=a", "conf=high")
    assert "iou=2: a number from 0 to 1 is needed" in _words(detect, "source=a", "iou=2")
    assert "threads=0: a whole number of 1 or more" in _words(detect, "source=a", "threads=0")
    assert "show=maybe: True or False is needed" in _words(detect, "source=a", "show=maybe")


def test_sources_that_cannot_be_read(
    placed: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no such file or folder" in _words(placed, "source=none.jpg")
    (tmp_path / "empty").mkdir()
    assert "no picture or video lies in this folder" in _words(placed, "source=empty")
    for name in ("a.txt", "a.jpg", "a.mp4"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    assert "not a picture or a video" in _words(placed, "source=a.txt")
    assert "a.jpg cannot be read as a picture" in _words(placed, "source=a.jpg")
    assert "a.mp4 cannot be read as a video" in _words(placed, "source=a.mp4")
    assert "camera 99 does not open" in _words(placed, "source=99")

    mixed = tmp_path / "mixed"
    shutil.copytree(pictures, mixed)
    (mixed / "broken.png").write_bytes(b"")
    capsys.readouterr()
    assert placed.main([f"source={mixed}"]) == 1
    captured = capsys.readouterr()
    assert "broken.png cannot be read as a picture" in captured.err
    assert captured.out.count("\n") == 3  # the others went on


def test_what_is_saved_overwrites_no_source(placed: ModuleType, pictures: Path, tmp_path: Path) -> None:
    for source in (pictures, pictures / "bus.png"):
        assert "would be overwritten" in _words(placed, f"source={source}", f"save={pictures}")
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be written to" in _words(placed, f"source={pictures}", "save=file")


def test_a_picture_of_any_name_is_saved(
    placed: ModuleType, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)  # as on Windows, of a name beyond ASCII
    name = "Größe.png"
    source = Path(shutil.copy(pictures / "small.png", tmp_path / name))
    assert placed.main([f"source={source}", "save=found"]) == 0
    assert placed.image(tmp_path / "found" / name).shape == placed.image(source).shape
    (tmp_path / "found" / name).unlink()
    (tmp_path / "found" / name).mkdir()
    assert f"{name} cannot be written: Is a directory" in _words(placed, f"source={source}", "save=found")


def test_what_is_missing_on_the_device(placed: ModuleType, monkeypatch: pytest.MonkeyPatch, best: Path) -> None:
    folder = Path(placed.__file__ or "").parent
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert _words(placed, "source=a.jpg") == "onnxruntime is missing here: pip install -r requirements.txt"
    (folder / "best.onnx").write_bytes(b"not a network")
    assert _words(placed, "source=a.jpg").startswith("onnxruntime cannot open best.onnx: ")
    (folder / "model.json").write_text("{}", encoding="utf-8")
    assert "model.json cannot be read" in _words(placed, "source=a.jpg")


def test_a_network_that_is_not_what_model_json_says(placed: ModuleType, pictures: Path) -> None:
    about = Path(placed.__file__ or "").with_name("model.json")
    content = json.loads(about.read_text(encoding="utf-8"))
    about.write_text(json.dumps({**content, "names": ["one"]}), encoding="utf-8")
    assert "puts out (1, 7, 84), which is not for the 1 classes of model.json" in _words(placed, f"source={pictures}")


def test_a_video_and_a_camera(
    placed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    picture = cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (96, 64))
    for _ in range(3):
        film.write(picture)
    film.release()
    assert placed.main(["source=film.avi", "save=found"]) == 0
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines()] == [f"film.avi frame {i}" for i in (1, 2, 3)]
    entries = json.loads((tmp_path / "found" / "boxes.json").read_text(encoding="utf-8"))
    assert [entry["frame"] for entry in entries] == [1, 2, 3]
    kept = cv2.VideoCapture(str(tmp_path / "found" / "film.avi.mp4"))
    assert (kept.get(cv2.CAP_PROP_FRAME_COUNT), kept.get(cv2.CAP_PROP_FPS)) == (3, 10)

    # A camera that gives two pictures and is then pulled out: what it gave is kept.
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: real("film.avi") if source == 0 else real(source))
    assert _words(placed, "source=0", "save=seen") == "camera 0 gives no more pictures after 3"
    assert len(json.loads((tmp_path / "seen" / "boxes.json").read_text(encoding="utf-8"))) == 3
    assert (tmp_path / "seen" / "camera0.mp4").stat().st_size > 0


def test_boxes_json_is_whole_where_the_user_stops(
    placed: ModuleType, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = placed.boxes_and_times, iter(range(9))

    def stopped(*args: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(placed, "boxes_and_times", stopped)
    with pytest.raises(KeyboardInterrupt):
        placed.main([f"source={pictures}", "save=found"])
    assert len(json.loads((tmp_path / "found" / "boxes.json").read_text(encoding="utf-8"))) == 1


def test_a_window_that_cannot_be_shown(placed: ModuleType, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def imshow(*_: Any) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "imshow", imshow)
    assert "show=True needs a screen" in _words(placed, f"source={pictures}", "show=true")


def test_a_fault_is_one_line(best: Path, device: Callable[..., Done]) -> None:
    done = device(bundle(best) / "detect.py", "source=none.jpg")
    assert done.code == 1
    assert done.text == "detect: source=none.jpg: there is no such file or folder\n"


def test_benchmark(best: Path, pictures: Path, device: Callable[..., Done], tmp_path: Path) -> None:
    script = bundle(best) / "benchmark.py"
    tools = tmp_path / "tools"
    tools.mkdir()
    answers = (
        '#!/bin/sh\ncase $1 in\nmeasure_temp) echo "temp=48.3\'C";;\nget_throttled) echo throttled=0x50001;;\nesac\n'
    )
    (tools / "vcgencmd").write_text(answers, encoding="utf-8")
    (tools / "vcgencmd").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = device(script, "threads=1", "repeats=30", "seconds=1", f"image={pictures / 'bus.png'}", path=path)
    assert done.code == (3 if "THE MACHINE WAS TOO BUSY" in done.out else 0), done.text
    measured = re.search(r"measured    (\d+) times after 5, 1 thread\(s\)", done.out)
    assert measured
    assert int(measured[1]) >= 30
    rows = {
        line.split()[0]: [float(v) for v in line.split()[1:]]
        for line in done.out.splitlines()
        if "." in line and line.startswith(("inference", "whole"))
    }
    for median, low, high in rows.values():
        assert 0 < low <= median <= high
    assert rows["inference"][0] < rows["whole"][0]
    assert re.search(r"^[\d.]+ frames per second$", done.out, re.MULTILINE)
    if os.name == "posix":
        assert "temperature 48.3'C" in done.out
        assert "now: under-voltage; since the start: under-voltage, throttled" in done.out

    done = device(script, "repeats=2", "seconds=1", f"beside={script.parent}")
    busy = "THE MACHINE WAS TOO BUSY" in done.out
    assert done.code == (3 if busy else 0), done.text
    told = re.search(r"^inference   (.+) \(99% interval ([\d.]+) to ([\d.inf]+)\)$", done.out, re.MULTILINE)
    assert told is not None, done.out
    assert ("too noisy to tell which is faster" in told[1]) is busy
    assert busy or float(told[2]) <= 1.03 <= float(told[3]) + 0.06  # a network beside itself

    assert "measuring   about " in done.out
    assert "NOT OF ONE SIZE" not in done.out
    other = tmp_path / "other"
    shutil.copytree(script.parent, other)
    about = json.loads((other / "model.json").read_text(encoding="utf-8"))
    (other / "model.json").write_text(json.dumps({**about, "imgsz": [32, 96]}), encoding="utf-8")
    done = device(script, "repeats=2", "seconds=1", f"beside={other}")
    assert done.out.startswith(
        "THE IMAGES ARE NOT OF ONE SIZE: this network takes 64 x 64 pixels, the one beside it 96 x 32"
    )

    done = device(script, "repeats=0")
    assert done.code == 1
    assert done.text == "benchmark: repeats=0: a whole number of 1 or more is needed\n"


def test_the_command_line_calls_it(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", f"model={best}"]) == 0
    assert "saved" in capsys.readouterr().out
    assert cli.main(["bundle", "model=none.onnx"]) == 1
