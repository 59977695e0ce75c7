# yolo-prune, AGPL-3.0 license
"""Plain text for the terminal: tables, and commands to paste into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from yolo_prune.shell import command as command  # handed on


def figure(value: float | None, how: str, unit: str = "") -> str:
    """A figure as a format such as ".2f" has it, and a unit behind it; a dash where there is none."""
    return "-" if value is None else f"{value:{how}}{unit}"


def megabytes(count: int | None) -> str:
    """Bytes as millions of them."""
    return figure(None if count is None else count / 1e6, ".2f")


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Lay out rows under the keys of the first one; numbers to the right, words to the left.

    Args:
        rows: at least one row; every row has the keys of the first.

    Returns:
        Lines joined by newlines, the header first.
    """
    heads = list(rows[0])
    cells = [[str(row[head]) for head in heads] for row in rows]
    widths = [max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]
    right = [all(_numeric(line[i]) for line in cells) for i in range(len(heads))]

    def lay(line: Sequence[str]) -> str:
        parts = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([lay(heads), lay(["-" * w for w in widths]), *(lay(line) for line in cells)])


def _numeric(cell: str) -> bool:
    return cell in {"", "-"} or cell.lstrip("+-")[:1].isdigit()


def times(interval: Sequence[float | None]) -> str:
    """How many times as fast, as far as an interval says; an end of it that is not known is None."""
    low, high = interval
    if not low or high is None:
        return f"at least {low:.2f} times as fast" if low else "no telling how many times as fast"
    return f"{low:.2f} to {high:.2f} times as fast"


def cut_begins(chosen: int, fitted: int) -> str:
    """One line before a cut without training, which takes seconds, of a large model a minute.

    Args:
        chosen: how many images channels are judged on. fitted: how many the layers that stay are fitted on. 0 is none.
    """
    on = f" on {chosen} images" if chosen else ""
    fit = f", and what stays is fitted on {fitted} images to make up for it" if fitted else ""
    return f"channels are chosen{on} and cut{fit}"


def untaught(blocks: Mapping[str, str], operations: Mapping[str, str]) -> str:
    """One line on blocks that nobody has taught the tool: name -> class, name -> what stops it there."""
    classes: dict[str, list[str]] = {}
    for name, kind in blocks.items():
        classes.setdefault(kind, []).append(name)
    listed = []
    for kind, names in classes.items():
        more = f" and {len(names) - 1} more" * (len(names) > 1)
        listed.append(f"{kind} ({names[0]}{more}: {operations.get(names[0], 'an operation that is not known')})")
    return (
        f"what goes into these blocks is protected, for yolo-prune does not know all that they do: {', '.join(listed)}"
        ". How to teach one: yolo-prune help adding-a-block"
    )
