# yolo-prune, AGPL-3.0 license
"""What would plans take on this machine? Each is applied to a copy, which is exported and timed beside the dense model.

That says something where the profile is of this machine and its runtime is here; where not, nothing is timed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import nn

from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import profile, runtimes
from yolo_prune.device.profile import SideBySide
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.model_state import copy_of
from yolo_prune.planning.measured_bound import Measured, Timed
from yolo_prune.recipe import formats
from yolo_prune.recipe.settings import Recipe
from yolo_prune.surgery import cut_channels


def possible(recipe: Recipe, device: Profile | None) -> bool:
    """Whether a recipe bounds a latency that plans can be timed for on this machine, and lets them be."""
    return (
        recipe.check_latency
        and recipe.latency is not None
        and device is not None
        and profile.is_of_this_machine(device)
        and runtimes.missing(device.format) is None
        and not formats.missing("onnx" if device.format == "engine" else device.format, device.precision, run=False)
    )


@dataclass
class PlanTimer:
    """Times the plans of one choice, to be called in a `with`, whose end removes what was exported.

    Attributes:
        model: a stock model on any device; it is not changed. dense: gives the model before its first cut.
        device: the profile, of this machine. timings: what was timed so far.
    """

    model: nn.Module
    dense: Callable[[], nn.Module]
    device: Profile
    timings: list[SideBySide] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Timed]:
        """Groups and a plan -> what it takes of the dense model's time; errors as of `profile.beside`."""
        with profile.beside(self.dense, self.device, "the plan") as timed:

            def time(graph: ChannelGraph, plan: PrunePlan) -> Measured:
                cut = copy_of(self.model).cpu().float()
                cut_channels.apply(cut, graph, plan)
                self.timings.append(timed(cut))
                _, ms, faster = self.timings[-1]
                share, low, high = (1 / max(ratio, 1e-9) for ratio in (faster.median, faster.high, faster.low))
                return Measured(share, low, high, faster.steady, ms)

            yield time
