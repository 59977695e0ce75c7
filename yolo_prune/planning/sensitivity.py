# yolo-prune, AGPL-3.0 license
"""How much does a trained model lose when one channel group is cut by itself? Measured on few labelled images.

A worked example: a group of 64 channels is cut to 32 by its importance, by making what feeds the other 32 compute 0
(which is what a cut does, see tests/helpers/oracle.py), and the host's own loss on 16 images rises from 3.1
to 3.4: its sensitivity at a half is 0.3. Then the group is given back, and the next one is cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.allocation import units
from yolo_prune.cost import measured_file
from yolo_prune.cost.measured_file import SensitivityFile
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.graph.convolutions import inputs_first
from yolo_prune.host import loss
from yolo_prune.planning import candidates
from yolo_prune.recipe.settings import Recipe

KIND = "yolo-prune sensitivity"
SHARES = (0.25, 0.5)  # of a group's channels that are cut
_LEAST_WEIGHT = 0.05  # of the median weight: what seems to cost nothing is not for free


def measure(
    network: nn.Module,
    graph: channel_groups.ChannelGraph,
    scores: Mapping[str, np.ndarray],
    batches: Sequence[Mapping[str, Any]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Cut each group by itself and see what the loss does.

    Args:
        network: a trained stock model; it comes back as it was. graph: its groups.
        scores: group name -> (size,), the channels of low score go. batches: of host/datasets.py.
        progress: called with how many of how many groups are done.

    Returns:
        `loss` of the model as it is, `shares`, and `groups`: name -> `size`, `losses` (what the loss rises by at each
        share) and `weight` (1 for a typical group; see Unit.weight). Groups that are cut together count as their first.

    Raises:
        PruneError: the loss of this model cannot be computed on these labels.
    """
    sizes = {group.name: group.size for group in graph.groups}
    decided = candidates.units(graph, scores, sizes, dict.fromkeys(sizes, 1))
    members = {group.name: group.members for group in graph.groups}
    rows: dict[str, Any] = {}
    with loss.evaluating(network):
        dense = loss.mean(network, batches)
        for number, unit in enumerate(decided):
            losses = []
            for share in SHARES:
                count = max(1, round(unit.size * (1 - share)))
                gone = {
                    name: np.argsort(-values, kind="stable")[count * times :] for name, values, times, _ in unit.rows()
                }
                with _silenced(network, members, gone):
                    losses.append(loss.mean(network, batches) - dense)
            rows[unit.groups[0]] = {"size": unit.size, "losses": [round(rise, 6) for rise in losses]}
            progress(number + 1, len(decided))
    for unit in decided:
        rows[unit.groups[0]]["weight"] = _slope(unit, rows[unit.groups[0]]["losses"])
    typical = float(np.median([row["weight"] for row in rows.values()])) if rows else 1.0
    typical = typical if typical > 0 else 1.0
    for row in rows.values():
        row["weight"] = round(max(row["weight"] / typical, _LEAST_WEIGHT), 4)
    return {"kind": KIND, "loss": round(dense, 6), "shares": list(SHARES), "groups": rows}


def _slope(unit: units.Unit, losses: Sequence[float]) -> float:
    """What one of allocation's units of loss costs of the host's, by least squares through the origin."""
    own = np.array([unit.losses()[max(1, round(unit.size * (1 - share)))] for share in SHARES])
    return max(float(own @ np.array(losses)) / max(float(own @ own), 1e-12), 0.0)


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for the terminal, the most sensitive group first."""
    groups = sorted(result["groups"].items(), key=lambda item: -item[1]["losses"][-1])
    return [
        {
            "group": name,
            "channels": row["size"],
            **{
                f"loss, {share:.0%} cut": f"{round(rise, 4) + 0.0:+.4f}"
                for share, rise in zip(SHARES, row["losses"], strict=True)
            },
            "weight": f"{row['weight']:.2f}",
        }
        for name, row in groups
    ]


def load(path: str | Path) -> dict[str, Any]:
    """Read a file that `yolo-prune inspect data=... out=` wrote.

    Raises:
        PruneError: no such file, or another one; the message names prune_sensitivity=.
    """
    words = f"prune_sensitivity={path}"
    content = measured_file.load(path, "prune_sensitivity", "there is no such file")
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise PruneError(
            f"{words}: it is no sensitivity file; yolo-prune inspect model=... data=... out=sensitivity.json writes one"
        )
    again = "measure it again: yolo-prune inspect model=... data=... out=sensitivity.json"
    measured_file.check(SensitivityFile, content, words, again)
    return dict(content)


def weights(result: Mapping[str, Any], graph: channel_groups.ChannelGraph) -> dict[str, float]:
    """Group name -> weight.

    Raises:
        PruneError: the groups of `graph` are not those that were measured.
    """
    own: dict[str, channel_groups.ChannelGroup] = {}  # the first group of each unit: what was measured
    for group in graph.groups:
        own.setdefault(group.tie or group.name, group)
    here = {group.name: group.size // group.times for group in own.values()}
    spared = graph.protected.keys() - graph.native  # by a recipe: the same model, and groups that stay whole
    there = {n: row["size"] for n, row in result["groups"].items() if n in here or n.partition("[")[0] not in spared}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise PruneError(
                f"prune_sensitivity= was measured of another model: {name} has {there.get(name, 'no')} channels to cut "
                f"there and {here.get(name, 'no')} here; measure it again: yolo-prune inspect model=... data=... "
                "out=sensitivity.json"
            )
    return {name: float(result["groups"][name]["weight"]) for name in here}


def weights_of_recipe(recipe: Recipe, graph: channel_groups.ChannelGraph) -> dict[str, float]:
    """The weights that a recipe names, empty where it names none; see `weights`."""
    return {} if recipe.sensitivity is None else weights(load(recipe.sensitivity), graph)


@contextlib.contextmanager
def _silenced(
    network: nn.Module, members: Mapping[str, tuple[channel_groups.Member, ...]], gone: Mapping[str, np.ndarray]
) -> Iterator[None]:
    """Make channels compute 0: what makes and shifts them becomes 0, and is given back at the end.

    Args:
        members: group name -> its members. gone: group name -> the channels that die.
    """
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for name, channels in gone.items():
            for member in members[name]:
                if member.side == "work":
                    continue
                rows = torch.as_tensor(member.positions[np.isin(member.channels, channels)])
                module = modules.get(member.module)
                reads = member.side == "in"  # a norm without a scale makes something of 0: nobody may read it
                own = [parameters[member.module]] if module is None else [module.weight, None if reads else module.bias]
                axis = 1 if inputs_first(module) != reads else 0
                for tensor in own:
                    if tensor is None:
                        continue
                    kept.append((tensor, tensor.detach().clone()))
                    tensor.data.index_fill_(axis if tensor.ndim > 1 else 0, rows.to(tensor.device), 0)
        yield
    finally:
        for tensor, before in reversed(kept):
            tensor.data.copy_(before)
