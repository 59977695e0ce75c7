# yolo-prune, AGPL-3.0 license
"""Every model that this ultralytics ships as yaml: how long its channel groups take, and what can be cut.

    python benchmarks/groups.py [yolov8n.yaml ...]

Random weights, one thread, a process for each model, so that peak memory is its own. Without arguments: every family
and task of the support table, at every scale.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT = 300  # seconds that one model may take


def every() -> list[str]:
    """The yaml files of the support table and their kin, at all their scales."""
    from ultralytics.nn.tasks import yaml_model_load

    from yolo_prune.recipe import support

    found: dict[str, None] = {}
    for name in [*(row.file for row in support.ROWS), *support.KIN]:
        try:
            scales = yaml_model_load(name).get("scales") or {}
        except FileNotFoundError:
            continue
        letters = list(scales) if len(scales) > 1 else [None]
        for letter in letters:
            found[name if letter is None else re.sub(r"^(yolov?\d+)[a-z]", rf"\g<1>{letter}", name)] = None
    return list(found)


def one(name: str) -> dict[str, object]:
    """Measure one model in this process."""
    import torch
    from peak import Peak
    from ultralytics import RTDETR, YOLO

    from yolo_prune.graph import channel_groups

    torch.set_num_threads(1)
    model = (RTDETR if "rtdetr" in name else YOLO)(name).model
    channel_groups.build(YOLO("yolov8n.yaml").model)  # what is paid once in a process: imports, first calls
    with Peak() as peak:
        start = time.perf_counter()
        found = channel_groups.build(model)
        seconds = time.perf_counter() - start
    params = sum(p.numel() for p in model.parameters())
    error = oracle(model, found)
    reasons: dict[str, int] = {}
    for _layer, reason in found.protected.items():
        kind = "output of the head" if "output of the model" in reason else reason.partition(" in ")[0]
        kind = "not run by the forward" if "not reached" in reason else kind
        reasons[kind] = reasons.get(kind, 0) + 1
    return {
        "params": params,
        "error": error,
        "seconds": seconds,
        "extra": peak.extra,
        "groups": len(found.groups),
        "share": found.prunable_share(),
        "blocks": len(found.blocks),
        "heads": sum(found.heads.values()),
        "protected": "; ".join(f"{n} {kind}" for kind, n in reasons.items()),
    }


def oracle(model: Any, found: Any) -> float:
    """Largest relative change of the outputs when what a random plan takes, made dead, is cut; in float32."""
    import torch

    from yolo_prune.graph import image_shape
    from yolo_prune.surgery import cut_channels

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.helpers.oracle import flat, kill, lively, random_plan

    side = 128 if any(hasattr(module, "num_queries") for module in model.modules()) else 64
    x = torch.rand(1, image_shape.channels(model), side, side, generator=torch.Generator().manual_seed(0))
    lively(model.eval())
    if side == 128:  # RT-DETR takes the queries of highest score, in float32 at times others where two are nearly equal
        model, x = model.double(), x.double()
    plan = random_plan(found, seed=0, hardest=0.6, whole=0.4)
    kill(model, found, plan)
    with torch.no_grad():
        before = list(flat(model(x)))
        cut_channels.apply(model, found, plan)
        after = list(flat(model(x)))
    if side == 128:  # the order of RT-DETR's queries is that of their scores
        before, after = before[:1], after[:1]
    if getattr(model.model[-1], "end2end", False):  # final boxes come in the order of their scores
        before, after = ([value.flatten().sort().values for value in values] for values in (before, after))
    pairs = zip(before, after, strict=True)
    return max(float((one - other).abs().max() / one.abs().max().clamp(min=1e-3)) for one, other in pairs)


def main() -> None:
    import torch
    import ultralytics

    print(f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, one thread")
    heads = ["model", "params", "groups", "s", "extra MiB", "prunable", "residual blocks", "heads", "oracle"]
    print(f"| {' | '.join(heads)} | protected layers |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in sys.argv[1:] or every():
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"| {name.removesuffix('.yaml')} | {row['params'] / 1e6:.1f}M | {row['groups']} | {row['seconds']:.2f} | "
            f"{row['extra'] / 2**20:.0f} | {row['share']:.1%} | {row['blocks']} | {row['heads']} | "
            f"{row['error']:.0e} | {row['protected']} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        print(json.dumps(one(sys.argv[2])))
    else:
        main()
