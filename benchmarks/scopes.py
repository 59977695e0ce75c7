# yolo-prune, AGPL-3.0 license
"""The scopes side by side: one checkpoint, one bound, one runtime, one run.

    python benchmarks/scopes.py model=best.pt imgsz=320 format=onnx [bound=flops|latency] [left=50%]
                                [profile=device.json] [repeats=40] [rows=a;b;c]

Each row cuts the checkpoint once, by l2, in one scope, without training, exports it through the host and times it in
turns with the dense model and the other rows. `uniform, any` and `global, any` are channels of any count, what most
scripts do; the rows without a word have multiples of 8, `profile` those that the device profile found.

    speed-up / FLOPs    measured speed-up divided by the ratio of FLOPs: 1 is what FLOPs promise
    kept                the importance that is left: the power mean, exponent -4, over all channel groups (units.loss)
    sum                 the same as a plain mean of what each group keeps, which is what HALP maximises

`halp` is the knapsack of HALP (arXiv 2110.10811), written from the paper: chunks of channels with what each saves while
all other layers are as wide as before, importance summed, solved exactly; its budget is searched so that the latency
of the result, inputs and all, is the bound.

Without profile= the machine is measured first. Prints a markdown table.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
from ultralytics.utils import LOGGER

from yolo_prune.allocation import scopes, units
from yolo_prune.cost import model_size, profile_file
from yolo_prune.device import profile, runtimes, timing
from yolo_prune.graph import channel_groups
from yolo_prune.host import checkpoint
from yolo_prune.importance import scoring
from yolo_prune.planning import candidates, choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.surgery import cut_channels

# name -> (scope, prune_round)
ROWS = {
    "uniform, any": ("uniform", 1),
    "global, any": ("global", 1),
    "uniform": ("uniform", 8),
    "global": ("global", 8),
    "isomorphic": ("isomorphic", 8),
    "uniform, profile": ("uniform", None),
    "global, profile": ("global", None),
    "isomorphic, profile": ("isomorphic", None),
    "halp": ("halp", None),
    "latency": ("latency", None),
}


def kept(found: list[units.Unit], counts: dict[str, int]) -> tuple[float, float]:
    """The power mean and the plain mean of the shares of importance that units keep."""
    shares = [unit.gain()[counts[unit.groups[0]]] / max(unit.gain()[-1], 1e-12) for unit in found]
    losses = float(np.mean(units.loss(np.array(shares))))
    return float((losses * units.STEEPNESS + 1) ** (-1 / units.STEEPNESS)), float(np.mean(shares))


def halp(problem: scopes.Problem) -> np.ndarray:
    """(units,) counts of HALP's knapsack."""
    n, floor = problem.sizes(), problem.lowest()
    worth, price, owner = [], [], []
    for index, unit in enumerate(problem.units):
        gain = unit.gain() / max(unit.gain()[-1], 1e-12)
        count = n[index]
        while count > floor[index]:  # the last chunk first, which is the least important one
            step = max((count - 1) // problem.multiple * problem.multiple, floor[index]) - count
            one = np.zeros(len(n))
            one[index] = step - (n[index] - count)
            whole = problem.costs[0].change(n, one)[index]
            one[index] = -(n[index] - count)
            price.append(problem.costs[0].change(n, one)[index] - whole)
            worth.append(gain[int(count)] - gain[int(count + step)])
            owner.append((index, step))
            count += step
    bins = 4000
    unit_price = sum(price) / bins
    weights = [max(int(p / unit_price + 0.5), 0) for p in price]
    best, taken = np.zeros(bins + 1), np.zeros((len(weights), bins + 1), dtype=bool)
    for item, weight in enumerate(weights):
        other = np.full(bins + 1, -1.0)
        other[weight:] = best[: bins + 1 - weight] + worth[item]
        taken[item] = other > best
        best = np.where(taken[item], other, best)

    def counts(budget: int) -> np.ndarray:
        found = n.copy()
        left = budget
        for item in range(len(weights) - 1, -1, -1):
            if taken[item, left]:
                left -= weights[item]
            else:
                found[owner[item][0]] += owner[item][1]
        return found

    return next((counts(b) for b in range(bins, -1, -5) if problem.fits(counts(b))), floor)


def main() -> None:
    scopes.SCOPES["halp"] = halp
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    imgsz, kind, bound = int(given.get("imgsz", 320)), given.get("format", "onnx"), given.get("bound", "flops")
    left, threads = given.get("left", "50%"), int(given.get("threads", 1))
    LOGGER.setLevel(logging.ERROR)
    dense, _ = checkpoint.load(given["model"])
    if "profile" in given:
        device = profile_file.read(given["profile"])
    else:
        wanted = from_arguments({"prune_latency": left, "prune_format": kind})
        assert wanted is not None
        device = profile.of_this_machine(dense, given["model"], wanted, imgsz, lambda words: None)
    found = channel_groups.build(dense)
    baseline = Baseline.of(dense, found, device)
    scores = scoring.score(found, dense, "l2")
    original = {group.name: group.size for group in found.groups}
    networks, figures = {"dense": dense}, {"dense": (1.0, 1.0, (1.0, 1.0))}
    rows = given["rows"].split(";") if "rows" in given else list(ROWS)
    for name in rows:
        scope, multiple = ROWS[name]
        asked = {f"prune_{bound}": left, "prune_scope": scope, "prune_round": multiple}
        recipe = from_arguments({**asked, "prune_scope": "global" if scope == "halp" else scope})
        assert recipe is not None
        recipe = recipe.model_copy(update={"scope": scope})
        chosen = choice.plan(dense, found, recipe, baseline, choice.step_bounds(recipe, baseline), scores)
        small = deepcopy(dense)
        cut_channels.apply(small, found, chosen)
        counts = {
            unit.groups[0]: len(chosen.keep.get(unit.groups[0], range(original[unit.groups[0]])))
            // (unit.times or (1,))[0]
            for unit in candidates.units(found, scores, original, dict.fromkeys(original, 1))
        }
        networks[name] = small
        figures[name] = (
            model_size.size_of(small).flops / baseline.size.flops,
            model_size.latency_of(small, device) / (baseline.latency or 1),
            kept(candidates.units(found, scores, original, dict.fromkeys(original, 1)), counts),
        )
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            name: runtimes.load(
                profile.export(network, Path(folder) / str(index), device), device.format, threads, device.precision
            )
            for index, (name, network) in enumerate(networks.items())
        }
        turns = timing.in_turns(calls, int(given.get("repeats", 40)))
    print(f"{given['model']} at {device.imgsz}, {bound} {left}, {device}; profile steps {device.steps}")
    print("| scope | FLOPs left | ms | of dense | predicted | error | speed-up / FLOPs | kept | sum |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (flops, predicted, importance_left) in figures.items():
        share = 1 / turns.ratio("dense", name).median
        print(
            f"| {name} | {flops:.1%} | {turns.timing(name).median:.2f} | {share:.1%} | {predicted:.1%} | "
            f"{predicted / share - 1:+.1%} | {flops / share:.2f} | "
            f"{importance_left[0]:.3f} | {importance_left[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
