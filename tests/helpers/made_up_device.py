# yolo-prune, AGPL-3.0 license
"""A device of a known truth: what measuring it with yolov8n at 320 gives, and its profile."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from torch import nn

from tests.helpers.profile_header import HEADER
from tests.planning.test_choice import dense
from yolo_prune.cost import latency_model, layer_shapes, profile_file
from yolo_prune.cost.latency_model import ChannelGrain, Row
from yolo_prune.device import probe_kit
from yolo_prune.graph import channel_groups
from yolo_prune.surgery import cut_channels


def truth(row: Row, steps: ChannelGrain) -> float:
    """Milliseconds that a layer takes on the made-up device."""
    o, i = (
        latency_model.up(row.out, steps.out),
        row.inp if "image" in row.kind else latency_model.up(row.inp, steps.inp),
    )
    o = o * (1 + steps.tail * (row.out % steps.out > 0))
    work = 9 if "3x3" in row.kind else 1
    return row.area * (2e-8 * work * o * i + 3e-7 * o + 2e-7 * i) + 0.004


@functools.cache
def random_networks() -> list[list[Row]]:
    """The layers of yolov8n at 320, and of 16 narrower ones."""
    model, _, _ = dense("n")
    graph = channel_groups.build(model)
    networks = [model]
    for n in range(1, 17):
        networks.append(deepcopy(model))
        cut_channels.apply(networks[-1], *probe_kit._random(model, n, graph))
    return [[layer.row for layer in layer_shapes.layers_of(network, 320)] for network in networks]


def measured_device(steps: ChannelGrain, noise: float = 0.0) -> dict[str, Any]:
    """What measuring the made-up device with yolov8n at 320 gives."""
    rng = np.random.default_rng(0)

    def told(ms: float) -> float:
        return float(0.002 + ms * (1 + noise * rng.standard_normal()))  # 0.002 ms a call

    rows = random_networks()[0]
    points: list[dict[str, Any]] = []
    for n, kind in enumerate(sorted({row.kind for row in rows})):
        area = next(row.area for row in rows if row.kind == kind)
        own = [row for row in rows if row.kind == kind]
        pairs = sorted({(r.inp, r.out) for r in own} | {(c, d) for c in (16, 32, 64, 128) for d in (16, 48, 64, 128)})
        for m, (i, o) in enumerate(pairs):
            ms = told(truth(Row(kind, i, o, area), steps))
            points.append({"kind": kind, "inp": i, "out": o, "held_out": (m + n) % 4 == 0, "ms": ms})
    sweeps = []
    for kind in ("conv 1x1/1 20x20 silu", "conv 3x3/1 40x40 silu"):
        area = next(row.area for row in rows if row.kind == kind)
        for side in ("out", "inp"):
            pairs = [(64, c) if side == "out" else (c, 64) for c in probe_kit._SWEPT]
            ms = [told(truth(Row(kind, i, o, area), steps)) for i, o in pairs]
            sweeps.append({"kind": kind, "side": side, "channels": list(probe_kit._SWEPT), "ms": ms})
    networks = []
    for n, own in enumerate(random_networks()):
        ms = told(1.0 + 1.05 * sum(truth(row, steps) for row in own))
        networks.append({"rows": [list(row) for row in own], "held_out": n > 12, "ms": ms})
    return {"call_ms": 0.002, "sweeps": sweeps, "shapes": points, "networks": networks}


def made_up(steps: ChannelGrain, noise: float = 0.0) -> profile_file.Profile:
    fitted = latency_model.fit(measured_device(steps, noise))
    return profile_file.of({**HEADER, **json.loads(json.dumps(fitted))}, "made up")


_MADE: list[profile_file.Profile] = []


def made_up_once() -> profile_file.Profile:
    if not _MADE:
        _MADE.append(made_up(ChannelGrain(16, 1, 0.1)))
    return _MADE[0]


def by_channels(model: nn.Module, imgsz: int = 64, machine: Mapping[str, Any] | None = None) -> profile_file.Profile:
    """A profile in which every layer costs by its channels alone; depthwise ones by their outputs, as fitted."""
    plain, depthwise = [1e-5, 2e-5, 3e-5, 1e-3], [0.0, 2e-5, 0.0, 1e-3]
    kinds = {
        layer.kind: depthwise if layer.operation == "depthwise" else plain
        for layer in layer_shapes.layers_of(model, imgsz)
    }
    content = {
        **HEADER,
        "model": "x.pt",
        "imgsz": imgsz,
        "machine": machine or HEADER["machine"],
        "steps": {"out": 1, "inp": 1, "tail": 0.0},
        "kinds": kinds,
        "network": [1, 1, 1, 1, 1, 0, 0],
        "error": {"shapes": {"mean": 0.0}, "networks": {"mean": 0.0}},
    }
    return profile_file.of(content, "made up")
