# yolo-prune, AGPL-3.0 license
"""What the demo learns from: a small object detection set, drawn from a seed.

Six classes of shapes lie on cluttered grounds, in every rotation and at sizes of 1:6, some filled and some outlined,
some behind others or behind things of no class; light, sharpness and noise differ from image to image. The set is
written twice, as YOLO labels and as COCO JSON, so that it also shows what the host's COCO converter expects.

Every image has a random stream of its own, made of the seed, the split and the image's number: the same seed gives the
same files, train and val share nothing, and a larger set begins with the images of a smaller one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from yolo_prune import files, log
from yolo_prune.demo.scenes import Scene, scene
from yolo_prune.demo.shapes import CLASSES
from yolo_prune.errors import PruneError

# An object gets a box when this share of it can be seen and its visible part is at least so many pixels wide and high.
MIN_VISIBLE = 0.4
MIN_SIDE = 4

_SPLITS = ("train", "val")
_MARK = "# yolo-prune demo set"  # how data.yaml begins; tells a set that may be replaced from a folder of the user's
_ENTRIES = {"images", "labels", "annotations", "data.yaml"}


class Seen(NamedTuple):
    """What can be seen of one object.

    Attributes:
        kind: Index into `CLASSES`.
        box: Left, top, width and height of the visible part, in pixels.
        area: Its visible pixels.
        polygons: Outer outlines of its visible parts, each x, y, x, y, … in pixels from the image's top left corner.
    """

    kind: int
    box: tuple[int, int, int, int]
    area: int
    polygons: list[list[float]]


# The set --------------------------------------------------------------------------------------------------------------


def make(out: Path | str, *, images: int = 640, val: int = 100, imgsz: int = 128, seed: int = 0) -> Path:
    """Write the demo set: images, YOLO labels, COCO JSON and a `data=` file.

    It is written beside `out` first and then renamed, so an interrupted run leaves no half of a set.

    Args:
        out: The folder to make. A demo set that is already there is replaced; anything else in it is a fault.
        images: Number of training images.
        val: Number of validation images.
        imgsz: Width and height of the images, in pixels.
        seed: What all randomness comes from.

    Returns:
        The path of `data.yaml` in that folder, to be given as `data=`.

    Raises:
        PruneError: An argument is out of range, `out` holds something else, or it cannot be written.
    """
    _check(images=images, val=val, imgsz=imgsz, seed=seed)
    folder = Path(out).expanduser().resolve()
    _check_folder(folder)
    with files.room(folder) as temporary:
        fresh = temporary / "fresh"
        for number, (split, count) in enumerate(zip(_SPLITS, (images, val), strict=True)):
            _write_split(fresh, split, number, count, imgsz, seed)
        (fresh / "data.yaml").write_text(_describe(folder, images, val, imgsz, seed), encoding="utf-8")
        files.put(fresh, folder)
    return folder / "data.yaml"


def is_set(folder: Path) -> bool:
    """Whether a folder holds a demo set."""
    data = folder / "data.yaml"
    return data.is_file() and data.read_text(encoding="utf-8", errors="replace").startswith(_MARK)


def _check(**numbers: int) -> None:
    """Refuse numbers that no set can be made of, all at once."""
    ranges = {"images": (1, 100_000), "val": (1, 100_000), "imgsz": (64, 2048), "seed": (0, 2**32 - 1)}
    faults = [
        f"{name}={value!r} is not a whole number from {ranges[name][0]} to {ranges[name][1]}"
        for name, value in numbers.items()
        if isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or not ranges[name][0] <= value <= ranges[name][1]
    ]
    if faults:
        raise PruneError(f"demo data: {'; '.join(faults)}")


def _check_folder(folder: Path) -> None:
    """Refuse to write over anything but a demo set that nobody has added to."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PruneError(f"demo data: {folder} is a file; give a folder that does not exist yet")
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return
    if not is_set(folder):
        raise PruneError(
            f"demo data: {folder} is not empty and holds no demo set; give a folder that does not exist yet"
        )
    if strangers := sorted(names - _ENTRIES):
        raise PruneError(f"demo data: {folder} holds {strangers[0]}, which is not of the demo set; move it away first")


def _describe(folder: Path, images: int, val: int, imgsz: int, seed: int) -> str:
    """Write `data.yaml`. A JSON string is a YAML string, whatever the path holds."""
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    return (
        f"{_MARK}: images={images} val={val} imgsz={imgsz} seed={seed}\n"
        f"path: {json.dumps(str(folder), ensure_ascii=False)}\ntrain: images/train\nval: images/val\nnames:\n{names}"
    )


def _write_split(folder: Path, split: str, number: int, count: int, size: int, seed: int) -> None:
    """Draw one split and write its images, labels and COCO JSON."""
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    progress = log.Progress(f"drawing {split} images", count)
    for index in range(count):
        drawn = scene(np.random.default_rng((seed, number, index)), size)
        name = f"{index:06d}.jpg"
        encoded, data = cv2.imencode(".jpg", drawn.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not encoded:
            raise PruneError(f"demo data: OpenCV {cv2.__version__} cannot write JPEG")
        (folder / "images" / split / name).write_bytes(data.tobytes())
        objects = visible(drawn)
        label = "".join(_label(item, size) for item in objects)
        (folder / "labels" / split / name).with_suffix(".txt").write_text(label, encoding="utf-8")
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        annotations += [
            {
                "id": len(annotations) + position,
                "image_id": index + 1,
                "category_id": item.kind + 1,
                "bbox": list(item.box),
                "area": item.area,
                "iscrowd": 0,
                "segmentation": item.polygons,
            }
            for position, item in enumerate(objects, start=1)
        ]
        progress.one()
    coco = {
        "info": {"description": f"yolo-prune demo set, {split}, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(CLASSES, start=1)],
    }
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(coco) + "\n", encoding="utf-8")


def _label(item: Seen, size: int) -> str:
    """Write one line of a YOLO label: class, centre, width and height as shares of the image.

    Six digits, as the host's converter writes them.
    """
    left, top, wide, high = item.box
    shares = ((left + wide / 2) / size, (top + high / 2) / size, wide / size, high / size)
    return " ".join((str(item.kind), *(f"{share:g}" for share in shares))) + "\n"


# What can be seen -----------------------------------------------------------------------------------------------------


def visible(drawn: Scene) -> list[Seen]:
    """Say which objects of a scene can be seen, and where.

    Boxes hold what is visible, as people draw them, not what lies behind other things or outside the image. Objects of
    which less than `MIN_VISIBLE` shows, or less than `MIN_SIDE` pixels either way, are left out. Crumbs that a thing in
    front has cut off do not stretch a box.

    Args:
        drawn: The scene.

    Returns:
        One entry for each object left, from back to front.
    """
    seen = []
    for index, item in enumerate(drawn.items):
        if item.kind is None:
            continue
        whole = int(np.count_nonzero(item.cover >= 128))
        high, wide = drawn.owner.shape
        top, left = max(item.top, 0), max(item.left, 0)
        bottom, right = min(item.top + item.cover.shape[0], high), min(item.left + item.cover.shape[1], wide)
        if whole == 0 or top >= bottom or left >= right:
            continue
        mask = (drawn.owner[top:bottom, left:right] == index).astype(np.uint8)
        shows = int(mask.sum())
        if shows < MIN_VISIBLE * whole:
            continue
        mask = _without_crumbs(mask, max(4, 0.04 * shows))
        x, y, w, h = cv2.boundingRect(mask)
        if min(w, h) >= MIN_SIDE:
            polygons = _outlines(mask[y : y + h, x : x + w], left + x, top + y)
            seen.append(Seen(item.kind, (left + x, top + y, w, h), int(mask.sum()), polygons))
    return seen


def _without_crumbs(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Clear the connected parts of a 0/1 mask that have fewer than `smallest` pixels."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = [part for part in range(1, count) if stats[part, cv2.CC_STAT_AREA] >= smallest]
    return np.isin(parts, keep).astype(np.uint8)


def _outlines(mask: np.ndarray, left: int, top: int) -> list[list[float]]:
    """Trace the outer outlines of a 0/1 mask, each a list x, y, x, y, ….

    OpenCV's contours run through pixel centres, which makes small objects a pixel too narrow; traced at four times the
    size they keep to the pixels' edges within an eighth of a pixel.
    """
    large = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[-2]
    smooth = (cv2.approxPolyDP(contour, 1.5, True).reshape(-1, 2) for contour in contours)
    return [
        np.round((points + 0.5) / 4 + (left, top), 2).reshape(-1).tolist()
        for points in sorted(smooth, key=lambda points: points.tolist())
        if len(points) >= 3
    ]
