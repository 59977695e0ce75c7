# yolo-prune, AGPL-3.0 license
"""How all pictures look: colours for light and dark pages, letters, and a figure -> the content of a PNG file.

A figure is made without pyplot and under settings of its own, so that a user's figures and matplotlibrc do not
change, and change nothing. Pictures are seen some 900 pixels wide on a page, 100 an inch: no letter is below 7 points.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Note = Callable[[Any], Mapping[str, str]]
WIDTH = 9.0  # inches
_DPI = 160
SMALL, LETTERS, TITLE = 7.0, 8.5, 10.0  # points


@dataclass(frozen=True)
class Palette:
    """The colours of one background. Each colour has one meaning in every picture.

    Attributes:
        page, text, soft, line: background, words, quiet words, axes and grids. dense: the model before.
        pruned: the model after. second: a second measure, or another model. third: one more part. bad: what failed.
        own: the model itself, among others.
    """

    page: str
    text: str
    soft: str
    line: str
    dense: str
    pruned: str
    second: str
    third: str
    bad: str
    own: str


LIGHT = Palette(
    *("#ffffff", "#1f2328", "#57606a", "#d0d7de"), *("#c9d3df", "#1f6feb", "#d1570a", "#2da44e", "#b42318", "#8250df")
)
DARK = Palette(
    *("#0d1117", "#e6edf3", "#9da7b1", "#30363d"), *("#4b5563", "#58a6ff", "#f0883e", "#3fb950", "#ff7b72", "#bc8cff")
)


def png(
    draw: Callable[[Any, Palette], None],
    height: float,
    palette: Palette = LIGHT,
    note: Note | None = None,
) -> bytes:
    """The content of a PNG file.

    Args:
        draw: called with an empty figure of matplotlib and the palette. height: inches.
        note: called with the figure, gives texts that the file carries: the pictures of the docs say what is in them.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = io.BytesIO()
    # Ticks are made when a figure is drawn, by the settings of then: so it is drawn in here.
    with matplotlib.style.context(["default", _settings(palette)]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=palette.page)
        draw(figure, palette)
        FigureCanvasAgg(figure).print_figure(
            content, format="png", dpi=_DPI, facecolor=palette.page, metadata={} if note is None else dict(note(figure))
        )
    return content.getvalue()


def _settings(palette: Palette) -> dict[str, Any]:
    """What matplotlib calls these."""
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
        "font.size": LETTERS,
        "text.color": palette.text,
        "axes.facecolor": palette.page,
        "axes.edgecolor": palette.line,
        "axes.labelcolor": palette.text,
        "axes.titlesize": LETTERS,
        "axes.titlelocation": "left",
        "axes.titlecolor": palette.soft,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": palette.line,
        "grid.linewidth": 0.6,
        "xtick.color": palette.line,
        "ytick.color": palette.line,
        "xtick.labelcolor": palette.soft,
        "ytick.labelcolor": palette.soft,
        "legend.frameon": False,
        "legend.fontsize": LETTERS,
        "legend.labelcolor": palette.text,
    }


def heading(axes: Any, palette: Palette, first: str, second: str) -> None:
    """The title of a figure, above its first axes: what it comes to, and quietly what it is of."""
    axes.set_title(first, fontsize=TITLE, fontweight="bold", color=palette.text, loc="left", pad=22)
    subheading(axes, palette, second)


def subheading(axes: Any, palette: Palette, words: str) -> None:
    """What one of several axes shows, at the height of the second line of `heading`."""
    place = {"textcoords": "offset points", "xytext": (0, 7), "xycoords": "axes fraction"}
    axes.annotate(words, (0, 1), ha="left", va="bottom", color=palette.soft, **place)
