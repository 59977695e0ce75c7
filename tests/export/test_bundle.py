# yolo-prune, AGPL-3.0 license
"""The bundle for a device: its boxes are those of the host's own predict, and it needs neither torch nor the host."""

from __future__ import annotations

import ast
import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ASSETS

from tests.helpers.checkout import ROOT
from tests.helpers.environments import Done
from tests.helpers.oracle import lively
from yolo_prune import cli
from yolo_prune.errors import PruneError
from yolo_prune.export import bundle as bundles
from yolo_prune.export.bundle import bundle
from yolo_prune.host import exporter

PACKAGES = {"onnx": ("onnxruntime",), "openvino": ("openvino",), "ncnn": ("ncnn", "pnnx")}
NAMES = {0: "red cell", 1: "white cell", 2: "platelet"}
SCRIPTS = ROOT / "yolo_prune" / "export" / "on_device"
BLOCK = """\
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "ultralytics", "yolo_prune", "yaml"}:
            raise ImportError(name + " is not on the device")

sys.meta_path.insert(0, Block())
"""


# Artifacts ------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What is exported: a model, a format, and whether its end-to-end head is."""

    model: str
    kind: str
    end2end: bool = False

    def __str__(self) -> str:
        return f"{self.model}-{self.kind}{'-end2end' * self.end2end}"


TINY = Case("yolov8n.yaml", "onnx")
CASES = (
    TINY,
    Case("yolov8n.yaml", "openvino"),
    Case("yolov8n.yaml", "ncnn"),
    Case("yolo26n.yaml", "onnx", True),
    Case("yolov8n.pt", "onnx"),
    Case("yolov8n.pt", "openvino"),
    Case("yolov8n.pt", "ncnn"),
    Case("yolo26n.pt", "onnx", True),
)


def _tiny(name: str) -> dict[str, Any]:
    """Make a checkpoint of three classes that finds boxes of many scores and sizes in every picture."""
    torch.manual_seed(0)
    network = lively(DetectionModel(name, nc=3, verbose=False)).eval()
    head = network.model[-1]
    for branch in ("cv3", "one2one_cv3"):
        for tower in getattr(head, branch, None) or ():
            tower[-1].register_forward_hook(partial(_set, 0.0, 2.0))
    for branch in ("cv2", "one2one_cv2"):
        for tower in (getattr(head, branch, None) or ()) if head.reg_max == 1 else ():
            tower[-1].register_forward_hook(partial(_set, 1.5, 0.5))  # distances to the sides, in strides
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    for module in network.modules():
        module._forward_hooks.clear()
    network.names = NAMES
    return {"model": network.half(), "ema": None, "train_args": {"imgsz": 64}, "epoch": -1}


def _set(mean: float, spread: float, module: Any, _: Any, output: torch.Tensor) -> None:
    """Give a convolution's outputs this mean and spread, from the next call on."""
    factor = spread / output.std()
    module.weight.data *= factor
    module.bias.data = mean - (output - module.bias[:, None, None]).mean((0, 2, 3)) * factor


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Path]
) -> Callable[[Case], tuple[Path, int]]:
    """Return a function: case -> the artifact that the host writes, and its side in pixels. Each is made once."""
    done: dict[Case, Path] = {}

    def export(case: Case) -> tuple[Path, int]:
        for package in PACKAGES[case.kind]:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        side = 320 if case.model.endswith(".pt") else 64
        if case not in done:
            folder = tmp_path_factory.mktemp("exported")
            checkpoint = folder / "best.pt"
            if case.model.endswith(".pt"):
                shutil.copyfile(weights(case.model), checkpoint)
            else:
                torch.save(_tiny(case.model), checkpoint)
            options: dict[str, Any] = {"nms": False} if case.end2end else {}
            with exporter.restrained(), exporter.quiet():
                done[case] = Path(YOLO(str(checkpoint)).export(format=case.kind, imgsz=side, **options))
        return done[case], side

    return export


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures: upright, wide, and smaller than any network's input."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("bus", "zidane"):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.imread(str(ASSETS / f"{name}.jpg")))
    cv2.imwrite(str(folder / "small.png"), cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (53, 39)))
    return folder


@pytest.fixture
def best(exported: Callable[[Case], tuple[Path, int]], tmp_path: Path) -> Path:
    """Return a copy of the tiny best.onnx in a folder of its own."""
    return Path(shutil.copy(exported(TINY)[0], tmp_path))


@pytest.fixture
def device(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Return a function that runs a script where torch, the host and we cannot be imported."""
    blocked = tmp_path_factory.mktemp("blocked")
    (blocked / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")

    def run(script: Path, *words: str, path: str | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, str(script), *words],
            env={**os.environ, "PYTHONPATH": str(blocked), **({"PATH": path} if path else {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def detect() -> Iterator[ModuleType]:
    """Return detect.py as the module that it is in a bundle."""
    yield from _module("detect")


def _module(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    threads = cv2.getNumThreads()
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        cv2.setNumThreads(threads)
        del sys.modules[name]


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


# On the device --------------------------------------------------------------------------------------------------------


def _words(detect: ModuleType, *words: str) -> str:
    with pytest.raises(detect.DeviceError) as caught:
        detect.main(list(words))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def placed(detect: ModuleType, best: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return detect.py as if it lay in the bundle of the tiny network."""
    monkeypatch.setattr(detect, "__file__", str(bundle(best) / "detect.py"))
    return detect


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

    done = device(script, "repeats=0")
    assert done.code == 1
    assert done.text == "benchmark: repeats=0: a whole number of 1 or more is needed\n"


def test_the_command_line_calls_it(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", f"model={best}"]) == 0
    assert "saved" in capsys.readouterr().out
    assert cli.main(["bundle", "model=none.onnx"]) == 1
