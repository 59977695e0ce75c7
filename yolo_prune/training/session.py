# yolo-prune, AGPL-3.0 license
"""One training run that prunes: what happens at each of the host's callbacks, and the state between them.

A step happens at the start of its epoch, before the learning rate moves: the EMA is scored, both the EMA and the live
model are cut by one plan, the optimizer's state follows, best fitness and early stopping start anew, and last.pt is
written at once, so that the host's NaN recovery, which loads last.pt strictly, finds the width it runs at.

Read in ultralytics 8.4.190: engine/trainer.py (`_setup_train`, `_do_train`, `save_model`, `_handle_nan_recovery`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import model_info_for_loggers, unwrap_model

from yolo_prune import log
from yolo_prune.cost import model_size
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import checkpoint, platform_report, rebuild
from yolo_prune.host.cadence import Cadence
from yolo_prune.importance import scoring
from yolo_prune.importance.gradients import KINDS
from yolo_prune.planning import asked_for, choice, dry_cut
from yolo_prune.planning.choice import Baseline
from yolo_prune.recipe import arguments, schedule
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import Pattern, parse
from yolo_prune.report import messages, pictures, record
from yolo_prune.surgery import masks, undo, widths
from yolo_prune.training import (
    cut_models,
    ddp,
    deployment,
    distill,
    exclusive,
    frozen,
    latency_of_run,
    optimizer_state,
    preflight,
    resume,
    roll_back,
    save,
    step_actions,
    step_undo,
)
from yolo_prune.training.step_actions import StepActions

_ATTRIBUTE = "yolo_prune_session"  # where a trainer carries its session
_HELD = "yolo_prune_held"  # and, where nothing is pruned, what keeps the zeros of a sparse model


@dataclass
class Session:
    """The state of one run.

    Attributes:
        recipe: what is asked for. baseline: the model before its first cut. epochs: 0-based epoch of each step.
        record: what record.json will hold; plain data.
        done: steps that have been taken. fitness: the latest validated fitness, or None.
        actions: what acts on the training at each step of its optimizer.
        pattern: of the zeros that single weights have, or come to; None where there are none.
        images: (n, channels, imgsz, imgsz) that cuts are made up for on; None until the first and where there are none.
        avoid: blocks in which a cut was tried and failed -> how.
        still: layers that are frozen, as it was said.
        cadence: when the optimizer steps. resumed: what training_state.py kept, until the first epoch begins.
    """

    recipe: Recipe
    baseline: Baseline
    epochs: list[int]
    record: dict[str, Any]
    actions: StepActions
    pattern: Pattern | None = None
    done: int = 0
    fitness: float | None = None
    epoch: int = -1
    size: model_size.Size | None = None
    images: torch.Tensor | None = None
    still: tuple[str, ...] = ()
    cadence: Cadence | None = None
    resumed: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    avoid: dict[str, str] = field(default_factory=dict)

    @property
    def unfinished(self) -> bool:
        """Whether steps are still to come."""
        return self.done < len(self.epochs)


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
    wanted = asked or arguments.from_arguments(vars(trainer.args))
    if wanted is None:
        return
    preflight.modes(vars(trainer.args))
    if trainer.resume:
        rebuild.require_file(trainer.args.model)
    arguments.check_epochs(wanted, trainer.epochs)
    preflight.measurements(wanted)
    preflight.max_drop(vars(trainer.args), wanted)
    distill.arrange(trainer, wanted)
    scoring.require(wanted.importance)
    given = getattr(trainer.args, "prune", None)
    if given is not None and Path(str(given)).is_file():
        trainer.args.prune = str(Path(given).resolve())  # a resumed run may start in another folder
    exclusive.hold(Path(trainer.save_dir))
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
    exclusive.release(Path(trainer.save_dir))  # for the first of the workers
    wanted: Recipe | None = getattr(trainer, "yolo_prune_recipe", None)
    if wanted is None or trainer.resume:
        return
    network = trainer.model
    if not isinstance(network, nn.Module):  # as BaseTrainer.setup_model does in the workers
        weights = load_checkpoint(network)[0] if str(network).endswith(".pt") else None
        network = trainer.get_model(cfg=network if weights is None else weights.yaml, verbose=False)
    preflight.model(network, wanted, str(trainer.args.model), freeze=getattr(trainer.args, "freeze", None))


def on_pretrain_routine_end(trainer: Any, asked: Recipe | None = None) -> None:
    """The model is built: find its groups, see that the bounds can be reached, and pick up a resumed run.

    Args:
        trainer: the host's trainer. asked: a recipe from `attach`; of several processes only the first had the event
            before this one.
    """
    wanted: Recipe | None = getattr(trainer, "yolo_prune_recipe", None) or asked
    if wanted is None and RANK > 0:
        wanted = arguments.from_arguments(vars(trainer.args))
    model = optimizer_state.student(unwrap_model(trainer.model))
    if wanted is None:
        sparsity = widths.sparsity(model)
        if sparsity is not None:
            log.say(f"the zeros of this model ({sparsity}) are kept while it trains")
            setattr(trainer, _HELD, step_actions.hold_what_is_sparse(model, parse(sparsity), trainer.optimizer))
        return
    checkpoint.require_supported(model, str(trainer.args.model))
    still = frozen.makers(model)
    found = channel_groups.build(model, wanted.protect, frozen=still)
    if not trainer.resume:
        asked_for.require_protected(found, wanted.protect)
    run = widths.run_of(model) if trainer.resume else None
    earlier = resume.earlier_record(trainer) if trainer.resume else {}
    size = model_size.size_of(model)
    _make_folder(trainer)
    device = ddp.from_first(lambda: latency_of_run.profile_of_run(trainer, model, wanted, log.say))
    baseline = resume.baseline(run, model, found, wanted, device)
    avoid = ddp.from_first(lambda: dry_cut.rehearse(model, wanted, baseline, {}, still))
    found = channel_groups.build(model, wanted.protect, avoid, still) if avoid else found
    session = Session(
        wanted, baseline, schedule.step_epochs(wanted, trainer.epochs), {}, StepActions(wanted), avoid=avoid
    )
    sparsity = wanted.sparsity or widths.sparsity(model)
    session.pattern = None if sparsity is None else parse(sparsity)
    session.record = record.new(wanted, baseline, (run or earlier.get("baseline", {})).get("fitness"))
    if run:
        session.done = run["done"]
        session.record["steps"] = deepcopy(run["steps"])
    session.record["history"] = earlier.get("history") or (deepcopy(run["history"]) if run else [])
    if trainer.resume:
        resume.complete(trainer, session.record, size)
    stopped = (run or {}).get("max_drop") or earlier.get("max_drop")
    if stopped is not None:  # a step was undone before this resume: it was the last
        session.record["max_drop"] = stopped
        session.record["steps"] = session.record["steps"] or deepcopy(earlier["steps"])
        session.epochs = session.epochs[: session.done]
    validated = [row["fitness"] for row in session.record["history"] if row["fitness"] is not None]
    session.fitness = validated[-1] if validated else None
    session.size = size
    setattr(trainer, _ATTRIBUTE, session)
    if not trainer.resume:
        for item in (unwrap_model(trainer.model), trainer.ema.ema):
            widths.forget_run(optimizer_state.student(item))
            widths.forget_run(item)
    session.cadence = Cadence(trainer)
    save.protect(trainer, lambda: resume.state(trainer, session))
    if trainer.resume and RANK in {-1, 0}:
        save.trim_results(trainer.csv, trainer.start_epoch)
    if baseline.meets(choice.limits(wanted, baseline)) and wanted.sparsity is None:
        session.epochs = []
        messages.nothing_to_do(baseline.size)
    else:
        messages.plan(wanted, baseline, found, session.epochs, session.done)
    _tell_frozen(trainer, session)
    distill.begin(unwrap_model(trainer.model), wanted, session.done > 0)
    if trainer.resume and resume.needed(session, trainer.start_epoch - 1, trainer.epochs):
        session.resumed = ddp.each(lambda: resume.kept(trainer))
        more = dict((session.resumed or {}).get("avoid", {}))
        if more.keys() - session.avoid.keys():
            session.avoid.update(more)
            found = channel_groups.build(model, wanted.protect, session.avoid, still)
    _watch(trainer, session, found)
    if session.resumed is not None:
        session.actions.load_state(session.resumed["between"])
    if session.pattern is not None:
        session.actions.hold(model, masks.from_zeros(model, session.pattern))


def _tell_frozen(trainer: Any, session: Session) -> None:
    """Say which layers are left as they are, and so keep their channels; again only when it is others."""
    model = optimizer_state.student(unwrap_model(trainer.model))
    still = frozen.makers(model)
    if session.unfinished and still and still != session.still:
        messages.frozen(getattr(trainer.args, "freeze", None), frozen.in_words(model, still), len(still))
    session.still = still


def _watch(trainer: Any, session: Session, found: channel_groups.ChannelGraph | None) -> None:
    """Begin to look and press anew, where steps are still to come."""
    model = optimizer_state.student(unwrap_model(trainer.model))
    epoch = max(session.epoch, trainer.start_epoch)
    accumulate = max(round(trainer.args.nbs / trainer.batch_size), 1)  # trainer.accumulate is less in the warm-up
    steps = len(trainer.train_loader) // accumulate
    session.actions.watch(found if session.unfinished else None, model, trainer.optimizer, epoch, steps)


def _make_folder(trainer: Any) -> None:
    if RANK not in {-1, 0}:
        return
    folder = trainer.save_dir / "pruning"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PruneError(f"{folder} cannot be made, which is to hold the record: {error}") from None


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
        if hasattr(trainer, _HELD):
            getattr(trainer, _HELD).follow(trainer.optimizer)
        return
    resume.begin_epoch(trainer, session)
    session.epoch = trainer.epoch
    session.actions.epoch(trainer.optimizer)
    while session.unfinished and session.epochs[session.done] <= trainer.epoch:
        if _judged(trainer, session):
            _take_step(trainer, session)
    if session.recipe.max_drop is not None and trainer.epoch == roll_back.check_epoch(session.epochs, trainer.epochs):
        _judged(trainer, session)
    _restart(trainer, session)
    if session.unfinished:
        session.actions.grow(trainer.epoch, session.epochs[session.done], lambda: _next_plan(trainer, session))


def _restart(trainer: Any, session: Session) -> None:
    """From the last step on, go through the host's whole schedule of the learning rate once more, in what is left."""
    if not session.recipe.restart_lr or session.unfinished or not session.done:
        return
    last = session.epochs[-1]
    time = (trainer.epoch - last) / max(trainer.epochs - last, 1)
    session.actions.stretch(trainer.lf(time * trainer.epochs) / max(trainer.lf(trainer.epoch), 1e-12))


def _next_plan(trainer: Any, session: Session) -> dict[str, Any]:
    """What would stay of each group if the next step were taken now."""
    share = schedule.share(session.recipe.schedule, session.done + 1, len(session.epochs))
    bounds = choice.limits(session.recipe, session.baseline, share)
    scored = optimizer_state.student(trainer.ema.ema)
    worth, avoid = _worth(trainer, session), session.avoid
    still = frozen.makers(optimizer_state.student(unwrap_model(trainer.model)))
    return choice.choose(scored, session.recipe, session.baseline, bounds, worth, avoid, still)[1].keep


def _worth(trainer: Any, session: Session) -> Callable[[channel_groups.ChannelGraph], dict[str, Any]]:
    """What step.choose asks for the worth of channels."""
    return lambda found: cut_models.worth(trainer, session.actions.gates, session.recipe, found)


def _judged(trainer: Any, session: Session) -> bool:
    """Whether the run may go on to the next step; where fitness dropped too far, it goes back to before the last."""
    if session.recipe.max_drop is None:
        return True
    session.actions.stop()  # its hooks are not to be kept
    try:
        return _keep_or_go_back(trainer, session)
    finally:
        session.actions.resume(trainer.optimizer)


def _keep_or_go_back(trainer: Any, session: Session) -> bool:
    steps = session.record["steps"]
    if session.done and "undone" not in steps[-1] and ddp.from_first(lambda: _too_low(session, steps[-1])):
        _go_back(trainer, session)
        return False
    if session.unfinished:
        roll_back.keep(trainer)
    return True


def _too_low(session: Session, row: dict[str, Any]) -> bool:
    """Whether the fitness that came back since a step is more than `prune_max_drop` below the dense one."""
    reference, found = (
        session.record["baseline"]["fitness"],
        roll_back.recovered(session.record["history"], row["epoch"]),
    )
    return reference is not None and found is not None and found < reference - session.recipe.max_drop


def _go_back(trainer: Any, session: Session) -> None:
    """Undo the last step, and take no other."""
    row = session.record["steps"][-1]
    fitness = roll_back.recovered(session.record["history"], row["epoch"])
    roll_back.go_back(trainer)
    model, ema = unwrap_model(trainer.model), trainer.ema.ema
    session.done -= 1
    session.epochs = session.epochs[: session.done]
    row["undone"] = trainer.epoch + 1
    session.size = model_size.size_of(model)
    session.record["max_drop"] = {
        "allowed": session.recipe.max_drop,
        "dense": session.record["baseline"]["fitness"],
        "undone": {"step": row["step"], "gflops": row["gflops"], "fitness": fitness},
        "epoch": trainer.epoch + 1,
    }
    for item in (model, ema):
        widths.note_run(item, done=session.done, steps=session.record["steps"], max_drop=session.record["max_drop"])
    _watch(trainer, session, None)
    if session.pattern is not None:
        session.actions.hold(model, masks.from_zeros(model, session.pattern))
    _forget_the_best(trainer)
    save.save_as_of_the_epoch_before(trainer)
    record.finish(session.record, session.baseline, model, session.size, None)
    if RANK in {-1, 0}:
        pictures.write(session.record, trainer.save_dir)  # of a dense model, last.pt does not say that it went back
    messages.step_undone(row, fitness, session.record, session.size)


def _take_step(trainer: Any, session: Session) -> None:
    """Take a step whole, or, where anything stops it, leave the training as it was."""
    before = session.size or model_size.size_of(optimizer_state.student(unwrap_model(trainer.model)))
    with undo.all_or_nothing() as back:
        step_undo.keep(back, trainer, session)
        row, removed = _step(trainer, session, back)
    messages.step_taken(row, len(session.epochs), trainer.epochs, before, removed)


def _step(trainer: Any, session: Session, back: undo.Undo) -> tuple[dict[str, Any], list[str]]:
    """Returns the step's row of the record, and the names of blocks that went whole."""
    start = time.perf_counter()
    number, steps = session.done + 1, len(session.epochs)
    model, ema = unwrap_model(trainer.model), trainer.ema.ema
    if session.record["baseline"]["fitness"] is None:
        session.record["baseline"]["fitness"] = max(
            (row["fitness"] for row in session.record["history"] if row["fitness"] is not None), default=session.fitness
        )
    if session.done == 0:
        dense = session.record["baseline"]["fitness"]
        if session.recipe.max_drop is not None and dense is not None and dense <= session.recipe.max_drop:
            messages.max_drop_protects_nothing(session.recipe.max_drop, dense)
        deployment.keep_dense(trainer, session.recipe)
        distill.take_over(trainer, model, session.recipe)
    if session.images is None and session.recipe.reconstruct != "none" and ddp.is_first():
        session.images = cut_models.images(trainer)
    _tell_frozen(trainer, session)
    way = schedule.share(session.recipe.schedule, number, steps)
    found, removed = cut_models.cut_training(
        model,
        ema,
        trainer.optimizer,
        session.recipe,
        session.baseline,
        choice.limits(session.recipe, session.baseline, way),
        session.images,
        _worth(trainer, session),
        session.avoid,
        back,
    )
    _make_sparse(session, model, ema, way)
    optimizer_state.carry_ema(trainer.ema)
    optimizer_state.carry_ddp(trainer)
    session.size = model_size.size_of(optimizer_state.student(model))
    session.done = number
    seconds = time.perf_counter() - start
    device = session.baseline.profile
    latency = None if device is None else model_size.latency_of(optimizer_state.student(model), device)
    row = record.add_step(session.record, trainer.epoch + 1, session.size, session.fitness, seconds, latency)
    _stamp(session, model, ema, found, removed)
    _watch(trainer, session, _groups_now(session, model))
    session.actions.warm_up(len(trainer.train_loader), int(trainer.accumulate))
    _forget_the_best(trainer)
    if trainer.epoch > trainer.start_epoch:
        save.save_as_of_the_epoch_before(trainer)
    return row, removed


def _groups_now(session: Session, model: nn.Module) -> channel_groups.ChannelGraph | None:
    """The groups after a cut, where something looks at them until the next one."""
    if not session.unfinished or (session.recipe.importance not in KINDS and session.recipe.regularize == "none"):
        return None
    network = optimizer_state.student(model)
    return channel_groups.build(network, session.recipe.protect, session.avoid, frozen.makers(network)).without_trace()


def _make_sparse(session: Session, model: nn.Module, ema: nn.Module, way: float) -> None:
    """Choose which single weights are zero from now on, of average and live model alike."""
    pattern = session.pattern
    if pattern is None:
        return
    scored = optimizer_state.student(ema)
    share = way if session.recipe.sparsity is not None else 1.0  # the model came with its zeros: all of them stay
    chosen = ddp.from_first(lambda: masks.choose(scored, pattern, share, session.still))
    for item in (scored, optimizer_state.student(model)):
        masks.apply(item, chosen)
    session.actions.hold(optimizer_state.student(model), chosen)


def _stamp(
    session: Session, model: nn.Module, ema: nn.Module, found: channel_groups.ChannelGraph, removed: list[str]
) -> None:
    run = resume.note(session.baseline, session.record, session.done)
    sparsity = None if session.pattern is None else str(session.pattern)
    for item in (model, ema):
        widths.stamp(optimizer_state.student(item), found.native, run, removed, sparsity)
        item.yaml = optimizer_state.student(item).yaml  # the host rebuilds a distilled student from its wrapper's yaml


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
    rates = {key: rate * session.actions.rate for key, rate in trainer.lr.items() if key.startswith("lr/")}
    trainer.lr = {
        **trainer.lr,
        **rates,
        "model/parameters": session.size.params,
        "model/GFLOPs": round(session.size.gflops, 4),
    }
    judged = roll_back.check_epoch(session.epochs, trainer.epochs) if session.recipe.max_drop is not None else None
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
        messages.step_completed(row, len(session.epochs), trainer.epoch + 1)
    told = session.actions.summary()
    if told is not None:
        log.say(told)
    best = fitness if trainer.best_fitness is None else float(trainer.best_fitness)
    network = optimizer_state.student(unwrap_model(trainer.model))
    record.finish(session.record, session.baseline, network, session.size, best)
    if RANK in {-1, 0}:
        pictures.write(session.record, trainer.save_dir)  # every epoch: a run that ends early has told what it did


def _tell_the_platform(trainer: Any, session: Session) -> None:
    """Have the host's report of this epoch, which its own callback sends after ours, carry the size since a step."""
    context = getattr(trainer, "platform", None) or {"model_id": getattr(trainer, "_platform_model_id", None)}  # 8.4.0
    row = session.record["steps"][-1] if session.record["steps"] else None
    if row is not None and row["epoch"] == trainer.epoch + 1 and context.get("model_id"):
        # As the host counts at epoch 0: at 640 until 8.4.100, at imgsz in 8.4.140 and later; never with profile=True.
        arguments = SimpleNamespace(profile=False, imgsz=trainer.args.imgsz)
        model = optimizer_state.student(unwrap_model(trainer.model))
        subject = SimpleNamespace(args=arguments, model=model, validator=trainer.validator, device=trainer.device)
        platform_report.tell(context["model_id"], trainer.epoch, model_info_for_loggers(subject))


def on_train_end(trainer: Any) -> None:
    """Draw the picture and say what came out."""
    session = of(trainer)
    if session is None or "final" not in session.record:
        return
    if session.recipe.max_drop is not None:
        _judge_the_end(session)
        roll_back.forget(trainer)
    session.actions.stop()
    distill.forget(trainer, session.recipe)
    if session.pattern is not None:
        zeros = masks.count(optimizer_state.student(trainer.ema.ema), session.pattern)
        session.record["sparsity"] = {"pattern": str(session.pattern), **asdict(zeros)}
        messages.zeros(zeros, session.pattern)
    latency_of_run.beside_dense(trainer, session.record, session.baseline, log.say)
    pictures.write(session.record, trainer.save_dir)
    path = trainer.save_dir / "pruning.png"
    pictures.picture(session.record, path)
    trainer.on_plot(path)
    for line in asked_for.not_removed(session.recipe, session.baseline, session.record["removed"]):
        log.warn(line)
    missing = len(session.epochs) - session.done
    messages.ended(session.record, missing, len(session.epochs), trainer.last)
    log.say(f"record {trainer.save_dir / 'pruning' / 'record.json'}, picture {path}")
    deployment.at_end(trainer, session.recipe)


def _judge_the_end(session: Session) -> None:
    """Note the final drop of fitness of a run with `prune_max_drop`; warn where it is larger than allowed."""
    dense, final = session.record["baseline"]["fitness"], session.record["final"]["fitness"]
    told = session.record.setdefault("max_drop", {"allowed": session.recipe.max_drop, "dense": dense, "undone": None})
    told["final"], told["kept"] = final, dense is None or final is None or final >= dense - session.recipe.max_drop
    if not told["kept"]:
        messages.max_drop_exceeded(told)


CALLBACKS: dict[str, Callable[[Any], None]] = {
    "on_pretrain_routine_start": on_pretrain_routine_start,
    "on_pretrain_routine_end": on_pretrain_routine_end,
    "on_train_start": on_train_start,
    "on_train_epoch_start": on_train_epoch_start,
    "on_train_epoch_end": on_train_epoch_end,
    "on_fit_epoch_end": on_fit_epoch_end,
    "on_train_end": on_train_end,
}
