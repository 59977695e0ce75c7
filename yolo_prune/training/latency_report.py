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

from yolo_prune import files, log
from yolo_prune.cost import model_size, profile_file
from yolo_prune.cost.layer_shapes import copy_of
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import measurement as measuring
from yolo_prune.device import profile, runtimes
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint
from yolo_prune.planning import choice
from yolo_prune.planning.choice import Baseline
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import record, text

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
    doubt(found, int(trainer.args.imgsz))
    return found


def doubt(device: Profile, imgsz: int | None) -> None:
    """Warn of a profile that is not to be trusted, and of one that was measured at another size.

    Args:
        imgsz: pixels that the model is trained or validated at; None where nobody said.
    """
    words = measuring.doubts(dict(device.content))
    if words:
        log.warn(f"the device profile is not to be trusted: {words}")
    if imgsz is not None and device.imgsz != imgsz:
        log.warn(
            f"the device was measured at {device.imgsz} pixels and the model is at {imgsz}: "
            f"latencies are those at {device.imgsz}"
        )


def words(baseline: Baseline) -> str:
    """The predicted latency of a model before its first cut, for a line that lists its size."""
    return "" if baseline.latency is None else f", {baseline.latency:.2f} ms in {baseline.profile}"


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
    tell(entry, device, say)


def tell(entry: dict[str, Any], device: Profile, say: Callable[[str], None]) -> None:
    """Say what was bound, predicted and measured; a missed bound is a warning.

    Args:
        entry: `latency` of a record. device: the profile.
    """
    predicted, measured, bound = entry["predicted_ms"], entry["measured_ms"], entry["bound_ms"]
    share = predicted["final"] / predicted["baseline"]
    line = f"latency ({device}): "
    if bound is not None:
        line += f"bound {bound:.2f} ms ({bound / predicted['baseline']:.1%}), "
    line += f"predicted {predicted['final']:.2f} of {predicted['baseline']:.2f} ms ({share:.1%})"
    log.show(text.table(_rows(entry)))
    if measured is None:
        log.warn(f"{line}, {entry['note']}")
        return
    speed = entry["measured_speedup"]
    line += f", measured {measured['final']:.2f} of {measured['baseline']:.2f} ms ({1 / speed['median']:.1%}) "
    line += str(entry["note"])
    if not speed["steady"]:
        low, high = (end or 0 for end in speed["interval"])
        log.warn(f"{line}; THE MACHINE WAS TOO BUSY TO TELL: {low:.2f} to {high:.2f} times as fast as the dense model")
    elif entry["kept"] is False:
        log.warn(
            f"THE LATENCY BOUND IS MISSED. {line}. Measure the device again when it is quiet "
            "(yolo-prune profile), or ask for a lower bound"
        )
    else:
        say(line)


def _rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The table: milliseconds of the dense and the pruned model, as bound, predicted and measured."""
    measured = entry["measured_ms"] or {}
    bounds = {"final": entry["bound_ms"]}
    return [
        {
            "model": name,
            "bound, ms": _ms(bounds.get(key)),
            "predicted, ms": _ms(entry["predicted_ms"][key]),
            "measured, ms": _ms(measured.get(key)),
        }
        for key, name in (("baseline", "dense"), ("final", "pruned"))
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
