# yolo-prune, AGPL-3.0 license
"""From measured layers and networks to a model of latency, and what it predicts. numpy alone, Python 3.8: the device
fits its own measurements.

A layer of one kind (operation, kernel, stride, resolution, activation) with I inputs and O outputs costs

    t = both * O * I + out * O + inp * I + call          milliseconds, nothing below zero

with O and I rounded up to the steps that the device works in, and O dearer by `tail` where it is no whole step. Steps
and tail come from sweeps (`learn_steps`), the four figures of each kind from its measured shapes (`fit_kinds`).

A network is more than the sum of its layers alone: tensors stay in the runtime's own layout, caches are warm, and there
are additions, concatenations and boxes. So the seven sums

    both of 1x1 kernels, both of larger ones, out, inp, call, output values in millions, 1

are weighed (`fit_network`) by measured networks of random widths, each weight held near 1 (the last two near 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

STEPS = (1, 8, 16, 32)  # sweeps go by 4 channels: what is finer counts as 1
TERMS = ("both_1x1", "both", "out", "inp", "call", "values", "fixed")
_PRIOR = np.array([1, 1, 1, 1, 1, 0, 0], dtype=float)
# How stiffly each weight is held to its prior, beside the others. One of stiffness 1 that is off by 1 counts as much as
# an error of _PRIOR_WEIGHT (1 %) in every network.
_PRIOR_STIFFNESS = np.array([1, 1, 1, 1, 1, 0.3, 0.3])
_PRIOR_WEIGHT = 0.01
_DENSE = 3  # how often more the dense network counts: bounds are shares of it


class ChannelGrain(NamedTuple):
    """Channels are worked on in multiples of `out` outputs and `inp` inputs; a broken multiple costs `tail` more."""

    out: int
    inp: int
    tail: float


class Row(NamedTuple):
    """One layer of a network: its kind, inputs, outputs, and output values a channel."""

    kind: str
    inp: int
    out: int
    area: int


def up(channels: int, step: int) -> int:
    """Channels rounded up to whole steps."""
    return -(-channels // step) * step


def features(kind: str, inp: int, out: int, steps: ChannelGrain) -> np.ndarray:
    """(4,) what the figures of a kind are multiplied with."""
    o = up(out, steps.out) * (1 + steps.tail * (out % steps.out > 0))
    i = inp if is_image(kind) else up(inp, steps.inp)
    return np.array([o * i, o, i, 1], dtype=float)


def nonnegative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with no coefficient below zero, by coordinate descent. (n, k), (n,) -> (k,)."""
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1
    normal, right = (matrix / scale).T @ (matrix / scale), (matrix / scale).T @ target
    x = np.zeros(len(right))
    for _ in range(5000):
        before = x.copy()
        for j in range(len(x)):
            x[j] = max(0.0, x[j] + (right[j] - normal[j] @ x) / max(normal[j, j], 1e-12))
        if np.abs(x - before).max() < 1e-11:
            break
    scaled: np.ndarray = x / scale
    return scaled


def learn_steps(sweeps: Sequence[Mapping[str, Any]]) -> ChannelGrain:
    """Find the channel steps of a device.

    Args:
        sweeps: each with `side` ("out" or "inp"), `channels` (n,) and `ms` (n,): one layer while a side of it shrinks.

    Returns:
        For each side the step whose staircase is nearest to all of its sweeps; 1 where cost falls evenly.
    """
    steps_of = {}
    tails = {}
    for side in ("out", "inp"):
        best = (np.inf, 1, 0.0)
        for step in STEPS:
            errors, tail = [], []
            for sweep in (s for s in sweeps if s["side"] == side):
                c, ms = np.array(sweep["channels"]), np.array(sweep["ms"])
                o = np.ceil(c / step) * step
                broken = o * (c % step > 0)
                weights = nonnegative(np.stack([np.ones(len(c)), o, broken], axis=1) / ms[:, None], np.ones(len(c)))
                errors.append(np.abs((np.stack([np.ones(len(c)), o, broken], axis=1) @ weights) / ms - 1))
                tail.append(weights[2] / max(weights[1], 1e-12))
            error = float(np.mean(np.concatenate(errors))) if errors else 0.0
            if error < 0.9 * best[0]:  # a coarser step must explain clearly more than a finer one
                best = (error, step, float(np.median(tail)) if tail else 0.0)
        steps_of[side], tails[side] = best[1], best[2]
    return ChannelGrain(steps_of["out"], steps_of["inp"], min(tails["out"], 0.5) if steps_of["out"] > 1 else 0.0)


def fit_kinds(shapes: Sequence[Mapping[str, Any]], steps: ChannelGrain) -> dict[str, list[float]]:
    """Fit the four figures of each kind.

    Args:
        shapes: each with `kind`, `inp`, `out` and `ms`, the cost of a call of nothing already taken off.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for shape in shapes:
        kinds.setdefault(shape["kind"], []).append(shape)
    costs = {}
    for kind, rows in kinds.items():
        ms = np.array([row["ms"] for row in rows])
        matrix = np.array([features(kind, row["inp"], row["out"], steps) for row in rows])
        if kind.startswith("depthwise"):
            matrix[:, [0, 2]] = 0  # inputs and outputs are the same channels: one figure is enough
        costs[kind] = nonnegative(matrix / ms[:, None], np.ones(len(ms))).tolist()
    return costs


def of_shape(kinds: Mapping[str, Sequence[float]], steps: ChannelGrain, shape: Mapping[str, Any]) -> float:
    """Milliseconds of one layer by itself."""
    return float(features(shape["kind"], shape["inp"], shape["out"], steps) @ np.array(kinds[shape["kind"]]))


def sums(rows: Sequence[Row], kinds: Mapping[str, Sequence[float]], steps: ChannelGrain) -> np.ndarray:
    """(7,) the sums of a network's layers; see the head of this file. Layers of unknown kinds count by their values."""
    total = np.zeros(len(TERMS))
    total[-1] = 1
    for row in rows:
        values = features(row.kind, row.inp, row.out, steps)
        total[5] += values[1] * row.area / 1e6
        if row.kind in kinds:
            cost = values * np.array(kinds[row.kind])
            total[0 if is_single(row.kind) else 1] += cost[0]
            total[2:5] += cost[1:]
    return total


def is_single(kind: str) -> bool:
    """Whether a kind's kernel is a single point."""
    return " 1x1/" in kind or kind.startswith("linear")


def is_image(kind: str) -> bool:
    """Whether a kind reads the image: no wide tensor, runtimes have kernels of their own for it."""
    return " image " in kind


def fit_network(rows: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """Weigh the sums of networks (n, 7) by what was measured of them (n,) -> (7,)."""
    count = np.sqrt(len(ms))
    matrix = np.vstack([rows / ms[:, None], _PRIOR_WEIGHT * np.diag(_PRIOR_STIFFNESS) * count])
    return nonnegative(matrix, np.concatenate([np.ones(len(ms)), _PRIOR_WEIGHT * _PRIOR_STIFFNESS * _PRIOR * count]))


def error(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How far predictions are from measurements, in percent of the measured."""
    off = 100 * np.abs(np.array(predicted) / np.array(measured) - 1)
    return {"mean": round(float(off.mean()), 2), "largest": round(float(off.max()), 2), "count": len(off)}


def fit(measured: Mapping[str, Any], least: int = 1) -> dict[str, Any]:
    """Fit everything, and say how well what was held out is predicted.

    Args:
        measured: `call_ms`; `sweeps`; `shapes` (kind, inp, out, ms, held_out); `networks` (rows, ms, held_out), of
            which the first is the dense one.
        least: channels that a device is known to work in at a time, whatever its sweeps say.

    Returns:
        `steps`, `kinds`, `network` (7 weights) and `error` (percent; of held-out `shapes` and `networks`, by a fit that
        has not seen them; the figures returned are then fitted to all).
    """
    # A call of nothing is timed within microseconds: no layer costs less, whatever its timing says.
    call = min(measured["call_ms"], 0.8 * min(shape["ms"] for shape in measured["shapes"]))
    shapes = [{**shape, "ms": shape["ms"] - call} for shape in measured["shapes"]]
    sweeps = [{**sweep, "ms": [max(ms - call, 1e-4) for ms in sweep["ms"]]} for sweep in measured["sweeps"]]
    found = learn_steps(sweeps)
    steps = ChannelGrain(max(found.out, least), max(found.inp, least), found.tail if found.out >= least else 0.0)
    nets = [([Row(*row) for row in net["rows"]], net["ms"], net["held_out"]) for net in measured["networks"]]
    seen = fit_kinds([shape for shape in shapes if not shape["held_out"]], steps)
    held = [shape for shape in shapes if shape["held_out"] and shape["kind"] in seen]
    kinds = fit_kinds(shapes, steps)
    table = np.array([sums(rows, kinds, steps) for rows, _, _ in nets])
    ms = np.array([net[1] for net in nets])
    out = np.array([net[2] for net in nets], dtype=bool)
    first = np.array([0] * _DENSE)
    trial = fit_network(np.vstack([table[~out], table[first]]), np.append(ms[~out], ms[first]))
    return {
        "steps": {"out": steps.out, "inp": steps.inp, "tail": round(steps.tail, 4)},
        "kinds": kinds,
        "network": fit_network(np.vstack([table, table[first]]), np.append(ms, ms[first])).tolist(),
        "error": {
            "shapes": error([of_shape(seen, steps, shape) for shape in held], [shape["ms"] for shape in held]),
            "networks": error((table[out] @ trial).tolist(), ms[out].tolist()),
        },
    }
