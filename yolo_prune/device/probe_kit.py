# yolo-prune, AGPL-3.0 license
"""What is to be measured of a model: probes of its layers, and whole networks of random widths, in one folder or file.

The folder holds manifest.json and the networks; `pack` makes one .pyz of it with the program that measures, for a
device that has Python, numpy and the runtime, and nothing of ours.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from yolo_prune import __version__, files, log
from yolo_prune.allocation import allocate
from yolo_prune.allocation.scopes import legal
from yolo_prune.cost import exported_file, layer_shapes
from yolo_prune.cost.layer_shapes import LayerShape
from yolo_prune.device import int8_nodes, probes
from yolo_prune.errors import BoundError
from yolo_prune.graph import channel_groups, image_shape
from yolo_prune.host import exporter
from yolo_prune.planning import candidates, choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.surgery import cut_channels

_LEVELS = (0.125, 0.25, 0.5, 0.75, 1.0)  # shares of a kind's widest layer that are probed
_WIDTH = 16  # probes and most networks have multiples of this: the largest step that CPUs are known to work in
_SWEPT = tuple(range(32, 65, 4))
# How the networks are made narrow: by chance ("random"), or as a recipe would to so many percent of the FLOPs; whether
# they are held out. What an allocation chooses is not like what chance does, and it is what must be predicted.
_NETWORKS: tuple[tuple[str | int, bool], ...] = (
    *(("random", False) for _ in range(7)),
    *((share, False) for share in (85, 75, 65, 50, 42, 35, 28)),
    *(("random", True) for _ in range(2)),
    *((share, True) for share in (58, 46)),
)
_MODULES = (
    "errors",
    "files",
    "log",
    "scratch",
    "recipe.formats",
    "cost.profile_format",
    "cost.latency_model",
    "device.timing",
    "device.machine",
    "device.runtimes",
    "device.measurement",
)


def make(
    network: nn.Module,
    name: str,
    folder: Path,
    *,
    kind: str,
    precision: str,
    imgsz: int,
    say: Callable[[str], None],
) -> None:
    """Write a kit.

    Args:
        network: a stock model. name: what the profile calls it. folder: an empty folder.
        kind: one of formats.PROFILED. precision: one of profile_format.PRECISIONS that goes with it.
        imgsz: pixels, a multiple of the stride. say: what progress is told to.

    Raises:
        PruneError: the host cannot export the model to this format, or writes other layers than are counted.
    """
    networks, end2end = _networks(network, folder, kind, precision, imgsz, say)
    layers = layer_shapes.layers_of(network, imgsz, end2end)
    written: dict[str, str] = {}

    def probe(layer: LayerShape, inp: int, out: int) -> str:
        label = f"{layer.kind} {inp} {out}".replace(" ", "_").replace("/", "s")
        if label not in written:
            written[label] = probes.write(layer, inp, out, folder / label, kind, precision).name
        return written[label]

    empty = LayerShape("", "conv", (1, 1), (1, 1), (0, 0), (1, 1), (1, 1), 1, 1, 1, "none")
    manifest: dict[str, Any] = {
        "yolo_prune": __version__,
        "model": name,
        "format": kind,
        "precision": precision,
        "imgsz": imgsz,
        "batch": 1,
        "end2end": end2end,
        "empty": probe(empty, 1, 1),
        "sweeps": _sweeps(layers, probe),
        "shapes": _shapes(layers, probe),
        "networks": networks,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def pack(folder: Path, out: Path) -> None:
    """Make one file of a kit: `python3 profile.pyz` unpacks itself beside it for the time of the run, and measures.

    Args:
        folder: of `make`. out: the .pyz file.
    """
    here = Path(__file__).parents[1]
    with files.writing(out) as stream:
        stream.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__main__.py", _MAIN)
            archive.writestr("yolo_prune/__init__.py", f'__version__ = "{__version__}"\n')
            for wing in sorted({module.partition(".")[0] for module in _MODULES if "." in module}):
                archive.writestr(f"yolo_prune/{wing}/__init__.py", "")
            for module in _MODULES:
                source = f"{module.replace('.', '/')}.py"
                archive.write(here / source, f"yolo_prune/{source}")
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, f"kit/{path.relative_to(folder).as_posix()}")


_MAIN = """\
import sys, zipfile

try:
    import numpy
except ImportError:
    sys.exit("profile: numpy is missing here: pip install numpy")

# One that is installed here has been imported by its start-up file; this kit goes by what it brought.
for name in [name for name in sys.modules if name.partition(".")[0] == "yolo_prune"]:
    del sys.modules[name]

from yolo_prune import scratch
from yolo_prune.device import measurement

with scratch.folder() as folder, zipfile.ZipFile(sys.argv[0]) as archive:
    archive.extractall(folder, [name for name in archive.namelist() if name.startswith("kit/")])
    sys.exit(measurement.main(sys.argv[1:], folder / "kit"))
"""


def _kinds(layers: list[LayerShape]) -> dict[str, list[LayerShape]]:
    kinds: dict[str, list[LayerShape]] = {}
    for layer in layers:
        kinds.setdefault(layer.kind, []).append(layer)
    return kinds


def _shapes(all_layers: list[LayerShape], probe: Callable[[LayerShape, int, int], str]) -> list[dict[str, Any]]:
    """The shapes of each kind that are timed; every fourth is held out of the first fit."""
    rows = []
    for kind, layers in _kinds(all_layers).items():
        widest_in, widest_out = max(x.inp for x in layers), max(x.out for x in layers)
        fixed = layers[0].groups > 1 or layers[0].operation == "deconv"
        pairs = sorted({(x.inp, x.out) for x in layers})
        if layers[0].operation == "depthwise":
            pairs = [(c, c) for c in _levels(widest_out)]
        elif not fixed:
            ins = [widest_in] if widest_in < _WIDTH else _levels(widest_in)
            outs = [widest_out] if widest_out < _WIDTH else _levels(widest_out)
            # a checkerboard of the table: four figures a kind need no more, and every level is met
            pairs = [(i, o) for a, i in enumerate(ins) for b, o in enumerate(outs) if (a + b) % 2 == 0 or len(ins) < 3]
        for index, (inp, out) in enumerate(pairs):
            held = len(pairs) > 4 and index % 4 == 2
            rows.append({"kind": kind, "inp": inp, "out": out, "held_out": held, "file": probe(layers[0], inp, out)})
    return rows


def _levels(widest: int) -> list[int]:
    return sorted({max(_WIDTH, round(widest * level / _WIDTH) * _WIDTH) for level in _LEVELS})


def _sweeps(layers: list[LayerShape], probe: Callable[[LayerShape, int, int], str]) -> list[dict[str, Any]]:
    """Where channel steps are looked for: the two dearest kinds of 1x1 and of larger kernels, one side at a time."""
    sweeps = []
    for single in (True, False):
        work: dict[str, int] = {}
        first: dict[str, LayerShape] = {}
        for layer in layers:
            plain = layer.operation == "conv" and layer.groups == 1 and layer.inp > 3 and layer.activation != "none"
            if plain and (layer.kernel == (1, 1)) == single:
                work[layer.kind] = work.get(layer.kind, 0) + layer.work
                first.setdefault(layer.kind, layer)
        for kind in sorted(work, key=lambda k: -work[k])[:2]:
            for side in ("out", "inp"):
                files = [probe(first[kind], *((64, c) if side == "out" else (c, 64))) for c in _SWEPT]
                sweeps.append({"kind": kind, "side": side, "channels": list(_SWEPT), "files": files})
    return sweeps


def _networks(
    network: nn.Module,
    folder: Path,
    kind: str,
    precision: str,
    imgsz: int,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], bool]:
    """The model itself and narrower ones, exported by the host and held to the layers that are counted.

    Returns:
        `file`, `rows` and `held_out` of each, and whether their head is the one-to-one branch.
    """
    networks = []
    end2end = False
    began = time.monotonic()
    for index, (how, held_out) in enumerate([(100, False), *_NETWORKS]):
        if index % 4 == 0:
            total = len(_NETWORKS) + 1
            say(f"exporting networks to measure: {index}/{total}{log.to_go(began, index / total)}")
        small = deepcopy(network)
        if how != 100:
            cut_channels.apply(small, *(_random(small, index) if how == "random" else _planned(small, int(how), index)))
        if precision != "int8":  # what a calibration sees of such weights are not the zero points of a real model
            _flatten(small)
        artifact = export(small, folder / f"network{index}", kind, precision, imgsz)
        form = form_of(kind)
        end2end = exported_file.end2end(artifact, form)
        layers = layer_shapes.layers_of(small, imgsz, end2end)
        exported_file.require(layers, artifact, form)
        rows = [list(layer.row) for layer in layers]
        networks.append({"file": artifact.relative_to(folder).as_posix(), "rows": rows, "held_out": held_out})
    return networks, end2end


def form_of(kind: str) -> str:
    """The format of the file that a runtime is given: an engine is built of ONNX, on the device."""
    return "onnx" if kind == "engine" else kind


def export(network: nn.Module, folder: Path, kind: str, precision: str, imgsz: int) -> Path:
    """Export a model, for its time, as a runtime gets it.

    Args:
        network: a stock model. folder: where to. kind, precision: of a profile. imgsz: pixels.

    Raises:
        PruneError: the host cannot export it.
    """
    inserted = kind == "engine" and precision == "int8"  # onnxruntime's calibration makes what TensorRT does not take
    artifact = exporter.export(network, folder, form_of(kind), imgsz=imgsz, precision="fp32" if inserted else precision)
    if inserted:
        int8_nodes.insert_into(artifact, kind)
    if kind == "ncnn":
        note_input(artifact, network, imgsz)
    return artifact


def note_input(artifact: Path, network: nn.Module, imgsz: int) -> None:
    """Write what an ncnn file does not say beside it: the shape of the image that it takes."""
    channels = image_shape.channels(network)
    artifact.with_name("input.json").write_text(json.dumps([channels, imgsz, imgsz]))


def _random(
    network: nn.Module, seed: int, graph: channel_groups.ChannelGraph | None = None
) -> tuple[channel_groups.ChannelGraph, allocate.PrunePlan]:
    """Random widths of a model: one share for all, and its own deviation for each unit. graph: of it, where known."""
    rng = np.random.default_rng(seed)
    graph = graph or channel_groups.build(network)
    sizes = {group.name: group.size for group in graph.groups}
    scores = {name: rng.random(size) for name, size in sizes.items()}
    units = candidates.units(graph, scores, sizes, allocate.lowest_counts(sizes, min_channels=8, max_cut=0.9))
    common, spread = rng.uniform(0.25, 1), (0.0, 0.15, 0.35)[seed % 3]
    multiple = (_WIDTH, _WIDTH, _WIDTH, 8)[seed % 4]
    shares = np.clip(common + spread * rng.standard_normal(len(units)), 0.1, 1)
    counts = [legal(max(share * u.size, u.lowest), u, multiple) for share, u in zip(shares, units, strict=True)]
    return graph, allocate.plan_of(units, counts)


def _planned(network: nn.Module, percent: int, seed: int) -> tuple[channel_groups.ChannelGraph, allocate.PrunePlan]:
    """Widths as the global scope chooses them for so many percent of the FLOPs; random ones where that is too few."""
    graph = channel_groups.build(network)
    wanted = from_arguments(
        {
            "prune_flops": f"{percent}%",
            "prune_scope": "global",
            "prune_round": _WIDTH,
            "prune_importance": "l2",
        }
    )
    assert wanted is not None
    baseline = Baseline.of(network, graph)
    try:
        return graph, choice.plan(network, graph, wanted, baseline, choice.step_bounds(wanted, baseline))
    except BoundError:
        return _random(network, seed, graph)


def _flatten(network: nn.Module) -> None:
    """Give every weight of a layer one value, another in each: the file packs small, and nothing is shared."""
    for index, module in enumerate(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.weight.data.fill_((1 + 0.001 * index) / module.weight[0].numel())
