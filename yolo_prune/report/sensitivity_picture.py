# yolo-prune, AGPL-3.0 license
"""sensitivity.png: what each channel group loses when it is cut by itself. It is replaced whole (files.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from yolo_prune import files
from yolo_prune.planning.sensitivity import SHARES
from yolo_prune.report import layer_names, style
from yolo_prune.report.style import LIGHT, SMALL, Note, Palette


def picture(result: Mapping[str, Any], path: Path, places: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw what the loss rises by when the largest share of each group is cut, in the order of the model.

    Args:
        result: of planning.sensitivity. path: the PNG file. places: group -> where it is, as of `layer_names.places`.
    """
    files.replace(path, content(result, places))


def content(
    result: Mapping[str, Any],
    places: Mapping[str, Mapping[str, Any]],
    palette: Palette = LIGHT,
    note: Note | None = None,
) -> bytes:
    """What `picture` writes. note: as of `style.png`."""
    groups = result["groups"]
    losses = [row["losses"][-1] for row in groups.values()]
    names = {name: layer_names.of_group(name, places.get(name, {})) for name in groups}

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        worst = names[max(groups, key=lambda name: groups[name]["losses"][-1])] if groups else "none"
        style.heading(
            axes,
            palette,
            f"Most sensitive: {worst}",
            f"what the loss ({result['loss']:.3f}) rises by when {SHARES[-1]:.0%} of a group is cut, without training",
        )
        # A typical group has weight 1; what needs three times as much care is drawn in the other colour.
        colors = [palette.second if row["weight"] >= _MUCH else palette.pruned for row in groups.values()]
        axes.barh(range(len(groups)), losses, color=colors, height=0.75)
        for at, loss in enumerate(losses):
            words = f" {round(loss, 3) + 0.0:.3f}"  # no -0.000
            axes.text(max(loss, 0), at, words, va="center", fontsize=SMALL, color=palette.soft)
        labels = [f"{name}  ({groups[group]['size']})" for group, name in names.items()]
        axes.set_yticks(range(len(groups)), labels, fontsize=SMALL)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.grid(axis="x")
        axes.set_xlabel(f"rise of the loss (orange: weighs {_MUCH:g} times a typical group, or more); (channels)")
        _parts(axes, [str(places.get(group, {}).get("part") or "") for group in groups], palette)

    return style.png(draw, 1.1 + 0.145 * len(groups), palette, note=note)


def _parts(axes: Any, parts: Sequence[str], palette: Palette) -> None:
    """The parts of the model beside the axes, with a line where the next one begins."""
    first = 0
    for part, rows in groupby(parts):
        if first:
            axes.axhline(first - 0.5, color=palette.line, lw=1)
        count = len(list(rows))
        place = {"transform": axes.get_yaxis_transform(), "ha": "left", "va": "center", "rotation": 270}
        axes.text(1.005, first + (count - 1) / 2, part, color=palette.text, fontsize=style.LETTERS, **place)
        first += count


_MUCH = 3.0
