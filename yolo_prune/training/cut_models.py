# yolo-prune, AGPL-3.0 license
"""One cut of a model in training: what channels are worth, what makes up for the cut, and what follows the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from yolo_prune import log
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost import model_size
from yolo_prune.errors import HostError, PruneError, first_line
from yolo_prune.graph import channel_groups
from yolo_prune.host import datasets
from yolo_prune.host.memory import is_out_of_memory
from yolo_prune.host.run import Run, student_of
from yolo_prune.importance import calibration
from yolo_prune.importance.gradients import Gates
from yolo_prune.planning import choice, measured_bound, unmet_requests
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.settings import Recipe
from yolo_prune.surgery import cut_channels, reconstruct
from yolo_prune.surgery.undo import Undo
from yolo_prune.training import ddp, optimizer_state, projectors

# What reading a user's images may raise, in the host's loader and in libraries below it: a step goes on without images.
_IMAGE_ERRORS = (PruneError, RuntimeError, TypeError, ValueError, KeyError, AttributeError, OSError, MemoryError)


def scores(run: Run, seen: Gates | None, recipe: Recipe, graph: channel_groups.ChannelGraph) -> dict[str, Any]:
    """What channels are worth by the gradients since the last step, or, where there were none, by a few batches."""
    if seen is not None and seen.fits(graph):
        return seen.scores()
    try:
        batches = datasets.of_run(run, calibration.IMAGES)
    except _IMAGE_ERRORS as error:
        return _nothing(recipe, f"no images to look at: {first_line(error)}")
    try:
        return calibration.gather(run.average_student, graph, recipe.importance, batches)
    except (PruneError, RuntimeError, MemoryError) as error:
        short = "memory ran out: " if is_out_of_memory(error) else ""
        return _nothing(recipe, f"{short}{first_line(error)}")


def _nothing(recipe: Recipe, why: str) -> dict[str, Any]:
    """No scores, with a word on what the step goes by instead."""
    instead = choice.by_weights(recipe)
    log.warn(
        f"this step goes by importance={instead.importance} and scope={instead.scope}, for "
        f"importance={recipe.importance} has nothing to go by: {why}"
    )
    return {}


def images(run: Run) -> torch.Tensor | None:
    """(n, channels, imgsz, imgsz) that cuts are made up for on; None, with a warning, where there are none."""
    try:
        return datasets.pixels(datasets.of_run(run, datasets.count(run.image_size)))
    except _IMAGE_ERRORS as error:
        words = first_line(error)
        log.warn(f"no images to make up for the cut on, so nothing does: {words}")
        return None


def note(undo: Undo, models: Sequence[nn.Module], graph: channel_groups.ChannelGraph, plan: PrunePlan) -> None:
    """Tell `undo` which weights of some models a cut replaces: the others may be changed in place."""
    merged = {block.consumer for block in graph.blocks if block.name in plan.blocks}  # their columns add up in place
    replaced = set(cut_channels.kept_positions(graph, plan)) - merged
    for model in models:
        undo.weights(model, replaced)


def cut_student(model: nn.Module, graph: channel_groups.ChannelGraph, plan: PrunePlan) -> list[cut_channels.Replaced]:
    """Cut a model, and where it is a student the inputs of its projectors. Every cut in a training is one of these.

    Args:
        model: a stock model, or the host's DistillationModel around one. graph, plan: of the stock model.

    Returns:
        Every parameter that was replaced.
    """
    replaced = cut_channels.apply(student_of(model), graph, plan)
    return replaced + projectors.cut_inputs(model, graph, plan)


def _apply(
    model: nn.Module,
    ema: nn.Module,
    optimizer: Any,
    graph: channel_groups.ChannelGraph,
    plan: PrunePlan,
    making_up: AbstractContextManager[None],
) -> int:
    """Cut average and live model by a plan; how many tensors' optimizer state was dropped."""
    with making_up:
        cut_student(ema, graph, plan)
    return optimizer_state.carry_optimizer(optimizer, cut_student(model, graph, plan))


def _say_dropped(optimizer: str, count: int) -> None:
    log.warn(
        f"what {optimizer} knows of {count} of the cut tensors has another shape than they: it is dropped, and made "
        "anew at the next step"
    )


CUTS = 3  # at most: one, unless a host counts in another way than cost/model_size.py knows


def counted_otherwise(above: str) -> HostError:
    """The error of a model that is above a bound after so many cuts. above: as of `unmet_requests.above_bounds`."""
    return HostError(f"after {CUTS} cuts the model still has {above}; this ultralytics counts it in another way")


def cut_training(
    model: nn.Module,
    ema: nn.Module,
    optimizer: Any,
    asked: StepRequest,
    images: torch.Tensor | None = None,
    undo: Undo | None = None,
    timer: measured_bound.Timer | None = None,
) -> tuple[channel_groups.ChannelGraph, list[str], measured_bound.Check | None]:
    """Cut a model in training: EMA scored, EMA and live model cut by one plan, optimizer state carried over.

    Of several processes the first scores, plans and makes up for the cut, and all cut. Training goes on from the
    average, which was made up for: to fit the live model as well would cost as much again.

    Args:
        images: what the cut is made up for on; None where nothing does.
        undo: is told what the cut will change; it holds both models already.
        timer: how long plans take on this machine, asked in the first process; None where that is not to be known.

    Returns:
        The groups as they were before the cut, the blocks that were removed whole, and what was measured of the plan.
    """
    removed: list[str] = []
    check: measured_bound.Check | None = None
    scored = student_of(ema)
    avoid = asked.avoid
    untrained = {name for name, value in student_of(model).named_parameters() if not value.requires_grad}

    def decide(timed: measured_bound.Timer | None) -> tuple[Any, ...]:
        return *measured_bound.choose(scored, asked, timed), avoid

    for number in range(CUTS):
        graph, plan, found, failures = ddp.from_first(partial(decide, timer if number == 0 else None))
        check = check or found
        if plan.note:
            log.warn(plan.note)
        if avoid is not None:
            avoid.update(failures or {})
        if undo is not None and number == 0:
            note(undo, (scored, student_of(model)), graph, plan)
        removed += plan.blocks
        making_up = reconstruct.reconstructed(scored, graph, plan, images, asked.recipe.reconstruct, untrained)
        dropped = ddp.each(partial(_apply, model, ema, optimizer, graph, plan, making_up))
        if dropped:
            _say_dropped(type(optimizer).__name__, dropped)
        size = model_size.size_of(scored)
        above = unmet_requests.above_bounds(scored, size, asked.baseline, asked.bounds)
        if not above:
            if images is not None:
                student_of(model).load_state_dict(scored.state_dict())
            ddp.same(scored)  # of a live model on several ranks, the new DDP wrapper does the same
            return graph, removed, check
    raise counted_otherwise(above)
