# yolo-prune, AGPL-3.0 license
"""What acts on a training just before or just after each step of its optimizer.

The host clips, steps and zeroes gradients in one call (ultralytics 8.4.190, engine/trainer.py: `optimizer_step`) and
then averages. PyTorch's own hooks stand around the step itself: before them gradients are unscaled (AMP), accumulated,
clipped and averaged over processes (DDP).

A step that AMP skips for infinite gradients is none. PyTorch does not call most optimizers then. The fused Adam and
AdamW, which the host builds on CUDA, it does call, with the finding in `found_inf`, and they leave the parameters as
they are (torch 2.14, torch/amp/grad_scaler.py, `GradScaler.step`). So what acts here acts only where that is 0.
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


class StepHooks:
    """Hooks of one optimizer at a time, called in the order of `acting`."""

    def __init__(self) -> None:
        self.acting: Sequence[Acting] = ()
        self._skipped = False
        self._optimizer: torch.optim.Optimizer | None = None
        self._handles: list[Any] = []

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Hook this optimizer, if it is not hooked: the host makes a new one after running out of memory."""
        if self._optimizer is optimizer and self._handles:
            return
        self.detach()
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def detach(self) -> None:
        """Act no more until `follow`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._skipped = bool(self.acting) and skips(optimizer)
        for one in () if self._skipped else self.acting:
            one.before(optimizer)

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for one in () if self._skipped else self.acting:
            one.after(optimizer)


def skips(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the step that is about to be taken, or has just been, leaves the parameters as they are.

    It waits for the device, as `GradScaler.step` itself does for optimizers that are not fused.
    """
    infinite = getattr(optimizer, "found_inf", None)
    return infinite is not None and bool(torch.as_tensor(infinite).any())
