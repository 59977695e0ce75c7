# yolo-prune, AGPL-3.0 license
"""What a resumed run reads of its earlier part, and what a run writes for it: in last.pt, record.json and beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn
from ultralytics.nn.tasks import load_checkpoint

from yolo_prune import log
from yolo_prune.cost import model_size
from yolo_prune.cost.profile_file import Profile
from yolo_prune.errors import PruneError
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.planning import choice, sensitivity
from yolo_prune.planning.choice import Baseline
from yolo_prune.recipe.settings import Recipe
from yolo_prune.training import roll_back, training_state


def earlier_record(trainer: Any) -> dict[str, Any]:
    """What the interrupted run wrote of the epochs that its last.pt has behind it; empty where there is nothing."""
    try:
        found: dict[str, Any] = json.loads((trainer.save_dir / "pruning" / "record.json").read_text())
        found["history"] = [row for row in found["history"] if row["epoch"] <= trainer.start_epoch]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the checkpoint was moved away from its run: the epochs before the last step are in its yaml
    return found


def complete(trainer: Any, told: dict[str, Any], size: model_size.Size) -> None:
    """Fill in what a killed run had in last.pt and not yet in record.json: its last epoch, and what came of a step.

    Args:
        trainer: a resumed one. told: the record so far. size: the model's, which is that of the last epoch.
    """
    history = told["history"]
    if not history or history[-1]["epoch"] < trainer.start_epoch:
        fitness = (load_checkpoint(trainer.args.resume)[1].get("train_metrics") or {}).get("fitness")
        row = {"epoch": trainer.start_epoch, "fitness": fitness, "params": size.params, "gflops": size.gflops}
        history.append(row)
    for step_row in told["steps"]:
        after = (row["fitness"] for row in history if row["epoch"] >= step_row["epoch"] and row["fitness"] is not None)
        step_row["fitness_after"] = (
            next(after, None) if step_row["fitness_after"] is None else step_row["fitness_after"]
        )


def baseline(
    run: Mapping[str, Any] | None, model: nn.Module, found: ChannelGraph, wanted: Recipe, device: Profile | None
) -> Baseline:
    """The model before its first cut: as the checkpoint of a resumed run says, or as it is now.

    Args:
        run: what `note` gave when the checkpoint was written; None where nothing has been cut. model: a stock model.
        found: its groups. wanted: the recipe. device: the profile that latencies are of, or None.
    """
    if run:
        base = _baseline_from(run, device)
    else:
        weights, limits = sensitivity.asked(wanted, found), sensitivity.limits(wanted, found)
        base = Baseline.of(model, found, device, weights, limits)
    return replace(base, least=(run or {}).get("least") or choice.least_flops(model, found, wanted, base.limits))


def _baseline_from(run: Mapping[str, Any], device: Profile | None) -> Baseline:
    size = model_size.Size(run["params"], run["gflops"])
    # A checkpoint of version 0.1.0 says nothing of blocks, heads and latency: that version cut and bounded none.
    return Baseline(
        size,
        dict(run["channels"]),
        dict(run["layers"]),
        run.get("blocks", 0),
        dict(run.get("heads", {})),
        device,
        None if device is None else run.get("latency"),
        dict(run.get("weights", {})),
        limits=dict(run.get("limits", {})),
        deployed_gflops=run.get("deployed_gflops"),
    )


def note(base: Baseline, record: Mapping[str, Any], done: int) -> dict[str, Any]:
    """What a checkpoint carries for a resume: plain data.

    Args:
        base: the model before its first cut. record: of the run. done: steps that have been taken.
    """
    return {
        "done": done,
        "steps": record["steps"],
        "history": record["history"],
        "fitness": record["baseline"]["fitness"],
        "params": base.size.params,
        "gflops": base.size.gflops,
        "deployed_gflops": base.deployed_gflops,
        "channels": base.channels,
        "layers": base.layers,
        "blocks": base.blocks,
        "heads": base.heads,
        "latency": base.latency,
        "weights": dict(base.weights),
        "limits": dict(base.limits),
        "least": base.least,
        "max_drop": record.get("max_drop"),
    }


def needed(session: Any, epoch: int, epochs: int) -> bool:
    """Whether widths are still to be decided after an epoch: only until then a run keeps its whole state.

    Args:
        session: of the run. epoch: 0-based. epochs: of the run.
    """
    judged = roll_back.check_epoch(session.epochs, epochs) if session.recipe.max_drop is not None else None
    return bool(session.unfinished or (judged is not None and epoch < judged))


def state(trainer: Any, session: Any) -> dict[str, Any] | None:
    """What is to be kept beside the last.pt of this epoch, or None where no more is to be decided."""
    if not needed(session, trainer.epoch, trainer.epochs):
        return None
    kept = training_state.of(trainer, session.cadence.waiting, session.actions.state())
    return {**kept, "avoid": session.avoid}


def kept(trainer: Any) -> dict[str, Any] | None:
    """What was kept beside the checkpoint that is resumed, its models and optimizer put in place; said where it is not.

    Returns:
        None where the run goes on from last.pt alone.
    """
    try:
        found = training_state.read(trainer)
        if found is None:
            raise PruneError(
                f"nothing is kept beside {trainer.args.resume} (it was copied, is older, or the disk was full), "
                "so widths may come out another way than without the interruption"
            )
        training_state.put(trainer, found)
        return found
    except PruneError as error:
        log.warn(str(error))
        return None


def begin_epoch(trainer: Any, session: Any) -> None:
    """Let an epoch begin as it would have without an interruption, and again where the host begins it again."""
    again = session.epoch == trainer.epoch
    if session.resumed is not None:
        session.cadence.resume(session.resumed["waiting"])
        training_state.put_moment(trainer, session.resumed)
        session.resumed = None
    elif again:
        session.cadence.restart()
    training_state.begin_epoch(trainer.train_loader)
