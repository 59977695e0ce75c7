# yolo-prune, AGPL-3.0 license
"""What the host says of a fault, as it can be quoted in a line of ours."""

from __future__ import annotations

from yolo_prune.errors import without_colors

# Of a file that is no image the host says that a plugin for another format is missing (8.4.190, utils/patches.py:
# `image_open`).
_BESIDE_THE_POINT = {"No module named 'pi_heif'": "this is no image that can be opened"}


def module_missing(name: str | None, command: str) -> str:
    """What to say of a checkpoint with classes of a module that is not found; command: such as "yolo train"."""
    return (
        f"it holds classes of the module {name}, which is not found here. Say in which folder it lies, "
        f"PYTHONPATH=FOLDER {command} ..., or install its package"
    )


def quoted(error: BaseException | str) -> str:
    """The first line that says something, and where it begins a list the first of that; no colours, no advice.

    Args:
        error: of the host, or its words.
    """
    text = without_colors(str(error))
    for words, right in _BESIDE_THE_POINT.items():
        text = text.replace(words, right)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "" if isinstance(error, str) else type(error).__name__
    begun = [line for line in lines[1:2] if line[0].isspace()]
    return " ".join(line.strip() for line in (lines[0], *begun))
