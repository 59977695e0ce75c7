# yolo-prune, AGPL-3.0 license
"""The parts of gpu.py that train: what a GPU does otherwise, and faults that are put into a training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_parts import Settings, SkipError, given_weights, one_step, part, shown, train


@part(90)
def dense(s: Settings) -> dict[str, Any]:
    """A dense yolov8n on the set: what other parts start from."""
    yolo, _, seconds = train(s, given_weights("yolov8n") or "yolov8n.yaml", prune=None)
    best = Path(yolo.trainer.save_dir) / "weights" / "best.pt"
    (s.folder / "dense.pt").write_bytes(best.read_bytes())
    return {"seconds": seconds, "fitness": float(yolo.trainer.fitness or 0), "faults": []}


@part(60)
def amp(s: Settings) -> dict[str, Any]:
    """AMP with the fused AdamW that the host builds on CUDA; one of its steps has gradients that are not finite."""
    import torch

    scales: list[float] = []
    poisoned: list[int] = []
    kept: list[bool] = []

    def setup(yolo: Any) -> None:
        def poison(trainer: Any) -> None:
            scales.append(float(trainer.scaler.get_scale()) if trainer.amp else 1.0)
            if trainer.epoch == 2 and trainer.amp and not poisoned:
                stock = trainer.scaler.unscale_

                def unscale(optimizer: Any) -> None:
                    first = next(p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
                    first.grad.fill_(math.inf)
                    stock(optimizer)
                    before.append(first.detach().clone())
                    watched.append(first)
                    trainer.scaler.unscale_ = stock

                before: list[Any] = []
                watched: list[Any] = []
                trainer.scaler.unscale_ = unscale
                poisoned.append(trainer.epoch)
                trainer.watched = (watched, before)

        def look(trainer: Any) -> None:
            watched, before = getattr(trainer, "watched", ([], []))
            if watched and not kept:
                kept.append(bool(torch.equal(watched[0].detach(), before[0])))

        yolo.add_callback("on_train_batch_start", poison)
        yolo.add_callback("on_train_batch_end", look)

    told = shown(*train(s, setup=setup, optimizer="AdamW", lr0=1e-3, **one_step()))
    if s.cuda and not told["amp"]:
        told["faults"].append("the host has turned AMP off")
    if s.cuda and not told["fused"]:
        told["faults"].append("AdamW is not fused")
    if s.cuda and not any(later < earlier for earlier, later in itertools.pairwise(scales)):
        told["faults"].append("the scale never fell: the poisoned step was not seen as one")
    if kept == [False]:
        told["faults"].append("a weight moved in a step that AMP skips")
    return {**told, "scales": sorted(set(scales)), "poisoned": poisoned}


@part(45)
def skipped_step(s: Settings) -> dict[str, Any]:
    """A fused step that AMP skips must not be acted upon: warm-up, pressure and gates look at found_inf."""
    import torch

    from yolo_prune.training.optimizer_hooks import StepHooks

    if not s.cuda:
        raise SkipError("fused AdamW with AMP is for CUDA")
    weight = torch.nn.Parameter(torch.ones(8, device="cuda"))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cuda")
    calls: list[str] = []

    class Acting:
        def before(self, optimizer: Any) -> None:
            calls.append("before")

        def after(self, optimizer: Any) -> None:
            calls.append("after")

    acting = StepHooks()
    acting.acting = [Acting()]
    acting.follow(optimizer)
    rows = []
    for value in (1.0, math.inf, 1.0):
        calls.clear()
        scaler.scale((weight * value).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        rows.append(list(calls))
    good = ["before", "after"]
    faults = [] if rows == [good, [], good] else [f"acted {rows}, expected nothing at the second step"]
    return {"acted": rows, "faults": faults}


@part(60)
def channels_last(s: Settings) -> dict[str, Any]:
    """The live model keeps its memory format through the cut."""
    import torch

    def setup(yolo: Any) -> None:
        yolo.add_callback("on_train_start", lambda trainer: trainer.model.to(memory_format=torch.channels_last))

    yolo, record, seconds = train(s, setup=setup, **one_step())
    told = shown(yolo, record, seconds)
    wide = [p for p in yolo.trainer.model.parameters() if p.ndim == 4 and p.shape[1] > 1]
    off = sum(not p.is_contiguous(memory_format=torch.channels_last) for p in wide)
    if off or not wide:
        told["faults"].append(f"{off} of {len(wide)} weights are not channels_last after the cut")
    return told


@part(45)
def start_0(s: Settings) -> dict[str, Any]:
    """A cut before the first batch, by gradients of a few batches."""
    return shown(*train(s, prune=0.5, prune_schedule="oneshot", prune_start=0, prune_importance="taylor"))


@part(45)
def default_recipe(s: Settings) -> dict[str, Any]:
    """What `prune=0.5` alone does."""
    return shown(*train(s, prune=0.5))


@part(60)
def going_back(s: Settings) -> dict[str, Any]:
    """Too large a drop of fitness (after the step it is made low): weights, average and optimizer go back."""

    def setup(yolo: Any) -> None:
        def pretend(trainer: Any) -> None:
            stock, whole = trainer.validate, sum(p.numel() for p in trainer.ema.ema.parameters())

            def validate() -> Any:
                cut = sum(p.numel() for p in trainer.ema.ema.parameters()) < whole
                return stock()[0], 0.1 if cut else 0.9

            trainer.validate = validate

        yolo.add_callback("on_train_start", pretend)

    yolo, record, seconds = train(s, setup=setup, epochs=5 if s.quick else 8, prune_max_drop=0.2, **one_step())
    told = shown(yolo, record, seconds, share=None)
    if (record.get("max_drop") or {}).get("undone") is None:
        told["faults"].append("the step was not undone")
    if record["final"]["params"] != record["baseline"]["params"]:
        told["faults"].append("the widths did not come back")
    return told


@part(60)
def out_of_memory(s: Settings) -> dict[str, Any]:
    """The first batch finds no memory: on CUDA for true, elsewhere by the host's words."""
    import torch

    failed: list[int] = []

    def setup(yolo: Any) -> None:
        def fail_once(trainer: Any) -> None:
            stock = trainer.preprocess_batch

            def preprocess(batch: Any) -> Any:
                if not failed:
                    failed.append(trainer.epoch)
                    if s.cuda:
                        torch.empty(2**42, dtype=torch.uint8, device=trainer.device)  # 4 TiB
                    raise RuntimeError("CUDA out of memory (a stand-in)")
                return stock(batch)

            trainer.preprocess_batch = preprocess

        yolo.add_callback("on_train_start", fail_once)

    yolo, record, seconds = train(
        s, setup=setup, prune=0.5, prune_schedule="oneshot", prune_start=0, prune_importance="l2"
    )
    told = shown(yolo, record, seconds)
    if failed != [0] or len(record["steps"]) != 1:
        told["faults"].append(f"failed in epochs {failed}, {len(record['steps'])} steps: one each was expected")
    return {**told, "batch_after": yolo.trainer.batch_size}


@part(60)
def out_of_memory_in_a_cut(s: Settings) -> dict[str, Any]:
    """What makes up for a cut finds no room on the device: the CPU does it, and training goes on."""
    import torch

    from yolo_prune.surgery import reconstruct

    stock, tries = reconstruct.observe, []

    def observe(*given: Any, **named: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (a stand-in)")
        return stock(*given, **named)

    reconstruct.observe = observe
    try:
        yolo, record, seconds = train(s, **one_step())
    finally:
        reconstruct.observe = stock
    told = shown(yolo, record, seconds)
    if len(tries) < 2:
        told["faults"].append(f"it was tried {len(tries)} times: the CPU did not take over")
    return told


@part(60)
def nan_recovery(s: Settings) -> dict[str, Any]:
    """A loss that is no number right after the step: the host loads last.pt, which has the new widths."""
    import torch

    poisoned: list[int] = []
    begun: list[int] = []

    def setup(yolo: Any) -> None:
        def heal(trainer: Any) -> None:
            begun.append(trainer.epoch)
            vars(trainer).pop("validate", None)

        def poison(trainer: Any) -> None:
            if trainer.epoch == 2 and not poisoned:
                poisoned.append(trainer.epoch)
                trainer.loss = torch.tensor(math.nan)
                stock = trainer.validate
                trainer.validate = lambda: (stock()[0], math.nan)

        yolo.add_callback("on_train_epoch_end", poison)
        yolo.add_callback("on_train_epoch_start", heal)

    yolo, record, seconds = train(s, setup=setup, **one_step())
    told = shown(yolo, record, seconds)
    if poisoned != [2] or begun.count(2) != 2:
        told["faults"].append("nothing was recovered")
    return {**told, "epochs_begun": begun}


def pressed(kind: str) -> Callable[[Settings], dict[str, Any]]:
    """A part that regularizes before the step."""

    def run(s: Settings) -> dict[str, Any]:
        return shown(*train(s, prune_regularize=kind, **one_step()))

    run.__name__, run.__doc__ = f"regularize_{kind}", f"Regularized training, prune_regularize={kind}."
    return part(45)(run)


for _kind in ("bn", "group", "growing"):
    pressed(_kind)


@part(60)
def two_of_four(s: Settings) -> dict[str, Any]:
    """2:4 together with the cut: zeros in the live model and in the average."""
    from yolo_prune.recipe.sparsity_pattern import parse
    from yolo_prune.surgery import masks

    yolo, record, seconds = train(s, prune_sparsity="2:4", **one_step())
    told = shown(yolo, record, seconds)
    for name, model in (("live", yolo.trainer.model), ("average", yolo.trainer.ema.ema)):
        found = masks.count(model, parse("2:4"))
        if found.fitting != found.layers or not found.layers:
            told["faults"].append(f"{name}: {found.fitting} of {found.layers} layers have two of four")
    return told


def whole(name: str) -> Callable[[Settings], dict[str, Any]]:
    """A part that prunes a model in as many epochs as there is time for, from real weights where they are at hand."""

    def run(s: Settings) -> dict[str, Any]:
        weights = given_weights(name)
        epochs: dict[str, Any] = {} if s.quick else {"epochs": 20}
        told = shown(*train(s, weights or f"{name}.yaml", prune=0.5, **epochs))
        return {**told, "from": Path(weights).name if weights else "random weights"}

    run.__name__, run.__doc__ = name, f"{name} to half of its FLOPs."
    return part(120)(run)


for _name in ("yolov8n", "yolo26n"):
    whole(_name)
