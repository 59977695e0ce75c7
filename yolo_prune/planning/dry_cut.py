# yolo-prune, AGPL-3.0 license
"""Choices that are tried on a copy before the model is cut (trial.py): where a trial fails, its block is protected.

What goes into the block at fault, and what it makes, is protected, and the choice is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
from torch import nn

from yolo_prune import log
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import BoundError, PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.planning import choice, trial
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.settings import Recipe

_ROUNDS = 10  # blocks that may be found at fault, one after the other; all of one class of the user's count once
_REASON = "cut in a trial, "  # begins the reason of what is protected here


def choose(model: nn.Module, asked: StepRequest) -> tuple[ChannelGraph, PrunePlan]:
    """What `choice.choose` chooses, tried on a copy; the model is not changed. What fails is added to `asked.avoid`.

    Returns:
        The groups and a plan after which the model runs.

    Raises:
        BoundError: a bound is out of reach, perhaps because of what is protected here. PruneError: the model fails
            after the cut whatever is protected.
    """
    known: dict[str, str] = {} if asked.avoid is None else asked.avoid

    def attempt() -> tuple[ChannelGraph, PrunePlan]:
        return choice.choose(model, replace(asked, avoid=known, traced=None if known else asked.traced))

    return _choose_until_it_holds(model, attempt, known)


def rehearse(
    model: nn.Module, graph: ChannelGraph, recipe: Recipe, baseline: Baseline, frozen: Collection[str] = ()
) -> tuple[ChannelGraph, dict[str, str]]:
    """Before a training: halve every group of a copy, so that what would fail in some later step is found now.

    Args:
        model: a stock model; it is not changed. graph: its groups, where nothing is avoided.
        recipe, baseline: see `choice.plan`. frozen: as in `choose`.

    Returns:
        The groups without what was found, and `avoid`: block -> why it is protected.

    Raises:
        BoundError, PruneError: as in `choose`.
    """
    avoid: dict[str, str] = {}

    def attempt() -> tuple[ChannelGraph, PrunePlan]:
        left = channel_groups.build(model, recipe.protect, avoid, frozen).without_trace() if avoid else graph
        choice.check_reachable(model, left, recipe, baseline)
        return left, _halves(left)

    found, _ = _choose_until_it_holds(model, attempt, avoid)
    return found, avoid


def _halves(graph: ChannelGraph) -> PrunePlan:
    """A plan that keeps half of every group, drawn at random; tied groups keep equal counts."""
    random = np.random.default_rng(0)
    keep = {}
    for group in graph.groups:
        count = max(group.size // group.times // 2, 1) * group.times
        if count < group.size:
            keep[group.name] = np.sort(random.choice(group.size, count, replace=False))
    return PrunePlan(keep)


def _choose_until_it_holds(
    model: nn.Module, attempt: Callable[[], tuple[ChannelGraph, PrunePlan]], avoid: dict[str, str]
) -> tuple[ChannelGraph, PrunePlan]:
    """Choose until the choice holds."""
    fault: trial.Fault | None = None
    for _ in range(_ROUNDS):
        try:
            graph, plan = attempt()
        except BoundError as error:
            if not avoid:
                raise
            raise BoundError(f"{error}. Protected, because a cut fails there: {_listed(model, avoid)}") from error
        fault = trial.examine(model, graph, plan)
        if fault is None:
            return graph, plan
        blamed = _blocks_to_protect(model, fault.name, avoid)
        if not blamed:
            break
        words = f"{_REASON}{blamed[0]} ({type(model.get_submodule(blamed[0])).__name__}) {fault.words}"
        avoid.update(dict.fromkeys(blamed, words))
        more = f" and into {len(blamed) - 1} more of its class" if len(blamed) > 1 else ""
        log.say(
            f"{words}: what goes into it{more} and what it makes is protected. "
            "How to teach a block: yolo-prune help adding-a-block"
        )
    assert fault is not None
    raise PruneError(
        f"cut in a trial, {fault.name or 'the model'} {fault.words}, though everything is protected in "
        f"{_listed(model, avoid) or 'no block'}: protect what goes into it (protect: in a recipe file), or teach "
        "the block (yolo-prune help adding-a-block). Nothing was cut"
    )


def _listed(model: nn.Module, avoid: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({type(model.get_submodule(name)).__name__})" for name in avoid)


def _blocks_to_protect(model: nn.Module, name: str, avoid: Mapping[str, str]) -> list[str]:
    """Which block to protect for a fault: the smallest that is none of the plain layers and not protected yet.

    It is the module itself or one that holds it; after these, what the layer of the model's own list reads. Blocks of
    a user's class go together; of a class in the host's package, where a fork may have put its own, from the second
    that fails on. Empty where nothing is left.
    """
    modules = dict(model.named_modules())
    parts = name.split(".")
    chain = [".".join(parts[:end]) for end in range(len(parts), 1, -1)]
    top = chain[-1] if chain else f"model.{len(model.model) - 1}"  # type: ignore[arg-type]
    around = [one for one in chain if not _plain(modules[one])] or [top]
    if top not in around:
        around.append(top)
    for one in around:
        if one not in avoid:
            kind = type(modules[one])
            known = kind.__module__.startswith(("ultralytics.", "torch."))
            if known and (_plain(modules[one]) or not any(type(modules.get(other)) is kind for other in avoid)):
                return [one]
            return [one, *(other for other, m in modules.items() if type(m) is kind and other not in (one, *avoid))]
    number = int(top.rpartition(".")[2])
    given = getattr(modules[top], "f", -1)
    reads = [number + f if f < 0 else f for f in (given if isinstance(given, list) else [given])]
    return [f"model.{one}" for one in reads if one >= 0 and f"model.{one}" not in avoid]


def _plain(module: nn.Module) -> bool:
    """Whether a module is a layer of torch, a list of them, or the host's convolution with its norm."""
    kind = type(module).__module__
    return kind.startswith("torch.") or kind == "ultralytics.nn.modules.conv"
