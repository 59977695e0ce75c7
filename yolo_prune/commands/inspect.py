# yolo-prune, AGPL-3.0 license
"""`yolo-prune inspect`: what of a checkpoint can be pruned, and how much it loses when a group is cut."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch import nn

from yolo_prune import files, log
from yolo_prune.cost import model_size
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups, image_shape
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host import checkpoint, dataset_check, datasets
from yolo_prune.importance import scoring
from yolo_prune.importance.gradients import GRADIENT_IMPORTANCES
from yolo_prune.planning import sensitivity, unmet_requests
from yolo_prune.recipe import value_checks
from yolo_prune.report import layer_names, sensitivity_picture, text


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
    source = value_checks.path("model", model, "best.pt")
    target = None if out is None else value_checks.path("out", out, "sensitivity.json", (".json",))
    if data is None and out is not None:
        raise PruneError(f"out={target} is for sensitivities, which need data=: give both, or none")
    value_checks.whole(images=images, imgsz=imgsz)
    value_checks.switch(safe=safe)
    patterns = value_checks.patterns("protect", protect)
    _require_importance(importance)
    network, ckpt = checkpoint.load(source, safe=safe)
    checkpoint.require_supported(network, str(source))
    target = target or source.with_name(f"{source.stem}-sensitivity.json")
    if data is not None:  # minutes of measuring must not be lost for want of a place
        data = value_checks.data_set(data)
        files.require_place("out", target, "sensitivity.json")
        files.require_place("out", target.with_suffix(".png"), "sensitivity.json")
        data = datasets.converted(data)
        dataset_check.require(network, data, ["train"])
    graph = channel_groups.build(network, patterns)
    unmet_requests.require_protected(graph, patterns)
    rows = layer_rows(graph)
    share = graph.prunable_share()
    _show(network, graph, rows, share)
    answer = {"groups": {g.name: g.size for g in graph.groups}, "layers": rows, "prunable_share": share}
    if data is not None:
        given = imgsz or checkpoint.image_size(ckpt) or model_size.IMAGE
        side = image_shape.said(network, given)
        answer["sensitivity"] = _sensitivity(network, graph, importance, data, side, images, target)
    return answer


def _require_importance(importance: object) -> None:
    """Raise PruneError unless this names an importance that needs no data."""
    if not isinstance(importance, str):
        raise PruneError(
            f"importance={value_checks.shown(importance)}: the name of an importance is needed, such as l2"
        )
    scoring.require(importance)
    if importance in GRADIENT_IMPORTANCES:
        rest = ", ".join(name for name in scoring.names() if name not in GRADIENT_IMPORTANCES)
        raise PruneError(
            f"importance={importance} is of gradients, which inspect does not take; known here are {rest}, and what "
            "yolo_prune.register adds in a script"
        )


def layer_rows(graph: ChannelGraph) -> list[dict[str, Any]]:
    """One row for each layer that makes channels: its counts, and the groups that it belongs to or why it stays."""
    groups: dict[str, list[str]] = {}
    for group in graph.groups:
        for member in group.members:
            if member.side == "out":
                groups.setdefault(member.module, []).append(group.name)
    rows: list[dict[str, Any]] = []
    for layer in graph.layers:
        if not layer.makes:
            continue
        reason = graph.protected.get(layer.name)
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
    return rows


def _show(network: nn.Module, graph: ChannelGraph, rows: list[dict[str, Any]], share: float) -> None:
    """Print the layers, and in a few lines what may go."""
    table = [
        {
            "layer": row["name"],
            "out": row["out"],
            "in": row["in"],
            "prunable": "yes" if row["prunable"] else "no",
            "group, or why not": row["group"] or row["reason"],
        }
        for row in rows
    ]
    log.show(text.table(table))
    size = model_size.size_of(network)
    log.show(
        f"{len(graph.groups)} channel groups hold {share:.1%} of the convolution weights; {len(graph.protected)} "
        f"layers are protected; {size.params:,} params, {size.gflops:.2f} GFLOPs"
    )
    if graph.untaught:
        log.show(text.untaught(graph.untaught, graph.operations))
    if graph.blocks or graph.heads:
        heads = ", ".join(f"{name} ({count})" for name, count in graph.heads.items() if count > 1)
        log.show(
            f"depth= may remove {len(graph.blocks)} residual blocks: "
            f"{', '.join(b.name for b in graph.blocks) or 'none'}; "
            f"heads= may remove attention heads of: {heads or 'none'}"
        )


def _sensitivity(
    network: nn.Module, graph: ChannelGraph, importance: str, data: str, side: int, images: int, target: Path
) -> dict[str, Any]:
    """Measure, show and save how sensitive a model is to the cut of each group."""
    batches = datasets.read(network, data, side, images)
    scores = scoring.score(graph, network, importance)
    tenths: list[int] = []
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        if 10 * done // total > len(tenths):
            tenths.append(done)
            log.show(f"cutting each group by itself: {done}/{total}{log.to_go(began, done / total)}")

    result = sensitivity.measure(network, graph, scores, batches, progress)
    content = {**result, "data": str(data), "images": images, "imgsz": side, "importance": importance}
    log.show(text.table(sensitivity.table(result)))
    log.show(f"the loss is {result['loss']:.4f} on {sum(len(b['img']) for b in batches)} images of {data} at {side}")
    files.replace(target, json.dumps(content, indent=1) + "\n")
    layers = {group: group.partition("[")[0] for group in result["groups"]}
    known = layer_names.places(network, layers.values())
    places = {group: known[layer] for group, layer in layers.items()}
    sensitivity_picture.picture(result, target.with_suffix(".png"), places)
    word = text.command([f"prune_sensitivity={target}"])
    log.show(
        f"saved {target} and {target.with_suffix('.png').name}; spare what is sensitive: yolo train ... "
        f"prune_scope=global {word}"
    )
    return content
