# yolo-prune, AGPL-3.0 license
"""Which channels matter: a channel group -> one score a channel, larger is more important.

What gradients say is in gradients.py, what weights say in magnitude.py. registry.py, at the top of the package, adds
one's own.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import nn

from yolo_prune.errors import PruneError
from yolo_prune.graph.channel_groups import ChannelGraph, ChannelGroup
from yolo_prune.importance import magnitude
from yolo_prune.importance.gradients import GRADIENT_IMPORTANCES


class Importance(Protocol):
    """A function of a channel group and the stock model it is of.

    Returns:
        (size,) non-negative scores, one for each of the group's channels.
    """

    def __call__(self, group: ChannelGroup, model: nn.Module) -> torch.Tensor | np.ndarray: ...


def _weights(kind: str, **options: object) -> Importance:
    score = magnitude.importance(kind, **options)

    # LAMP divides by the sum of what is left, which is 0 for channels without weights: 0 / 0 is no importance at all.
    def scores(group: ChannelGroup, model: nn.Module) -> torch.Tensor:
        values = score(group)  # None where no layer of the group is of the kind that is read
        if values is None:
            return torch.zeros(group.size)
        return torch.nan_to_num(values[: group.size], nan=0.0)  # longer where a channel has several rows of a layer

    return scores


def _random(group: ChannelGroup, model: nn.Module) -> np.ndarray:
    """Uniform scores, the same for the same group at the same size: a baseline that any other must beat."""
    seed = [group.size, *group.name.encode()]
    return np.random.default_rng(seed).random(group.size)


IMPORTANCES: dict[str, Importance] = {
    "l1": _weights("magnitude", p=1),  # Li et al., arXiv 1608.08710
    "l2": _weights("magnitude", p=2),  # grouped as in DepGraph, arXiv 2301.12900
    "bn": _weights("bn"),  # network slimming, arXiv 1708.06519
    "lamp": _weights("lamp"),  # Lee et al., arXiv 2010.07611
    "fpgm": _weights("fpgm"),  # He et al., CVPR 2019; torch-pruning compares the squares of the weights, blind to signs
    "random": _random,
}


def names() -> list[str]:
    """The importances that can be asked for."""
    return sorted({*IMPORTANCES, *GRADIENT_IMPORTANCES})


def require(importance: str) -> None:
    """Raise PruneError unless there is an importance of that name; called before any epoch is spent."""
    if importance not in names():
        raise PruneError(
            f"prune_importance={importance} is unknown; known are {', '.join(names())}, "
            "and what yolo_prune.register adds in a training script"
        )


def score(graph: ChannelGraph, model: nn.Module, importance: str) -> dict[str, np.ndarray]:
    """Score every channel of every group.

    Args:
        graph: the channel groups of `model`.
        model: the stock model they are of.
        importance: a name in `IMPORTANCES`.

    Returns:
        group name -> (size,) float64 scores with mean 1, so that groups of unlike layers can be compared; the heads of
        an attention have mean 1 together, so that they can be compared with one another.

    Raises:
        PruneError: the name is unknown, or a function returned something else than (size,) finite non-negative scores.
    """
    require(importance)
    if importance in GRADIENT_IMPORTANCES:
        raise PruneError(f"importance {importance} is of gradients on data: give data=, or prune in a training")
    function = IMPORTANCES[importance]
    return comparable(
        graph, {group.name: _checked(function(group, model), group, importance) for group in graph.groups}
    )


def comparable(graph: ChannelGraph, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scale scores to a mean of 1 in each group, and over the heads of an attention together.

    Args:
        graph: the groups. raw: group name -> (size,) scores of any scale.
    """
    together: dict[object, list[str]] = {}
    for group in graph.groups:
        key = (group.head.attention, group.head.side) if group.head is not None else group.name
        together.setdefault(key, []).append(group.name)
    return {name: scores for names in together.values() for name, scores in _with_mean_1(raw, names).items()}


def _with_mean_1(raw: dict[str, np.ndarray], together: list[str]) -> dict[str, np.ndarray]:
    mean = np.concatenate([raw[name] for name in together]).mean()
    return {name: raw[name] / mean if mean > 0 else np.ones_like(raw[name]) for name in together}


def _checked(scores: torch.Tensor | np.ndarray, group: ChannelGroup, importance: str) -> np.ndarray:
    given = np.asarray(scores.detach().cpu() if isinstance(scores, torch.Tensor) else scores, dtype=np.float64)
    if given.shape != (group.size,) or not np.isfinite(given).all() or (given < 0).any():
        raise PruneError(
            f"importance {importance!r} must return {group.size} finite scores >= 0 for {group.name}, "
            f"returned shape {given.shape}, smallest {given.min() if given.size else None}"
        )
    return given
