# yolo-prune, AGPL-3.0 license
"""One drawn scene: a cluttered ground, shapes and things of no class on it, then light, blur and noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from yolo_prune.demo import shapes
from yolo_prune.demo.shapes import CLASSES, DISTRACTORS

_SIZES = (0.15, 0.9)  # an object's diameter as a share of the image: 1:6


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
    name = DISTRACTORS[int(random.integers(len(DISTRACTORS)))] if kind is None else CLASSES[kind]
    turn = random.uniform(0, 2 * np.pi)
    squeeze = random.uniform(0.8, 1.0)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * (radius, radius * squeeze)
    rings = [ring @ matrix.T + centre for ring in shapes.outlines(random, name)]
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
