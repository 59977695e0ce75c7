# yolo-prune, AGPL-3.0 license
"""sensitivity.png: what each channel group loses when it is cut by itself. It is replaced whole (files.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_prune import files
from yolo_prune.planning.sensitivity import SHARES
from yolo_prune.report import style
from yolo_prune.report.style import LIGHT, SMALL, Palette


def picture(result: Mapping[str, Any], path: Path, palette: Palette = LIGHT) -> None:
    """Draw what the loss rises by when the largest share of each group is cut, in the order of the model.

    Args:
        result: of planning.sensitivity. path: the PNG file.
    """
    groups = result["groups"]
    losses = [row["losses"][-1] for row in groups.values()]

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        worst = max(groups, key=lambda name: groups[name]["losses"][-1]) if groups else "none"
        style.heading(
            axes,
            palette,
            f"Most sensitive: layer {_short(worst)}",
            f"what the loss ({result['loss']:.3f}) rises by when {SHARES[-1]:.0%} of a group is cut, without training",
        )
        # A typical group has weight 1; what needs three times as much care is drawn in the other colour.
        colors = [palette.second if row["weight"] >= _MUCH else palette.pruned for row in groups.values()]
        axes.barh(range(len(groups)), losses, color=colors, height=0.75)
        for at, loss in enumerate(losses):
            axes.text(max(loss, 0), at, f" {loss:.3f}", va="center", fontsize=SMALL, color=palette.soft)
        names = [f"{_short(name)}  ({row['size']})" for name, row in groups.items()]
        axes.set_yticks(range(len(groups)), names, fontsize=SMALL)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.grid(axis="x")
        axes.set_xlabel(f"rise of the loss (orange: weighs {_MUCH:g} times a typical group, or more); (channels)")

    files.replace(path, style.png(draw, 1.1 + 0.145 * len(groups), palette))


_MUCH = 3.0


def _short(name: str) -> str:
    return name.removeprefix("model.").removesuffix(".conv")
