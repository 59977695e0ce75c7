# yolo-prune, AGPL-3.0 license
"""Accuracy at a given cost: the dense model, yolo-prune and three peers, trained for the same number of epochs.

    python benchmarks/accuracy.py METHOD model=yolov8n.pt data=data.yaml [imgsz=320] [batch=16] [epochs=30] [seed=0]
                                  [flops=0.5] [out=runs/accuracy] [bf16=1] [train_KEY=…] [name=…] [resume=1]
                                  [frames=1]
                                  [further arguments, for `ours`]
    python benchmarks/accuracy.py table [out=runs/accuracy]

METHOD is one of:
    dense       the model as it is
    ours        `yolo train … prune=1-flops`, nothing else unless it is given
    magnitude   (a) a third of the epochs dense, then torch-pruning's BasePruner, global L2 magnitude, on the lowered
                model, then the rest of the epochs
    magnitude0  the same with the cut before the first epoch
    slimming    (b) a third of the epochs with L1 on the BatchNorm scales (arXiv 1708.06519), then the global cut by
                them, then the rest
    narrow      (c) the stock model with its yaml's width made smaller, from the same weights where their shapes fit

The last epochs of (a) and (b) are a training of their own, with the host's own warm-up and decay: what fine-tuning is.
mAP50-95 is the host's last line, of best.pt on the validation split; and once more with the canvas of an exported
file (benchmarks/canvas.py). GFLOPs are counted at 640, as the host does.
`bf16=1` trains with bfloat16 autocast, which the host does on GPUs alone (`amp=`): twice as fast on a CPU that knows
it. Validation stays in float32. `train_KEY=` gives an argument of the host's to every method alike. `resume=1` goes on
with what a killed run of the same `name=` left (dense and ours). `frames=1` trains a dense model with every second
batch in the grey frame of the validation, as a pruned one is trained after its cut. benchmarks/matrix.py runs many
rows.
"""

from __future__ import annotations

import json
import os
import sys
from copy import deepcopy
from pathlib import Path
from statistics import mean
from typing import Any

METHODS = ("dense", "ours", "magnitude", "magnitude0", "slimming", "narrow")
OURS = sys.argv[1:2] == ["ours"]
BF16 = "bf16=1" in sys.argv
FRAMES = "frames=1" in sys.argv
if not OURS:
    os.environ["YOLO_PRUNE"] = "0"

import torch  # noqa: E402
import yaml  # noqa: E402
from lowered import lower  # noqa: E402
from progress import FITNESS, Progress, left_by  # noqa: E402
from torch import nn  # noqa: E402
from ultralytics import YOLO  # noqa: E402
from ultralytics.data.utils import check_det_dataset  # noqa: E402
from ultralytics.engine import trainer as host_trainer  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402
from ultralytics.nn.tasks import DetectionModel, load_checkpoint, yaml_model_load  # noqa: E402
from ultralytics.utils.torch_utils import get_flops  # noqa: E402

from yolo_prune import files  # noqa: E402
from yolo_prune.host.run import Run  # noqa: E402

L1 = 1e-3  # strength of the penalty on BatchNorm scales; fades to a tenth of it, as in published YOLO slimmings
DEEPEST = 0.9  # the most that torch-pruning may take of one layer: without it a layer may end with one channel


def in_bfloat16(trainer: Any) -> None:
    """Have the host autocast on a CPU, where its check of AMP (8.4.190, engine/trainer.py) says no."""
    host_trainer.check_amp = lambda _: True
    trainer.add_callback("on_pretrain_routine_end", lambda found: found.model.to(memory_format=torch.channels_last))


def cut(model: DetectionModel, importance: Any, share: float) -> DetectionModel:
    """The lowered model, cut by torch-pruning over all layers at once until at most that share of the FLOPs is left."""
    import torch_pruning as tp

    model = model.float().eval()
    for value in model.parameters():
        value.requires_grad_(True)
    allowed, head = share * get_flops(model), model.model[-1]
    kept = lower(model)
    pruner = tp.pruner.BasePruner(
        model,
        torch.zeros(1, 3, 320, 320),
        importance=importance,
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=DEEPEST,
        iterative_steps=95,
        ignored_layers=kept,
    )
    stock, lowered = head, model.model[-1]
    for _ in range(95):
        pruner.step()
        model.model[-1] = stock  # it shares its branches with the lowered one, and its FLOPs are the host's to count
        left = get_flops(model)
        if left <= allowed:
            return model
        model.model[-1] = lowered
    raise SystemExit(f"torch-pruning came to {left / allowed * share:.2f} of the FLOPs and no further")


def as_trained(path: str, data: str) -> DetectionModel:
    """What the host makes of a checkpoint before its first epoch on another data set."""
    weights = load_checkpoint(path)[0]
    model = DetectionModel(weights.yaml, nc=check_det_dataset(data)["nc"], verbose=False)
    model.load(weights, verbose=False)
    return model


def narrowed(settings: dict[str, Any], share: float) -> str:
    """The yaml of the widest stock model of this family with at most that share of the FLOPs, written to a file."""
    dense = as_trained(settings["model"], settings["data"])
    stock, classes = dense.yaml, dense.yaml["nc"]
    config = yaml_model_load(stock["yaml_file"])
    config["nc"] = classes
    depth, width, most = config["scales"][stock["scale"]]
    config["scales"] = {}
    config["depth_multiple"] = depth
    for step in range(200):
        config["width_multiple"] = width * (1 - step / 200)
        named = {**config, "scales": {"n": [depth, config["width_multiple"], most]}, "scale": "n"}
        if get_flops(DetectionModel(deepcopy(named), verbose=False)) <= share * get_flops(dense):
            break
    path = Path(f"yolov8n-{share:g}.yaml").resolve()  # the host reads the scale from the name
    path.write_text(yaml.safe_dump({key: value for key, value in named.items() if key != "yaml_file"}))
    return str(path)


class Prebuilt(DetectionTrainer):
    """The host's trainer on a network as it is, and with L1 on BatchNorm scales where that is asked for."""

    network: nn.Module | None = None
    strength = 0.0

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        if self.network is None:
            return super().get_model(cfg, weights, verbose)
        return self.network

    def optimizer_step(self) -> None:
        if self.strength:
            left = self.strength * (1 - 0.9 * self.epoch / self.epochs)
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d) and module.weight.grad is not None:
                    module.weight.grad.add_(left * module.weight.detach().sign())
        super().optimizer_step()


def train(
    settings: dict[str, Any],
    network: nn.Module | None = None,
    strength: float = 0.0,
    progress: Progress | None = None,
) -> DetectionTrainer:
    """One training by the host; afterwards `metrics` are those of its best.pt."""
    trainer = Prebuilt(overrides={**settings, "workers": 0, "plots": False, "exist_ok": True})
    trainer.network, trainer.strength = network, strength
    if BF16:
        in_bfloat16(trainer)
    if FRAMES:
        trainer.add_callback("on_train_start", lambda found: Run(found).train_in_frames(True))
    if progress is not None:
        progress.attach(trainer)
    trainer.train()
    return trainer


def ours(settings: dict[str, Any], given: dict[str, Any], progress: Progress) -> DetectionTrainer:
    """Train with yolo-prune, as a user does."""
    yolo = YOLO(settings["model"])
    if BF16:
        in_bfloat16(yolo)
    progress.attach(yolo)
    if "resume" in settings:
        yolo.train(resume=True)  # all arguments stand in last.pt
    else:
        rest = {key: value for key, value in settings.items() if key != "model"}
        yolo.train(**rest, workers=0, plots=False, exist_ok=True, **given)
    return yolo.trainer


def peer(method: str, settings: dict[str, Any], share: float) -> DetectionTrainer:
    """Train a peer."""
    import torch_pruning as tp

    epochs = settings["epochs"]
    if method == "narrow":
        path = narrowed(settings, share)
        YOLO(path, task="detect").load(settings["model"]).save(Path(path).with_suffix(".pt"))
        return train({**settings, "model": str(Path(path).with_suffix(".pt"))})
    first = 0 if method == "magnitude0" else epochs // 3
    if first:
        name = f"{'slimming' if method == 'slimming' else 'dense'}-first{first}-s{settings['seed']}"
        weights = Path(settings["project"], name, "weights", "last.pt")
        if not weights.is_file():  # the two shares of one seed have it in common
            train({**settings, "epochs": first, "name": name}, strength=L1 if method == "slimming" else 0.0)
    else:
        weights = Path(settings["model"])
    model = load_checkpoint(str(weights))[0]
    if not first:  # its head is of other classes: as the host does it, a new one with the weights that fit
        plain = DetectionTrainer(
            overrides={**settings, "workers": 0, "plots": False, "name": "unused", "exist_ok": True}
        )
        plain.get_dataset()
        rebuilt = DetectionModel(model.yaml, nc=plain.data["nc"], verbose=False)
        rebuilt.load(model, verbose=False)
        rebuilt.names, model = plain.data["names"], rebuilt
    slim = method == "slimming"
    model = cut(
        model, tp.importance.BNScaleImportance() if slim else tp.importance.GroupMagnitudeImportance(p=2), share
    )
    return train({**settings, "epochs": epochs - first, "model": str(weights)}, model)


def run(method: str, options: dict[str, str]) -> None:
    """Train one row and write what came of it."""
    share, seed = float(options.pop("flops", 0.5)), int(options.pop("seed", 0))
    out = Path(options.pop("out", "runs/accuracy")).resolve()
    epochs = int(options.pop("epochs", 30))
    label = options.pop("label", method)
    options.pop("bf16", None)
    options.pop("frames", None)
    common = {key: yaml.safe_load(options.pop(key)) for key in list(options) if key.startswith("train_")}
    name = options.pop("name", f"{label}-s{seed}" if method == "dense" else f"{label}-{share:g}-s{seed}")
    resume = options.pop("resume", "0") == "1"
    given_model = Path(options.pop("model"))
    settings: dict[str, Any] = {
        "model": str(given_model.resolve() if given_model.exists() else given_model),  # else a yaml of the host's
        "data": options.pop("data"),
        "imgsz": int(options.pop("imgsz", 320)),
        "batch": int(options.pop("batch", 16)),
        "epochs": epochs,
        "seed": seed,
        "project": str(out),
        "name": name,
        "device": "cpu",  # train_device= for another one
        **{key.removeprefix("train_"): value for key, value in common.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    start = settings["model"]
    if method in ("dense", "ours"):
        given = {key: yaml.safe_load(value) for key, value in options.items()}
        metrics, best, more = followed(method, settings, {"prune": round(1 - share, 6), **given}, resume)
        if start.endswith(".pt"):
            more["gflops_dense"] = round(get_flops(as_trained(start, settings["data"])), 3)
    else:
        trainer = peer(method, settings, share)
        metrics, best, more = trainer.metrics, trainer.best, {}
    found = load_checkpoint(str(best))[0]
    row = {
        "method": label,
        "flops": None if method == "dense" else share,
        "seed": seed,
        "epochs": epochs,
        "map50_95": round(float(metrics[FITNESS]), 4),
        "map50_95_exported": round(float(validated(Path(best), settings, rect=False)[FITNESS]), 4),
        "gflops": round(get_flops(found), 3),
        "params": sum(value.numel() for value in found.parameters()),
        "arguments": {**options, **common, "bf16": BF16, "frames": FRAMES},
        **more,
    }
    files.replace(Path(out, f"{name}.json"), json.dumps(row))
    print(row)


def followed(
    method: str, settings: dict[str, Any], given: dict[str, Any], resume: bool
) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    """Train the dense model or ours, from the start or from where a kill left it, and follow the epochs.

    Args:
        method: dense or ours. settings: of the host. given: arguments of yolo-prune. resume: whether to go on.

    Returns:
        The metrics of best.pt, its path, and what is told of the training beside.
    """
    folder = Path(settings["project"], settings["name"])
    left, last = left_by(folder) if resume else ("nothing", folder)
    progress = Progress(folder)
    if left == "half":
        settings = {**settings, "model": str(last), "resume": str(last)}
    if left == "whole":
        progress.read(settings["epochs"])
        best = folder / "weights" / "best.pt"
        metrics = validated(best, settings)
    else:
        trainer = ours(settings, given, progress) if method == "ours" else train(settings, progress=progress)
        metrics, best = trainer.metrics, trainer.best
    final = progress.rows[-1]
    return (
        metrics,
        Path(best),
        {
            "optimizer_steps": int(final["steps"]),
            "batches": progress.batches,
            "seconds": final["seconds"],
            "cpu_seconds": final["cpu_seconds"],
            "resumed_after": progress.resumed,
            "fitness": [row["fitness"] for row in progress.rows],
        },
    )


def validated(best: Path, settings: dict[str, Any], rect: bool = True) -> dict[str, Any]:
    """The metrics of a checkpoint.

    Args:
        rect: as the host's trainer validates; False for the square canvas that a file exported at `imgsz` is given.
    """
    metrics = YOLO(best).val(
        **{key: settings[key] for key in ("data", "imgsz", "project", "device")},
        rect=rect,
        batch=2 * settings["batch"],  # as the host's trainer validates
        name=f"{settings['name']}-val",
        workers=0,
        plots=False,
        exist_ok=True,
    )
    found: dict[str, Any] = metrics.results_dict
    return found


def table(options: dict[str, str]) -> None:
    """Print what all runs came to, as markdown: every seed, their mean, and the distance to the dense."""
    rows = [json.loads(path.read_text()) for path in sorted(Path(options.get("out", "runs/accuracy")).glob("*.json"))]
    seeds = sorted({row["seed"] for row in rows})
    by_kind: dict[tuple[float, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault((-(row["flops"] or 1), row["method"]), {})[row["seed"]] = row
    reference = {row["seed"]: row["map50_95"] for row in rows if row["flops"] is None}
    print(
        f"| FLOPs | method | GFLOPs | params | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | of the dense |"
    )
    print(f"| --- | --- | --- | --- | {'--- | ' * len(seeds)}--- | --- |")
    for (left, method), found in sorted(by_kind.items()):
        cells = " | ".join(f"{found[seed]['map50_95']:.3f}" if seed in found else "" for seed in seeds)
        shared = [found[seed]["map50_95"] - reference[seed] for seed in found if seed in reference]
        average = {key: mean(row[key] for row in found.values()) for key in ("map50_95", "gflops", "params")}
        print(
            f"| {-left:.0%} | {method} | {average['gflops']:.2f} | {average['params']:,.0f} | {cells} "
            f"| {average['map50_95']:.3f} | {f'{mean(shared):+.3f}' if shared else ''} |"
        )


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in (*METHODS, "table"):
        raise SystemExit(__doc__)
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    table(given) if sys.argv[1] == "table" else run(sys.argv[1], given)
