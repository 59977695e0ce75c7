# yolo-prune, AGPL-3.0 license
"""Detect objects on a device, in pictures, videos or what a camera sees, with the network beside this file.

    python detect.py source=photo.jpg|folder|video.mp4|0 [conf=0.25] [iou=0.7] [threads=4] [save=folder] [show=False]

A number is a camera. save= keeps the pictures with their boxes, and boxes.json. It needs what requirements.txt lists
and Python 3.9 or newer. What happens to a picture follows ultralytics 8.4.190 step by step, so that boxes are the same:
data/augment.py (LetterBox), engine/predictor.py (preprocess), utils/nms.py, utils/ops.py (scale_boxes).

It is one file, longer than others of the project, so that whoever takes it into a program of their own takes all of it.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

INSTALL = "pip install -r requirements.txt"

try:
    import cv2
    import numpy as np
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing here: {INSTALL}")
except ImportError as error:  # it is installed, and a library of the system that it needs is not
    sys.exit(f"a package cannot be loaded here: {error}")

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
PADDING = 114  # grey around a picture of another shape than the network's input
MAX_CANDIDATES, MAX_BOXES = 30000, 300  # before and after boxes on top of each other are taken away
CLASS_OFFSET = 7680  # pixels between the classes, so that boxes of two classes never overlap


class DeviceError(Exception):
    """What the user is told, in one line."""


class Frame(NamedTuple):
    """A picture: the name of where it comes from, its pixels (height, width, 3) in BGR; of a stream also its number."""

    name: str
    pixels: Any
    number: int = 0
    fps: float = 0.0

    @property
    def moving(self) -> bool:
        """Whether it is one of a stream."""
        return self.number > 0


class Detector:
    """The network of a bundle, and what comes before and after it.

    Args:
        folder: the bundle. threads: CPU threads; None takes model.json's, but no more than there are cores.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        try:
            about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            self.format: str = about["format"]
            self.artifact: str = about["artifact"]
            self.names: list[str] = about["names"]
            self.height, self.width = about["imgsz"]
            self.threads: int = threads or max(1, min(about["threads"], os.cpu_count() or 1))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DeviceError(f"{folder / 'model.json'} cannot be read: {error!r}") from None
        cv2.setNumThreads(self.threads)
        self._call = self._open(folder / self.artifact)

    def _open(self, path: Path) -> Callable[[Any], Any]:
        """Open the network in its runtime, and return what runs it."""
        module, load = {
            "onnx": ("onnxruntime", _onnx),
            "openvino": ("openvino", _openvino),
            "ncnn": ("ncnn", _ncnn),
        }[self.format]
        try:
            runtime = import_module(module)
        except ModuleNotFoundError as error:
            raise DeviceError(f"{error.name} is missing here: {INSTALL}") from None
        except ImportError as error:
            raise DeviceError(f"{module} cannot be loaded here: {error}") from None
        try:
            return load(runtime, path, self.threads)
        except Exception as error:  # every runtime has its own, down to RuntimeError with a page of text
            words = (str(error).strip() or type(error).__name__).partition("\n")[0]
            raise DeviceError(f"{module} cannot open {self.artifact}: {words}") from None

    def prepare(self, image: Any) -> Any:
        """Make the network's input of a picture.

        Args:
            image: (height, width, 3), BGR, uint8.

        Returns:
            (1, 3, height, width) of the network's input, RGB, float32 from 0 to 1.
        """
        high, wide, left, top = self._place(image.shape)
        if image.shape[:2] != (high, wide):
            image = cv2.resize(image, (wide, high), interpolation=cv2.INTER_LINEAR)
        canvas = np.full((self.height, self.width, 3), PADDING, np.uint8)
        canvas[top : top + high, left : left + wide] = image
        planes = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1))
        return np.divide(planes, 255, dtype=np.float32)[None]

    def _place(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Where a picture lies in the input, as large as it can be and in the middle: height, width, left, top."""
        scale = min(self.height / shape[0], self.width / shape[1])
        high, wide = max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)
        return high, wide, round((self.width - wide) / 2 - 0.1), round((self.height - high) / 2 - 0.1)

    def run(self, planes: Any) -> Any:
        """Run the network: what `prepare` returns -> its raw output, (1, 4 + classes, anchors) or (1, boxes, 6)."""
        return self._call(planes)

    def boxes(self, raw: Any, shape: tuple[int, ...], conf: float, iou: float) -> Any:
        """Make boxes of a raw output.

        Args:
            raw: of `run`. shape: of the picture, height first. conf: least score. iou: boxes of one class that overlap
                by more count as one; a network that is end to end has done that itself.

        Returns:
            (boxes, 6), float32: left, top, right, bottom in pixels of the picture, score, class.
        """
        raw = np.asarray(raw, np.float32)
        if raw.ndim == 3 and raw.shape[2] == 6:
            boxes = raw[0][raw[0, :, 4] > conf][:MAX_BOXES]
        elif raw.ndim == 3 and raw.shape[1] == 4 + len(self.names):
            boxes = _strongest(raw[0], conf, iou)
        else:
            classes = len(self.names)
            raise DeviceError(
                f"{self.artifact} puts out {raw.shape}, which is not for the {classes} classes of model.json"
            )
        high, wide, left, top = self._place(shape)
        boxes[:, [0, 2]] = ((boxes[:, [0, 2]] - left) / (wide / shape[1])).clip(0, shape[1])
        boxes[:, [1, 3]] = ((boxes[:, [1, 3]] - top) / (high / shape[0])).clip(0, shape[0])
        return boxes

    def name(self, number: float) -> str:
        """Name a class."""
        return self.names[int(number)] if int(number) < len(self.names) else str(int(number))


def _strongest(raw: Any, conf: float, iou: float) -> Any:
    """Boxes of (4 + classes, anchors), the best class of each, without the weaker ones that overlap a stronger one."""
    raw = raw[:, raw[4:].max(0) > conf].T
    scores, classes = raw[:, 4:].max(1), raw[:, 4:].argmax(1)
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    middle, half = raw[order, :2], raw[order, 2:4] / 2
    boxes = np.concatenate(
        (middle - half, middle + half, scores[order, None], classes[order, None]), 1, dtype=np.float32
    )
    apart = boxes[:, :4] + boxes[:, 5:] * CLASS_OFFSET
    areas = (apart[:, 2] - apart[:, 0]) * (apart[:, 3] - apart[:, 1])
    rest = np.arange(len(boxes))
    kept: list[int] = []
    while len(rest) and len(kept) < MAX_BOXES:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low, high = np.maximum(apart[best, :2], apart[rest, :2]), np.minimum(apart[best, 2:], apart[rest, 2:])
        shared = (high - low).clip(0).prod(1)
        rest = rest[shared <= iou * (areas[best] + areas[rest] - shared)]
    return boxes[kept]


# Runtimes -------------------------------------------------------------------------------------------------------------


def _onnx(runtime: Any, path: Path, threads: int) -> Callable[[Any], Any]:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    kind = np.float16 if "float16" in given.type else np.float32
    return lambda planes: session.run(None, {given.name: planes.astype(kind, copy=False)})[0]


def _openvino(runtime: Any, path: Path, threads: int) -> Callable[[Any], Any]:
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
    on_arm = platform.machine() in ("aarch64", "arm64")
    if platform.system() == "Windows" or (platform.system() == "Linux" and on_arm):  # as Ultralytics 8.4.190 runs it
        options["INFERENCE_PRECISION_HINT"] = "f32"
    core = runtime.Core()
    network = core.read_model(str(_only(path, "*.xml")))
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def call(planes: Any) -> Any:
        request.infer([planes])
        return request.get_output_tensor(0).data

    return call


def _ncnn(runtime: Any, path: Path, threads: int) -> Callable[[Any], Any]:
    net = runtime.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    file = _only(path, "*.param")
    if net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin"))):
        raise DeviceError(f"{file.name} and the .bin beside it are not whole")
    into, out = net.input_names()[0], sorted(net.output_names())[0]

    def call(planes: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input(into, runtime.Mat(planes[0]))
        code, values = extractor.extract(out)
        if code:
            raise DeviceError(f"ncnn cannot run {path.name}: error {code}")
        return np.array(values)[None]

    return call


def _only(folder: Path, pattern: str) -> Path:
    matches = sorted(folder.glob(pattern))
    if len(matches) != 1:
        raise DeviceError(f"{len(matches)} files {pattern} lie there, and one is needed")
    return matches[0]


# Pictures -------------------------------------------------------------------------------------------------------------


def frames(source: str, fault: Callable[[str], None]) -> Iterator[Frame]:
    """Yield the pictures of a source, one by one.

    Args:
        source: a picture, a video, a folder of them, or the number of a camera.
        fault: is told of each file of a folder that cannot be read; the others go on.

    Raises:
        DeviceError: there is no such source, or nothing in it can be read.
    """
    if source.isdigit():
        yield from _stream(source)
        return
    path = Path(source)
    if not path.exists():
        raise DeviceError(f"source={source}: there is no such file or folder")
    if not path.is_dir():
        yield from _file(path)
        return
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES | VIDEOS and file.is_file())
    if not files:
        raise DeviceError(f"source={source}: no picture or video lies in this folder")
    for file in files:
        try:
            yield from _file(file)
        except DeviceError as error:
            fault(str(error))


def _file(path: Path) -> Iterator[Frame]:
    if path.suffix.lower() in VIDEOS:
        yield from _stream(str(path))
    elif path.suffix.lower() in IMAGES:
        yield Frame(path.name, image(path))
    else:
        raise DeviceError(f"{path}: not a picture or a video; known are {' '.join(sorted(IMAGES | VIDEOS))}")


def image(path: Path) -> Any:
    """Read a picture: (height, width, 3), BGR, uint8.

    Raises:
        DeviceError: it cannot be read.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)  # cv2.imread knows no names beyond ASCII on Windows
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}") from None
    try:
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # more pixels than OpenCV takes
        picture = None
    if picture is None:
        raise DeviceError(f"{path} cannot be read as a picture")
    return picture


def _write_image(path: Path, pixels: Any) -> None:
    """Write a picture, (height, width, 3), BGR, uint8, in the format that its name says.

    Raises:
        DeviceError: it cannot be written.
    """
    try:
        good, content = cv2.imencode(path.suffix, pixels)  # cv2.imwrite knows no names beyond ASCII on Windows
        if good:
            path.write_bytes(content.tobytes())
    except (OSError, cv2.error) as error:
        reason = getattr(error, "strerror", None) or "OpenCV does not write this format"
        raise DeviceError(f"{path} cannot be written: {reason}") from None
    if not good:
        raise DeviceError(f"{path} cannot be written")


def _stream(source: str) -> Iterator[Frame]:
    """Yield the frames of a video, or of a camera until it or the user stops."""
    camera = source.isdigit()
    name = f"camera{source}" if camera else Path(source).name
    capture = cv2.VideoCapture(int(source) if camera else source)
    number = 0
    try:
        if camera and not capture.isOpened():
            raise DeviceError(f"camera {source} does not open: is it plugged in, and does no other program use it?")
        fps = capture.get(cv2.CAP_PROP_FPS)
        while True:
            good, pixels = capture.read()
            if not good:
                break
            number += 1
            yield Frame(name, pixels, number, fps)
    finally:
        capture.release()
    if camera:
        raise DeviceError(f"camera {source} gives no more pictures after {number}")
    if not number:
        raise DeviceError(f"{source} cannot be read as a video")


def draw(picture: Any, boxes: Any, detector: Detector) -> None:
    """Draw boxes, classes and scores on a picture, in place."""
    thick = max(round(sum(picture.shape[:2]) / 2 * 0.003), 2)
    for left, top, right, bottom, score, number in boxes.tolist():
        colour = tuple(int(64 + (37 * (number + 1) * step) % 192) for step in (1, 3, 7))
        corner = round(left), round(top)
        cv2.rectangle(picture, corner, (round(right), round(bottom)), colour, thick)
        where = corner[0], max(corner[1] - thick, 12)
        words = f"{detector.name(number)} {score:.2f}"
        cv2.putText(picture, words, where, cv2.FONT_HERSHEY_SIMPLEX, thick / 4, colour, max(thick // 2, 1))


class Keeper:
    """Writes pictures with their boxes into a folder, streams as .mp4, and boxes.json: a list, one entry a picture.

    Args:
        folder: it is made. source: where the pictures come from, which must not be that folder.
    """

    def __init__(self, folder: Path, source: str) -> None:
        place = Path(source)
        if not source.isdigit() and folder.resolve() == (place if place.is_dir() else place.parent).resolve():
            raise DeviceError(f"save={folder}: the source lies there and would be overwritten; name another folder")
        self.folder = folder
        self._film: Any = None
        self._filmed = ""
        self._count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._list = (folder / "boxes.json").open("w", encoding="utf-8")
        except OSError as error:
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> DeviceError:
        return DeviceError(f"save={self.folder} cannot be written to: {error.strerror or error}")

    def add(self, frame: Frame, boxes: Any, detector: Detector) -> None:
        """Keep a picture, its boxes drawn already, and the boxes themselves."""
        rows = [
            {
                "class": int(row[5]),
                "name": detector.name(row[5]),
                "score": round(row[4], 5),
                "box": [round(value, 3) for value in row[:4]],
            }
            for row in boxes.tolist()
        ]
        height, width = frame.pixels.shape[:2]
        entry = {"source": frame.name, "frame": frame.number, "size": [width, height], "boxes": rows}
        try:
            self._list.write((",\n" if self._count else "[\n") + json.dumps(entry))
        except OSError as error:
            raise self._fault(error) from None
        self._count += 1
        if frame.moving:
            self._to_film(frame)
        else:
            _write_image(self.folder / frame.name, frame.pixels)

    def _to_film(self, frame: Frame) -> None:
        if frame.name != self._filmed:
            self._end_film()
            path = self.folder / (frame.name if frame.name.endswith(".mp4") else f"{frame.name}.mp4")
            height, width = frame.pixels.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._film = cv2.VideoWriter(str(path), code, frame.fps or 25, (width, height))
            self._filmed = frame.name
            if not self._film.isOpened():
                raise DeviceError(f"{path} cannot be written")
        self._film.write(frame.pixels)

    def _end_film(self) -> None:
        if self._film is not None:
            self._film.release()

    def close(self) -> None:
        """End what is being written; boxes.json is whole afterwards, also where the user stopped."""
        self._end_film()
        try:
            self._list.write("\n]\n" if self._count else "[]\n")
            self._list.close()
        except OSError as error:
            raise self._fault(error) from None


# The command ----------------------------------------------------------------------------------------------------------


def arguments(words: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """Read `key=value` words.

    Args:
        words: those after the script's name. known: name -> its default, whose type a value must have; a None takes a
            whole number.

    Raises:
        DeviceError: a word is not known, or its value is not of that type or below zero.
    """
    values = dict(known)
    for word in words:
        name, equals, text = word.partition("=")
        if name not in known or not equals or not text:
            near = difflib.get_close_matches(name, known, 1) or list(known)
            raise DeviceError(f"{word}: write {' or '.join(f'{other}=...' for other in near)}")
        kind = int if known[name] is None else type(known[name])
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            words_for = {bool: "True or False", int: "a whole number", float: "a number"}
            raise DeviceError(f"{word}: {words_for[kind]} is needed") from None
        if kind is int and values[name] < 1:
            raise DeviceError(f"{word}: a whole number of 1 or more is needed")
        if kind is float and not 0 <= values[name] <= 1:
            raise DeviceError(f"{word}: a number from 0 to 1 is needed")
    return values


def main(words: list[str]) -> int:
    """Run the command; returns the exit code, 1 where a file could not be read."""
    given = arguments(words, {"source": "", "conf": 0.25, "iou": 0.7, "threads": None, "save": "", "show": False})
    if not given["source"]:
        raise DeviceError(
            "source= is missing: python detect.py source=photo.jpg, a folder, a video, or 0 for the first camera"
        )
    faults: list[str] = []

    def fault(text: str) -> None:
        faults.append(text)
        print(text, file=sys.stderr)

    detector = Detector(Path(__file__).resolve().parent, given["threads"])
    keeper = None
    try:
        for frame in frames(given["source"], fault):
            if given["save"] and keeper is None:  # not before there is something to keep
                keeper = Keeper(Path(given["save"]), given["source"])
            boxes, line = _one(detector, frame, given["conf"], given["iou"])
            print(line, flush=True)
            if keeper or given["show"]:
                draw(frame.pixels, boxes, detector)
            if keeper:
                keeper.add(frame, boxes, detector)
            if given["show"] and not _show(frame):
                break
    finally:
        if keeper:
            keeper.close()
    return 1 if faults else 0


def boxes_and_times(detector: Detector, picture: Any, conf: float, iou: float) -> tuple[Any, list[float]]:
    """Find the boxes of a picture; return them, and the milliseconds before, in and after the network."""
    times = [time.perf_counter()]
    planes = detector.prepare(picture)
    times.append(time.perf_counter())
    raw = detector.run(planes)
    times.append(time.perf_counter())
    boxes = detector.boxes(raw, picture.shape, conf, iou)
    times.append(time.perf_counter())
    return boxes, [1e3 * (times[i + 1] - times[i]) for i in range(3)]


def _one(detector: Detector, frame: Frame, conf: float, iou: float) -> tuple[Any, str]:
    """Find the boxes of one picture, and say them in a line."""
    boxes, (before, inside, after) = boxes_and_times(detector, frame.pixels, conf, iou)
    counts = Counter(detector.name(row[5]) for row in boxes)
    words = ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "nothing"
    where = f"{frame.name} frame {frame.number}" if frame.moving else frame.name
    return boxes, f"{where}: {words} ({before:.1f} ms before, {inside:.1f} ms inference, {after:.1f} ms after)"


def _show(frame: Frame) -> bool:
    """Show a picture in a window; False when the user presses q or Esc. A single picture waits for a key."""
    try:
        cv2.imshow("yolo-prune", frame.pixels)
        return cv2.waitKey(1 if frame.moving else 0) & 0xFF not in (ord("q"), 27)
    except cv2.error:
        raise DeviceError(
            "show=True needs a screen, and the opencv-python that has windows: "
            "pip uninstall -y opencv-python-headless && pip install opencv-python"
        ) from None


def guarded(name: str, command: Callable[[list[str]], int]) -> None:
    """Run a script's command on this process's words, and end it: a fault is one line on stderr and exit code 1."""
    try:
        sys.exit(command(sys.argv[1:]))
    except DeviceError as error:
        sys.exit(f"{name}: {error}")
    except BrokenPipeError:  # whoever read our words has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    guarded("detect", main)
