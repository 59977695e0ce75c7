# yolo-prune, AGPL-3.0 license
"""The record of a pruning: plain data, the same from a training run and from one cut without training.

yolo_prune, versions    what made it
model                   the checkpoint that a training began with, None where it was none
recipe, bounds          what was asked for; bounds in FLOPs, parameters, milliseconds and bytes
baseline, final         params, gflops (640 x 640, as the host counts), gflops_deployed (of the fused model with one
                        branch of an end-to-end head), size_bytes (of the file that it is exported as),
                        peak_activation_bytes (of the tensors of one image that live at once in it), fitness or None,
                        latency_ms or None: measured, side by side
channel_multiple        what counts that changed are multiples of: channels, and why
deployment              what size_bytes is of: format, precision, imgsz
latency                 where a device profile is in use: what was predicted, bound and measured, and by which profile
fitness_is              what fitness is of this task: mAP50-95
steps                   step, epoch (from 1), params, gflops, fitness_before, fitness_cut (right after the cut, before
                        any training; None where a run does not validate), fitness_after (after that epoch), seconds;
                        with a profile predicted_ms; measured, where the plan was timed before it was cut: shares of
                        the dense model's time (measured_bound.Check)
best                    epoch that best.pt is of, from 1; right_after_cut: as it was cut, before that epoch's training
history                 epoch, fitness, params, gflops; one row an epoch
qat                     of a second stage with quantize=8: epochs, and weights, its checkpoint within the run's folder
removed                 blocks: those that went whole; heads: attention -> heads before and after, where some went
layers                  name, before, after: output channels of every convolution and linear layer, 0 for a removed one;
                        part (backbone, neck, head), kind (class of the block that it is in), fixed (the model puts them
                        out: no plan may change them)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

import yolo_prune
from yolo_prune.cost import model_size
from yolo_prune.cost.model_size import DeployedSize, Size
from yolo_prune.device.timing import Ratio
from yolo_prune.graph import blocks
from yolo_prune.host import releases, validation
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.measured_bound import TOLERANCE, Check
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import layer_names
from yolo_prune.surgery import widths


def new(recipe: Recipe, baseline: Baseline, fitness: float | None = None, task: str | None = None) -> dict[str, Any]:
    """A record before the first step.

    Args:
        recipe: what is asked for. baseline: the model before its first cut. fitness: its fitness, if it is known.
        task: what the model is for, as the host names it.
    """
    return {
        "yolo_prune": yolo_prune.__version__,
        "recipe": recipe.as_dict(),
        "bounds": choice.step_bounds(recipe, baseline),
        "channel_multiple": _multiple(recipe, baseline),
        "deployment": asdict(baseline.deployment),
        "baseline": figures(baseline.size, fitness, baseline.deployed),
        "fitness_is": validation.fitness_name(task),
        "steps": [],
        "history": [],
        "versions": {"ultralytics": releases.version(), "torch": str(torch.__version__)},
    }


def _multiple(recipe: Recipe, baseline: Baseline) -> dict[str, Any]:
    """What counts become multiples of, and what says so."""
    if recipe.round:
        return {"channels": recipe.round, "why": "round of the recipe"}
    if baseline.profile is not None:
        return {"channels": baseline.profile.multiple, "why": f"the profile {baseline.profile}"}
    return baseline.multiple.as_dict()


def add_step(
    record: dict[str, Any],
    epoch: int,
    size: Size,
    fitness: float | None,
    seconds: float,
    latency: float | None = None,
    check: Check | None = None,
) -> dict[str, Any]:
    """Note a step that was just taken; its fitness afterwards is filled in when it is known.

    Args:
        epoch: counted from 1, 0 for a cut without training. size: of the model now. fitness: before the cut.
        seconds: what the step took. latency: ms that the device profile predicts for the model now, if there is one.
        check: what the plan was timed at before it was cut, where it was.

    Returns:
        The step's row.
    """
    row = {
        "step": len(record["steps"]) + 1,
        "epoch": epoch,
        "params": size.params,
        "gflops": size.gflops,
        "fitness_before": fitness,
        "fitness_cut": None,
        "fitness_after": None,
        "seconds": round(seconds, 3),
        **({} if latency is None else {"predicted_ms": round(latency, 4)}),
        **({} if check is None else {"measured": check.as_dict()}),
    }
    record["steps"].append(row)
    return row


def finish(record: dict[str, Any], baseline: Baseline, model: nn.Module, size: Size, fitness: float | None) -> None:
    """Set `final`, `removed` and `layers` to what the model is now."""
    heads = blocks.heads(model)
    now = dict(model.named_modules())
    built = {
        "removed": {
            "blocks": widths.removed(model),
            "heads": {k: [n, heads.get(k, 0)] for k, n in baseline.heads.items() if heads.get(k, 0) < n},
        },
        "layers": _layers(model, baseline, now),
    }
    final = record.get("final")
    if final is not None and all(record.get(key) == value for key, value in built.items()):
        # Counting it copies the model. A resumed run's record may be of a version that did not count the memory.
        deployed = DeployedSize(final["gflops_deployed"], final["size_bytes"], final.get("peak_activation_bytes"))
    else:
        deployed = model_size.deployed_size(model, baseline.deployment)
    record.update(final=figures(size, fitness, deployed), **built)


def _layers(model: nn.Module, baseline: Baseline, now: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """One row for each layer that the model had."""
    places = layer_names.places(model, baseline.layers)
    return [
        {
            "name": name,
            "before": before,
            "after": _width(now.get(name)),
            **places[name],
            "fixed": name in baseline.fixed,
        }
        for name, before in baseline.layers.items()
    ]


def latency(
    record: dict[str, Any],
    baseline: Baseline,
    predicted: float,
    measured: tuple[float, float, Ratio] | None,
    note: str,
    by_part: Sequence[Mapping[str, float]] = (),
) -> dict[str, Any]:
    """Note what a device profile predicted and what was measured of it.

    Args:
        predicted: ms of the final model. measured: ms of the dense and of the final model in turns, and how many times
            as fast the final one is; or None.
        note: where that was measured, or why it was not. by_part: of the dense and of the final model, as of
            `latency_by_part`; empty where that is not known.

    Returns:
        The entry: `bound_ms`, `predicted_ms`, `measured_ms`, `measured_speedup` (an interval, and whether it is known),
        `kept` (None where nothing was measured or bound, or the machine was too busy), `note`, `predicted_ms_by_part`.
    """
    assert baseline.profile is not None
    assert baseline.latency is not None
    bound = record["bounds"].get("latency")
    kept = None
    speed = None if measured is None else measured[2]
    if measured is not None and bound is not None and measured[2].steady:
        # The share is judged, not the milliseconds: a machine is now faster, now slower, and both models were timed in
        # turns, so that it was the same to both. A bound in milliseconds is kept as well where
        # those were measured.
        kept = bool(1 / measured[2].median <= bound / baseline.latency * (1 + TOLERANCE))
        stated = Recipe(**record["recipe"]).latency
        if stated is not None and stated.kind == "absolute":
            kept = kept or bool(measured[1] <= bound * (1 + TOLERANCE))
    entry = {
        "bound_ms": bound and round(bound, 4),
        "predicted_ms": {"baseline": round(baseline.latency, 4), "final": round(predicted, 4)},
        "predicted_ms_by_part": _by_part(*by_part) if by_part else None,
        "measured_ms": measured and {"baseline": round(measured[0], 4), "final": round(measured[1], 4)},
        "measured_speedup": speed and speed.as_dict(),
        "kept": kept,
        "note": note,
        "profile": baseline.profile.brief(),
    }
    record["latency"] = entry
    if measured is not None:
        record["baseline"]["latency_ms"], record["final"]["latency_ms"] = map(
            entry["measured_ms"].get, ("baseline", "final")
        )
    return entry


def _by_part(dense: Mapping[str, float], final: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Part -> its milliseconds before and after, of the parts that the dense model has."""
    return {
        part: {"baseline": round(before, 4), "final": round(final.get(part, 0.0), 4)} for part, before in dense.items()
    }


def _width(layer: nn.Module | None) -> int:
    """Output channels of a convolution or a linear layer; 0 for one that went with its block."""
    if layer is None:
        return 0
    return int(getattr(layer, "out_channels", None) or layer.out_features)  # type: ignore[arg-type]


def figures(size: Size, fitness: float | None, deployed: DeployedSize) -> dict[str, Any]:
    """One model's entry. deployed: what it is as it is exported."""
    return {
        "params": size.params,
        "gflops": size.gflops,
        "gflops_deployed": deployed.gflops and round(deployed.gflops, 4),
        "size_bytes": deployed.bytes,
        "peak_activation_bytes": deployed.activations,
        "fitness": fitness,
        "latency_ms": None,
    }
