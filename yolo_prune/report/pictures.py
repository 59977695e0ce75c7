# yolo-prune, AGPL-3.0 license
"""pruning.png: what a run made of its model, layer by layer, and what became of its fitness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_prune import files
from yolo_prune.report import layer_names, style
from yolo_prune.report.layer_names import Block
from yolo_prune.report.style import LIGHT, SMALL, Note, Palette

_GAP = 0.9  # between two blocks, in bars


def picture(record: dict[str, Any], path: Path, palette: Palette = LIGHT) -> None:
    """Draw pruning.png: channels of each layer before and after; fitness and GFLOPs over the epochs; milliseconds.

    Args:
        record: as in record.json. path: the PNG file.
    """
    files.replace(path, content(record, palette))


def content(record: Mapping[str, Any], palette: Palette = LIGHT, note: Note | None = None) -> bytes:
    """What `picture` writes. note: as of `style.png`."""
    by_part = (record.get("latency") or {}).get("predicted_ms_by_part")
    ratios = [10, 9, *([3] if by_part else [])]

    def draw(figure: Any, palette: Palette) -> None:
        top, middle, *lowest = figure.subplots(len(ratios), 1, height_ratios=ratios)
        style.heading(top, palette, *_titles(record))
        _layers(top, record["layers"], palette)
        _epochs(middle, record, palette)
        if by_part:
            _milliseconds(lowest[0], by_part, palette)

    return style.png(draw, 7.4 if by_part else 6.3, palette, note=note)


def _titles(record: Mapping[str, Any]) -> tuple[str, str]:
    """What the run came to in one line; what else changed, in another."""
    before, after = record["baseline"], record["final"]
    fitness = [row.get("fitness") for row in (before, after)]
    first = f"{before['gflops']:.1f} → {after['gflops']:.1f} GFLOPs ({after['gflops'] / before['gflops']:.0%})"
    if any(value is not None for value in fitness):
        first = f"{_fitness_name(record)} {' → '.join(map(_figure, fitness))},  {first}"
    second = [
        f"{before['params'] / 1e6:.2f} → {after['params'] / 1e6:.2f} M params "
        f"({after['params'] / before['params']:.0%})"
    ]
    if before.get("size_bytes") and after.get("size_bytes"):
        kind = (record.get("deployment") or {}).get("format", "file")
        second.append(f"{before['size_bytes'] / 1e6:.1f} → {after['size_bytes'] / 1e6:.1f} MB {kind}")
    if before.get("latency_ms") and after.get("latency_ms"):
        speed = (record.get("latency") or {}).get("measured_speedup") or {"steady": True}
        doubt = "" if speed["steady"] else ", machine too busy to tell"
        second.append(f"{before['latency_ms']:.2f} → {after['latency_ms']:.2f} ms measured{doubt}")
    recipe = (record.get("recipe") or {}).get("name")
    return first, ", ".join([*second, *([f"recipe {recipe}"] if recipe and len(recipe) < 25 else [])])


def _fitness_name(record: Mapping[str, Any]) -> str:
    return str(record.get("fitness_is") or "fitness")


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


# Layers --------------------------------------------------------------------------------------------------------------


def _layers(axes: Any, layers: list[dict[str, Any]], palette: Palette) -> None:
    """Channels before and after, block by block. One collection each: a bar and a tick a layer take twice as long."""
    from matplotlib.collections import PolyCollection

    blocks = layer_names.blocks(layers)
    places = _places(blocks)
    rows = [
        (at, layer) for block, places_of in zip(blocks, places, strict=True) for at, layer in _pairs(block, places_of)
    ]
    high = max((layer["before"] for _, layer in rows), default=1)
    for key, color, label in (("before", palette.dense, "before"), ("after", palette.pruned, "after")):
        corners = [[(at - 0.43, 0), (at - 0.43, row[key]), (at + 0.43, row[key]), (at + 0.43, 0)] for at, row in rows]
        axes.add_collection(PolyCollection(corners, facecolors=color, label=label))
    gone = [at for at, row in rows if not row["after"]]
    if gone:
        axes.plot(gone, [0.02 * high] * len(gone), "x", color=palette.bad, ms=4, label="removed whole")
    axes.set_ylim(0, 1.16 * high)
    axes.set_xlim(-1, (places[-1][-1] if places else 0) + 1)
    axes.set_xticks([])
    axes.grid(axis="y")
    axes.set_ylabel("output channels of each layer")
    _block_names(axes, blocks, places, palette)
    left_out = len(layers) - len(rows)
    title = f"not shown: {left_out} output{'s' * (left_out > 1)} of the model" if left_out else None
    # "best" searches, and warns where that takes long
    axes.legend(loc="lower right", ncols=3, bbox_to_anchor=(1, 1), borderaxespad=0.2, title=title, title_fontsize=SMALL)


def _places(blocks: Sequence[Block]) -> list[list[float]]:
    """Where the bars of each block stand."""
    places, start = [], 0.0
    for block in blocks:
        places.append([start + number for number in range(len(block.layers))])
        start += len(block.layers) + _GAP
    return places


def _pairs(block: Block, places: Sequence[float]) -> list[tuple[float, Mapping[str, Any]]]:
    return list(zip(places, block.layers, strict=True))


def _block_names(axes: Any, blocks: Sequence[Block], places: Sequence[Sequence[float]], palette: Palette) -> None:
    """The name of each block below its bars; above them the part of the model, with a line where the next begins."""
    below = {"transform": axes.get_xaxis_transform(), "va": "top", "rotation": 90, "fontsize": SMALL}
    above = {"transform": axes.get_xaxis_transform(), "va": "top", "fontsize": style.LETTERS}
    part = ""
    for block, own in zip(blocks, places, strict=True):
        axes.text(
            (own[0] + own[-1]) / 2, -0.025, block.name.replace(", ", ",\n"), ha="center", color=palette.soft, **below
        )
        if block.part == part:
            continue
        part = block.part
        if own[0]:
            axes.axvline(own[0] - (1 + _GAP) / 2, color=palette.line, lw=1)
        axes.text(own[0] - 0.3, 0.985, part, color=palette.text, **above)


# Epochs --------------------------------------------------------------------------------------------------------------


def _epochs(axes: Any, record: Mapping[str, Any], palette: Palette) -> None:
    """Fitness over the epochs and right after each cut, beside that of the dense model and what may be lost of it;
    GFLOPs; the steps."""
    history = record.get("history", [])
    seen = [(row["epoch"], row["fitness"]) for row in history if row["fitness"] is not None]
    axes.plot(*(zip(*seen, strict=True) if seen else ([], [])), "o-", color=palette.pruned, ms=3.5, label="fitness")
    cuts = [(row["epoch"] - 1, row["fitness_cut"]) for row in record["steps"] if row.get("fitness_cut") is not None]
    if cuts:
        axes.plot(*zip(*cuts, strict=True), "o", color=palette.pruned, mfc="none", ms=6, label="right after the cut")
    axes.set_xlabel("epoch")
    axes.set_ylabel(_fitness_name(record), color=palette.pruned)
    dense, drop = record["baseline"].get("fitness"), (record.get("recipe") or {}).get("max_drop")
    if dense is not None:
        axes.axhline(dense, color=palette.soft, lw=1.2, ls="--", label=f"before the first cut, {dense:.3f}")
        if drop is not None:
            axes.axhspan(dense - drop, dense, color=palette.third, alpha=0.18, lw=0, label=f"allowed drop, {drop:g}")
    best = record.get("best")
    if best is not None:
        at = best["epoch"] - best["right_after_cut"]
        axes.plot([at], [best["fitness"]], "*", color=palette.text, ms=9, label="best.pt", zorder=5)
    _limits(axes, [*(value for _, value in [*seen, *cuts]), *([] if dense is None else [dense, dense - (drop or 0)])])
    _steps(axes, record["steps"], palette)
    axes.grid(axis="y")
    epochs = [row["epoch"] for row in history]
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.step(
        [*(epoch - 1 for epoch in epochs[:1]), *epochs],
        [*(record["baseline"]["gflops"] for _ in epochs[:1]), *(row["gflops"] for row in history)],
        where="pre",
        color=palette.second,
        lw=1.5,
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    right.set_ylabel("GFLOPs at 640", color=palette.second)
    right.set_ylim(0, 1.12 * record["baseline"]["gflops"])
    axes.legend(loc="lower right", ncols=4, bbox_to_anchor=(1, 1), borderaxespad=0.2)


def _limits(axes: Any, values: Sequence[float]) -> None:
    """From 0 where what was lost is much of it; else near the curve, so that small drops are seen."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.08 * max(high - low, 0.02)
    bottom = 0.0 if low < 0.4 * high else low - room
    axes.set_ylim(max(bottom, 0.0), high + 2.2 * room)  # the names of the steps stand above


def _steps(axes: Any, steps: Sequence[Mapping[str, Any]], palette: Palette) -> None:
    """A line where each step was taken, which is before its epoch; red until where it was undone."""
    named = len(steps) <= 8  # more names than that run into one another
    for row in steps:
        at, undone = row["epoch"] - 1, row.get("undone")
        color = palette.soft if undone is None else palette.bad
        axes.axvline(at, color=color, lw=1, ls=":")
        words = f" step {row['step']}"
        if undone is not None:
            words += ", undone"
            axes.axvline(undone - 1, color=color, lw=1, ls=":")
            axes.axvspan(at, undone - 1, color=color, alpha=0.12, lw=0)
        if named or undone is not None:
            place = {"transform": axes.get_xaxis_transform(), "va": "top", "fontsize": SMALL}
            axes.text(at, 0.99, words, color=color, **place)


# Milliseconds --------------------------------------------------------------------------------------------------------


def _milliseconds(axes: Any, by_part: Mapping[str, Mapping[str, float]], palette: Palette) -> None:
    """Where the predicted milliseconds are, before and after: a bar each, part by part, with figures."""
    colors = {"backbone": palette.pruned, "neck": palette.second, "head": palette.third}
    total = {key: sum(row[key] for row in by_part.values()) for key in ("baseline", "final")}
    ends = dict.fromkeys(total, 0.0)
    for part, row in by_part.items():
        widths = [row[key] for key in total]
        color = colors.get(part, palette.dense)
        axes.barh(["before", "after"], widths, left=list(ends.values()), color=color, label=part)
        for place, key in enumerate(total):
            if row[key] > 0.06 * max(total.values()):  # else the figure is wider than its bar
                at = ends[key] + row[key] / 2
                words = {"ha": "center", "va": "center", "fontsize": SMALL, "color": palette.page}
                axes.text(
                    at, place, f"{row[key]:.2f}", **{**words, **({} if part in colors else {"color": palette.text})}
                )
        ends = {key: ends[key] + row[key] for key in ends}
    for place, value in enumerate(total.values()):
        axes.text(value, place, f"  {value:.2f}", ha="left", va="center", fontweight="bold")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08 * max(total.values()))
    axes.set_xlabel("predicted milliseconds")
    axes.legend(loc="lower right", ncols=4, bbox_to_anchor=(1, 1), borderaxespad=0.2)
