# yolo-prune, AGPL-3.0 license
"""What one pruning step costs, in seconds and memory, beside torch-pruning's own BasePruner on the same lowered model.

    python benchmarks/step_cost.py [n s m l x]

Each scale runs in a process of its own, so that peak memory is its own. A step is all that happens in a run at a cut:
groups, scores, plan, surgery on the EMA and the live model, optimizer state (AdamW, both moments present).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

from peak import Peak

SCALES = ("n", "s", "m", "l", "x")
LIMIT = 300  # seconds that BasePruner may take


def ours(scale: str) -> dict[str, float]:
    import torch
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.torch_utils import ModelEMA

    from yolo_prune.cost import model_size
    from yolo_prune.graph import channel_groups
    from yolo_prune.planning import choice
    from yolo_prune.planning.baseline import Baseline
    from yolo_prune.planning.step_request import StepRequest
    from yolo_prune.recipe.arguments import from_arguments
    from yolo_prune.training import cut_models

    model = DetectionModel(f"yolov8{scale}.yaml", nc=80, verbose=False).train()
    ema = ModelEMA(model).ema
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    wanted = from_arguments({"prune": 0.5})
    assert wanted is not None
    baseline = Baseline.of(ema, channel_groups.build(ema))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    with Peak() as peak:
        start = time.perf_counter()
        cut_models.cut_training(
            model, ema, optimizer, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline))
        )
        seconds = time.perf_counter() - start
    size = model_size.size_of(model)
    return {
        "seconds": seconds,
        "copies": peak.extra / weights,
        "flops_left": size.gflops / baseline.size.gflops,
        "params": baseline.size.params,
    }


def base_pruner(scale: str) -> dict[str, float]:
    import torch
    import torch_pruning as tp
    from lowered import lower
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(f"yolov8{scale}.yaml", nc=80, verbose=False).eval()
    for p in model.parameters():
        p.requires_grad_(True)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    fixed = lower(model)
    with Peak() as peak:
        start = time.perf_counter()
        pruner = tp.pruner.BasePruner(
            model,
            torch.zeros(1, 3, 64, 64),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.3,
            ignored_layers=fixed,
            round_to=8,
        )
        pruner.step()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "copies": peak.extra / weights}


def child(which: str, scale: str) -> dict[str, float] | None:
    """Run one measurement in a fresh process; None where it did not end in time."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, f"--{which}", scale], capture_output=True, text=True, timeout=LIMIT, check=True
        )
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; a copy is one set of float32 weights")
    print("| model | params | step, s | extra memory, copies | FLOPs left | BasePruner, s | its extra memory, copies |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for scale in sys.argv[1:] or SCALES:
        a, b = child("ours", scale), child("base", scale)
        assert a is not None, f"a step on yolov8{scale} took more than {LIMIT} s"
        other = "not in 300 s | -" if b is None else f"{b['seconds']:.2f} | {b['copies']:.1f}"
        print(
            f"| yolov8{scale} | {a['params'] / 1e6:.1f}M | {a['seconds']:.2f} | {a['copies']:.1f} | "
            f"{a['flops_left']:.1%} | {other} |",
            flush=True,
        )
    print(f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in {"--ours", "--base"}:
        print(json.dumps(ours(sys.argv[2]) if sys.argv[1] == "--ours" else base_pruner(sys.argv[2])))
    else:
        main()
