# yolo-prune, AGPL-3.0 license
"""What a run does between its pruning steps: look at gradients, press on channels, hold zeros, warm up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.importance.gradients import GRADIENT_IMPORTANCES, Gates
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import Pattern
from yolo_prune.surgery import masks
from yolo_prune.training import ddp, regularize
from yolo_prune.training.optimizer_hooks import StepHooks
from yolo_prune.training.warmup import Warmup


class OptimizerActions:
    """What acts on one training at each step of its optimizer, made anew after every cut.

    Attributes:
        gates: what gradients since the last step say, on the first process; None where no importance asks.
        pressure: of sparse training, while steps are to come. held: the masks of single weights.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.gates: Gates | None = None
        self.pressure: regularize.Pressure | None = None
        self.held: masks.Masks | None = None
        self._warmup = Warmup()
        self._hooks = StepHooks()
        self._graph: ChannelGraph | None = None
        self._model: nn.Module | None = None
        self._since = 0

    def start(self, graph: ChannelGraph | None, model: nn.Module, optimizer: Any, epoch: int, steps: int = 0) -> None:
        """Begin anew: the run starts, or its model has just been cut.

        Args:
            graph: the groups of what steps are still to cut; None where none is. model: the stock model in training.
            optimizer: of it. epoch: 0-based. steps: of the optimizer in an epoch, where that is known.
        """
        self.stop()
        self._graph, self._model, self._since = graph, model, epoch
        self._warmup = Warmup()
        self.pressure, self.gates = None, None
        if graph is not None and self.recipe.importance in GRADIENT_IMPORTANCES and ddp.is_first():
            self.gates = Gates(graph, model, self.recipe.importance, steps)
        if graph is not None and self.recipe.regularize in ("bn", "group"):
            self.pressure = regularize.Pressure(graph, model, self.recipe.regularize, self.recipe.regularize_strength)
        self._attach(optimizer)

    def warm_up(self, batches: int, accumulate: int) -> None:
        """After a cut: let the learning rate come back over the recipe's epochs.

        Args:
            batches: of an epoch. accumulate: batches to a step of the optimizer.
        """
        self._warmup = Warmup(math.ceil(self.recipe.warmup * batches / max(accumulate, 1)))
        self._set()

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the host's learning rate, from now on."""
        self._warmup.factor = factor
        self._set()

    @property
    def rate(self) -> float:
        """What the host's learning rate was multiplied by at the latest step."""
        return self._warmup.scale

    def hold(self, model: nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
        """Hold the zeros of these masks in the model in training."""
        self.held = masks.Masks(model, kept) if kept else None
        self._set()

    def epoch(self, optimizer: torch.optim.Optimizer) -> None:
        """An epoch begins, perhaps with another optimizer."""
        if self.gates is not None:
            self.gates.fade()
        self.resume(optimizer)

    def raise_pressure(self, epoch: int, until: int, plan: Callable[[], Mapping[str, Collection[int]]]) -> None:
        """Press on what the next step will take, from nothing to all the strength at that step.

        Args:
            epoch: now, 0-based. until: of the next step. plan: chooses what would stay, by group; asked once a step,
                when a gradient importance has seen gradients.
        """
        if self.recipe.regularize != "growing" or self._graph is None or self._model is None:
            return
        ready = ddp.from_first(lambda: self.gates is None or self.gates.seen > 0)
        if self.pressure is None and ready:
            gone = regularize.doomed(self._graph, ddp.from_first(plan))
            strength = self.recipe.regularize_strength
            self.pressure = regularize.Pressure(self._graph, self._model, "growing", strength, gone)
            self._since = epoch
            self._set()
        if self.pressure is not None:
            self.pressure.time = (epoch - self._since + 1) / max(until - self._since, 1)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on as this one would, of plain data and tensors on the CPU.

        Of several processes the first one's is whole; the others see no gradients of their own.
        """
        gates = None if self.gates is None else self.gates.state()
        pressure = None if self.pressure is None else self.pressure.state()
        return {"gates": gates, "pressure": pressure, "warmup": self._warmup.state(), "since": self._since}

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave, after `start` with the groups and the recipe that it was of.

        Returns:
            Whether all of it fits; what does not is not taken over, and begins anew.
        """
        fits = [self._warmup.load_state(state["warmup"])] if state.get("warmup") else []
        if self.gates is not None:
            fits.append(self.gates.load_state(state.get("gates") or {}))
        kept = state.get("pressure")
        if kept and self.pressure is None and self.recipe.regularize == "growing" and self._graph is not None:
            if self._model is None:
                raise ValueError("load_state comes after start")
            self.pressure = regularize.Pressure(self._graph, self._model, "growing", self.recipe.regularize_strength)
            if not self.pressure.load_state(kept):
                self.pressure = None
            fits.append(self.pressure is not None)
        elif self.pressure is not None:
            fits.append(self.pressure.load_state(kept or {}))
        self._since = int(state.get("since", self._since))
        self._set()
        return all(fits)

    def summary(self) -> str | None:
        """What sparse training has come to, for the log; None where there is none."""
        return None if self.pressure is None else self.pressure.summary()

    def stop(self) -> None:
        """Act no more until `start` or `epoch`."""
        if self.gates is not None:
            self.gates.detach()
        self._hooks.detach()

    def resume(self, optimizer: Any) -> None:
        """Go on after `stop`."""
        self.stop()
        self._attach(optimizer)

    def _attach(self, optimizer: Any) -> None:
        self._set()
        self._hooks.follow(optimizer)
        if self.gates is not None:
            self.gates.attach(optimizer)

    def _set(self) -> None:
        warmup = None if self._warmup.idle else self._warmup
        self._hooks.acting = [one for one in (self.pressure, self.held, warmup) if one is not None]


def hold_what_is_sparse(model: nn.Module, pattern: Pattern, optimizer: torch.optim.Optimizer) -> StepHooks:
    """Let a plain training of a sparse model keep its zeros.

    Returns:
        The hooks; `follow` takes them to another optimizer.
    """
    acting = StepHooks()
    acting.acting = [masks.Masks(model, masks.from_zeros(model, pattern))]
    acting.follow(optimizer)
    return acting
