# yolo-prune, AGPL-3.0 license
"""After a cut the learning rate starts low and comes back over some epochs, in a straight line.

Moments of the optimizer and statistics are of the model before the cut; large steps by them would spoil what was made
up for at the cut. Fine-tuning restarts with a warm-up for the same reason (Le and Hua, arXiv 2105.03193).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Warmup:
    """Scales the learning rate of single steps, so that the host's own schedule and warm-up go on below.

    Attributes:
        steps: after how many steps of the optimizer the rate is whole again; 0 does nothing.
        factor: what the host's rate is multiplied by besides.
    """

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps
        self.factor = 1.0
        self._taken = 0
        self._rates: list[float] = []

    @property
    def scale(self) -> float:
        """What the host's rate was multiplied by at the latest step."""
        return self.factor * min(self._taken, self.steps + 1) / (self.steps + 1) if self._taken else self.factor

    @property
    def idle(self) -> bool:
        """Whether the host's rate is left as it is from now on."""
        return self.factor == 1 and (self.steps == 0 or self._taken > self.steps)

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Lower the rate for this step."""
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._taken = min(self._taken + 1, self.steps + 1)
        for group in optimizer.param_groups:
            group["lr"] *= self.scale

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the rate back that the host set."""
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """How far it has come, of plain numbers, for a checkpoint."""
        return {"steps": self.steps, "factor": self.factor, "taken": self._taken}

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave.

        Returns:
            Whether these are numbers that it can have had; where not, nothing is taken over.
        """
        steps, factor, taken = (state.get(key) for key in ("steps", "factor", "taken"))
        if not (isinstance(steps, int) and isinstance(taken, int) and isinstance(factor, (int, float))):
            return False
        if not 0 <= taken <= steps + 1:
            return False
        self.steps, self.factor, self._taken = steps, float(factor), taken
        return True
