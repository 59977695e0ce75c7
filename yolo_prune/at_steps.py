# yolo-prune, AGPL-3.0 license
"""What acts on a training just before or just after each step of its optimizer.

The host clips, steps and zeroes gradients in one call (ultralytics 8.4.190, engine/trainer.py: `optimizer_step`) and
then averages. PyTorch's own hooks stand around the step itself: before them gradients are unscaled (AMP), accumulated,
clipped and averaged over processes (DDP); a step that AMP skips for infinite gradients runs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class Acting(Protocol):
    """What can act around a step."""

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients are ready, parameters are as the last step left them."""

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Parameters have moved; the average has not."""


class AtSteps:
    """Hooks of one optimizer at a time, called in the order of `acting`."""

    def __init__(self) -> None:
        self.acting: Sequence[Acting] = ()
        self._optimizer: torch.optim.Optimizer | None = None
        self._handles: list[Any] = []

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Hook this optimizer, if it is not hooked: the host makes a new one after running out of memory."""
        if self._optimizer is optimizer and self._handles:
            return
        self.detach()
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._call("before")),
            optimizer.register_step_post_hook(lambda *_: self._call("after")),
        ]

    def detach(self) -> None:
        """Act no more until `follow`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _call(self, moment: str) -> None:
        for one in self.acting:
            getattr(one, moment)(self._optimizer)
