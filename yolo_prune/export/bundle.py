# yolo-prune, AGPL-3.0 license
"""`yolo-prune bundle`: an exported network and what runs it on a device, as a folder that needs no torch there.

It reads what the host's exporter writes (ultralytics 8.4.190, engine/exporter.py): the metadata inside the ONNX file,
or metadata.yaml in the folders of OpenVINO and ncnn. The scripts that go along lie in on_device/.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yolo_prune import __version__, files
from yolo_prune.cost import exported_file
from yolo_prune.errors import PruneError, first_line
from yolo_prune.recipe import value_checks
from yolo_prune.recipe.formats import FORMATS
from yolo_prune.shell import command

KIND = "yolo-prune bundle"
VERSION = 1
THREADS = 4  # cores of every Raspberry Pi since the 2; on fewer, detect.py takes what is there
# OpenCV without windows: it needs none of the libraries of a desktop
_PACKAGES = ("numpy", "opencv-python-headless")
_SCRIPTS = ("detect.py", "benchmark.py")
_TEXTS = ("labels.txt", "model.json", "requirements.txt", "README.txt")
_FOLDERS = {"openvino": ("*.xml", "*.bin"), "ncnn": ("*.param", "*.bin")}  # the files of a network
_CHECKPOINTS = {".pt", ".pth", ".yaml", ".yml"}


@dataclass(frozen=True)
class Artifact:
    """An exported network: its format, its files, and what its metadata says."""

    path: Path
    format: str
    files: tuple[Path, ...]
    names: tuple[str, ...]
    imgsz: tuple[int, int]  # height, width
    end2end: bool  # whether it puts out final boxes, because its head or an embedded NMS makes them


def bundle(model: str | Path, *, out: str | Path | None = None) -> Path:
    """`yolo-prune bundle`: put an exported detection network, labels and scripts into a folder for a device.

    Args:
        model: best.onnx, best_openvino_model/ or best_ncnn_model/, as `yolo export` writes them.
        out: the folder to write; default: beside the artifact, its name with -bundle behind it. A bundle that lies
            there is replaced.

    Returns:
        The folder. It appears whole or not at all.

    Raises:
        PruneError: it is no such artifact, not a detector, or the folder is something else or cannot be written.
    """
    artifact = read(value_checks.path("model", model, "best.onnx"))
    path = artifact.path
    named = path.with_name(f"{path.name}-bundle") if out is None else value_checks.path("out", out, "best-bundle")
    target = Path(os.path.abspath(named))
    _check_target(target)
    with files.room(target) as folder:
        filled = folder / target.name
        filled.mkdir()
        _fill(filled, artifact)
        files.put(filled, target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"saved {target} ({size / 1e6:.1f} MB); copy it to the device, README.txt in it says how to go on")
    return target


# Reading --------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Artifact:
    """Find out what an artifact is, and check that a bundle can be made of it.

    Raises:
        PruneError: it is not there, not one, or not of a kind that detect.py can run.
    """
    if not os.path.exists(path):  # False, where Path.exists raises, for a name the file system refuses
        raise PruneError(f"model={value_checks.shown(path)}: there is no such file or folder")
    path = Path(os.path.abspath(path))  # "best_ncnn_model/" and "." have a name then
    if path.is_dir():
        kind, files = _folder(path)
        metadata = _yaml(path / "metadata.yaml", kind)
        network, weights = files
        exported_file.require_whole(network, weights, kind)
        files = (network, weights, path / "metadata.yaml")
    elif path.suffix.lower() == ".onnx":
        kind, files, metadata = "onnx", (path,), _onnx(path)
    elif path.suffix.lower() in _CHECKPOINTS:
        raise PruneError(
            f"model={path}: this is no exported network; export it first: "
            f"{command(['yolo', 'export', f'model={path}', 'format=onnx'])} (or openvino, ncnn)"
        )
    else:
        raise PruneError(
            f"model={path}: a bundle is made of an .onnx file, or of the folder of an OpenVINO or ncnn export"
        )
    return _artifact(path, kind, files, metadata)


def _folder(path: Path) -> tuple[str, tuple[Path, ...]]:
    """The format of an exported folder, and the two files of its network."""
    for kind, patterns in _FOLDERS.items():
        matches = [sorted(path.glob(pattern)) for pattern in patterns]
        if all(len(files) == 1 for files in matches):
            return kind, tuple(files[0] for files in matches)
    raise PruneError(
        f"model={path}: this folder is no OpenVINO export (one .xml, one .bin) and no ncnn one (.param, .bin)"
    )


def _yaml(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PruneError(
            f"model={path.parent}: metadata.yaml is missing, which names the classes; export again: "
            f"yolo export model=best.pt format={kind}"
        ) from None
    except (OSError, ValueError, OverflowError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise PruneError(f"{path} cannot be read: {first_line(error)}") from error
    return content if isinstance(content, dict) else {}


def _onnx(path: Path) -> dict[str, Any]:
    """The host's metadata of an ONNX file; it writes every value as Python would print it."""
    import onnx

    try:
        properties = onnx.load(str(path), load_external_data=False).metadata_props
    except Exception as error:  # protobuf has its own, and another one in each of its versions
        raise PruneError(f"model={path}: not an ONNX file that can be read. {first_line(error)}") from error
    metadata: dict[str, Any] = {}
    for item in properties:
        try:
            metadata[item.key] = ast.literal_eval(item.value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            metadata[item.key] = item.value
    return metadata


def _artifact(path: Path, kind: str, files: tuple[Path, ...], metadata: dict[str, Any]) -> Artifact:
    """Check what the metadata says."""
    missing = [key for key in ("task", "names", "imgsz") if key not in metadata]
    if missing:
        raise PruneError(
            f"model={path}: its metadata lacks {', '.join(missing)}; export it with ultralytics: "
            f"yolo export model=best.pt format={kind}"
        )
    task = metadata["task"]
    if task != "detect":
        raise PruneError(f"model={path}: a model of task {task}; a bundle detects objects and knows no other task")
    if metadata.get("head") == "RTDETRDecoder":
        raise PruneError(f"model={path}: an RT-DETR model; a bundle knows YOLO detection models")
    arguments = metadata.get("args")
    arguments = arguments if isinstance(arguments, dict) else {}
    batch, channels = metadata.get("batch", 1), metadata.get("channels", 3)
    if batch != 1 and not arguments.get("dynamic"):
        raise PruneError(f"model={path}: exported for {batch} images a call; a bundle takes one, export with batch=1")
    if channels != 3:
        raise PruneError(
            f"model={path}: a model for {channels} channel(s); a bundle takes colour pictures, which have 3"
        )
    end2end = bool(metadata.get("end2end") or arguments.get("nms"))
    return Artifact(path, kind, files, _names(path, metadata["names"]), _size(path, metadata["imgsz"]), end2end)


def _names(path: Path, given: object) -> tuple[str, ...]:
    """Class names in the order of their numbers."""
    names = dict(enumerate(given)) if isinstance(given, (list, tuple)) else given
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise PruneError(f"model={path}: the class names in its metadata are not numbered from 0 on: {given}")
    return tuple(" ".join(str(names[number]).split()) for number in range(len(names)))  # one line each in labels.txt


def _size(path: Path, given: object) -> tuple[int, int]:
    sides = [given, given] if isinstance(given, int) else given
    if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(isinstance(s, int) and s > 0 for s in sides):
        raise PruneError(f"model={path}: imgsz in its metadata is {given}, and not a height and a width in pixels")
    return sides[0], sides[1]


# Writing --------------------------------------------------------------------------------------------------------------


def _check_target(target: Path) -> None:
    """Raise unless the target is free, or a bundle with nothing of the user's in it."""
    files.require_folder("out", target.parent)
    if not os.path.lexists(target):
        return
    ours = _contents(target)
    if ours is None:
        raise PruneError(f"out={target}: something else lies there; move it, or name another folder with out=")
    others = sorted(item.name for item in target.iterdir() if item.name not in ours)
    if others:
        raise PruneError(
            f"out={target}: the bundle there holds {others[0]}, which is not part of it; move it, or name another "
            "folder with out="
        )


def _contents(folder: Path) -> set[str] | None:
    """The names of what belongs to a bundle; None where a folder is none."""
    try:
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(about, dict) or about.get("kind") != KIND:
        return None
    return {str(about.get("artifact")), *_SCRIPTS, *_TEXTS, "__pycache__"}


def _fill(folder: Path, artifact: Artifact) -> None:
    """Write a bundle's files."""
    name = artifact.path.name
    into = folder
    if artifact.path.is_dir():
        into = folder / name
        into.mkdir()
    for file in artifact.files:
        shutil.copyfile(file, into / file.name)
    for script in _SCRIPTS:
        shutil.copyfile(Path(__file__).parent / "on_device" / script, folder / script)
    about = {
        "kind": KIND,
        "version": VERSION,
        "yolo_prune": __version__,
        "artifact": name,
        "format": artifact.format,
        "task": "detect",
        "imgsz": artifact.imgsz,
        "end2end": artifact.end2end,
        "names": artifact.names,
        "threads": THREADS,
    }
    texts = {
        "labels.txt": "".join(f"{label}\n" for label in artifact.names),
        "model.json": json.dumps(about, indent=1, ensure_ascii=False) + "\n",
        "requirements.txt": "".join(f"{package}\n" for package in (*_PACKAGES, *FORMATS[artifact.format].run.values())),
        "README.txt": _readme(artifact),
    }
    for file_name, text in texts.items():
        (folder / file_name).write_text(text, encoding="utf-8", newline="\n")


def _readme(artifact: Artifact) -> str:
    height, width = artifact.imgsz
    return f"""\
{artifact.path.name} detects objects of {len(artifact.names)} kinds (labels.txt) in pictures.
It sees them at {width} x {height} pixels. It needs Python 3.9 or newer and what requirements.txt lists, and neither
torch nor ultralytics.

Install, once, in this folder:

    python3 -m venv venv && venv/bin/pip install -r requirements.txt

Detect in a picture, in a folder of them, in a video, or in what a camera sees (source=0 is the first one):

    venv/bin/python detect.py source=photo.jpg save=found

USB cameras work as they are. One on the ribbon cable of a Raspberry Pi is unknown to OpenCV; with the package
libcamera-tools, libcamerify before the command should make it known (this was not tried).

Measure how fast this device is:

    venv/bin/python benchmark.py

detect.py takes
    conf=0.25       the least score of a box
    iou=0.7         how much two boxes of one class may overlap
    threads={THREADS}       CPU threads
    save=found      a folder for the pictures with their boxes, and boxes.json
    show=True       a window (q ends it); it needs opencv-python in place of opencv-python-headless
benchmark.py takes
    threads={THREADS}       CPU threads
    repeats=50      timed calls, at least; they go on until the time is known to 3%
    seconds=60      of timing, at most
    image=photo.jpg a picture to measure with, in place of noise
    beside=folder   the bundle of another network, such as the dense one: how many times as fast this one is
"""
