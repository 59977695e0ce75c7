# yolo-prune, AGPL-3.0 license
"""What the choice of one pruning step goes by: the same for choice.py, dry_cut.py and measured_bound.py."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.settings import Recipe

ScoresOf = Callable[[ChannelGraph], dict[str, np.ndarray]]


@dataclass(frozen=True)
class StepRequest:
    """What one step is asked for, and what is known of the model.

    Attributes:
        recipe: how channels are chosen. baseline: the model before its first cut, which shares are of.
        bounds: of this step, in the units of `choice.step_bounds`.
        scores_of: groups -> group name -> (size,) scores of gradients, for one of `GRADIENT_IMPORTANCES`; where that is
            empty or None, l2 stands in (see `choice.by_weights`), and so it does for groups that it leaves out.
        avoid: block -> why what goes into it and what it makes stays (channel_groups.build). What `dry_cut.choose`
            finds is added to it.
        frozen: layers that a training leaves as they are; they stay whole.
        traced: the groups of the model where nothing is avoided, if they are known already, with the copy that they
            were traced on; the first choice empties it.
    """

    recipe: Recipe
    baseline: Baseline
    bounds: Mapping[str, float]
    scores_of: ScoresOf | None = None
    avoid: dict[str, str] | None = None
    frozen: Collection[str] = ()
    traced: ChannelGraph | None = None
