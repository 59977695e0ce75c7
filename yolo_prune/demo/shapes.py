# yolo-prune, AGPL-3.0 license
"""The outlines of the demo's shapes, in the unit circle."""

from __future__ import annotations

import numpy as np

CLASSES = ("gear", "star", "ring", "arrow", "cross", "moon")
DISTRACTORS = ("disc", "triangle", "bar")  # things of no class


def outlines(random: np.random.Generator, name: str) -> list[np.ndarray]:
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
