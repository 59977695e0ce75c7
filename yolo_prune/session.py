# yolo-prune, AGPL-3.0 license
"""One training run that prunes: what happens at each of the host's callbacks, and the state between them.

A step happens at the start of its epoch, before the learning rate moves: the EMA is scored, both the EMA and the live
model are cut by one plan, the optimizer's state follows, best fitness and early stopping start anew, and last.pt is
written at once, so that the host's NaN recovery, which loads last.pt strictly, finds the width it runs at.

Read in ultralytics 8.4.190: engine/trainer.py (`_setup_train`, `_do_train`, `save_model`, `_handle_nan_recovery`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.torch_utils import model_info_for_loggers, unwrap_model

from yolo_prune import (
    architecture,
    calibration,
    checkpoint,
    compensate,
    continuity,
    floor,
    gradients,
    graph,
    importance,
    measure,
    platform_report,
    preflight,
    ranks,
    recipe,
    record,
    report,
    saving,
    schedule,
    sensitivity,
    step,
    text,
    timed,
)
from yolo_prune.errors import HostError, PruneError
from yolo_prune.gates import KINDS, Gates
from yolo_prune.profiles import Profile
from yolo_prune.recipe import Recipe
from yolo_prune.step import Baseline

_ATTRIBUTE = "yolo_prune_session"  # where a trainer carries its session


@dataclass
class Session:
    """The state of one run.

    Attributes:
        recipe: what is asked for. baseline: the model before its first cut. epochs: 0-based epoch of each step.
        record: what record.json will hold; plain data.
        done: steps that have been taken. fitness: the latest validated fitness, or None.
        gates: what gradients since the last step say, for importances of gates.KINDS, on the first process.
        images: (n, channels, imgsz, imgsz) that cuts are made up for on; None until the first and where there are none.
    """

    recipe: Recipe
    baseline: Baseline
    epochs: list[int]
    record: dict[str, Any]
    done: int = 0
    fitness: float | None = None
    epoch: int = -1
    size: measure.Size | None = None
    gates: Gates | None = None
    images: torch.Tensor | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unfinished(self) -> bool:
        """Whether steps are still to come."""
        return self.done < len(self.epochs)


def _say(text: str) -> None:
    LOGGER.info(f"{colorstr('prune:')} {text}")


def of(trainer: Any) -> Session | None:
    """The session of a trainer, or None where nothing is pruned."""
    return getattr(trainer, _ATTRIBUTE, None)


def on_pretrain_routine_start(trainer: Any, asked: Recipe | None = None) -> None:
    """Check everything that can be checked before data and model are read. Of several processes, the first is asked.

    Args:
        trainer: the host's trainer. asked: a recipe from `attach`; None reads the run's arguments.

    Raises:
        RecipeError: an argument or the recipe file is wrong. HostError: a mode that cannot be pruned.
    """
    wanted = asked or recipe.from_arguments(vars(trainer.args))
    if wanted is None:
        return
    preflight.modes(vars(trainer.args))
    recipe.check_epochs(wanted, trainer.epochs)
    preflight.measurements(wanted)
    preflight.floor(vars(trainer.args), wanted)
    importance.require(wanted.importance)
    given = getattr(trainer.args, "prune", None)
    if given is not None and Path(str(given)).is_file():
        trainer.args.prune = str(Path(given).resolve())  # a resumed run may start in another folder
    trainer.yolo_prune_recipe = wanted


def check_in_parent(trainer: Any, asked: Recipe | None) -> None:
    """What the parent of a DDP run can refuse before its workers start; it runs no callback of its own.

    Args:
        trainer: the parent's trainer; its `model` is the network, or a file's name where the workers will read it.
        asked: the recipe of an `attach`, or None.

    Raises:
        PruneError: as in `on_pretrain_routine_start`, and another family or a bound out of reach.
    """
    on_pretrain_routine_start(trainer, asked)
    wanted: Recipe | None = getattr(trainer, "yolo_prune_recipe", None)
    if wanted is None or trainer.resume:
        return
    network = trainer.model
    if not isinstance(network, nn.Module):  # as BaseTrainer.setup_model does in the workers
        weights = load_checkpoint(network)[0] if str(network).endswith(".pt") else None
        network = trainer.get_model(cfg=network if weights is None else weights.yaml, verbose=False)
    preflight.model(network, wanted, str(trainer.args.model))


def on_pretrain_routine_end(trainer: Any, asked: Recipe | None = None) -> None:
    """The model is built: find its groups, see that the bounds can be reached, and pick up a resumed run.

    Args:
        trainer: the host's trainer. asked: a recipe from `attach`; of several processes only the first had the event
            before this one.
    """
    wanted: Recipe | None = getattr(trainer, "yolo_prune_recipe", None) or asked
    if wanted is None and RANK > 0:
        wanted = recipe.from_arguments(vars(trainer.args))
    if wanted is None:
        return
    model = continuity.student(unwrap_model(trainer.model))
    checkpoint.require_supported(model, str(trainer.args.model))
    found = graph.build(model, wanted.protect)
    run = architecture.run_of(model) if trainer.resume else None
    earlier = _earlier_record(trainer) if trainer.resume else {}
    size = measure.size_of(model)
    _make_folder(trainer)
    device = ranks.from_first(lambda: timed.profile_of_run(trainer, model, wanted, _say))
    baseline = (
        _baseline_from(run, device) if run else Baseline.of(model, found, device, sensitivity.asked(wanted, found))
    )
    baseline = replace(baseline, least=(run or {}).get("least") or step.least_flops(model, found, wanted))
    step.check_reachable(model, found, wanted, baseline)
    session = Session(wanted, baseline, schedule.step_epochs(wanted, trainer.epochs), {})
    session.record = record.new(wanted, baseline, (run or earlier.get("baseline", {})).get("fitness"))
    if run:
        session.done = run["done"]
        session.record["steps"] = deepcopy(run["steps"])
    session.record["history"] = earlier.get("history") or (deepcopy(run["history"]) if run else [])
    if trainer.resume:
        _complete(trainer, session.record, size)
    stopped = (run or {}).get("floor") or earlier.get("floor")
    if stopped is not None:  # a step was undone before this resume: it was the last
        session.record["floor"] = stopped
        session.record["steps"] = session.record["steps"] or deepcopy(earlier["steps"])
        session.epochs = session.epochs[: session.done]
    validated = [row["fitness"] for row in session.record["history"] if row["fitness"] is not None]
    session.fitness = validated[-1] if validated else None
    session.size = size
    setattr(trainer, _ATTRIBUTE, session)
    if not trainer.resume:
        for item in (unwrap_model(trainer.model), trainer.ema.ema):
            architecture.forget_run(continuity.student(item))
            architecture.forget_run(item)
    saving.protect(trainer)
    if trainer.resume and RANK in {-1, 0}:
        saving.trim_results(trainer.csv, trainer.start_epoch)
    _announce(session, found)
    _watch(trainer, session, found)


def _watch(trainer: Any, session: Session, found: graph.ChannelGraph) -> None:
    """Look at the gradients from now to the next step, where the importance is made of them."""
    if session.gates is not None:
        session.gates.detach()
        session.gates = None
    if session.unfinished and session.recipe.importance in KINDS and ranks.is_first():
        session.gates = Gates(found, continuity.student(unwrap_model(trainer.model)), session.recipe.importance)
        session.gates.attach(trainer.optimizer)


def _worth(trainer: Any, session: Session, found: graph.ChannelGraph) -> dict[str, Any]:
    """What channels are worth by the gradients since the last step, or, where there were none, by a few batches."""
    seen = session.gates
    if seen is not None and seen.fits(found):
        return seen.scores()
    try:
        batches = calibration.of_trainer(trainer, gradients.IMAGES)
        return gradients.gather(continuity.student(trainer.ema.ema), found, session.recipe.importance, batches)
    except PruneError as error:
        LOGGER.warning(f"{colorstr('prune:')} this step goes by l2, for there are no gradients yet: {error}")
        return {}


def _make_folder(trainer: Any) -> None:
    if RANK not in {-1, 0}:
        return
    folder = trainer.save_dir / "pruning"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PruneError(f"{folder} cannot be made, which is to hold the record: {error}") from None


def _earlier_record(trainer: Any) -> dict[str, Any]:
    """What the interrupted run wrote of the epochs that its last.pt has behind it; empty where there is nothing."""
    try:
        found: dict[str, Any] = json.loads((trainer.save_dir / "pruning" / "record.json").read_text())
        found["history"] = [row for row in found["history"] if row["epoch"] <= trainer.start_epoch]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the checkpoint was moved away from its run: the epochs before the last step are in its yaml
    return found


def _complete(trainer: Any, told: dict[str, Any], size: measure.Size) -> None:
    """Fill in what a killed run had in last.pt and not yet in record.json: its last epoch, and what came of a step.

    Args:
        trainer: a resumed one. told: the record so far. size: the model's, which is that of the last epoch.
    """
    history = told["history"]
    if not history or history[-1]["epoch"] < trainer.start_epoch:
        fitness = (load_checkpoint(trainer.args.resume)[1].get("train_metrics") or {}).get("fitness")
        row = {"epoch": trainer.start_epoch, "fitness": fitness, "params": size.params, "gflops": size.gflops}
        history.append(row)
    for step_row in told["steps"]:
        after = (row["fitness"] for row in history if row["epoch"] >= step_row["epoch"] and row["fitness"] is not None)
        step_row["fitness_after"] = (
            next(after, None) if step_row["fitness_after"] is None else step_row["fitness_after"]
        )


def _announce(session: Session, found: graph.ChannelGraph) -> None:
    base = session.baseline.size
    bounds = step.limits(session.recipe, session.baseline)
    if session.baseline.meets(bounds):
        session.epochs = []
        LOGGER.warning(
            f"{colorstr('prune:')} the model ({base.gflops:.1f} GFLOPs, {base.params:,} params) already meets every "
            "bound; nothing will be pruned"
        )
        return
    if found.untaught:
        LOGGER.info(f"{colorstr('prune:')} {text.untaught(found.untaught)}")
    words = {"flops": "{:.2f} GFLOPs", "params": "{:,.0f} params", "latency": "{:.2f} ms"}
    target = ", ".join(words[key].format(value / 1e9 if key == "flops" else value) for key, value in bounds.items())
    at = ", ".join(str(epoch + 1) for epoch in session.epochs[session.done :]) or "none left"
    if session.recipe.schedule != "oneshot" and len(session.epochs) < session.recipe.steps:
        at += f" ({session.recipe.steps} steps asked, start to end has {len(session.epochs)} epochs)"
    _say(
        f"recipe {session.recipe.name}: from {base.gflops:.2f} GFLOPs, {base.params:,} params"
        f"{timed.words(session.baseline)} to at most {target}"
        f"{'' if session.recipe.floor is None else f', fitness at most {session.recipe.floor:g} below the dense'}; "
        f"{len(found.groups)} channel groups, {len(found.protected)} layers protected; steps at epochs {at}"
    )


def on_train_start(trainer: Any) -> None:
    """Where the first step comes before the first validation, validate the dense model once, for the record."""
    session = of(trainer)
    if session is None or session.done or not session.epochs or session.epochs[0] != trainer.start_epoch:
        return
    if trainer.start_epoch == 0:
        session.fitness = session.record["baseline"]["fitness"] = _validate(trainer)


def _validate(trainer: Any) -> float | None:
    """Fitness of the EMA on the validation set, outside the epoch loop; its training state is not touched."""
    validator = trainer.get_validator()
    validator.args.plots = False
    results = validator(model=deepcopy(trainer.ema.ema))
    fitness = (results or {}).get("fitness")
    return None if fitness is None else float(fitness)


def on_train_epoch_start(trainer: Any) -> None:
    """Take the step of this epoch, once: the host may start an epoch again after running out of memory or NaN."""
    session = of(trainer)
    if session is None:
        return
    session.epoch = trainer.epoch
    if session.gates is not None:
        session.gates.fade()
    while session.unfinished and session.epochs[session.done] <= trainer.epoch:
        if _judged(trainer, session):
            _take_step(trainer, session)
    if session.recipe.floor is not None and trainer.epoch == floor.check_epoch(session.epochs, trainer.epochs):
        _judged(trainer, session)


def _judged(trainer: Any, session: Session) -> bool:
    """Whether the run may go on to the next step; where a floor says no, it goes back to before the last one."""
    allowed, steps = session.recipe.floor, session.record["steps"]
    if allowed is None:
        return True
    if session.gates is not None:
        session.gates.detach()  # its hooks are not to be kept
    if session.done and "undone" not in steps[-1] and ranks.from_first(lambda: _too_low(session, steps[-1])):
        _go_back(trainer, session)
        return False
    if session.unfinished:
        floor.keep(trainer)
    return True


def _too_low(session: Session, row: dict[str, Any]) -> bool:
    """Whether what came back since a step is below the floor."""
    reference, found = session.record["baseline"]["fitness"], floor.recovered(session.record["history"], row["epoch"])
    return reference is not None and found is not None and found < reference - session.recipe.floor


def _go_back(trainer: Any, session: Session) -> None:
    """Undo the last step, and take no other."""
    row = session.record["steps"][-1]
    fitness = floor.recovered(session.record["history"], row["epoch"])
    floor.go_back(trainer)
    model, ema = unwrap_model(trainer.model), trainer.ema.ema
    session.done -= 1
    session.epochs = session.epochs[: session.done]
    row["undone"] = trainer.epoch + 1
    session.size = measure.size_of(model)
    session.record["floor"] = {
        "allowed": session.recipe.floor,
        "dense": session.record["baseline"]["fitness"],
        "undone": {"step": row["step"], "gflops": row["gflops"], "fitness": fitness},
        "epoch": trainer.epoch + 1,
    }
    for item in (model, ema):
        architecture.note_run(item, done=session.done, steps=session.record["steps"], floor=session.record["floor"])
    _forget_the_best(trainer)
    saving.save_as_of_the_epoch_before(trainer)
    record.finish(session.record, session.baseline, model, session.size, None)
    if RANK in {-1, 0}:
        report.write(session.record, trainer.save_dir)  # of a dense model, last.pt does not say that it went back
    _say(
        f"step {row['step']} is undone at epoch {trainer.epoch + 1}: fitness came back to {_fitness(fitness)}, and may "
        f"be {session.recipe.floor:g} below {_fitness(session.record['baseline']['fitness'])}. From here to the end: "
        f"{session.size.params:,} params, {session.size.gflops:.2f} GFLOPs"
    )


def _take_step(trainer: Any, session: Session) -> None:
    start = time.perf_counter()
    number, steps = session.done + 1, len(session.epochs)
    model, ema = unwrap_model(trainer.model), trainer.ema.ema
    before = session.size or measure.size_of(continuity.student(model))
    if session.record["baseline"]["fitness"] is None:
        session.record["baseline"]["fitness"] = max(
            (row["fitness"] for row in session.record["history"] if row["fitness"] is not None), default=session.fitness
        )
    found, removed = cut_training(
        model,
        ema,
        trainer.optimizer,
        session.recipe,
        session.baseline,
        step.limits(session.recipe, session.baseline, schedule.share(session.recipe.schedule, number, steps)),
        _images(trainer, session),
        lambda groups: _worth(trainer, session, groups),
    )
    continuity.carry_ema(trainer.ema)
    continuity.carry_ddp(trainer)
    session.size = measure.size_of(continuity.student(model))
    session.done = number
    seconds = time.perf_counter() - start
    device = session.baseline.profile
    latency = None if device is None else measure.latency_of(continuity.student(model), device)
    record.add_step(session.record, trainer.epoch + 1, session.size, session.fitness, seconds, latency)
    _stamp(session, model, ema, found, removed)
    if session.gates is not None:
        _watch(trainer, session, graph.build(continuity.student(model), session.recipe.protect).without_trace())
    _forget_the_best(trainer)
    if trainer.epoch > trainer.start_epoch:
        saving.save_as_of_the_epoch_before(trainer)
    if removed:
        _say(f"removed whole: {', '.join(removed)}")
    _say(
        f"step {number}/{steps} at epoch {trainer.epoch + 1}/{trainer.epochs}: params {before.params:,} -> "
        f"{session.size.params:,}, GFLOPs {before.gflops:.2f} -> {session.size.gflops:.2f}"
        f"{'' if latency is None else f', predicted {latency:.2f} ms'}, fitness before "
        f"{_fitness(session.fitness)}, {seconds:.2f} s"
    )


def _images(trainer: Any, session: Session) -> torch.Tensor | None:
    """The images that cuts are made up for on, read once and by the first process alone."""
    if session.images is None and session.recipe.compensate != "none" and ranks.is_first():
        try:
            batches = calibration.of_trainer(trainer, calibration.count(int(trainer.args.imgsz)))
            session.images = calibration.pixels(batches)
        except (PruneError, RuntimeError, TypeError, ValueError, KeyError, AttributeError, OSError) as error:
            words = (str(error).strip() or type(error).__name__).partition("\n")[0]
            LOGGER.warning(f"{colorstr('prune:')} no images to make up for the cut on, so nothing does: {words}")
    return session.images


def cut_training(
    model: nn.Module,
    ema: nn.Module,
    optimizer: Any,
    wanted: Recipe,
    baseline: Baseline,
    bounds: dict[str, float],
    images: torch.Tensor | None = None,
    worth: Callable[[graph.ChannelGraph], dict[str, Any]] | None = None,
) -> tuple[graph.ChannelGraph, list[str]]:
    """Cut a model in training: EMA scored, EMA and live model cut by one plan, optimizer state carried over.

    Of several processes the first scores, plans and makes up for the cut, and all cut. Training goes on from the
    average, which was made up for: to fit the live model as well would cost as much again.

    Args:
        images: what the cut is made up for on; None where nothing does. worth: see step.choose.

    Returns:
        The groups as they were before the cut, and the blocks that were removed whole.
    """
    removed: list[str] = []
    scored = continuity.student(ema)
    frozen = {name for name, value in continuity.student(model).named_parameters() if not value.requires_grad}
    for _ in range(3):  # one pass, unless a host counts FLOPs in another way than measure.py knows
        found, chosen = ranks.from_first(lambda: step.choose(scored, wanted, baseline, bounds, worth))
        removed += chosen.blocks
        with compensate.made_up(scored, found, chosen, images, wanted.compensate, frozen):
            continuity.cut(ema, found, chosen)
        continuity.carry_optimizer(optimizer, continuity.cut(model, found, chosen))
        size = measure.size_of(scored)
        figures = {"flops": size.flops, "params": size.params}
        if all(figures[key] <= bound * (1 + 1e-9) for key, bound in bounds.items() if key in figures):
            if images is not None:
                continuity.student(model).load_state_dict(scored.state_dict())
            ranks.same(scored)  # of a live model on several ranks, the new DDP wrapper does the same
            return found, removed
    raise HostError(f"this ultralytics counts {size.gflops:.3f} GFLOPs where yolo-prune expected at most {bounds}")


def _stamp(session: Session, model: nn.Module, ema: nn.Module, found: graph.ChannelGraph, removed: list[str]) -> None:
    run = {
        "done": session.done,
        "steps": session.record["steps"],
        "history": session.record["history"],
        "fitness": session.record["baseline"]["fitness"],
        "params": session.baseline.size.params,
        "gflops": session.baseline.size.gflops,
        "channels": session.baseline.channels,
        "layers": session.baseline.layers,
        "blocks": session.baseline.blocks,
        "heads": session.baseline.heads,
        "latency": session.baseline.latency,
        "weights": dict(session.baseline.weights),
        "least": session.baseline.least,
        "floor": session.record.get("floor"),
    }
    for item in (model, ema):
        architecture.stamp(continuity.student(item), found.native, run, removed)
        item.yaml = continuity.student(item).yaml  # the host rebuilds a distilled student from its wrapper's yaml


def _baseline_from(run: dict[str, Any], device: Profile | None) -> Baseline:
    size = measure.Size(run["params"], run["gflops"])
    # A checkpoint of version 0.1.0 says nothing of blocks, heads and latency: that version cut and bounded none.
    return Baseline(
        size,
        dict(run["channels"]),
        dict(run["layers"]),
        run.get("blocks", 0),
        dict(run.get("heads", {})),
        device,
        None if device is None else run.get("latency"),
        dict(run.get("weights", {})),
    )


def _forget_the_best(trainer: Any) -> None:
    """Best means best at the width the model has now; patience counts from now on."""
    trainer.best_fitness = None
    trainer.fitness = None
    trainer.stopper.best_fitness = 0.0
    trainer.stopper.best_epoch = trainer.epoch
    trainer.stopper.possible_stop = False


def on_train_epoch_end(trainer: Any) -> None:
    """Let every logger of the host see params and GFLOPs, and keep early stopping away while steps are to come."""
    session = of(trainer)
    if session is None or session.size is None:
        return
    # The host's CSV, TensorBoard, W&B and MLflow all log trainer.lr, which it makes anew before this callback.
    trainer.lr = {**trainer.lr, "model/parameters": session.size.params, "model/GFLOPs": round(session.size.gflops, 4)}
    judged = floor.check_epoch(session.epochs, trainer.epochs) if session.recipe.floor is not None else None
    if session.unfinished or (judged is not None and trainer.epoch < judged):
        trainer.stopper.best_epoch = trainer.epoch + 1


def on_fit_epoch_end(trainer: Any) -> None:
    """Note the epoch's fitness; the first one after a step completes that step's row."""
    session = of(trainer)
    if session is None or session.size is None or trainer.epoch != session.epoch:
        return  # the host calls this once more after training, for best.pt
    session.epoch = -1  # 8.4.0 and 8.4.30 call it with the last epoch's number then
    _tell_the_platform(trainer, session)
    fitness = None if trainer.fitness is None else float(trainer.fitness)
    session.fitness = fitness if fitness is not None else session.fitness
    history, steps = session.record["history"], session.record["steps"]
    history[:] = [row for row in history if row["epoch"] != trainer.epoch + 1]
    history.append(
        {"epoch": trainer.epoch + 1, "fitness": fitness, "params": session.size.params, "gflops": session.size.gflops}
    )
    if steps and steps[-1]["fitness_after"] is None and fitness is not None:
        for row in steps:
            row["fitness_after"] = fitness if row["fitness_after"] is None else row["fitness_after"]
        row = steps[-1]
        _say(
            f"step {row['step']}/{len(session.epochs)}: fitness {_fitness(row['fitness_before'])} before, "
            f"{fitness:.4f} after epoch {trainer.epoch + 1}; {row['params']:,} params, {row['gflops']:.2f} GFLOPs"
        )
    best = fitness if trainer.best_fitness is None else float(trainer.best_fitness)
    network = continuity.student(unwrap_model(trainer.model))
    record.finish(session.record, session.baseline, network, session.size, best)
    if RANK in {-1, 0}:
        report.write(session.record, trainer.save_dir)  # every epoch: a run that ends early has told what it did


def _tell_the_platform(trainer: Any, session: Session) -> None:
    """Have the host's report of this epoch, which its own callback sends after ours, carry the size since a step."""
    context = getattr(trainer, "platform", None) or {"model_id": getattr(trainer, "_platform_model_id", None)}  # 8.4.0
    row = session.record["steps"][-1] if session.record["steps"] else None
    if row is not None and row["epoch"] == trainer.epoch + 1 and context.get("model_id"):
        # As the host counts at epoch 0: at 640 until 8.4.100, at imgsz in 8.4.140 and later; never with profile=True.
        arguments = SimpleNamespace(profile=False, imgsz=trainer.args.imgsz)
        model = continuity.student(unwrap_model(trainer.model))
        subject = SimpleNamespace(args=arguments, model=model, validator=trainer.validator, device=trainer.device)
        platform_report.tell(context["model_id"], trainer.epoch, model_info_for_loggers(subject))


def on_train_end(trainer: Any) -> None:
    """Draw the picture and say what came out."""
    session = of(trainer)
    if session is None or "final" not in session.record:
        return
    if session.recipe.floor is not None:
        _tell_floor(session)
        floor.forget(trainer)
    timed.beside_dense(trainer, session.record, session.baseline, _say)
    report.write(session.record, trainer.save_dir)
    path = trainer.save_dir / "pruning.png"
    report.picture(session.record, path)
    trainer.on_plot(path)
    before, after = session.record["baseline"], session.record["final"]
    if session.unfinished:
        LOGGER.warning(
            f"{colorstr('prune:')} the training ended with {len(session.epochs) - session.done} of "
            f"{len(session.epochs)} steps still to come: the bounds are not reached. To go on: yolo train "
            f"model={trainer.last} with the same bounds, which count from the model as it is then"
        )
    _say(
        f"{'stopped' if session.unfinished else 'done'}: params {before['params']:,} -> {after['params']:,} "
        f"({after['params'] / before['params']:.0%}), "
        f"GFLOPs {before['gflops']:.2f} -> {after['gflops']:.2f} ({after['gflops'] / before['gflops']:.1%}), fitness "
        f"{_fitness(before['fitness'])} -> {_fitness(after['fitness'])}"
    )
    _say(f"record {trainer.save_dir / 'pruning' / 'record.json'}, picture {path}")


def _tell_floor(session: Session) -> None:
    """Say how far a run with a floor got; loudly where the final model is below it."""
    dense, final = session.record["baseline"]["fitness"], session.record["final"]["fitness"]
    told = session.record.setdefault("floor", {"allowed": session.recipe.floor, "dense": dense, "undone": None})
    told["final"], told["kept"] = final, dense is None or final is None or final >= dense - session.recipe.floor
    if not told["kept"]:
        LOGGER.warning(
            f"{colorstr('prune:')} THE FLOOR IS NOT KEPT: fitness {_fitness(final)} is more than "
            f"{session.recipe.floor:g} below the dense {_fitness(dense)}. Give more epochs, or ask for less"
        )


def _fitness(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


CALLBACKS: dict[str, Callable[[Any], None]] = {
    "on_pretrain_routine_start": on_pretrain_routine_start,
    "on_pretrain_routine_end": on_pretrain_routine_end,
    "on_train_start": on_train_start,
    "on_train_epoch_start": on_train_epoch_start,
    "on_train_epoch_end": on_train_epoch_end,
    "on_fit_epoch_end": on_fit_epoch_end,
    "on_train_end": on_train_end,
}
