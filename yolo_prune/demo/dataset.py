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
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from yolo_prune import files
from yolo_prune.errors import PruneError

CLASSES = ("gear", "star", "ring", "arrow", "cross", "moon")

# An object gets a box when this share of it can be seen and its visible part is at least so many pixels wide and high.
MIN_VISIBLE = 0.4
MIN_SIDE = 4

_SPLITS = ("train", "val")
_MARK = "# yolo-prune demo set"  # how data.yaml begins; tells a set that may be replaced from a folder of the user's
_ENTRIES = {"images", "labels", "annotations", "data.yaml"}
_SIZES = (0.15, 0.9)  # an object's diameter as a share of the image: 1:6
_DISTRACTORS = ("disc", "triangle", "bar")


class Item(NamedTuple):
    """One thing in a scene.

    Attributes:
        kind: Index into `CLASSES`, or None for a thing of no class.
        left: Column of the patch's left edge in the image, in pixels; may be negative.
        top: Row of the patch's top edge, likewise.
        cover: How far each pixel of the patch is covered, 0 to 255, of shape (height, width).
        paint: Its colours, BGR, of shape (height, width, 3), float32.
    """

    kind: int | None
    left: int
    top: int
    cover: np.ndarray
    paint: np.ndarray


class Scene(NamedTuple):
    """A drawn image and what can be seen where.

    Attributes:
        image: BGR, of shape (imgsz, imgsz, 3), uint8.
        items: What was drawn, from back to front.
        owner: Index into `items` of the foremost thing at each pixel, -1 for the ground; of shape (imgsz, imgsz).
    """

    image: np.ndarray
    items: list[Item]
    owner: np.ndarray


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
    with files.room(folder) as beside:
        fresh = beside / "fresh"
        for number, (split, count) in enumerate(zip(_SPLITS, (images, val), strict=True)):
            _write_split(fresh, split, number, count, imgsz, seed)
        (fresh / "data.yaml").write_text(_describe(folder, images, val, imgsz, seed), encoding="utf-8")
        files.put(fresh, folder)
    return folder / "data.yaml"


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
    data = folder / "data.yaml"
    if not data.is_file() or not data.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
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


# Drawing --------------------------------------------------------------------------------------------------------------


def scene(random: np.random.Generator, size: int) -> Scene:
    """Draw one scene.

    Args:
        random: Where its randomness comes from.
        size: Width and height, in pixels.

    Returns:
        The scene. One in about 25 has no objects.
    """
    ground = _ground(random, size)
    items = [
        _item(random, None, _spot(random, size), _size(random, size, 0.1, 0.4), ground)
        for _ in range(random.integers(0, 4))
    ]
    count = 0 if random.random() < 0.04 else int(random.integers(1, 5))
    placed: list[tuple[np.ndarray, float]] = []
    for _ in range(count):
        radius = _size(random, size, *_SIZES)
        centre = _spot(random, size, radius, placed)
        if placed and random.random() < 0.25:  # partly in front of an earlier one
            near, reach = placed[int(random.integers(len(placed)))]
            turn = random.uniform(0, 2 * np.pi)
            centre = near + random.uniform(0.5, 0.95) * (reach + radius) * np.array((np.cos(turn), np.sin(turn)))
            centre = np.clip(centre, 0.05 * size, 0.95 * size)
        placed.append((centre, radius))
        items.append(_item(random, int(random.integers(len(CLASSES))), centre, radius, ground))
        if random.random() < 0.12:
            items.append(_item(random, None, _spot(random, size), _size(random, size, 0.1, 0.3), ground))
    drawn = compose(ground, items)
    return drawn._replace(image=_photograph(random, drawn.image))


def compose(ground: np.ndarray, items: Iterable[Item]) -> Scene:
    """Lay items over a ground, each over those before it.

    Args:
        ground: BGR, of shape (height, width, 3), float32 in 0 to 255.
        items: From back to front.

    Returns:
        The scene; its image is float32 still.
    """
    canvas = ground.copy()
    owner = np.full(ground.shape[:2], -1, np.int32)
    laid = list(items)
    for index, item in enumerate(laid):
        top, left = max(-item.top, 0), max(-item.left, 0)
        rows = slice(item.top + top, min(item.top + item.cover.shape[0], ground.shape[0]))
        columns = slice(item.left + left, min(item.left + item.cover.shape[1], ground.shape[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        part = np.s_[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
        share = item.cover[part].astype(np.float32)[..., None] / 255
        canvas[rows, columns] += share * (item.paint[part] - canvas[rows, columns])
        owner[rows, columns][item.cover[part] >= 128] = index
    return Scene(canvas, laid, owner)


def _spot(
    random: np.random.Generator, size: int, radius: float = 0, placed: Iterable[tuple[np.ndarray, float]] = ()
) -> np.ndarray:
    """Choose a centre (x, y) in the image: of six, the one farthest from what is placed already."""
    spots: np.ndarray = random.uniform(0.12, 0.88, (6, 2)) * size
    gaps = [min((np.linalg.norm(spot - near) - reach - radius for near, reach in placed), default=0) for spot in spots]
    return spots[int(np.argmax(gaps))]


def _size(random: np.random.Generator, size: int, smallest: float, largest: float) -> float:
    """Choose a radius in pixels, evenly over the square root, of a diameter given as shares of the image.

    Evenly over the logarithm there would be so many small ones that a few hundred images do not teach them.
    """
    return float(random.uniform(np.sqrt(smallest), np.sqrt(largest)) ** 2 * size / 2)


def _item(random: np.random.Generator, kind: int | None, centre: np.ndarray, radius: float, ground: np.ndarray) -> Item:
    """Draw one thing into a patch that holds all of it, also what lies outside the image."""
    name = _DISTRACTORS[int(random.integers(len(_DISTRACTORS)))] if kind is None else CLASSES[kind]
    turn = random.uniform(0, 2 * np.pi)
    squeeze = random.uniform(0.8, 1.0)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * (radius, radius * squeeze)
    rings = [ring @ matrix.T + centre for ring in _shape(random, name)]
    thick = max(2, round(0.16 * radius))
    outlined = random.random() < 0.15 and radius > 12 and name != "disc"  # an outlined disc would be a ring
    low = np.floor(np.concatenate(rings).min(axis=0)).astype(int) - thick - 2
    high = np.ceil(np.concatenate(rings).max(axis=0)).astype(int) + thick + 3
    wide, tall = (int(v) for v in high - low)
    points = [np.round((ring - low) * 16).astype(np.int32) for ring in rings]  # 4 bits of a pixel's fraction
    cover = np.zeros((tall, wide), np.uint8)
    if outlined:
        cv2.polylines(cover, points, True, 255, thick, cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(cover, points, 255, cv2.LINE_AA, 4)  # even-odd: an inner ring is a hole
    return Item(
        kind,
        int(low[0]),
        int(low[1]),
        cover,
        _paint(random, (tall, wide), _colour(random, kind, centre, radius, ground)),
    )


def _shape(random: np.random.Generator, name: str) -> list[np.ndarray]:
    """Return the outlines of a shape in the unit circle, each of shape (points, 2)."""
    if name == "gear":
        teeth = int(random.integers(7, 10))
        reach = np.repeat(np.tile((1.0, 0.74), teeth), 2)
        step = np.pi / teeth
        angles = np.repeat(np.arange(2 * teeth) * step, 2) + np.tile((0.12, 0.88), 2 * teeth) * step
        return [_polar(angles, reach), _circle(0.3)]
    if name == "star":
        return [_polar(np.arange(10) * np.pi / 5, np.tile((1.0, random.uniform(0.44, 0.54)), 5))]
    if name == "ring":
        return [_circle(1.0), _circle(random.uniform(0.5, 0.68))]
    if name == "arrow":
        neck, half = random.uniform(-0.1, 0.1), random.uniform(0.28, 0.38)
        return [
            np.array([(1, 0), (neck, 0.85), (neck, half), (-0.9, half), (-0.9, -half), (neck, -half), (neck, -0.85)])
        ]
    if name == "cross":
        a = random.uniform(0.26, 0.36)
        quarter = np.array([(a, a), (a, 0.95), (-a, 0.95)])
        turns = (np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)))
        return [np.concatenate([quarter @ turn.T for turn in turns])]
    if name == "moon":
        tip, far = np.pi * 0.72, random.uniform(0.1, 0.3)
        outer = _polar(np.linspace(-tip, tip, 32), np.ones(32))
        inner = np.stack(
            (np.linspace(outer[-1, 0], outer[0, 0], 32), np.linspace(outer[-1, 1], outer[0, 1], 32)), axis=1
        )
        inner[:, 0] += (far - outer[0, 0]) * np.sqrt(np.clip(1 - (inner[:, 1] / outer[-1, 1]) ** 2, 0, 1))
        return [np.concatenate((outer, inner[1:-1]))]
    if name == "disc":
        return [_circle(0.9)]
    if name == "triangle":
        return [_polar(np.arange(3) * 2 * np.pi / 3 + random.uniform(-0.3, 0.3, 3), np.ones(3))]
    return [np.array([(1, 0.3), (-1, 0.3), (-1, -0.3), (1, -0.3)]) * (1, random.uniform(0.3, 2.0))]  # a bar


def _polar(angles: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Turn angles and radii into points of shape (points, 2)."""
    return np.stack((reach * np.cos(angles), reach * np.sin(angles)), axis=1)


def _circle(radius: float) -> np.ndarray:
    """Return a circle as 40 points."""
    return _polar(np.arange(40) * np.pi / 20, np.full(40, radius))


def _colour(
    random: np.random.Generator, kind: int | None, centre: np.ndarray, radius: float, ground: np.ndarray
) -> np.ndarray:
    """Choose a colour (BGR) that can be told from the ground behind.

    Each class leans to a hue of its own, as most things do; hues of neighbouring classes overlap and things of no class
    have any, so that colour helps a small model to begin with but never settles the matter.
    """
    x, y = np.clip(centre, 0, ground.shape[0] - 1).astype(int)
    reach = max(2, int(radius))
    behind = ground[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].mean(axis=(0, 1))
    hues = random.uniform(0, 1, 8) if kind is None else (kind + random.normal(0, 0.25, 8)) / len(CLASSES)
    colours = _bgr(hues, random.uniform(0.45, 1, 8), random.uniform(0.4, 1, 8))
    apart = np.linalg.norm(colours - behind, axis=1)
    return colours[int(np.argmax(apart > 100))]  # the first that differs enough, or simply the first


def _bgr(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Turn hues (in turns), saturations and values (0 to 1), each of shape (n,), into BGR 0 to 255, of shape (n, 3)."""
    sector = (np.array((1, 3, 5)) + hue[:, None] * 6) % 6  # https://en.wikipedia.org/wiki/HSL_and_HSV, f(n) of HSV
    return 255 * value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def _paint(random: np.random.Generator, shape: tuple[int, int], colour: np.ndarray) -> np.ndarray:
    """Fill a patch with a colour that runs, or is striped, a little."""
    slope = random.uniform(-25, 25, 2)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    shade = slope[0] * y + slope[1] * x
    if random.random() < 0.3:
        shade += 18 * np.sign(np.sin(x * random.uniform(6, 20) + y * random.uniform(-12, 12)))
    return np.clip(colour + shade[..., None], 0, 255).astype(np.float32)


def _ground(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw a ground: a gradient, clouds of two scales, thin lines and sometimes a weave."""
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j].astype(np.float32)
    turn = random.uniform(0, 2 * np.pi)
    ramp = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn) + 0.5
    first, second = _bgr(random.uniform(0, 1, 2), random.uniform(0, 0.4, 2), random.uniform(0.15, 0.9, 2))
    ground = first + ramp[..., None] * 0.6 * (second - first)
    for cells, strength in ((4, 22), (16, 7)):
        coarse = random.normal(0, strength, (cells, cells, 1)) + random.normal(0, strength / 3, (cells, cells, 3))
        ground += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    if random.random() < 0.3:
        turn, pitch = random.uniform(0, np.pi), random.uniform(30, 90)
        ground += (14 * np.sin((x * np.cos(turn) + y * np.sin(turn)) * pitch))[..., None]
    ground = np.clip(ground, 0, 255).astype(np.float32)
    for _ in range(random.integers(0, 9)):
        ends = [tuple(int(v) for v in point) for point in random.uniform(-0.2, 1.2, (2, 2)) * size]
        colour = tuple(float(v) for v in random.uniform(20, 235, 3))
        cv2.line(ground, ends[0], ends[1], colour, int(random.integers(1, 3)))
    return ground


def _photograph(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light the scene unevenly, blur it a little and add noise.

    Args:
        random: Where the randomness comes from.
        image: BGR, float32 in 0 to 255.

    Returns:
        The same as uint8.
    """
    size = image.shape[0]
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    fall = random.uniform(-0.25, 0.25, 2)
    lit = image * (random.uniform(0.7, 1.15) + fall[0] * x + fall[1] * y)[..., None].astype(np.float32)
    sharpness = random.uniform(0, 1.1) * size / 160
    if sharpness > 0.3:
        lit = cv2.GaussianBlur(lit, (0, 0), sharpness)
    noise = random.standard_normal(lit.shape, dtype=np.float32) * np.float32(random.uniform(1, 6))
    return np.clip(np.round(lit + noise), 0, 255).astype(np.uint8)
