# yolo-prune, AGPL-3.0 license
"""From Python: prune a model once without training, or attach pruning to the next training of one YOLO object."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from yolo_prune import log
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost import model_size
from yolo_prune.cost.channel_steps import OPEN
from yolo_prune.cost.latency_by_part import latency_by_part
from yolo_prune.cost.model_size import Size
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import profile, quick_look
from yolo_prune.device.plan_timer import PlanTimer, possible
from yolo_prune.device.profile import SideBySide
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups, image_shape
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import checkpoint, dataset_check, datasets, trainable_check, yolo_object
from yolo_prune.importance import calibration
from yolo_prune.importance.gradients import GRADIENT_IMPORTANCES
from yolo_prune.planning import choice, measured_bound, sensitivity, unmet_requests
from yolo_prune.planning.baseline import Baseline, deployment_of
from yolo_prune.planning.measured_bound import Check
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe import sparsity_pattern, value_checks
from yolo_prune.recipe.arguments import ARGUMENTS, from_arguments
from yolo_prune.recipe.settings import OF_TRAINING, Recipe
from yolo_prune.report import latency, messages, text
from yolo_prune.report import record as records
from yolo_prune.surgery import cut_channels, masks, reconstruct, undo, widths
from yolo_prune.training import cut_models, session

Batches = list[dict[str, Any]]  # of images and labels, as the host's loaders give them


def prune(
    model: Any,
    *,
    flops: str | None = None,
    params: str | None = None,
    recipe: str | Path | Recipe | None = None,
    data: str | Path | None = None,
    imgsz: int | None = None,
    measure: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Prune once, in place, without training.

    Args:
        model: an `ultralytics.YOLO` object or a stock detection model (nn.Module).
        flops: upper bound on the FLOPs, "50%" of the model or absolute ("4.0G").
        params: upper bound on the parameters, "60%" or "1.5M".
        recipe: a Recipe, the name of a shipped recipe or a file; default: `balanced` with your bounds alone.
        data: a data set yaml; with it, a YOLO object's fitness (of a detector, mAP50-95) is measured before and after,
            and the cut is made up for on a few of its training images (reconstruct="weights").
        imgsz: image size in pixels of that measurement, and of the exported file that size= bounds; default: the one
            the model was trained with.
        measure: whether fitness is measured before and after, where there is a data set, and with a device profile both
            models are timed at the end; the cut is the same.
        settings: any other plugin argument without its prefix, such as latency="60%", size="1.5MB", importance="bn"
            or round=16.

    Returns:
        The record: `baseline`, `final`, `steps`, `layers` as in record.json.

    Raises:
        PruneError: an argument is wrong, a bound is out of reach or the model is not supported.
    """
    wanted = recipe_of(flops, params, recipe, settings)
    value_checks.whole(imgsz=imgsz)
    value_checks.switch(measure=measure)
    data = None if data is None else value_checks.data_set(data)
    network = yolo_object.network_of(model)
    _require_prunable(model, network, data is not None)
    if data is not None:
        data = datasets.converted(data)
        dataset_check.require(network, data)
    imgsz = None if imgsz is None else image_shape.said(network, imgsz)
    batches = _batches(model, network, wanted, data, imgsz, "importance" in settings)
    if not batches and wanted.importance in GRADIENT_IMPORTANCES:
        wanted = choice.by_weights(wanted)
    with undo.all_or_nothing() as back:
        back.model(model)  # of a YOLO object its attributes too: the host's Model is a module that holds the network
        return _cut(model, network, wanted, data if measure else None, imgsz, batches, back, timed=measure)


def _require_prunable(model: Any, network: Any, measured: bool) -> None:
    """Raise PruneError where a model cannot be pruned once as it is, or not be `measured` on data."""
    if not isinstance(network, nn.Module):
        raise PruneError(
            f"prune() wants a YOLO object with PyTorch weights or an nn.Module, given {type(model).__name__}"
        )
    checkpoint.require_supported(network, yolo_object.name_of(model))
    if checkpoint.has_quantizers(network):
        raise PruneError(
            "this model carries the INT8 quantizers of a training with quantize=8; prune the model that it was trained "
            "from, and train the pruned one with quantize=8"
        )
    trainable_check.require_unfused(network)
    if measured and network is model:
        raise PruneError("prune(data=...) measures a YOLO object; pass YOLO('best.pt') instead of its nn.Module")


def _cut(
    model: Any,
    network: nn.Module,
    wanted: Recipe,
    data: str | None,
    imgsz: int | None,
    batches: Batches,
    back: undo.Undo,
    timed: bool,
) -> dict[str, Any]:
    """Choose, cut, reconstruct and measure; arguments as in `prune`. Returns the record."""
    fitness = yolo_object.fitness(model, data, imgsz)
    device = _device(model, network, wanted, imgsz)
    start = time.perf_counter()
    judged = datasets.fewer(batches, calibration.IMAGES) if wanted.importance in GRADIENT_IMPORTANCES else []
    images = datasets.pixels(batches) if batches and wanted.reconstruct != "none" else None
    log.say(text.cut_begins(sum(len(each["img"]) for each in judged), 0 if images is None else len(images)))
    timer = PlanTimer(network, lambda: network, device) if device is not None and possible(wanted, device) else None
    asked = _request(network, wanted, device, judged, _side(model, imgsz))
    baseline = asked.baseline
    dense = copy_of(network) if device is not None and timed else None
    size, check = _cut_under_bounds(network, asked, images, timer, back)
    record = records.new(wanted, baseline, fitness, getattr(model, "task", None))
    row = records.add_step(record, 0, size, fitness, time.perf_counter() - start, check=check)
    yolo_object.refresh(model, network)
    row["fitness_cut"] = row["fitness_after"] = yolo_object.fitness(model, data, imgsz)
    records.finish(record, baseline, network, size, row["fitness_after"])
    for line in unmet_requests.not_removed(wanted, baseline, record["removed"]):
        log.warn(line)
    if device is not None and dense is not None:
        known = timer.timings[check.taken] if timer is not None and check is not None and check.kept else None
        _measure_latency(record, baseline, device, dense, network, known)
    return record


def _device(model: Any, network: nn.Module, wanted: Recipe, imgsz: int | None) -> Profile | None:
    """The device profile that a recipe names; for a bound on latency without one, this machine's, measured now."""
    device = profile.profile_of_recipe(wanted)
    if device is None and choice.wants_latency(wanted):
        device = profile.of_this_machine(network, yolo_object.name_of(model), wanted, _side(model, imgsz), log.say)
    if device is not None:
        latency.doubt(device, imgsz)
    return device


def _request(network: nn.Module, wanted: Recipe, device: Profile | None, judged: Batches, imgsz: int) -> StepRequest:
    """The model as it is, its channel groups, and what is asked of them."""
    graph = channel_groups.build(network, wanted.protect)
    unmet_requests.require_protected(graph, wanted.protect)
    if graph.untaught:
        log.say(text.untaught(graph.untaught, graph.operations))
    weights = sensitivity.weights_of_recipe(wanted, graph)
    deployment = deployment_of(wanted, device, imgsz)
    multiple = quick_look.of_deployment(wanted, log.say) if device is None else OPEN
    baseline = Baseline.of(network, graph, device, weights, deployment, multiple)
    bounds = choice.step_bounds(wanted, baseline)
    if bounds and baseline.meets(bounds):
        messages.nothing_to_do(baseline.size, wanted.bounds_in_words())

    def scores(graph: ChannelGraph) -> dict[str, np.ndarray]:
        return calibration.gather(network, graph, wanted.importance, judged)

    return StepRequest(wanted, baseline, bounds, scores, {}, traced=graph)


def _cut_under_bounds(
    network: nn.Module, asked: StepRequest, images: Any, timer: PlanTimer | None, back: undo.Undo
) -> tuple[Size, Check | None]:
    """Choose and cut in place; what the model then is, and what the choice was timed at, if it was.

    Raises:
        HostError: the host counts a cut model in another way than cost/model_size.py does, and above a bound.
    """
    check: Check | None = None
    for number in range(cut_models.CUTS):
        graph, plan, found = measured_bound.choose(network, asked, timer if number == 0 else None)
        check = check or found
        if found is not None:
            latency.tell_check(found)
        if plan.note:
            log.warn(plan.note)
        if number == 0:
            cut_models.note(back, (network,), graph, plan)
        _change(network, graph, plan, asked.recipe, images)
        asked = replace(asked, traced=None)
        size = model_size.size_of(network)
        above = unmet_requests.above_bounds(network, size, asked.baseline, asked.bounds)
        if not above:
            for line in unmet_requests.slower_than_predicted(network, asked.baseline, plan):
                log.warn(line)
            return size, check if number == 0 else None  # what was timed is the first plan
    raise cut_models.counted_otherwise(above)


def _change(network: nn.Module, graph: ChannelGraph, plan: PrunePlan, wanted: Recipe, images: Any) -> None:
    """Cut a network in place, make up for it on `images` where there are any, and write its widths into its yaml."""
    frozen = {name for name, _ in network.named_parameters() if ".dfl." in name}
    with reconstruct.reconstructed(network, graph, plan, images, wanted.reconstruct, frozen):
        cut_channels.apply(network, graph, plan)
    sparsity = wanted.sparsity or widths.sparsity(network)
    if sparsity is not None:
        masks.apply(network, masks.choose(network, sparsity_pattern.parse(sparsity)))
    widths.stamp(network, graph.native, removed=plan.blocks, sparsity=sparsity)


def _measure_latency(
    record: dict[str, Any],
    baseline: Baseline,
    device: Profile,
    dense: nn.Module,
    network: nn.Module,
    known: SideBySide | None,
) -> None:
    """Time the cut model beside the one that it was, on the machine of the profile; the record gets `latency`.

    Args:
        known: what its plan was timed at before the cut, where it was.
    """
    measured = None
    try:
        measured, note = latency.timed(device, lambda: known or profile.time_side_by_side(dense, network, device))
    except PruneError as error:
        note = f"not measured: {error}"
    by_part = [latency_by_part(one, device) for one in (dense, network)]
    entry = records.latency(record, baseline, model_size.latency_of(network, device), measured, note, by_part)
    latency.tell(entry, device, log.say)


def attach(model: Any, recipe: str | Path | Recipe | float = "balanced", **settings: Any) -> None:
    """Prune in the next `model.train(...)`, through callbacks on this one YOLO object.

    The recipe is for one training: for the next that comes to its end.

    Args:
        model: an `ultralytics.YOLO` object.
        recipe: a Recipe, a shipped recipe's name, a file, or a number r (the share of FLOPs to remove).
        settings: plugin arguments without their prefix, such as flops="40%".

    Raises:
        RecipeError: the recipe or a setting is wrong.
        PruneError: `model` is no YOLO object; in the training, its arguments ask for pruning as well.
    """
    if not yolo_object.is_yolo(model):
        raise PruneError(f"attach() wants a YOLO object, such as YOLO('best.pt'), given {model!r:.80}")
    if isinstance(recipe, Recipe) and settings:
        raise PruneError("attach(recipe=Recipe(...)) takes no further settings; put them into the recipe")
    wanted = recipe if isinstance(recipe, Recipe) else _arguments({"prune": recipe}, settings, ("recipe",))
    taken: list[bool] = []  # filled by the training that took the recipe: it is for one, not for every later one

    def start(trainer: Any) -> None:
        if not taken and from_arguments(vars(trainer.args)) is not None:
            raise PruneError("attach() and the arguments of train() both ask for pruning; use one of them")
        session.on_pretrain_routine_start(trainer, attached=None if taken else wanted)

    def end(trainer: Any) -> None:
        session.on_pretrain_routine_end(trainer, attached=None if taken else wanted)
        taken.append(True)

    for function in (start, end):  # for host/yolo_methods.py, and for the next attach
        function.yolo_prune_recipe = wanted  # type: ignore[attr-defined]
        function.yolo_prune_taken = taken  # type: ignore[attr-defined]
    own = {"on_pretrain_routine_start": start, "on_pretrain_routine_end": end}
    for event, callback in session.HANDLERS.items():
        earlier = model.callbacks.get(event, [])
        model.callbacks[event] = [c for c in earlier if c is not callback and not hasattr(c, "yolo_prune_recipe")]
        model.add_callback(event, own.get(event, callback))


def recipe_of(flops: Any, params: Any, given: str | Path | Recipe | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe that a call of `prune` asks for; arguments as there.

    Raises:
        PruneError: an argument is wrong, there is no bound, or a training is needed to keep it.
    """
    if isinstance(given, Recipe):
        if flops is not None or params is not None or settings:
            raise PruneError("prune(recipe=Recipe(...)) takes no further bounds or settings; put them into the recipe")
        _no_max_drop(given)
        return given
    bounds = {"prune_flops": flops, "prune_params": params}
    argument = {"prune": given} if given is not None else {}
    wanted = _arguments(
        {**argument, **{key: value for key, value in bounds.items() if value is not None}},
        settings,
        ("flops", "params", "recipe", "data", "imgsz", "measure"),
    )
    _no_max_drop(wanted)
    _nothing_of_a_training(settings)
    return wanted


def _no_max_drop(wanted: Recipe) -> None:
    if wanted.max_drop is not None:
        raise PruneError(
            f"max_drop={wanted.max_drop:g} is kept by a training (yolo train ... prune_max_drop=); "
            "one cut wants a bound alone"
        )


def _nothing_of_a_training(settings: Mapping[str, Any]) -> None:
    named = {key.removeprefix("prune_"): value for key, value in settings.items() if value is not None}
    idle = {key: value for key, value in named.items() if key in OF_TRAINING}
    if idle:
        given = ", ".join(f"{key}={value}" for key, value in idle.items())
        right = " ".join(f"prune_{key}={value}" for key, value in idle.items())
        raise PruneError(f"{given}: one cut without training does nothing with it; leave it out, or train: {right}")


def _arguments(arguments: Mapping[str, Any], settings: Mapping[str, Any], own: Sequence[str]) -> Recipe:
    """Read a call's settings. arguments: plugin arguments. settings: without their prefix. own: the call's other names.

    Raises:
        PruneError: a setting is unknown (the line names the nearest) or wrong, or nothing asks for pruning.
    """
    plain = [key.removeprefix("prune_") for key in ARGUMENTS if key != "prune"]
    value_checks.known([key.removeprefix("prune_") for key in settings], plain, "setting", own)
    named = {f"prune_{key.removeprefix('prune_')}": value for key, value in settings.items()}
    try:
        wanted = from_arguments({**named, **arguments})
    except PruneError as error:
        raise type(error)(_as_typed(str(error))) from error
    if wanted is None:
        raise PruneError('nothing to aim at: give a bound, such as flops="50%" or latency="60%", or a recipe')
    return wanted


def _as_typed(words: str) -> str:
    """A message on arguments of a training, with the names that a call of Python or `apply` has for them."""
    words = re.sub(r"\bprune_(\w+)", lambda found: found[1] if found[0] in ARGUMENTS else found[0], words)
    return re.sub(r"\bprune=", "recipe=", words)


def _batches(
    model: Any, network: nn.Module, wanted: Recipe, data: str | None, imgsz: int | None, insists: bool
) -> Batches:
    """Training images by which channels are judged and the cut is made up for; none without a data set, which is said.

    Args:
        insists: whether the importance was asked for by name, and not by the recipe.
    """
    by_gradients = wanted.importance in GRADIENT_IMPORTANCES
    if data is None and by_gradients and insists:
        raise PruneError(f"importance={wanted.importance} is of gradients on data: add data=my.yaml, or use l2")
    if data is None:
        log.say(
            f"without data= {'channels are judged by their weights alone, and ' if by_gradients else ''}nothing makes "
            "up for what is cut: add the data set that the model was trained on, or train the pruned model"
        )
    if data is None or (wanted.reconstruct == "none" and not by_gradients):
        return []
    side = _side(model, imgsz)
    count = max(datasets.count(side), calibration.IMAGES if by_gradients else 0)
    return datasets.read(network, data, side, count)


def _side(model: Any, imgsz: int | None) -> int:
    """The image size in pixels: what was said, what a YOLO object was trained with, or the host's default."""
    return imgsz or yolo_object.image_size(model) or model_size.IMAGE
