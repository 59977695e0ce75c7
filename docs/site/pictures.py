# yolo-prune, AGPL-3.0 license
"""The pictures of the docs, light and dark, from the files that hold their figures; `generate.py` writes them.

Each file carries a digest of what it shows (words, lines, bars, limits), which the suite compares: the bytes of a PNG
differ from one matplotlib to the next, what is drawn does not.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.text import Annotation
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from yolo_prune.export import picture
from yolo_prune.report import pictures, sensitivity_picture, style
from yolo_prune.report.style import DARK, LIGHT, Note, Palette
from yolo_prune.sweeps import results

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
KEY = "Shows"  # under which a file carries its digest

Draw = Callable[[Palette, Note], bytes]


def pruning(palette: Palette, note: Note) -> bytes:
    """What `yolo-prune demo` leaves of its pruned training."""
    return pictures.content(_read("demo-record.json"), palette, note)


def export(palette: Palette, note: Note) -> bytes:
    """What it leaves of its export."""
    return picture.content(_read("demo-export.json"), palette, note)


def sensitivity(palette: Palette, note: Note) -> bytes:
    """What `yolo-prune inspect data=` says of the demo's dense model."""
    result, layers = _read("demo-sensitivity.json"), {row["name"]: row for row in _read("demo-record.json")["layers"]}
    places = {group: layers[group.partition("[")[0]] for group in result["groups"]}
    return sensitivity_picture.content(result, places, palette, note)


def front(palette: Palette, note: Note) -> bytes:
    """mAP over milliseconds of what `yolo-prune sweep` found on BCCD; benchmarks/keep_sweep.py kept it."""
    kept = ROOT / "benchmarks" / "results" / "sweep-bccd-yolo11n.json"
    return results.picture(json.loads(kept.read_text(encoding="utf-8")), palette, note)


def accuracy(palette: Palette, note: Note) -> bytes:
    """mAP over FLOPs on BCCD: dense, yolo-prune, and peers; from the table in benchmarks/README.md."""
    methods = accuracy_rows((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"))
    looks = {  # marker, colour, and where the figures and the name stand, in points off the point
        "dense": ("o", palette.own, 9, 22),
        "yolo-prune": ("^", palette.pruned, 9, -3),
        "a narrower yaml": ("s", palette.second, -16, -3),
        "BatchNorm slimming": ("D", palette.third, 9, 3),
        "torch-pruning, magnitude": ("v", palette.soft, -17, -10),
    }

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        about = "BCCD at 320 pixels, 30 epochs for every point; the line of a point is its three seeds"
        style.heading(axes, palette, "yolov8n with fewer FLOPs: what is left of the accuracy", about)
        dense = methods["dense"][0]
        for name, points in methods.items():
            marker, color, beside, beyond = looks[name]
            points = points if name == "dense" else [dense, *points]
            axes.plot(*zip(*((flops, mean) for flops, mean, _ in points), strict=True), color=color, lw=1.2, alpha=0.6)
            for flops, mean, seeds in points[name != "dense" :]:
                axes.plot([flops, flops], [min(seeds), max(seeds)], color=color, lw=1.5)
                axes.plot([flops], [mean], marker=marker, color=color, ms=7)
                words = {"textcoords": "offset points", "ha": "center", "color": color, "fontsize": style.LETTERS}
                axes.annotate(f"{mean:.3f}", (flops, mean), xytext=(0, beside), **words)
            place = (
                {"xytext": (-10, beyond), "ha": "right"} if name != "dense" else {"xytext": (0, beyond), "ha": "center"}
            )
            axes.annotate(name, points[-1][:2], textcoords="offset points", color=color, **place)
        axes.set_xlim(0, 1.08 * dense[0])
        axes.set_ylim(0, 0.74)
        axes.set_xlabel("GFLOPs at 640; left is better")
        axes.set_ylabel("mAP50-95; up is better")
        axes.grid()

    return style.png(draw, 4.2, palette, note=note)


def accuracy_rows(text: str) -> dict[str, list[tuple[float, float, list[float]]]]:
    """Method -> its points, the most FLOPs first: GFLOPs, mean of the seeds, and the seeds, of the table of BCCD."""
    names = {
        "dense": "dense",
        "**yolo-prune**": "yolo-prune",
        "(c) narrower yaml": "a narrower yaml",
        "(b) BatchNorm slimming": "BatchNorm slimming",
        "(a) torch-pruning, global L2 magnitude": "torch-pruning, magnitude",
    }
    table = text.split("\nBCCD, from yolov8n.pt", 1)[1].split("\n\n", 2)[1]
    points: dict[str, list[tuple[float, float, list[float]]]] = {name: [] for name in names.values()}
    for line in table.splitlines()[2:]:
        _, method, gflops, _, *figures = [cell.strip() for cell in line.strip("|").split("|")]
        if method in names:
            points[names[method]].append((float(gflops), float(figures[3]), [float(seed) for seed in figures[:3]]))
    return points


# Picture -> what draws it. README.md and the pages show NAME.png on a light page and NAME-dark.png on a dark one.
PICTURES: Mapping[str, Draw] = {
    "front": front,
    "accuracy": accuracy,
    "pruning": pruning,
    "export": export,
    "sensitivity": sensitivity,
}


def _read(name: str) -> dict[str, Any]:
    """A file of figures that stands beside the pictures."""
    return dict(json.loads((FOLDER / name).read_text(encoding="utf-8")))


def take(demo: Path) -> None:
    """Copy the figures of a run of `yolo-prune demo`, without the folders of the machine that it ran on.

    Args:
        demo: its folder.
    """
    record = json.loads((demo / "pruned" / "pruning" / "record.json").read_text(encoding="utf-8"))
    report = json.loads((demo / "pruned" / "weights" / "export.json").read_text(encoding="utf-8"))
    record["model"] = record.get("model") and Path(record["model"]).name
    for key in ("model", "dense", "data"):
        report[key] = report[key] and Path(report[key]).name
    kept = {"demo-record.json": record, "demo-export.json": report}
    measured = (
        demo / "dense" / "weights" / "best-sensitivity.json"
    )  # inspect writes it there; a demo does not measure it
    if measured.is_file():
        result = json.loads(measured.read_text(encoding="utf-8"))
        kept["demo-sensitivity.json"] = {**result, "data": Path(result["data"]).name}
    FOLDER.mkdir(exist_ok=True)
    for name, content in kept.items():
        text = re.sub(r"\n {8,}|\n {6}(?=[}\]])", " ", json.dumps(content, indent=2))  # a row a line
        (FOLDER / name).write_text(text + "\n", encoding="utf-8")


def write() -> None:
    """Draw all of them."""
    for name, draw in PICTURES.items():
        for suffix, palette in (("", LIGHT), ("-dark", DARK)):
            (FOLDER / f"{name}{suffix}.png").write_bytes(_smaller(draw(palette, digest)))


def _smaller(content: bytes) -> bytes:
    """The same picture in 128 colours, a third of the bytes."""
    image = Image.open(io.BytesIO(content))
    info = PngInfo()
    info.add_text(KEY, image.info[KEY])
    smaller = io.BytesIO()
    image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(smaller, "png", optimize=True, pnginfo=info)
    return smaller.getvalue()


def stale() -> list[str]:
    """Pictures that do not show what would be drawn now."""
    names = []
    for name, draw in PICTURES.items():
        now = Image.open(io.BytesIO(draw(LIGHT, digest))).info[KEY]
        for file in (FOLDER / f"{name}.png", FOLDER / f"{name}-dark.png"):
            if not file.is_file() or Image.open(file).info.get(KEY) != now:
                names.append(file.name)
    return names


def digest(figure: Any) -> Mapping[str, str]:
    """What a figure shows, colours aside, in one number."""
    shown = [_shown(axes) for axes in figure.axes]
    text = json.dumps(shown)
    return {KEY: hashlib.sha256(text.encode()).hexdigest()[:16]}


def _shown(axes: Any) -> list[Any]:
    """Words, lines, bars and limits of axes, to four digits."""
    words = [(text.get_text(), _rounded(text.xy) if isinstance(text, Annotation) else None) for text in axes.texts]
    words += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
    legend = axes.get_legend()
    words += [] if legend is None else [text.get_text() for text in legend.get_texts()]
    ticks = [getattr(axis.get_major_formatter(), "seq", None) for axis in (axes.xaxis, axes.yaxis)]
    lines = [_rounded(line.get_xydata()) for line in axes.lines]
    bars = [_rounded(patch.get_patch_transform().transform(patch.get_path().vertices)) for patch in axes.patches]
    sets = [[_rounded(path.vertices) for path in some.get_paths()] for some in axes.collections]
    return [words, ticks, lines, bars, sets, _rounded([*axes.get_xlim(), *axes.get_ylim()])]


def _rounded(values: Any) -> list[Any]:
    return np.round(np.asarray(values, dtype=float), 4).tolist()
