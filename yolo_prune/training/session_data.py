# yolo-prune, AGPL-3.0 license
"""What a session knows of its run, from the first callback to the last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from yolo_prune.cost import model_size
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host.cadence import Cadence
from yolo_prune.host.run import Run
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import Pattern
from yolo_prune.report import messages
from yolo_prune.surgery import masks
from yolo_prune.training import ddp, frozen
from yolo_prune.training.optimizer_actions import OptimizerActions


@dataclass
class Session:
    """The state of one run.

    Attributes:
        recipe: what is asked for. baseline: the model before its first cut. epochs: 0-based epoch of each step.
        record: what record.json will hold; plain data.
        actions: what acts on the training at each step of its optimizer.
        pattern: of the zeros that single weights have, or come to; None where there are none.
        done: steps that have been taken. fitness: the latest validated fitness, or None.
        epoch: that is trained, from 0; -1 where none is. size: of the model now.
        images: (n, channels, imgsz, imgsz) that cuts are made up for on; None until the first and where there are none.
        frozen: layers that are frozen, as it was said.
        cadence: when the optimizer steps. resumed: what resume_state.py kept, until the first epoch begins.
        avoid: blocks in which a cut was tried and failed -> how.
        teacher: the dense model, where its outputs are learnt.
        is_ended: whether the training came to its end, and was judged and written.
        failed: what failed in the first of several processes while the others were on their way; see `put_off`.
    """

    recipe: Recipe
    baseline: Baseline
    epochs: list[int]
    record: dict[str, Any]
    actions: OptimizerActions
    pattern: Pattern | None = None
    done: int = 0
    fitness: float | None = None
    epoch: int = -1
    size: model_size.Size | None = None
    images: torch.Tensor | None = None
    frozen: tuple[str, ...] = ()
    cadence: Cadence | None = None
    resumed: dict[str, Any] | None = None
    avoid: dict[str, str] = field(default_factory=dict)
    teacher: nn.Module | None = None
    is_ended: bool = False
    failed: Exception | None = None

    @property
    def unfinished(self) -> bool:
        """Whether steps are still to come."""
        return self.done < len(self.epochs)

    @property
    def sets_out_to_cut(self) -> bool:
        """Whether the run has steps, or had some and went back before the first of them."""
        return bool(self.epochs) or self.record.get("max_drop") is not None

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The record's rows of the steps that were taken."""
        steps: list[dict[str, Any]] = self.record["steps"]
        return steps

    @property
    def dense_fitness(self) -> float | None:
        """Fitness before the first cut, or None."""
        fitness: float | None = self.record["baseline"]["fitness"]
        return fitness

    def put_off(self, error: Exception) -> None:
        """Raise what failed while the host saves; of several processes where all hear of it (`raise_failed`).

        The host saves in the first process alone, and the others go on to what all of them do next.
        """
        if not ddp.several():
            raise error
        self.failed = self.failed or error

    def raise_failed(self) -> None:
        """Raise what was put off, if anything was."""
        if self.failed is not None:
            raise self.failed

    def save_now(self, run: Run) -> None:
        """Have the first process write best.pt, and last.pt as of the epoch before; all hear whether it went well."""

        def save() -> None:
            run.save_as_of_the_epoch_before()
            self.raise_failed()

        ddp.by_first(save)

    def start_actions(self, run: Run, graph: ChannelGraph | None) -> None:
        """Let the actions begin anew on the model as it is now.

        Args:
            graph: of the model, for what looks at gradients and presses; it is not used where no step is to come.
        """
        epoch = max(self.epoch, run.start_epoch)
        self.actions.start(graph if self.unfinished else None, run.student, run.optimizer, epoch, run.optimizer_steps)

    def hold_zeros(self, run: Run) -> None:
        """Hold the zeros that the model in training has, where single weights are to be zero."""
        if self.pattern is not None:
            self.actions.hold(run.student, masks.from_zeros(run.student, self.pattern))

    def say_frozen(self, run: Run) -> None:
        """Say which layers are left as they are, and so keep their channels; again only when it is others."""
        names = frozen.frozen_layers(run.student)
        if self.unfinished and names and names != self.frozen:
            freeze = getattr(run.arguments, "freeze", None)
            messages.frozen(freeze, frozen.in_words(run.student, names), len(names))
        self.frozen = names
