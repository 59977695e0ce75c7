# yolo-prune, AGPL-3.0 license
"""Legal values of a recipe that do not go together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from yolo_prune.recipe.bounds import BOUNDS
from yolo_prune.recipe.formats import FORMATS

GOALS = (*BOUNDS, "max_drop", "sparsity")  # one of these says how much is to go


class Disagreement(NamedTuple):
    """Legal values that do not go together: the setting that is blamed, all settings that it is about, and words."""

    blamed: str
    about: frozenset[str]
    words: str


def disagreements(values: Mapping[str, Any], say: Callable[[str], str]) -> Iterator[Disagreement]:
    """Yield what does not go together of legal values. `say` gives a key as the user wrote it."""

    def among(blamed: str, *others: str, words: str) -> Disagreement:
        return Disagreement(blamed, frozenset({blamed, *others}), words)

    if all(values[key] is None for key in GOALS):
        words = (
            f"{say('name')} does not say how much is to be cut: add a bound, prune_flops=50% or flops: 50%, or the "
            "largest drop of fitness, prune_max_drop=0.01"
        )
        yield among("flops", *GOALS, words=words)
    if values["regularize_strength"] is not None and values["regularize"] == "none":
        words = f"{say('regularize_strength')} is of no penalty: add prune_regularize=bn, group or growing"
        yield among("regularize_strength", "regularize", words=words)
    if values["regularize"] != "none" and values["steps"] == 1 and values["start"] == 0:
        words = f"{say('regularize')} acts in the epochs before a cut, and {say('start')} leaves none: leave one out"
        yield among("regularize", "start", words=words)
    precision, offered = values["precision"], FORMATS[values["format"] or "onnx"].precisions
    if precision is not None and precision not in offered:
        words = f"{say('precision')} does not go with {say('format')}: write {' or '.join(offered)}"
        yield among("precision", "format", words=words)
    if None not in (values["start"], values["end"]) and values["start"] > values["end"]:
        words = f"{say('start')} is after {say('end')}: the end must be {values['start']:g} or later, up to 1"
        yield among("start", "end", words=words)
    if values["schedule"] == "oneshot" and values["steps"] != 1:
        words = f"{say('steps')} does not go with {say('schedule')}: write 1, or a linear or cubic schedule"
        yield among("steps", "schedule", words=words)
