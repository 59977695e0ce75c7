# yolo-prune, AGPL-3.0 license
"""The bundle for a device: its boxes are those of the host's own predict, and it needs neither torch nor the host."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO

from tests.helpers.bundles import CASES, NAMES, SCRIPTS, Case
from tests.helpers.environments import Done
from yolo_prune.errors import PruneError
from yolo_prune.export import bundle as bundles
from yolo_prune.export.bundle import bundle
from yolo_prune.host import exporter

# Boxes ----------------------------------------------------------------------------------------------------------------


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    inter = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inter / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter))


def _same(host: Any, ours: list[dict[str, Any]]) -> None:
    """Every box of the host has its partner among ours, and there are no others."""
    assert len(host) == len(ours)
    rest = list(ours)
    for box, score, number in zip(host.xyxy.numpy(), host.conf.tolist(), host.cls.tolist(), strict=True):
        alike = [o for o in rest if o["class"] == int(number) and abs(o["score"] - score) < 0.01]
        partner = max(alike, key=lambda o: _iou(box, np.array(o["box"])), default=None)
        assert partner is not None
        assert _iou(box, np.array(partner["box"])) > 0.99
        rest.remove(partner)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_boxes_are_those_of_the_hosts_predict(
    case: Case,
    exported: Callable[[Case], tuple[Path, int]],
    pictures: Path,
    device: Callable[..., Done],
    tmp_path: Path,
) -> None:
    artifact, side = exported(case)
    folder = bundle(artifact, out=tmp_path / "bundle")
    conf = 0.1
    done = device(folder / "detect.py", f"source={pictures}", f"conf={conf}", "threads=1", f"save={tmp_path / 'found'}")
    assert done.code == 0, done.text

    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert about["imgsz"] == [side, side]
    assert about["end2end"] is case.end2end
    entries = json.loads((tmp_path / "found" / "boxes.json").read_text(encoding="utf-8"))
    assert [entry["source"] for entry in entries] == ["bus.png", "small.png", "zidane.png"]
    with exporter.restrained():
        host = YOLO(str(artifact), task="detect")
        seen = 0
        for entry, line in zip(entries, done.out.splitlines(), strict=True):
            (result,) = host.predict(pictures / entry["source"], conf=conf, verbose=False, device="cpu")
            _same(result.boxes, entry["boxes"])
            seen += len(entry["boxes"])
            assert entry["size"] == list(result.orig_shape[::-1])
            assert re.match(rf"{entry['source']}: .+ \([\d.]+ ms before, [\d.]+ ms inference, [\d.]+ ms after\)$", line)
            assert {box["name"] for box in entry["boxes"]} == {result.names[int(n)] for n in result.boxes.cls}
            drawn = cv2.imread(str(tmp_path / "found" / entry["source"]))
            assert drawn.shape == result.orig_img.shape
            assert (drawn != result.orig_img).any() == bool(entry["boxes"])
    assert seen > 5


def test_letterbox_is_the_hosts_for_any_shape(detect: ModuleType, best: Path) -> None:
    from ultralytics.data.augment import LetterBox

    detector = detect.Detector(bundle(best), 1)
    detector.height, detector.width = 96, 160  # not square: the sides must not be mixed up
    rng = np.random.default_rng(0)
    for shape in [(1, 300), (300, 1), (96, 160), (97, 161), *rng.integers(2, 400, (40, 2)).tolist()]:
        picture = rng.integers(0, 256, (*shape, 3), np.uint8)
        ours = detector.prepare(picture)
        theirs = LetterBox((96, 160))(image=picture)[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
        assert ours.dtype == np.float32
        assert np.array_equal(ours[0], theirs), shape


def test_boxes_of_random_outputs_are_the_hosts(detect: ModuleType, best: Path) -> None:
    """Many overlapping boxes, more than may stay, and thresholds at which much or nothing does."""
    from ultralytics.utils import nms, ops

    detector = detect.Detector(bundle(best), 1)
    rng = np.random.default_rng(0)
    limits = ((0.25, 0.7, 500), (0.001, 0.45, 500), (0.0, 0.99, 1500), (0.999, 0.7, 500), (0.25, 0.0, 90))
    most = 0
    for (conf, iou, count), shape in product(limits, ((39, 53), (53, 39), (7, 300), (300, 7))):
        raw = np.concatenate((rng.uniform(0, 64, (1, 4, count)), rng.random((1, 3, count)) ** 3), 1, dtype=np.float32)
        (theirs,) = nms.non_max_suppression(torch.from_numpy(raw.copy()), conf, iou)
        theirs[:, :4] = ops.scale_boxes((64, 64), theirs[:, :4], shape)
        ours = detector.boxes(raw, (*shape, 3), conf, iou)
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
        most = max(most, len(ours))
    assert most == 300, "as many as may stay"


# What a bundle is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_what_lies_in_it(case: Case, exported: Callable[[Case], tuple[Path, int]], tmp_path: Path) -> None:
    artifact, _ = exported(case)
    folder = bundle(artifact, out=str(tmp_path / "bundle"))
    runtime = {"onnx": "onnxruntime"}.get(case.kind, case.kind)
    texts = {"README.txt", "benchmark.py", "detect.py", "labels.txt", "model.json", "requirements.txt"}
    assert {item.name for item in folder.iterdir()} == {artifact.name, *texts}
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == list(NAMES.values())
    packages = (folder / "requirements.txt").read_text(encoding="utf-8").split()
    assert packages == ["numpy", "opencv-python-headless", runtime]
    assert json.loads((folder / "model.json").read_text(encoding="utf-8")) == {
        "kind": "yolo-prune bundle",
        "version": 1,
        "yolo_prune": bundles.__version__,
        "artifact": artifact.name,
        "format": case.kind,
        "task": "detect",
        "imgsz": [64, 64],
        "end2end": False,
        "names": list(NAMES.values()),
        "threads": 4,
    }
    if artifact.is_dir():  # without what pnnx leaves for torch
        assert len(list((folder / artifact.name).iterdir())) == 3
        assert not list(folder.rglob("*_ncnn.py"))
    for script in ("detect.py", "benchmark.py"):
        assert (folder / script).read_bytes() == (SCRIPTS / script).read_bytes()
    readme = (folder / "README.txt").read_text(encoding="utf-8")
    assert "pip install -r requirements.txt" in readme
    assert "detect.py source=photo.jpg" in readme
    assert "benchmark.py" in readme
    for program in ("detect", "benchmark"):
        source = (folder / f"{program}.py").read_text(encoding="utf-8")
        (given,) = re.findall(r"arguments\(\w+, (\{.*?\})", source, re.DOTALL)
        names = set(re.findall(r'"(\w+)":', given)) - {"source"}
        assert names <= set(re.findall(r"^    (\w+)=", readme.partition(f"\n{program}.py takes\n")[2], re.MULTILINE))


@pytest.mark.parametrize("script", ["detect.py", "benchmark.py"])
def test_the_scripts_need_what_requirements_say(script: str) -> None:
    tree = ast.parse((SCRIPTS / script).read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    strangers = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert strangers <= {"numpy", "cv2", "detect"}  # the runtime is imported by its name


def test_making_one_needs_no_torch(best: Path) -> None:
    code = (
        "import sys; from yolo_prune.export.bundle import bundle; bundle(sys.argv[1]); "
        "print({'torch', 'ultralytics'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(best)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert (best.parent / "best.onnx-bundle" / "detect.py").is_file()


def test_nms_in_the_network_counts_as_end_to_end(best: Path) -> None:
    import onnx

    network = onnx.load(str(best))
    for item in network.metadata_props:
        if item.key == "args":
            item.value = str({**ast.literal_eval(item.value), "nms": True})
    onnx.save(network, str(best))
    assert bundles.read(best).end2end is True


# Faults of the command ------------------------------------------------------------------------------------------------


def _fault(model: Path, out: Path | None = None) -> str:
    with pytest.raises(PruneError) as caught:
        bundle(model, out=out)
    text = str(caught.value)
    assert "\n" not in text
    return text


def _changed(path: Path, **values: Any) -> Path:
    """Write an ONNX file anew with other metadata; None takes a key away."""
    import onnx

    network = onnx.load(str(path))
    kept = {item.key: item.value for item in network.metadata_props} | {k: str(v) for k, v in values.items()}
    del network.metadata_props[:]
    onnx.helper.set_model_props(network, {k: v for k, v in kept.items() if values.get(k, "") is not None})
    onnx.save(network, str(path))
    return path


def test_what_is_no_artifact(best: Path, tmp_path: Path) -> None:
    assert "there is no such file or folder" in _fault(tmp_path / "none.onnx")
    for name in ("best.pt", "best.engine"):
        (tmp_path / name).write_bytes(b"x")
    assert "export it first: yolo export model=" in _fault(tmp_path / "best.pt")
    assert "a bundle is made of an .onnx file" in _fault(tmp_path / "best.engine")
    assert "no OpenVINO export" in _fault(tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    assert "not an ONNX file that can be read" in _fault(tmp_path / "broken.onnx")
    assert not list(tmp_path.glob("*-bundle"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "segment"}, "a model of task segment; a bundle detects objects"),
        ({"names": None, "imgsz": None}, "its metadata lacks names, imgsz; export it with ultralytics"),
        ({"head": "RTDETRDecoder"}, "an RT-DETR model"),
        ({"batch": 4}, "exported for 4 images a call"),
        ({"channels": 1}, "a model for 1 channel(s)"),
        ({"names": {1: "a"}}, "not numbered from 0 on"),
        ({"imgsz": "large"}, "not a height and a width"),
    ],
)
def test_what_its_metadata_must_say(best: Path, values: dict[str, Any], words: str) -> None:
    assert words in _fault(_changed(best, **values))


def test_a_folder_without_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "best_ncnn_model"
    folder.mkdir()
    for name in ("model.ncnn.param", "model.ncnn.bin"):
        (folder / name).write_bytes(b"x")
    assert "metadata.yaml is missing" in _fault(folder)
    (folder / "metadata.yaml").write_text("a: [", encoding="utf-8")
    assert "metadata.yaml cannot be read" in _fault(folder)
    (folder / "metadata.yaml").write_text("nothing", encoding="utf-8")
    assert "its metadata lacks task, names, imgsz" in _fault(folder)
    content = {"task": "detect", "names": ["a\nb", "c"], "imgsz": [32, 64]}  # a list, as older hosts write them
    (folder / "metadata.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    made = bundle(f"{folder}/")
    assert made == tmp_path / "best_ncnn_model-bundle"
    assert (made / "labels.txt").read_text(encoding="utf-8") == "a b\nc\n"


def test_where_it_may_lie(best: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    assert "nothing can be written there: a file is in the way" in _fault(best, tmp_path / "taken" / "bundle")
    assert bundle(best, out=tmp_path / "new" / "folder" / "bundle").is_dir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.json").write_text("{}", encoding="utf-8")
    assert "something else lies there" in _fault(best, other)
    assert "something else lies there" in _fault(best, best)
    made = bundle(best)
    (made / "notes.txt").write_text("mine", encoding="utf-8")
    assert "holds notes.txt, which is not part of it" in _fault(best)
    (made / "notes.txt").unlink()
    (made / "labels.txt").unlink()
    (made / "__pycache__").mkdir()
    assert bundle(best) == made
    assert (made / "labels.txt").is_file()
    assert not (made / "__pycache__").exists()


def test_it_is_there_whole_or_not_at_all(best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def failing(where: Any, name: str, after: int) -> None:
        count, real = iter(range(100)), getattr(where, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if next(count) == after:
                raise full
            return real(*args, **kwargs)

        monkeypatch.setattr(where, name, call)

    target = best.parent / "best.onnx-bundle"
    for old in (False, True):
        for where, name, after in (
            (shutil, "copyfile", 1),
            (Path, "write_text", 3),
            (Path, "mkdir", 0),
            (os, "replace", old),
        ):
            before = {file: file.read_bytes() for file in target.rglob("*")}
            with monkeypatch.context():
                failing(where, name, int(after))
                fault = _fault(best)
                monkeypatch.undo()
            tried = name == "mkdir"  # where nothing can be made, that is seen before the work
            assert fault.startswith(
                f"out={best.parent}: nothing can be written there: No space left on device"
                if tried
                else f"{target} cannot be written: No space left on device"
            )
            assert {item.name for item in best.parent.iterdir()} == {"best.onnx", *([target.name] if old else [])}
            assert {file: file.read_bytes() for file in target.rglob("*")} == before
        bundle(best)
    assert sorted(item.name for item in best.parent.iterdir()) == ["best.onnx", "best.onnx-bundle"]
