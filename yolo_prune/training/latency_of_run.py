# yolo-prune, AGPL-3.0 license
"""Latency in a training run: which device it aims at, and what the trained model takes beside its dense parent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch import nn

from yolo_prune import files
from yolo_prune.cost import model_size, profile_file
from yolo_prune.cost.latency_by_part import latency_by_part
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import plan_timer as plan_timers
from yolo_prune.device import profile
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint
from yolo_prune.host.run import Run
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import latency
from yolo_prune.report import record as records
from yolo_prune.training import kept_model

_PROFILE, _DENSE = "device.json", "dense.pt"  # in the run's folder `pruning`
_USE = "beside which the trained model is timed"
_not_timed: list[str] = []  # the reason why no run of this process times its best.pt, where there is one


def profile_of_run(run: Run, model: nn.Module, recipe: Recipe, say: Callable[[str], None]) -> Profile | None:
    """The device that a run aims at: the recipe's, that of the run that is resumed, or this machine, measured now.

    The profile, and the model as it is, are kept in the run's folder. To be called by the first process alone.

    Returns:
        None where the recipe asks for no latency and names no profile.

    Raises:
        PruneError: the profile cannot be read, or this machine cannot be measured.
    """
    folder = run.own_folder
    kept = folder / _PROFILE
    if recipe.profile is None and not choice.wants_latency(recipe):
        kept.unlink(missing_ok=True)  # of an earlier run in this folder
        return None
    device = profile_file.read(kept) if run.is_resumed and kept.is_file() else profile.profile_of_recipe(recipe)
    if device is None:
        device = profile.of_this_machine(model, str(run.arguments.model), recipe, run.image_size, say)
    if not kept.is_file() or not run.is_resumed:
        kept_model.keep(folder / _DENSE, model, _USE)
        files.replace(kept, json.dumps(device.content, indent=1) + "\n")
    latency.doubt(device, run.image_size)
    return device


def plan_timer(run: Run, recipe: Recipe, baseline: Baseline) -> plan_timers.PlanTimer | None:
    """How long plans for the average take beside the dense model, where the run's profile is of this machine."""
    device = baseline.profile
    if device is None or not plan_timers.possible(recipe, device):
        return None
    kept = run.own_folder / _DENSE
    return plan_timers.PlanTimer(
        run.average_student, lambda: kept_model.read(kept, run.built, _USE, run.student), device
    )


def leave_timing(why: str) -> None:
    """Let no run of this process time its best.pt at its end. why: what its record notes in place of figures."""
    _not_timed[:] = [why]


def beside_dense(run: Run, record: dict[str, Any], baseline: Baseline, say: Callable[[str], None]) -> None:
    """At the end of a run that aimed at a device: say what came of the bound; on that device time best.pt, too.

    Args:
        record: of the run, which gets `latency`. baseline: of the run; nothing is done without a profile.
    """
    device = baseline.profile
    if device is None or baseline.latency is None or not run.is_first:
        return
    measured, note, by_part = None, "", []
    try:
        pruned = checkpoint.of_this_run(run.final_weights)
        predicted = model_size.latency_of(pruned, device)
        dense = kept_model.read(run.own_folder / _DENSE, run.built, _USE, run.student)
        by_part = [latency_by_part(one, device) for one in (dense, pruned)]
        if _not_timed:
            note = f"not measured: {_not_timed[0]}"
        else:
            measured, note = latency.timed(device, lambda: profile.time_side_by_side(dense, pruned, device))
    except (PruneError, OSError, RuntimeError) as error:
        note = f"not measured: {error}"
        predicted = record["steps"][-1].get("predicted_ms", baseline.latency) if record["steps"] else baseline.latency
    entry = records.latency(record, baseline, predicted, measured, note, by_part)
    latency.tell(entry, device, say)
