# yolo-prune, AGPL-3.0 license
"""What layers are called where people read it: by the block that they are in, and in a head by what they put out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from torch import nn

from yolo_prune.graph import model_parts

# Branches of the host's heads (8.4.190, nn/modules/head.py): name -> what they put out.
_BRANCHES = {
    "cv2": "boxes",
    "cv3": "classes",
    "proto": "prototypes",
    "one2one_cv2": "boxes, one2one",
    "one2one_cv3": "classes, one2one",
}
_FOURTH = {"Segment": "masks", "Pose": "keypoints", "OBB": "angles"}  # cv4, by the head's class


class Block(NamedTuple):
    """Layers that stand together: the part of the model, a name, and their rows of a record."""

    part: str
    name: str
    layers: tuple[Mapping[str, Any], ...]


def blocks(layers: list[dict[str, Any]]) -> list[Block]:
    """The layers of a record in groups, in the order of the model; the model's own outputs are left out.

    Args:
        layers: `name`, and, which records of older versions have not, `part`, `kind` and `fixed`.
    """
    shown = [layer for layer in layers if not layer.get("fixed") or layer["before"] != layer["after"]]
    return [
        Block(part, name, tuple(rows))
        for (part, name), rows in groupby(shown, key=lambda layer: (layer.get("part") or "", _block(layer)))
    ]


def _block(layer: Mapping[str, Any]) -> str:
    """`model.4.m.0.cv1.conv` of a C2f is in `4 C2f`, `model.22.cv3.0.0.conv` of a Detect in `22 classes`."""
    words = layer["name"].removeprefix("model.").split(".")
    kind = str(layer.get("kind") or "")
    if layer.get("part") != "head" or len(words) < 3:
        return f"{words[0]} {kind}".strip()
    branch = words[1]
    if branch.endswith("cv4"):
        fourth = next((name for start, name in _FOURTH.items() if kind.startswith(start)), branch)
        return f"{words[0]} {fourth}{', one2one' if branch.startswith('one2one') else ''}"
    return f"{words[0]} {_BRANCHES.get(branch, branch)}"


def of_group(name: str, place: Mapping[str, Any]) -> str:
    """A channel group by the layer that makes it: `model.4.m.0.cv1.conv` is `4 C2f m.0.cv1`, `model.2.cv1.conv[1/2]`,
    the first half of what it puts out, `2 C2f cv1, half 1`.

    Args:
        place: `part` and `kind` of the layer, as of `places`.
    """
    layer, share = re.fullmatch(r"(.*?)(?:\[(\d+/\d+)\])?", name).groups()  # type: ignore[union-attr]
    block = _block({**place, "name": layer})
    words = layer.removeprefix("model.").removesuffix(".conv").split(".")
    inside = words[2 if block.partition(" ")[2].partition(",")[0] in _PUT_OUT else 1 :]
    number, _, of = (share or "").partition("/")
    piece = f", {'half' if of == '2' else f'part of {of},'} {number}" if share else ""
    return " ".join([block, *([".".join(inside)] if inside else [])]) + piece


_PUT_OUT = {words.partition(",")[0] for words in (*_BRANCHES.values(), *_FOURTH.values())}


def places(model: nn.Module, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Layer name -> `part` of the model and `kind`, the class of the block, that it is in; None where not known."""
    parts, now = model_parts.of(model), dict(model.named_modules())
    kinds = {block: type(now[block]).__name__ for inside in parts.values() for block in inside if block in now}
    return {
        name: {
            "part": next((part for part in parts if model_parts.matches(name, part, parts)), None),
            "kind": kinds.get(".".join(name.split(".")[:2])),
        }
        for name in names
    }
