# yolo-prune, AGPL-3.0 license
"""What a resumed run reads of its earlier part: of last.pt, of record.json, and of what is kept beside last.pt.

What is written for it stands in last_checkpoint.py (into last.pt) and resume_state.py (beside it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from yolo_prune import log
from yolo_prune.cost import model_size
from yolo_prune.cost.channel_steps import ChannelMultiple
from yolo_prune.cost.profile_file import Profile
from yolo_prune.errors import PruneError, RecipeError, first_line
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host.run import Run
from yolo_prune.planning import choice, sensitivity
from yolo_prune.planning.baseline import Baseline, deployment_of
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.setting_names import REMOVED
from yolo_prune.recipe.settings import Recipe, Settings
from yolo_prune.training import deployment, resume_state


def recipe_of(run: Run) -> Recipe | None:
    """The recipe that the arguments of a run ask for; of a resumed run the one that it began with, whatever has become
    of the file since.

    Raises:
        RecipeError: an argument or the recipe file is wrong, and no record tells what it was.
    """
    began = deployment.asked(_recipe_in_record(run)) if run.is_resumed else None
    try:
        now = deployment.asked(from_arguments(run.settings))
    except RecipeError:
        if began is None:
            raise
        return began
    if began is None or now is None:
        return now
    values = {key: getattr(began, key) for key in Settings.model_fields if key not in ("profile", "sensitivity")}
    # As text: a bound of prune=1/3 has fewer digits in the record.
    changed = {key: value for key, value in values.items() if str(value) != str(getattr(now, key))}
    if changed and run.is_first:
        words = ", ".join(f"{key}={value}" for key, value in changed.items())
        named = run.settings.get("prune") or "balanced"
        log.warn(f"the recipe ({named}) is another one than when this run began: it goes on with {words}")
    return now.model_copy(update=changed)


def _recipe_in_record(run: Run) -> Recipe | None:
    try:
        written = json.loads(_record_file(run).read_text(encoding="utf-8"))["recipe"]
        return Recipe(**{key: value for key, value in written.items() if value or key not in REMOVED})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # `earlier_record` says so, and the arguments what was removed


def has_pruned(run: Run) -> bool:
    """Whether a resumed run has itself kept a record until now; one of an earlier run in its folder ends elsewhere."""
    try:
        history = json.loads(_record_file(run).read_text(encoding="utf-8"))["history"]
        return bool(history) and history[-1]["epoch"] - run.start_epoch in (0, 1)  # it is written before last.pt
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _record_file(run: Run) -> Path:
    return run.own_folder / "record.json"


def earlier_record(run: Run) -> dict[str, Any]:
    """What the interrupted run wrote of the epochs that its last.pt has behind it; empty where there is nothing.

    Where the checkpoint was moved away from its run, or the record is damaged, which is said, the epochs before the
    last step are in the checkpoint's yaml.
    """
    path = _record_file(run)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _require_record(record)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warn(f"{path} is not read, and begins anew: it is damaged ({type(error).__name__}: {first_line(error)})")
        return {}
    record["history"] = [row for row in record["history"] if row["epoch"] <= run.start_epoch]
    return record


def _require_record(record: Mapping[str, Any]) -> None:
    """Raise TypeError, KeyError or AttributeError unless what is read of a record is what a run writes of it."""
    optional: tuple[type, ...] = (int, float, type(None))
    whole: dict[str, tuple[type, ...]] = {"epoch": (int,), "params": (int,), "gflops": (int, float)}
    fitness = {"fitness_before": optional, "fitness_cut": optional, "fitness_after": optional}
    rows = {"history": {**whole, "fitness": optional}, "steps": {**whole, "step": (int,), **fitness}}
    checked: list[tuple[Any, dict[str, tuple[type, ...]]]] = [(record["baseline"], {"fitness": optional})]
    checked += [(row, kinds) for part, kinds in rows.items() for row in _list(record, part)]
    if record.get("max_drop") is not None:
        checked.append((record["max_drop"], {"undone": (dict, type(None))}))
    for row, kinds in checked:
        for name, kind in kinds.items():
            if not isinstance(row[name], kind) or isinstance(row[name], bool):
                raise TypeError(f"{name} is {row[name]!r:.40}")


def _list(record: Mapping[str, Any], part: str) -> list[Any]:
    if not isinstance(record[part], list):
        raise TypeError(f"{part} is no list")
    return record[part]


def went_back(run: Run, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a record says of a step that was undone (max_drop.py), if that was before the checkpoint that is resumed.

    The record may be of later epochs: of an epochN.pt older than the step, and of a run that came to its end.
    """
    entry: dict[str, Any] = record.get("max_drop") or {}
    return entry if entry.get("undone") and entry.get("epoch", 1) <= run.start_epoch + 1 else None


def complete_record(run: Run, record: dict[str, Any], size: model_size.Size) -> None:
    """Make the record of a killed run that of its last.pt: no epoch that is trained again, the last one, and what came
    of a step.

    Args:
        run: a resumed one. record: of it, so far. size: the model's, which is that of the last epoch.
    """
    history = record["history"]
    history[:] = [row for row in history if row["epoch"] <= run.start_epoch]
    if not history or history[-1]["epoch"] < run.start_epoch:
        fitness = run.fitness_of_checkpoint()
        row = {"epoch": run.start_epoch, "fitness": fitness, "params": size.params, "gflops": size.gflops}
        history.append(row)
    for step_row in record["steps"]:
        after = (row["fitness"] for row in history if row["epoch"] >= step_row["epoch"] and row["fitness"] is not None)
        step_row["fitness_after"] = (
            next(after, None) if step_row["fitness_after"] is None else step_row["fitness_after"]
        )


def baseline(
    noted: Mapping[str, Any] | None,
    model: nn.Module,
    graph: ChannelGraph,
    recipe: Recipe,
    device: Profile | None,
    imgsz: int,
    multiple: ChannelMultiple,
) -> Baseline:
    """The model before its first cut: as the checkpoint of a resumed run says, or as it is now.

    Args:
        noted: what `last_checkpoint.note` gave when the checkpoint was written; None where nothing has been cut.
        model: a stock model. graph: its groups. device: the profile that latencies are of, or None.
        imgsz: pixels of the run. multiple: what counts that change become multiples of, where `noted` does not say.
    """
    deployment = deployment_of(recipe, device, imgsz)
    if noted:
        return Baseline.from_dict(noted["baseline"], device, deployment, graph.native)
    weights = sensitivity.weights_of_recipe(recipe, graph)
    base = Baseline.of(model, graph, device, weights, deployment, multiple)
    return replace(base, least=choice.least_flops(model, graph, recipe))


def restore_kept(run: Run) -> dict[str, Any] | None:
    """What was kept beside the checkpoint that is resumed, its models and optimizer put in place; said where it is not.

    Returns:
        None where the run goes on from last.pt alone.
    """
    try:
        state = resume_state.read(run)
        if state is None:
            raise PruneError(
                f"nothing is kept beside {run.resumed_from} (it was copied, is older, or the disk was full), "
                "so the run may come out another way than without the interruption"
            )
        resume_state.restore(run, state)
        return state
    except PruneError as error:
        log.warn(str(error))
        return None


def begin_epoch(run: Run, session: Any) -> None:
    """Let an epoch begin as it would have without an interruption, and again where the host begins it again."""
    again = session.epoch == run.epoch
    if session.resumed is not None:
        session.cadence.resume(session.resumed["waiting"])
        resume_state.restore_moment(run, session.resumed)
        session.resumed = None
    elif again:
        session.cadence.restart()
    resume_state.begin_epoch(run.loader)
