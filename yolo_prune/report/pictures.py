# yolo-prune, AGPL-3.0 license
"""Pictures of a run's record and of sensitivities. Every file is replaced whole (files.py)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_prune import files
from yolo_prune.planning.sensitivity import SHARES


def new_figure(width: float, height: float) -> Any:
    """A figure of matplotlib, in inches; without pyplot, so that a user's own figures stay untouched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Any) -> bytes:
    """The content of a PNG file of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(content, format="png", dpi=120)
    return content.getvalue()


def picture(record: dict[str, Any], path: Path) -> None:
    """Draw pruning.png: channels of each layer before and after; fitness and GFLOPs over the epochs.

    Args:
        record: as in record.json. path: the PNG file.
    """
    by_part = (record.get("latency") or {}).get("predicted_ms_by_part")
    figure = new_figure(12, 10 if by_part else 8)
    top, bottom, *lowest = figure.subplots(3 if by_part else 2, 1, height_ratios=[4, 4, 1] if by_part else None)
    _bars(top, record["layers"])
    before, after = record["baseline"], record["final"]
    top.set_title(
        f"{before['params'] / 1e6:.2f}M -> {after['params'] / 1e6:.2f}M params, "
        f"{before['gflops']:.1f} -> {after['gflops']:.1f} GFLOPs"
    )
    top.legend(frameon=False, loc="upper right")  # "best" searches, and warns where that takes long
    _curves(bottom, record)
    if by_part:
        _milliseconds(lowest[0], by_part)
    files.replace(path, png(figure))


def sensitivity(result: Mapping[str, Any], path: Path) -> None:
    """Draw what each group loses when half of it is cut, in the order of the model.

    Args:
        result: of planning.sensitivity. path: the PNG file.
    """
    names = list(result["groups"])
    figure = new_figure(10, 1 + 0.16 * len(names))
    axes = figure.subplots()
    losses = [row["losses"][-1] for row in result["groups"].values()]
    axes.barh(range(len(names)), losses, color="#1f6feb")
    axes.set_yticks(range(len(names)), [name.removeprefix("model.") for name in names], fontsize=6)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(f"what the loss ({result['loss']:.3f}) rises by when {SHARES[-1]:.0%} of a group is cut")
    files.replace(path, png(figure))


def _bars(axes: Any, layers: list[dict[str, Any]]) -> None:
    """Channels before and after, as one collection and plain texts: a bar and a tick a layer take twice as long."""
    from matplotlib.collections import PolyCollection

    for key, color in (("before", "#c9d3df"), ("after", "#1f6feb")):
        corners = [
            [(at - 0.4, 0), (at - 0.4, layer[key]), (at + 0.4, layer[key]), (at + 0.4, 0)]
            for at, layer in enumerate(layers)
        ]
        axes.add_collection(PolyCollection(corners, facecolors=color, label=key))
    axes.set_ylim(0, 1.05 * max((layer["before"] for layer in layers), default=1))
    axes.set_xlim(-1, len(layers))
    axes.set_xticks([])
    below = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "rotation": 90, "fontsize": 6}
    for at, layer in enumerate(layers):
        axes.text(at, -0.02, _short(layer["name"]), **below)
    axes.set_ylabel("output channels")


def _curves(axes: Any, record: dict[str, Any]) -> None:
    history = record.get("history", [])
    seen = [row for row in history if row["fitness"] is not None]
    axes.plot([row["epoch"] for row in seen], [row["fitness"] for row in seen], "o-", color="#1f6feb", ms=3)
    axes.set_xlabel("epoch")
    axes.set_ylabel("fitness (mAP50-95)", color="#1f6feb")
    axes.set_ylim(bottom=0)
    for step in record["steps"]:
        axes.axvline(step["epoch"] - 1, color="#8b949e", lw=0.8, ls=":")  # a step precedes its epoch
    right = axes.twinx()
    epochs = [row["epoch"] for row in history]
    right.step(
        [*(epoch - 1 for epoch in epochs[:1]), *epochs],
        [*(record["baseline"]["gflops"] for _ in epochs[:1]), *(row["gflops"] for row in history)],
        where="pre",
        color="#d1570a",
        lw=1.5,
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    right.set_ylabel("GFLOPs at 640", color="#d1570a")
    right.set_ylim(bottom=0)


_PART_COLORS = {"backbone": "#1f6feb", "neck": "#d1570a", "head": "#2da44e"}


def _milliseconds(axes: Any, by_part: Mapping[str, Mapping[str, float]]) -> None:
    """Where the predicted milliseconds are, before and after: a bar each, part by part."""
    ends = {"baseline": 0.0, "final": 0.0}
    for part, row in by_part.items():
        axes.barh(
            ["dense", "pruned"],
            [row["baseline"], row["final"]],
            left=[ends["baseline"], ends["final"]],
            color=_PART_COLORS.get(part, "#8b949e"),
            label=part,
        )
        ends = {key: ends[key] + row[key] for key in ends}
    axes.invert_yaxis()
    axes.set_xlabel("predicted milliseconds")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _short(name: str) -> str:
    return name.removeprefix("model.").removesuffix(".conv")
