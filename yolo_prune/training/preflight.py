# yolo-prune, AGPL-3.0 license
"""What is refused before a run makes its folder: modes that cannot prune, other families, bounds out of reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from yolo_prune.device import profile
from yolo_prune.errors import BoundError, HostError
from yolo_prune.graph import channel_groups
from yolo_prune.graph.channel_groups import IMAGE
from yolo_prune.host import checkpoint, trainable_check
from yolo_prune.planning import choice, sensitivity, unmet_requests
from yolo_prune.planning.baseline import Baseline, deployment_of
from yolo_prune.recipe import support, value_checks
from yolo_prune.recipe.settings import Recipe
from yolo_prune.training import frozen, teacher

_SLACK = 1.25  # the class count of the data moves the head's cost a little; what is closer than this is judged later


def modes(settings: Mapping[str, Any]) -> None:
    """Refuse, with what to do instead, the tasks and modes of the host that this version cannot prune in.

    Args:
        settings: the host's arguments; those that are absent count as unset.

    Raises:
        HostError: names every one that is set. PruneError: imgsz is no size; the host says so after the data were read.
    """
    side = settings.get("imgsz")
    if not isinstance(side, (list, tuple)) and not str(side).isdecimal():  # the host takes a list's largest, and text
        value_checks.whole(imgsz=side)
    task = settings.get("task")
    if task not in (None, *support.TASKS):
        raise HostError(f"prune= with task={task} is not supported; known are {', '.join(support.TASKS)}")
    instead = {
        "compile": (bool(settings.get("compile")), "train without compile=; compile or export the pruned best.pt"),
        "quantize": (
            str(settings.get("quantize")) in {"8", "int8"},
            "prune first without quantize=, then train the pruned best.pt with quantize=8; prune_qat=5 does both",
        ),
        "time": (settings.get("time") is not None, "give epochs=, the number that the pruning schedule counts in"),
    }
    faults = [f"{name}={settings.get(name)} ({right})" for name, (refused, right) in instead.items() if refused]
    if faults:
        raise HostError(
            f"prune= together with {' and '.join(faults)} is not supported by this version. "
            "More: yolo-prune help training"
        )


def measurements(recipe: Recipe) -> None:
    """Refuse measurements that cannot be read, and a latency without a profile where this machine cannot be measured.

    Raises:
        PruneError: one of these.
    """
    if recipe.sensitivity is not None:
        sensitivity.load(recipe.sensitivity)
    if profile.profile_of_recipe(recipe) is None and choice.wants_latency(recipe):
        profile.require_here(recipe)


def max_drop(settings: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse `prune_max_drop` in a run that does not measure fitness, or whose state cannot be put back.

    Raises:
        HostError: names what does not go together.
    """
    if recipe.max_drop is None:
        return
    if not settings.get("val", True):
        raise HostError(
            f"prune_max_drop={recipe.max_drop:g} with val=False: the drop is one of fitness, so write val=True"
        )
    if settings.get("distill_model"):
        raise HostError(
            f"prune_max_drop={recipe.max_drop:g} with distill_model={settings['distill_model']} is not supported by "
            "this version: give a bound, such as prune_flops=50%, or leave distill_model= out"
        )


def model_file(settings: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse a checkpoint that the run would refuse later, after it has made or emptied its folder.

    Args:
        settings: the host's arguments; only a `model` and a `pretrained` that are .pt files at hand are looked at.

    Raises:
        PruneError: another family, weights that the run would lose, or a bound far out of reach. What cannot be read
            is left to the host.
    """
    trainable_check.require_pretrained(str(settings.get("pretrained")))
    path = str(settings.get("model"))
    network = trainable_check.at_hand(path)
    if network is None:
        return
    trainable_check.require(network, path)
    model(network, recipe, path, _SLACK, settings.get("freeze"), side_of(settings.get("imgsz")))


def side_of(imgsz: object) -> int:
    """Pixels; the host takes a list's largest, and has a default."""
    sides = map(str, imgsz if isinstance(imgsz, (list, tuple)) else [imgsz])
    return max((int(side) for side in sides if side.isdecimal()), default=IMAGE)


def model(
    network: nn.Module,
    recipe: Recipe,
    name: str,
    slack: float = 1.0,
    freeze: object = None,
    imgsz: int = IMAGE,
) -> None:
    """Refuse a model of another family and bounds that none of its legal widths reaches.

    Args:
        network: a stock model. name: how the user named the model. slack: how far out of reach a
            bound may seem, as a factor. freeze: the host's argument. imgsz: pixels of the training.

    Raises:
        PruneError: one of the two, or a pattern of `protect` that means no layer.
    """
    checkpoint.require_supported(network, name)
    teacher.require(network, recipe, name)
    graph = channel_groups.build(network, recipe.protect, frozen=frozen.layers_to_freeze(network, freeze))
    unmet_requests.require_protected(graph, recipe.protect)
    weights = sensitivity.weights_of_recipe(recipe, graph)
    device = profile.profile_of_recipe(recipe)
    deployment = deployment_of(recipe, device, imgsz)
    baseline = Baseline.of(network, graph, device, weights, deployment)
    try:
        choice.check_reachable(network, graph, recipe, baseline)
    except BoundError:
        if slack == 1 or not _reachable(network, graph, recipe, baseline, slack):
            raise


def _reachable(
    network: nn.Module, graph: channel_groups.ChannelGraph, recipe: Recipe, baseline: Baseline, slack: float
) -> bool:
    try:
        choice.check_reachable(network, graph, recipe, baseline, slack)
    except BoundError:
        return False
    return True
