# yolo-prune, AGPL-3.0 license
"""From Python and `yolo-prune apply|inspect`: prune without training, attach to one YOLO object, look at groups."""

from __future__ import annotations

import io
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.engine.model import Model
from ultralytics.utils import LOGGER

from yolo_prune import files
from yolo_prune.cost import model_size
from yolo_prune.cost.layer_shapes import copy_of
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import profile
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import checkpoint, dataset_check, datasets, rebuild
from yolo_prune.importance import calibration
from yolo_prune.importance import scoring as importances
from yolo_prune.importance.gradients import KINDS
from yolo_prune.planning import asked_for, choice, dry_cut, sensitivity
from yolo_prune.planning.choice import Baseline
from yolo_prune.recipe import argument_checks, sparsity_pattern
from yolo_prune.recipe import settings as recipes
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import record, text
from yolo_prune.surgery import cut_channels, masks, reconstruct, undo, widths
from yolo_prune.training import latency_report, session, step

_YAML_HEAD = """\
# A pruned YOLO as data. With yolo-prune installed: yolo train model=<this file> data=...
# yolo_prune: widths: [output, input] channels of every convolution; null follows the class count of the data.
"""


def prune(
    model: Any,
    *,
    flops: str | None = None,
    params: str | None = None,
    recipe: str | Path | Recipe | None = None,
    data: str | Path | None = None,
    imgsz: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Prune once, in place, without training.

    Args:
        model: an `ultralytics.YOLO` object or a stock detection model (nn.Module).
        flops, params: upper bounds, "50%" of the model or absolute ("4.0G", "1.5M").
        recipe: a Recipe, the name of a shipped recipe or a file; default: `balanced` with your bounds alone.
        data: a data set yaml; with it, a YOLO object's fitness (of a detector, mAP50-95) is measured before and after,
            and the cut is made up for on a few of its training images (compensate="refit").
        imgsz: image size in pixels of that measurement; default: the one the model was trained with.
        settings: any other plugin argument without its prefix, such as importance="bn" or round=16.

    Returns:
        The record: `baseline`, `final`, `steps`, `layers` as in record.json.

    Raises:
        PruneError: an argument is wrong, a bound is out of reach or the model is not supported.
    """
    wanted = _recipe(flops, params, recipe, settings)
    argument_checks.whole(imgsz=imgsz)
    data = None if data is None else argument_checks.path("data", data, "my.yaml")
    network = model.model if isinstance(model, Model) else model
    if not isinstance(network, nn.Module):
        raise PruneError(
            f"prune() wants a YOLO object with PyTorch weights or an nn.Module, given {type(model).__name__}"
        )
    checkpoint.require_supported(network, str(getattr(model, "ckpt_path", None) or type(network).__name__))
    if checkpoint.has_quantizers(network):
        raise PruneError(
            "this model carries the INT8 quantizers of a training with quantize=8; prune the model that it was trained "
            "from, and train the pruned one with quantize=8"
        )
    rebuild.require_unfused(network)
    if data is not None and network is model:
        raise PruneError("prune(data=...) measures a YOLO object; pass YOLO('best.pt') instead of its nn.Module")
    if data is not None:
        dataset_check.require(network, data)
    batches = _batches(model, network, wanted, data, imgsz, "importance" in settings)
    if not batches and wanted.importance in KINDS:
        wanted = choice.by_weights(wanted)
    with undo.all_or_nothing() as back:
        back.model(model if isinstance(model, Model) else network)
        return _cut(model, network, wanted, data, imgsz, batches, back)


def _cut(
    model: Any,
    network: nn.Module,
    wanted: Recipe,
    data: str | Path | None,
    imgsz: int | None,
    batches: list[dict[str, Any]],
    back: undo.Undo,
) -> dict[str, Any]:
    """Choose, cut, make up for it and measure; arguments as in `prune`. Returns the record."""
    fitness = _fitness(model, data, imgsz)
    device = profile.asked(wanted)
    if device is None and choice.wants_latency(wanted):
        name = str(getattr(model, "ckpt_path", None) or type(network).__name__)
        device = profile.of_this_machine(network, name, wanted, _side(model, imgsz), LOGGER.info)
    if device is not None:
        latency_report.doubt(device, imgsz)
    start = time.perf_counter()
    found = channel_groups.build(network, wanted.protect)
    asked_for.require_protected(found, wanted.protect)
    weights, limits = sensitivity.asked(wanted, found), sensitivity.limits(wanted, found)
    baseline = Baseline.of(network, found, device, weights, limits)
    dense = None if device is None else copy_of(network)
    bounds = choice.limits(wanted, baseline)
    if bounds and baseline.meets(bounds):
        LOGGER.warning("the model already meets every bound; nothing is cut")
    found, chosen = dry_cut.choose(
        network,
        wanted,
        baseline,
        bounds,
        lambda groups: calibration.gather(network, groups, wanted.importance, batches),
    )
    step.note(back, (network,), found, chosen)
    images = datasets.pixels(batches) if batches else None
    frozen = {name for name, _ in network.named_parameters() if ".dfl." in name}
    with reconstruct.made_up(network, found, chosen, images, wanted.compensate, frozen):
        cut_channels.apply(network, found, chosen)
    sparsity = wanted.sparsity or widths.sparsity(network)
    if sparsity is not None:
        masks.put(network, masks.choose(network, sparsity_pattern.parse(sparsity)))
    widths.stamp(network, found.native, removed=chosen.blocks, sparsity=sparsity)
    size = model_size.size_of(network)
    told = record.new(wanted, baseline, fitness)
    row = record.add_step(told, 0, size, fitness, time.perf_counter() - start)
    _refresh(model, network)
    row["fitness_after"] = _fitness(model, data, imgsz)
    record.finish(told, baseline, network, size, row["fitness_after"])
    for line in asked_for.not_removed(wanted, baseline, told["removed"]):
        LOGGER.warning(line)
    if device is not None and dense is not None:
        _time(told, baseline, device, dense, network)
    return told


def _time(told: dict[str, Any], baseline: Baseline, device: Profile, dense: nn.Module, network: nn.Module) -> None:
    """Time the cut model beside the one that it was, where this machine can; the record gets `latency`."""
    measured, note = None, "on this machine"
    try:
        measured = profile.beside(dense, network, device)
    except PruneError as error:
        note = f"not measured: {error}"
    entry = record.latency(told, baseline, model_size.latency_of(network, device), measured, note)
    latency_report.tell(entry, device, LOGGER.info)


def attach(model: Any, recipe: str | Path | Recipe | float = "balanced", **settings: Any) -> None:
    """Prune in the next `model.train(...)`, through callbacks on this one YOLO object.

    Args:
        model: an `ultralytics.YOLO` object.
        recipe: a Recipe, a shipped recipe's name, a file, or a number r (the share of FLOPs to remove).
        settings: plugin arguments without their prefix, such as flops="40%".

    Raises:
        RecipeError: the recipe or a setting is wrong. PruneError: `model` is no YOLO object; in the training, its
            arguments ask for pruning as well.
    """
    if not isinstance(model, Model):
        raise PruneError(f"attach() wants a YOLO object, such as YOLO('best.pt'), given {model!r:.80}")
    if isinstance(recipe, Recipe) and settings:
        raise PruneError("attach(recipe=Recipe(...)) takes no further settings; put them into the recipe")
    wanted = recipe if isinstance(recipe, Recipe) else _arguments({"prune": recipe}, settings, ("recipe",))
    started: list[bool] = []  # filled by the training that took the recipe: it is for one, not for every later one
    ended: list[bool] = []

    def start(trainer: Any) -> None:
        if not started and recipes.from_arguments(vars(trainer.args)) is not None:
            raise PruneError("attach() and the arguments of train() both ask for pruning; use one of them")
        if not started:
            session.on_pretrain_routine_start(trainer, asked=wanted)
            started.append(True)

    def end(trainer: Any) -> None:
        session.on_pretrain_routine_end(trainer, asked=None if ended else wanted)
        ended.append(True)

    for function in (start, end):  # for the parent of a DDP run, which runs no callback, and for the next attach
        function.yolo_prune_recipe = wanted  # type: ignore[attr-defined]
        function.yolo_prune_started = started  # type: ignore[attr-defined]
    own = {"on_pretrain_routine_start": start, "on_pretrain_routine_end": end}
    for event, callback in session.CALLBACKS.items():
        earlier = model.callbacks.get(event, [])
        model.callbacks[event] = [c for c in earlier if c is not callback and not hasattr(c, "yolo_prune_recipe")]
        model.add_callback(event, own.get(event, callback))


def apply(
    model: str,
    flops: str | None = None,
    params: str | None = None,
    recipe: str | None = None,
    data: str | None = None,
    imgsz: int | None = None,
    out: str | None = None,
    safe: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """`yolo-prune apply`: one-shot pruning of a checkpoint, without training; writes `out` and prints a table.

    Args:
        model: the checkpoint. out: the file to write; default: beside it, with `-pruned` in its name.
        safe: refuse a file that holds more than classes of torch and ultralytics; False trusts it. Others: see `prune`.
    """
    source = argument_checks.path("model", model, "best.pt")
    target = None if out is None else argument_checks.path("out", out, "pruned.pt", (".pt",))
    argument_checks.whole(imgsz=imgsz)
    argument_checks.switch(safe=safe)
    data = None if data is None else str(argument_checks.path("data", data, "my.yaml"))
    _recipe(flops, params, recipe, settings)  # a wrong argument is told before anything is loaded
    network, ckpt = checkpoint.load(source, safe=safe)
    target = target or source.with_name(f"{source.stem}-pruned.pt")
    if os.path.exists(target) and os.path.samefile(source, target):
        raise PruneError(f"out={target} is the model itself; name another file, such as out=pruned.pt")
    files.require_place("out", target, "pruned.pt")
    if ckpt.pop("modelopt", None):
        LOGGER.warning(f"{source} was trained with quantize=8: its weights are cut, what it learned of INT8 is dropped")
    yolo = ultralytics.YOLO(str(source)) if data is not None else None
    if yolo is not None:
        yolo.model = network
    told = prune(yolo or network, flops=flops, params=params, recipe=recipe, data=data, imgsz=imgsz, **settings)
    _save(network, ckpt, target)
    _print(told, source.name, target, "mAP50-95" if type(network).__name__ == "DetectionModel" else "fitness")
    return told


def write_yaml(model: str, out: str | None = None, safe: bool = True) -> Path:
    """`yolo-prune yaml`: the architecture of a pruned checkpoint as a file, for `yolo train model=that.yaml`.

    Args:
        model: the pruned checkpoint. out: the file to write; default: beside it, ending in .yaml. safe: as in `apply`.

    Returns:
        The file.

    Raises:
        PruneError: the model is not pruned, or `out` is no .yaml file that can be written. Its folders are made.
    """
    source = argument_checks.path("model", model, "pruned.pt")
    target = None if out is None else argument_checks.path("out", out, "pruned.yaml", (".yaml", ".yml"))
    argument_checks.switch(safe=safe)
    network, _ = checkpoint.load(source, safe=safe)
    target = target or source.with_suffix(".yaml")
    files.require_place("out", target, "pruned.yaml")
    try:
        content = widths.portable(network)
    except PruneError as error:
        raise PruneError(f"model={model}: {error}") from None
    words = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    files.replace(target, _YAML_HEAD + words)
    LOGGER.info(f"saved {target}; build it: yolo train {_word('model', target)} {_word('pretrained', model)} data=...")
    return target


def inspect(
    model: str,
    data: str | None = None,
    protect: str | None = None,
    safe: bool = True,
    images: int = 16,
    imgsz: int | None = None,
    importance: str = "l2",
    out: str | None = None,
) -> dict[str, Any]:
    """`yolo-prune inspect`: every convolution of a checkpoint, as prunable with its group or protected with the reason.

    With data=, also how much the loss rises when each group is cut by itself, without training: a table, a picture, and
    a file that prune_sensitivity= takes.

    Args:
        model: the checkpoint. protect: patterns of names that a recipe would protect, separated by commas.
        data: a data set of the model's task; images of its training split are used. images: how many. imgsz: pixels;
            default: what the model was trained with. importance: how channels are scored.
        out: the file of the sensitivities; default: beside the model, with `-sensitivity.json` in its name. The picture
            lies beside it. safe: as in `apply`.
    """
    source = argument_checks.path("model", model, "best.pt")
    target = None if out is None else argument_checks.path("out", out, "sensitivity.json", (".json",))
    if data is None and out is not None:
        raise PruneError(f"out={target} is for sensitivities, which need data=: give both, or none")
    argument_checks.whole(images=images, imgsz=imgsz)
    argument_checks.switch(safe=safe)
    patterns = argument_checks.patterns("protect", protect)
    if not isinstance(importance, str):
        raise PruneError(
            f"importance={argument_checks.shown(importance)}: the name of an importance is needed, such as l2"
        )
    importances.require(importance)
    network, ckpt = checkpoint.load(source, safe=safe)
    checkpoint.require_supported(network, str(source))
    target = target or source.with_name(f"{source.stem}-sensitivity.json")
    if data is not None:  # minutes of measuring must not be lost for want of a place
        data = str(argument_checks.path("data", data, "my.yaml"))
        files.require_place("out", target, "sensitivity.json")
        files.require_place("out", target.with_suffix(".png"), "sensitivity.json")
        dataset_check.require(network, data, ["train"])
    found = channel_groups.build(network, patterns)
    asked_for.require_protected(found, patterns)
    groups: dict[str, list[str]] = {}
    for group in found.groups:
        for member in group.members:
            if member.side == "out":
                groups.setdefault(member.module, []).append(group.name)
    rows: list[dict[str, Any]] = []
    for layer in (layer for layer in found.layers if layer.makes):
        reason = found.protected.get(layer.name)
        rows.append(
            {
                "name": layer.name,
                "out": layer.out,
                "in": layer.inp,
                "weights": layer.weights,
                "prunable": reason is None,
                "group": ", ".join(groups.get(layer.name, [])) if reason is None else None,
                "reason": reason,
            }
        )
    share = found.prunable_share()
    LOGGER.info(
        text.table(
            [
                {
                    "layer": row["name"],
                    "out": row["out"],
                    "in": row["in"],
                    "prunable": "yes" if row["prunable"] else "no",
                    "group, or why not": row["group"] or row["reason"],
                }
                for row in rows
            ]
        )
    )
    size = model_size.size_of(network)
    LOGGER.info(
        f"{len(found.groups)} channel groups hold {share:.1%} of the convolution weights; {len(found.protected)} "
        f"layers are protected; {size.params:,} params, {size.gflops:.2f} GFLOPs"
    )
    if found.untaught:
        LOGGER.info(text.untaught(found.untaught, found.operations))
    if found.blocks or found.heads:
        heads = ", ".join(f"{name} ({count})" for name, count in found.heads.items() if count > 1)
        LOGGER.info(
            f"depth= may remove {len(found.blocks)} residual blocks: "
            f"{', '.join(b.name for b in found.blocks) or 'none'}; "
            f"heads= may remove attention heads of: {heads or 'none'}"
        )
    told = {"groups": {g.name: g.size for g in found.groups}, "layers": rows, "prunable_share": share}
    if data is not None:
        side = imgsz or (ckpt.get("train_args") or {}).get("imgsz") or model_size.IMAGE
        told["sensitivity"] = _sensitivity(network, found, importance, data, int(side), images, target)
    return told


def _sensitivity(
    network: nn.Module,
    found: channel_groups.ChannelGraph,
    importance: str,
    data: str,
    side: int,
    images: int,
    target: Path,
) -> dict[str, Any]:
    """Measure, show and save how sensitive a model is to the cut of each group."""
    batches = datasets.read(network, data, side, images)
    scores = importances.score(found, network, importance)
    shown: list[int] = []

    def progress(done: int, total: int) -> None:
        if 10 * done // total > len(shown):
            shown.append(done)
            LOGGER.info(f"cutting each group by itself: {done}/{total}")

    result = sensitivity.measure(network, found, scores, batches, progress)
    content = {**result, "data": str(data), "images": images, "imgsz": side, "importance": importance}
    LOGGER.info(text.table(sensitivity.table(result)))
    LOGGER.info(f"the loss is {result['loss']:.4f} on {sum(len(b['img']) for b in batches)} images of {data} at {side}")
    files.replace(target, json.dumps(content, indent=1) + "\n")
    sensitivity.picture(result, target.with_suffix(".png"))
    LOGGER.info(
        f"saved {target} and {target.with_suffix('.png').name}; spare what is sensitive: yolo train ... "
        f"prune_scope=global {_word('prune_sensitivity', target)}"
    )
    return content


def _recipe(flops: Any, params: Any, given: str | Path | Recipe | None, settings: Mapping[str, Any]) -> Recipe:
    if isinstance(given, Recipe):
        if flops is not None or params is not None or settings:
            raise PruneError("prune(recipe=Recipe(...)) takes no further bounds or settings; put them into the recipe")
        _no_floor(given)
        return given
    bounds = {"prune_flops": flops, "prune_params": params}
    asked = {"prune": given} if given is not None else {}
    wanted = _arguments(
        {**asked, **{key: value for key, value in bounds.items() if value is not None}},
        settings,
        ("flops", "params", "recipe", "data", "imgsz"),
    )
    _no_floor(wanted)
    return wanted


def _no_floor(wanted: Recipe) -> None:
    if wanted.floor is not None:
        raise PruneError(
            f"floor={wanted.floor:g} is kept by a training (yolo train ... prune_floor=); one cut wants a bound alone"
        )


def _arguments(asked: Mapping[str, Any], settings: Mapping[str, Any], own: Sequence[str]) -> Recipe:
    """Read a call's settings. asked: plugin arguments. settings: without their prefix. own: the call's other names.

    Raises:
        PruneError: a setting is unknown (the line names the nearest) or wrong, or nothing asks for pruning.
    """
    plain = [key.removeprefix("prune_") for key in recipes.ARGUMENTS if key != "prune"]
    argument_checks.known([key.removeprefix("prune_") for key in settings], plain, "setting", own)
    named = {f"prune_{key.removeprefix('prune_')}": value for key, value in settings.items()}
    wanted = recipes.from_arguments({**named, **asked})
    if wanted is None:
        raise PruneError('nothing to aim at: give a bound, such as flops="50%" or latency="60%", or a recipe')
    return wanted


def _fitness(model: Any, data: str | Path | None, imgsz: int | None) -> float | None:
    """Fitness of a YOLO object on a data set, as its trainer would say it.

    Its model is copied, because the host fuses what it validates.
    """
    if data is None:
        return None
    network = model.model
    model.model = deepcopy(network)
    try:
        size = {} if imgsz is None else {"imgsz": imgsz}
        return float(model.val(data=str(data), plots=False, verbose=False, **size).fitness)
    finally:
        model.model = network


def _batches(
    model: Any, network: nn.Module, wanted: Recipe, data: str | Path | None, imgsz: int | None, insists: bool
) -> list[dict[str, Any]]:
    """Training images by which channels are judged and the cut is made up for; none without a data set, which is said.

    Args:
        insists: whether the importance was asked for by name, and not by the recipe.
    """
    by_gradients = wanted.importance in KINDS
    if data is None and by_gradients and insists:
        raise PruneError(f"importance={wanted.importance} is of gradients on data: add data=my.yaml, or use l2")
    if data is None:
        LOGGER.info(
            f"without data= {'channels are judged by their weights alone, and ' if by_gradients else ''}nothing makes "
            "up for what is cut: add the data set that the model was trained on, or train the pruned model"
        )
    if data is None or (wanted.compensate == "none" and not by_gradients):
        return []
    side = _side(model, imgsz)
    count = max(datasets.count(side), calibration.IMAGES if by_gradients else 0)
    return datasets.read(network, data, side, count)


def _side(model: Any, imgsz: int | None) -> int:
    """The image size in pixels: what was said, what a YOLO object was trained with, or the host's default."""
    return int(imgsz or (getattr(model, "overrides", None) or {}).get("imgsz") or model_size.IMAGE)


def _refresh(model: Any, network: nn.Module) -> None:
    """Tell a YOLO object that its network changed: a cached predictor and a checkpoint's EMA would be the old width."""
    if network is not model:
        model.predictor = None
        # Of an object without a checkpoint (from a yaml) the host's train() would take the yaml's name, and no weights.
        model.ckpt = {**(getattr(model, "ckpt", None) or {}), "ema": None, "model": network, "optimizer": None}


def _word(name: str, value: object) -> str:
    """A word of a command that a shell can be given."""
    return shlex.quote(f"{name}={value}")


def _save(network: nn.Module, ckpt: Mapping[str, Any], target: Path) -> None:
    """Write a checkpoint as the host's `Model.save` does (8.4.190, engine/model.py), in one step."""
    buffer = io.BytesIO()
    content = {**ckpt, "model": deepcopy(network).half(), "ema": None, "optimizer": None, "epoch": -1, "updates": None}
    torch.save(content, buffer)
    files.replace(target, buffer.getvalue())


def _print(told: Mapping[str, Any], name: str, target: Path, measure_name: str) -> None:
    rows = []
    for label, key in ((name, "baseline"), (target.name, "final")):
        figures = told[key]
        fitness = figures["fitness"]
        rows.append(
            {
                "model": label,
                "params": f"{figures['params']:,}",
                "GFLOPs": f"{figures['gflops']:.2f}",
                measure_name: "not measured" if fitness is None else f"{fitness:.4f}",
            }
        )
    LOGGER.info(text.table(rows))
    removed = told["removed"]
    if removed["blocks"] or removed["heads"]:
        heads = (f"{name} {now} of {was} heads left" for name, (was, now) in removed["heads"].items())
        LOGGER.info(f"removed whole: {', '.join([*removed['blocks'], *heads])}")
    LOGGER.info(f"saved {target}; train it to recover: yolo train {_word('model', target)} data=...")
