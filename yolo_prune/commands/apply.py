# yolo-prune, AGPL-3.0 license
"""`yolo-prune apply`: prune a checkpoint once, without training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_prune import api, files, log
from yolo_prune.cost.file_size import Deployment
from yolo_prune.errors import PruneError
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import checkpoint, datasets, yolo_object
from yolo_prune.recipe import value_checks
from yolo_prune.report import text


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
    source = value_checks.path("model", model, "best.pt")
    target = None if out is None else value_checks.path("out", out, "pruned.pt", (".pt",))
    value_checks.whole(imgsz=imgsz)
    value_checks.switch(safe=safe)
    data = None if data is None else value_checks.data_set(data)
    checkpoint.require_file(source)
    api.recipe_of(flops, params, recipe, settings)  # a wrong argument is refused before anything is loaded
    network, ckpt = checkpoint.load(source, safe=safe)
    target = target or source.with_name(f"{source.stem}-pruned.pt")
    if os.path.exists(target) and os.path.samefile(source, target):
        raise PruneError(f"out={target} is the model itself; name another file, such as out=pruned.pt")
    files.require_place("out", target, "pruned.pt")
    if ckpt.pop("modelopt", None):
        log.warn(f"{source} was trained with quantize=8: its weights are cut, what it learned of INT8 is dropped")
    pruned = network if data is None else yolo_object.open_with(source, network)
    side = imgsz or checkpoint.image_size(ckpt)
    record = api.prune(pruned, flops=flops, params=params, recipe=recipe, data=data, imgsz=side, **settings)
    if target.is_file():
        log.say(f"{target} was there and is replaced; out= names another")
    checkpoint.write(target, copy_of(network), ckpt)
    of_one_class = ["single_cls=True"] if datasets.is_single_class(network) else []
    train = ["yolo", "train", f"model={target}", f"data={'...' if data is None else data}", *of_one_class]
    _show(record, source.name, target, text.command(train))
    return record


def _show(record: Mapping[str, Any], name: str, target: Path, train: str) -> None:
    """Print the model before and after, what was removed whole, and the command that trains it next."""
    rows = []
    for label, key in ((name, "baseline"), (target.name, "final")):
        figures = record[key]
        fitness = figures["fitness"]
        rows.append(
            {
                "model": label,
                "params": f"{figures['params']:,}",
                "GFLOPs": f"{figures['gflops']:.2f}",
                "MB": text.megabytes(figures["size_bytes"]),
                "act. MB": text.megabytes(figures["peak_activation_bytes"]),
                record["fitness_is"]: "not measured" if fitness is None else f"{fitness:.4f}",
            }
        )
    log.show(text.table(rows))
    log.show(
        f"MB: millions of bytes of the file that it is exported as, {Deployment(**record['deployment'])}; act. MB: of "
        "the tensors of one image that live at once in it"
    )
    removed = record["removed"]
    if removed["blocks"] or removed["heads"]:
        heads = (f"{name} {now} of {was} heads left" for name, (was, now) in removed["heads"].items())
        log.show(f"removed whole: {', '.join([*removed['blocks'], *heads])}")
    log.show(f"saved {target}; train it to recover: {train}")
