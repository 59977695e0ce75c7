# yolo-prune, AGPL-3.0 license
"""Everything that only a GPU can show, in one command and at most nine minutes.

    python benchmarks/gpu.py [device=0] [budget=540] [only=amp,latency] [out=benchmarks/results/gpu-....json] [--quick]

Each part is a process of its own with a time limit of its own, so that a fault, a hang or a poisoned CUDA context in
one never stops the next; parts for which no time is left are said to be left out. What was found is written after each
part. `device=cpu --quick` runs the same parts small, which is how the suite knows that this program works; what needs
CUDA (AMP, fused AdamW, channels_last, CUDA latency) is then run without it, and says so.

A part is "ok", "wrong" (it ran, and what it should show does not hold: `faults`), "failed" (an exception: `error`),
"late" (its limit passed), "skipped" (with the reason) or "left out". Exit code 0 where none is wrong, failed or late.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CHILD = "part"  # the word that makes this file one part
# What matters most comes first, for the budget may end before the list does; the other parts follow as they stand.
FIRST = ("dense", "amp", "skipped_step", "channels_last", "going_back", "out_of_memory", "nan_recovery", "latency")
SLOW_CPU = 5  # times the limits, where there is no GPU


class Settings(NamedTuple):
    """How the parts run.

    Attributes:
        device: as the host takes it. quick: a few tiny images. folder: of this run. data: the `data=` file.
        dense: a trained dense yolov8n, or "" where the part that trains it failed.
    """

    device: str
    quick: bool
    folder: Path
    data: str
    dense: str

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"


class SkipError(Exception):
    """This part cannot be run here; the words say why."""


PARTS: dict[str, tuple[Callable[[Settings], dict[str, Any]], int]] = {}  # name -> function, seconds that it may take


def part(limit: int) -> Callable[[Callable[[Settings], dict[str, Any]]], Callable[[Settings], dict[str, Any]]]:
    """Add a part: a function of the settings that returns what it found, "faults" (a list of sentences) among it."""

    def add(function: Callable[[Settings], dict[str, Any]]) -> Callable[[Settings], dict[str, Any]]:
        PARTS[function.__name__] = (function, limit)
        return function

    return add


# Trainings ------------------------------------------------------------------------------------------------------------


def train(s: Settings, model: str | None = None, setup: Callable[[Any], None] | None = None, **given: Any) -> Any:
    """Train into a folder of its own: (the YOLO, its record or {}, seconds)."""
    from ultralytics import YOLO

    yolo = YOLO(model or s.dense or "yolov8n.yaml")
    if setup is not None:
        setup(yolo)
    size = {"imgsz": 64, "batch": 4, "epochs": 4} if s.quick else {"imgsz": 320, "batch": 32, "epochs": 5}
    common = {"workers": 0 if s.quick else 4, "plots": False, "seed": 0, "verbose": False, "nbs": size["batch"]}
    place = {"project": str(s.folder / "runs"), "name": "run", "data": s.data, "device": s.device}
    start = time.monotonic()
    yolo.train(**{**size, **common, **place, "amp": s.cuda, "warmup_epochs": 0, **given})
    record = Path(yolo.trainer.save_dir) / "pruning" / "record.json"
    told = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return yolo, told, round(time.monotonic() - start, 1)


def shown(yolo: Any, record: dict[str, Any], seconds: float, share: float | None = 0.5) -> dict[str, Any]:
    """What every pruning run should show: its bound, finite weights, a checkpoint that loads at the final widths."""
    import torch
    from ultralytics import YOLO

    trainer = yolo.trainer
    before, after = record["baseline"], record["final"]
    faults = []
    if share is not None and after["gflops"] > share * before["gflops"] * 1.001:
        faults.append(f"{after['gflops']} GFLOPs are more than {share:.0%} of {before['gflops']}")
    best = YOLO(Path(trainer.save_dir) / "weights" / "best.pt").model
    if sum(p.numel() for p in best.parameters()) != after["params"]:
        faults.append("best.pt has not the final widths")
    if not all(bool(torch.isfinite(value).all()) for value in best.state_dict().values()):
        faults.append("best.pt has weights that are not finite")
    lost = [name for name, p in trainer.ema.ema.named_parameters() if not bool(torch.isfinite(p).all())]
    faults += [f"the average is not finite: {lost[0]}"] if lost else []
    fitness = [row["fitness"] for row in record["history"]]
    return {
        "seconds": seconds,
        "fitness": fitness,
        "gflops": [before["gflops"], after["gflops"]],
        "step_seconds": [row["seconds"] for row in record["steps"]],
        "optimizer": type(trainer.optimizer).__name__,
        "fused": bool(trainer.optimizer.param_groups[0].get("fused")),
        "amp": bool(trainer.amp),
        "faults": faults,
    }


def one_step(**more: Any) -> dict[str, Any]:
    """Arguments of a run with one step, after the second epoch."""
    return {"prune": 0.5, "prune_steps": 1, "prune_start": 0.3, "prune_end": 0.3, **more}


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
def distillation(s: Settings) -> dict[str, Any]:
    """The dense self as a teacher."""
    if not s.dense:
        raise SkipError("it needs the dense model, whose part did not end well")
    return shown(*train(s, prune_distill=6, **one_step()))


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

    reconstruct.observe = observe  # type: ignore[assignment]
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
        epochs = {} if s.quick else {"epochs": 20}
        told = shown(*train(s, weights or f"{name}.yaml", prune=0.5, **epochs))
        return {**told, "from": Path(weights).name if weights else "random weights"}

    run.__name__, run.__doc__ = name, f"{name} to half of its FLOPs."
    return part(120)(run)


for _name in ("yolov8n", "yolo26n"):
    whole(_name)


# Latency --------------------------------------------------------------------------------------------------------------


def pair(s: Settings) -> dict[str, Any]:
    """A dense yolov8n and the same at half of its FLOPs, fused, on the device."""
    import torch
    from ultralytics import YOLO

    import yolo_prune

    models = {}
    for name in ("dense", "pruned"):
        yolo = YOLO(s.dense or "yolov8n.yaml")
        if name == "pruned":
            yolo_prune.prune(yolo, flops="50%")
        models[name] = yolo.model.float().fuse(verbose=False).eval().to("cuda" if s.cuda else "cpu")
    torch.backends.cudnn.benchmark = True
    return models


@part(90)
def latency(s: Settings) -> dict[str, Any]:
    """Milliseconds of dense and pruned in torch, FP32 and FP16, one image and many."""
    import torch

    from yolo_prune.device.timing import in_turns

    models, side = pair(s), 64 if s.quick else 640
    rows = []
    for half in (False, True) if s.cuda else (False,):
        for batch in (1, 2) if s.quick else (1, 16):
            kind = torch.float16 if half else torch.float32
            x = torch.rand(batch, 3, side, side, device="cuda" if s.cuda else "cpu", dtype=kind)

            def call(name: str, x: Any = x, kind: Any = kind) -> Callable[[], None]:
                model = models[name].to(kind)

                def run() -> None:
                    with torch.inference_mode():
                        model(x)
                    if s.cuda:
                        torch.cuda.synchronize()

                return run

            turns = in_turns({name: call(name) for name in models}, 3 if s.quick else 50, seconds=1 if s.quick else 10)
            ms = {name: round(turns.timing(name).median, 3) for name in models}
            row = {"precision": "fp16" if half else "fp32", "batch": batch, "imgsz": side, **ms}
            rows.append({**row, "speedup": turns.ratio("dense", "pruned").as_dict()})
    return {"rows": rows, "faults": []}


@part(120)
def latency_onnxruntime(s: Settings) -> dict[str, Any]:
    """The same in ONNX Runtime, by CUDA where its build has that; outputs against torch."""
    import numpy as np
    import onnxruntime
    import torch

    from yolo_prune.device.timing import in_turns

    provider = "CUDAExecutionProvider" if s.cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        has = ", ".join(onnxruntime.get_available_providers())
        raise SkipError(f"this onnxruntime has no {provider} (pip install onnxruntime-gpu); it has {has}")
    models, side = pair(s), 64 if s.quick else 640
    x = torch.rand(1, 3, side, side)
    sessions, faults, far = {}, [], {}
    for name, model in models.items():
        model = model.cpu()
        model.model[-1].export, model.model[-1].format = True, "onnx"
        path = s.folder / f"{name}.onnx"
        torch.onnx.export(model, (x,), str(path), opset_version=17, input_names=["images"], dynamo=False)
        session = sessions[name] = onnxruntime.InferenceSession(str(path), providers=[provider])
        if session.get_providers()[0] != provider:
            faults.append(f"{name}: {provider} was asked for and {session.get_providers()[0]} runs")
        with torch.inference_mode():
            own = model(x)
        own = own[0] if isinstance(own, (list, tuple)) else own
        (given,) = session.run(None, {"images": x.numpy()})[:1]
        far[name] = float(np.abs(given - own.numpy()).max() / max(float(own.abs().max()), 1e-9))
        if far[name] > 0.01:
            faults.append(f"{name}: outputs are {far[name]:.2%} of their range away from torch's")
    calls = {name: (lambda one=one: one.run(None, {"images": x.numpy()})) for name, one in sessions.items()}
    turns = in_turns(calls, 3 if s.quick else 50, seconds=1 if s.quick else 10)
    ms = {name: round(turns.timing(name).median, 3) for name in sessions}
    speedup = turns.ratio("dense", "pruned").as_dict()
    return {"provider": provider, **ms, "speedup": speedup, "far": far, "faults": faults}


# One part in its process, and all of them -----------------------------------------------------------------------------


def shared(name: str) -> Path | None:
    """`shared/<name>` of the nearest folder at or above the checkout that has it."""
    return next((f / "shared" / name for f in (ROOT, *ROOT.parents) if (f / "shared" / name).exists()), None)


def given_weights(name: str) -> str:
    """Published weights of a model where they are at hand; "" where not."""
    found = shared(f"weights/{name}.pt")
    return str(found) if found else ""


def attempt(name: str, settings: Settings) -> dict[str, Any]:
    """Run one part here: what it found, with its status."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    try:
        found = PARTS[name][0](settings)
    except SkipError as reason:
        return {"status": "skipped", "reason": str(reason)}
    except Exception as error:  # whatever it is, it is this part's result
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
    return {"status": "wrong" if found["faults"] else "ok", **found}


def child(words: list[str]) -> None:
    """The process of one part."""
    name, out, text = words
    given = json.loads(text)
    import ultralytics.engine.trainer as host

    # The host's own check of AMP loads yolo26n.pt, which is not there without a network.
    if not given_weights("yolo26n"):
        host.check_amp = lambda model: next(model.parameters()).device.type == "cuda"
    found = attempt(name, Settings(**{**given, "folder": Path(given["folder"])}))
    Path(out).write_text(json.dumps(found), encoding="utf-8")


def in_its_process(name: str, settings: Settings, limit: float) -> dict[str, Any]:
    """Run one part in a process group of its own, killed whole when its time is over."""
    folder = settings.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "found.json"
    text = json.dumps({**settings._asdict(), "folder": str(folder)})
    environment = {**os.environ, "YOLO_OFFLINE": "True", "PYTHONPATH": os.pathsep.join([str(ROOT), *_own_path()])}
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, CHILD, name, str(out), text],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"status": "late", "limit": round(limit), "log": _end(folder / "log")}
    if not out.is_file():
        return {
            "status": "failed",
            "error": f"the process ended with {process.returncode}",
            "log": _end(folder / "log"),
        }
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {**found, "log": _end(folder / "log")} if found["status"] in ("failed", "wrong") else found


def _own_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


def machine() -> dict[str, Any]:
    """What this runs on."""
    import torch
    import ultralytics

    told = {"python": platform.python_version(), "torch": torch.__version__, "ultralytics": ultralytics.__version__}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        told.update(card=card.name, memory_gib=round(card.total_memory / 2**30), cuda=torch.version.cuda)
    return told


def small_set(folder: Path, quick: bool) -> str:
    """The `data=` file: BCCD where it is at hand, else drawn images."""
    import yaml

    from yolo_prune.demo import dataset

    source = None if quick else shared("datasets/bccd")
    if source is None:
        counts = {"images": 4, "val": 2, "imgsz": 64} if quick else {"images": 256, "val": 64, "imgsz": 320}
        return str(dataset.make(folder / "data", **counts))
    data = yaml.safe_load(next(iter(sorted(source.glob("*.yaml")))).read_text(encoding="utf-8"))
    data.update(path=str(source))
    data.pop("download", None)
    (folder / "bccd.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(folder / "bccd.yaml")


def main(words: list[str]) -> int:
    """Run the parts within the budget; 0 where none is wrong, failed or late."""
    import torch

    quick = any(word.lstrip("-") == "quick" for word in words)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    device = given.get("device", "0")
    names = given["only"].split(",") if "only" in given else [*FIRST, *(name for name in PARTS if name not in FIRST)]
    unknown = [name for name in names if name not in PARTS]
    if unknown or set(given) - {"device", "budget", "only", "out"}:
        print(f"unknown: {', '.join([*unknown, *set(given)])}; parts are {', '.join(PARTS)}")
        return 2
    if device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device is at hand; try the program itself with: python benchmarks/gpu.py device=cpu --quick")
        return 2
    start, budget = time.monotonic(), float(given.get("budget", 540))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = Path(given.get("out", ROOT / "benchmarks" / "results" / f"gpu-{stamp}.json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {"device": device, "quick": quick, "machine": machine(), "parts": {}}
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        settings = Settings(device, quick, folder, small_set(folder, quick), "")
        for name in names:
            left = budget - (time.monotonic() - start)
            begun = time.monotonic()
            found = (
                in_its_process(name, settings, min(left, PARTS[name][1] * (1 if settings.cuda else SLOW_CPU)))
                if left > 5
                else {"status": "left out", "reason": f"the {budget:.0f} s are over"}
            )
            told["parts"][name] = {**found, "wall": round(time.monotonic() - begun, 1)}
            told["seconds"] = round(time.monotonic() - start, 1)
            out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            words_of = found.get("faults") or found.get("error") or found.get("reason") or ""
            print(f"{name:24} {found['status']:8} {told['parts'][name]['wall']:6.1f} s  {words_of}", flush=True)
            if (folder / "dense" / "dense.pt").is_file():
                settings = settings._replace(dense=str(folder / "dense" / "dense.pt"))
    print(f"{told['seconds']:.0f} s; {out}")
    bad = [name for name, found in told["parts"].items() if found["status"] in ("wrong", "failed", "late")]
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
