# yolo-prune, AGPL-3.0 license
"""What a run that prunes says in the host's log, each line under `prune:`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.cost.file_size import Deployment
from yolo_prune.cost.model_size import Size
from yolo_prune.graph import channel_groups
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.schedule import ALONE
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import Pattern
from yolo_prune.report import latency, text
from yolo_prune.surgery.masks import Zeros


def of_fitness(value: float | None) -> str:
    """A fitness in words."""
    return "not measured" if value is None else f"{value:.4f}"


def nothing_to_do(size: Size, bounds: Iterable[str]) -> None:
    """The bounds, in words such as "size=2GB", hold before the first cut."""
    log.warn(
        f"NOTHING WILL BE CUT: the model ({size.gflops:.1f} GFLOPs, {size.params:,} params) already meets "
        f"{' and '.join(bounds) or 'every bound'}. A bound below what it has cuts it, such as flops=50%"
    )


def taught(term: float, labels: float) -> None:
    """What the dense model's outputs came to in the loss of an epoch, beside the labels: sums over its batches."""
    log.say(
        f"learning what the dense model puts out: in this epoch {term / max(term + labels, 1e-12):.2%} of the loss was "
        "its term, which the host's columns leave out"
    )


def plan(
    recipe: Recipe, baseline: Baseline, graph: channel_groups.ChannelGraph, epochs: Sequence[int], done: int
) -> None:
    """What this run is about to do.

    Args:
        recipe: what is asked for. baseline: the model before its first cut. graph: its groups.
        epochs: 0-based, of each step. done: how many of these have been taken.
    """
    if graph.untaught:
        log.say(text.untaught(graph.untaught, graph.operations))
    words = {"flops": "{:.2f} GFLOPs", "params": "{:,.0f} params", "latency": "{:.2f} ms", "size": "{:.2f} MB"}
    units = {"flops": 1e9, "size": 1e6}
    bounds = choice.step_bounds(recipe, baseline)
    targets = [words[key].format(value / units.get(key, 1)) for key, value in bounds.items()]
    target = f" to at most {', '.join(targets)}" if targets else ""
    if recipe.sparsity is not None:
        target += f"{' and' if targets else ' to'} sparsity {recipe.sparsity}"
    at = ", ".join(str(epoch + 1) for epoch in epochs[done:])
    at = f"steps at epochs {at}" if at else "no step is left"
    if recipe.schedule != "oneshot" and len(epochs) < recipe.steps:
        at += f" ({recipe.steps} steps asked, start to end has {len(epochs)} epochs)"
    log.say(
        f"recipe {recipe.name}: from {baseline.size.gflops:.2f} GFLOPs, {baseline.size.params:,} params"
        f"{latency.of_baseline(baseline)}{_file_of(baseline)}{target}"
        f"{'' if recipe.max_drop is None else f', fitness at most {recipe.max_drop:g} below the dense'}; "
        f"{len(graph.groups)} channel groups, {len(graph.protected)} layers protected; {at}"
    )


def cut_at_once() -> None:
    """A step whose start was left open comes before the first epoch."""
    log.say(
        f"it is cut before the first epoch, for it was trained on these classes; prune_start={ALONE} trains it first"
    )


def _file_of(baseline: Baseline) -> str:
    """The file that a model is exported as before its first cut, for a line that lists its size."""
    count = baseline.deployed.bytes
    return "" if count is None else f", {count / 1e6:.2f} MB ({baseline.deployment})"


def frozen(freeze: object, names: str, count: int) -> None:
    """Layers that the training leaves as they are keep their channels.

    Args:
        freeze: the host's argument, None where something else froze them. names: of the layers. count: how many.
    """
    by = "by a callback" if freeze is None else f"freeze={freeze}"
    log.say(f"{count} layers are frozen ({by}) and keep their channels, for nothing says what these are worth: {names}")


def both_canvases(side: int, frames: bool) -> None:
    """Every second batch of the validation is seen as an exported file sees images.

    Args:
        side: pixels of the canvas. frames: whether the run trains in frames, see `host/frames.py`.
    """
    too = "; after the cut every second batch of square images of training lies in that frame" if frames else ""
    log.say(
        f"every second batch is validated on {side} x {side}, as an exported file sees images, and not in the grey "
        f"frame of yolo val, so that the best epoch is good on both{too}; the last table is that of yolo val"
    )


def step_begins(number: int, of: int, reconstruct: str) -> None:
    """A step takes seconds, on a large model and a CPU a minute: nobody shall wonder meanwhile."""
    made_up = "" if reconstruct == "none" else ", and the layers that stay fitted to make up for it"
    log.say(f"step {number}/{of} begins: channels are chosen and cut{made_up}")


def step_taken(row: Mapping[str, Any], of: int, epochs: int, before: Size, removed: Sequence[str]) -> None:
    """A step has just been taken.

    Args:
        row: of the record. of: how many steps there are. epochs: of the run. before: the size until now.
        removed: names of blocks that went whole.
    """
    if removed:
        log.say(f"removed whole: {', '.join(removed)}")
    predicted = "" if "predicted_ms" not in row else f", predicted {row['predicted_ms']:.2f} ms"
    log.say(
        f"step {row['step']}/{of} at epoch {row['epoch']}/{epochs}: params {before.params:,} -> {row['params']:,}, "
        f"GFLOPs {before.gflops:.2f} -> {row['gflops']:.2f}{predicted}, "
        f"fitness {of_fitness(row['fitness_before'])} -> {of_fitness(row['fitness_cut'])}, {row['seconds']:.2f} s"
    )


def more_steps(images: int, steps: int, stock: int) -> None:
    """The optimizer steps more often from now on.

    Args:
        images: to a step. steps: that are left by it. stock: that would be left by the host's nbs.
    """
    log.say(
        f"a step of the optimizer for every {images} images from now on: about {steps} are left, and {stock} by the "
        "host's nbs (prune_nbs=64 keeps to that)"
    )


def few_steps(steps: int, batch: int | None, batches: int) -> None:
    """A training that is too short to recover in.

    Args:
        steps: of the optimizer that are left. batch: its images, where a step takes several of them. batches: left.
    """
    often = "" if batch is None else f", or let the optimizer step for every batch ({batches} times): prune_nbs={batch}"
    log.warn(
        f"about {steps} steps of the optimizer are left to recover in, which is few: every epoch can be below what "
        f"the cut alone leaves, and best.pt is that model until one is better. Give it more epochs{often}; more: "
        "yolo-prune help faq"
    )


def step_undone(row: Mapping[str, Any], fitness: float | None, record: Mapping[str, Any], now: Size) -> None:
    """A step has just been undone, for fitness did not come back.

    Args:
        row: of that step. fitness: what it came back to. record: of the run. now: the size after going back.
    """
    stopped = record["max_drop"]
    log.say(
        f"step {row['step']} is undone at epoch {row['undone']}: fitness came back to {of_fitness(fitness)}, and may "
        f"be {stopped['allowed']:g} below {of_fitness(stopped['dense'])}. From here to the end: "
        f"{now.params:,} params, {now.gflops:.2f} GFLOPs"
    )


def step_completed(row: Mapping[str, Any], of: int, epoch: int) -> None:
    """The first fitness after a step is known.

    Args:
        row: of that step. of: how many steps there are. epoch: counted from 1.
    """
    log.say(
        f"step {row['step']}/{of}: fitness {of_fitness(row['fitness_before'])} before, "
        f"{of_fitness(row['fitness_after'])} after epoch {epoch}; {row['params']:,} params, {row['gflops']:.2f} GFLOPs"
    )


def max_drop_protects_nothing(allowed: float, dense: float) -> None:
    """The dense model has no more fitness than `prune_max_drop` lets go: said before the first cut."""
    log.warn(
        f"prune_max_drop={allowed:g} PROTECTS NOTHING: the dense fitness is {of_fitness(dense)}, and all of it may go. "
        "Give a model that is trained on this data, or allow a smaller drop"
    )


def max_drop_exceeded(entry: Mapping[str, Any]) -> None:
    """The final drop of fitness is larger than allowed; `entry` is the record's entry."""
    log.warn(
        f"prune_max_drop IS EXCEEDED: fitness {of_fitness(entry['final'])} is more than {entry['allowed']:g} below the "
        f"dense {of_fitness(entry['dense'])}. Give more epochs, or ask for less"
    )


def zeros(count: Zeros, pattern: Pattern) -> None:
    """What single zeros come to: how many there are, and what they save on disk."""
    where = f", {pattern} in {count.fitting} of {count.layers} convolutions" if pattern.of else ""
    log.say(
        f"{count.share:.1%} of the convolution weights are zero{where}: {count.bytes / 1e6:.2f} MB of tensors are "
        f"{count.compressed / 1e6:.2f} MB compressed. Zeros alone are not faster, but where a runtime knows them"
    )


def ended(record: Mapping[str, Any], missing: int, of: int, last: Path) -> None:
    """The training is over.

    Args:
        record: of the run. missing: steps that were not taken. of: how many there were to take. last: its last.pt.
    """
    before, after = record["baseline"], record["final"]
    if missing:
        on = text.command(["yolo", "train", f"model={last}"])
        log.warn(
            f"the training ended with {missing} of {of} steps still to come: the bounds are not reached. To go on: "
            f"{on} with the same bounds, which count from the model as it is then"
        )
    if all_undone(record):
        stopped = record["max_drop"]
        log.warn(
            f"NOTHING WAS CUT: the first step was undone, for it lost more than prune_max_drop={stopped['allowed']:g} "
            f"of {of_fitness(stopped['dense'])}. Allow a larger drop, give more epochs to come back in, or let the "
            f"first step take less: more prune_steps= (of {record['recipe']['steps']}), or a higher bound"
        )
    log.say(
        f"{'stopped' if missing else 'done'}: params {before['params']:,} -> {after['params']:,} "
        f"({after['params'] / before['params']:.0%}), "
        f"GFLOPs {before['gflops']:.2f} -> {after['gflops']:.2f} ({after['gflops'] / before['gflops']:.1%})"
        f"{_fused(before, after)}, "
        f"{_files(record)}fitness "
        f"{of_fitness(before['fitness'])} -> {of_fitness(after['fitness'])}"
    )


def gained_nothing(record: Mapping[str, Any]) -> None:
    """No epoch after the last cut was better than the model right after it; `record` is of the run."""
    last = record["history"][-1]
    log.warn(
        f"no epoch was better than the model right after the cut, which best.pt is or is as good as: fitness "
        f"{of_fitness(record['final']['fitness'])}, and {of_fitness(last['fitness'])} after epoch {last['epoch']}. "
        "Give it more epochs, or a lower lr0 with an optimizer= of your own"
    )


def all_undone(record: Mapping[str, Any]) -> bool:
    """Whether steps were taken, and `prune_max_drop` has undone every one: the model has the widths it began with."""
    return bool(record["steps"]) and all("undone" in row for row in record["steps"])


def what_next(
    weights: Path, dense: str | None, data: object, kind: str, more: Sequence[str] = (), folders: Sequence[str] = ()
) -> None:
    """The command that comes after a run: it shows what was gained.

    Args:
        weights: of the run. dense: the checkpoint that it began with, where it is one. data: of the run.
        kind: the format that it is for. more: words that the command needs as well. folders: of modules of the user's
            own, which the checkpoints hold classes of.
    """
    words = ["yolo-prune", "export", f"model={weights}", *([] if dense is None else [f"dense={dense}"])]
    words += [*([] if data is None else [f"data={data}"]), f"format={kind}", *more]
    log.say(f"next: {text.command(words, folders)}")


def resume_attached(last: Path) -> str:
    """How to resume a run whose recipe `attach` gave it, which no checkpoint holds."""
    return f'model = YOLO("{last}"), attach(model, ...) as before, and model.train(resume=True)'


def _fused(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why the host's summary after a training has another figure: it is of the fused model."""
    dense, final = (row.get("gflops_deployed") for row in (before, after))
    return (
        "" if not dense or not final else f"; fused, as deployed and as in the last summary, {dense:.2f} -> {final:.2f}"
    )


def _files(record: Mapping[str, Any]) -> str:
    """What the exported files come to, for the line of the end; nothing where that is not known."""
    before, after = (record[key].get("size_bytes") for key in ("baseline", "final"))
    if not before or not after:
        return ""
    return f"{Deployment(**record['deployment'])} {before / 1e6:.2f} -> {after / 1e6:.2f} MB ({after / before:.0%}), "
