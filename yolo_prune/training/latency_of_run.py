# yolo-prune, AGPL-3.0 license
"""Latency in a training run: which device it aims at, and what the trained model takes beside its dense parent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import RANK

from yolo_prune import files
from yolo_prune.cost import model_size, profile_file
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import profile, runtimes
from yolo_prune.errors import PruneError
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import checkpoint
from yolo_prune.planning import choice
from yolo_prune.planning.choice import Baseline
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import latency, record

_PROFILE, _DENSE = "device.json", "dense.pt"  # in the run's folder `pruning`


def profile_of_run(trainer: Any, model: nn.Module, wanted: Recipe, say: Callable[[str], None]) -> Profile | None:
    """The device that a run aims at: the recipe's, that of the run that is resumed, or this machine, measured now.

    What is found, and the model as it is, are kept in the run's folder. To be called by the first process alone.

    Returns:
        None where the recipe asks for no latency and names no profile.

    Raises:
        PruneError: the profile cannot be read, or this machine cannot be measured.
    """
    folder = Path(trainer.save_dir) / "pruning"
    kept = folder / _PROFILE
    found = profile_file.read(kept) if trainer.resume and kept.is_file() else profile.asked(wanted)
    if found is None and choice.wants_latency(wanted):
        found = profile.of_this_machine(model, str(trainer.args.model), wanted, int(trainer.args.imgsz), say)
    if found is None:
        return None
    if not kept.is_file() or not trainer.resume:
        checkpoint.write(folder / _DENSE, copy_of(model), {"train_args": vars(trainer.args)})
        files.replace(kept, json.dumps(found.content, indent=1) + "\n")
    latency.doubt(found, int(trainer.args.imgsz))
    return found


def beside_dense(trainer: Any, told: dict[str, Any], baseline: Baseline, say: Callable[[str], None]) -> None:
    """At the end of a run that aimed at a device: time best.pt beside the dense model, and say what came of the bound.

    Args:
        told: the record, which gets `latency`. baseline: of the run; nothing is done without a profile.
    """
    device = baseline.profile
    if device is None or baseline.latency is None or RANK not in {-1, 0}:
        return
    weights = trainer.best if Path(trainer.best).is_file() else trainer.last
    measured, note = None, ""
    try:
        pruned = load_checkpoint(str(weights))[0].float()
        predicted = model_size.latency_of(pruned, device)
        dense = load_checkpoint(str(Path(trainer.save_dir) / "pruning" / _DENSE))[0].float()
        measured = profile.beside(dense, pruned, device)
        here = runtimes.machine()["name"]
        note = "on this machine" if here == device.machine else f"on this machine ({here}), not on {device.machine}"
    except (PruneError, OSError, RuntimeError) as error:
        note = f"not measured: {error}"
        predicted = told["steps"][-1].get("predicted_ms", baseline.latency) if told["steps"] else baseline.latency
    entry = record.latency(told, baseline, predicted, measured, note)
    latency.tell(entry, device, say)
