# yolo-prune, AGPL-3.0 license
"""One step of the pruning: choose, cut, carry over, record, save.

It is taken at the start of its epoch, before the learning rate moves: the average is scored, the average and the live
model are cut by one plan, the optimizer's state follows, best fitness and early stopping start anew. The cut model is
validated, and is best.pt until an epoch is better. last.pt is written at once, so that the host's NaN recovery, which
loads last.pt strictly, finds the width that the run has.
"""

from __future__ import annotations

import time
from typing import Any

from yolo_prune.cost import model_size
from yolo_prune.graph import channel_groups
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host.run import Run
from yolo_prune.importance.gradients import GRADIENT_IMPORTANCES
from yolo_prune.planning import choice
from yolo_prune.planning.measured_bound import Check
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe import schedule
from yolo_prune.report import latency, messages
from yolo_prune.report import record as records
from yolo_prune.surgery import masks, undo
from yolo_prune.training import (
    cut_models,
    ddp,
    deployment,
    frozen,
    last_checkpoint,
    latency_of_run,
    recovery,
    step_undo,
    teacher,
)
from yolo_prune.training.session_data import Session


def take(run: Run, session: Session) -> None:
    """Take a step whole, or, where anything stops it, leave the training as it was."""
    before = session.size or model_size.size_of(run.student)
    messages.step_begins(session.done + 1, len(session.epochs), session.recipe.reconstruct)
    with undo.all_or_nothing() as back:
        step_undo.keep(back, run, session)
        row, removed = _step(run, session, back)
    if not session.unfinished:
        session.images = None  # they are on the device of the training
    messages.step_taken(row, len(session.epochs), run.epochs, before, removed)


def next_plan(run: Run, session: Session) -> dict[str, Any]:
    """What would stay of each group if the next step were taken now."""
    _, plan = choice.choose(run.average_student, _request(run, session))
    return plan.keep


def _step(run: Run, session: Session, back: undo.Undo) -> tuple[dict[str, Any], list[str]]:
    """Returns the step's row of the record, and the names of blocks that went whole."""
    start = time.perf_counter()
    _prepare(run, session)
    graph, removed, check = _cut(run, session, back)
    _make_sparse(run, session)
    run.rewire_after_cut()
    row = _record(run, session, start, check)
    run.forget_the_best()
    if run.chooses_best:
        row["fitness_cut"] = run.count_as_best()
    last_checkpoint.stamp(run, session, graph, removed)
    session.start_actions(run, _graph_until_next_step(run, session))
    recovery.follow(run, session)
    recovery.say(run, session)
    session.actions.warm_up(len(run.loader), run.accumulate)
    session.save_now(run)
    return row, removed


def _share(session: Session) -> float:
    """The share of the way from the baseline to the bounds, 0 to 1, that the next step ends at."""
    return schedule.share(session.recipe.schedule, session.done + 1, len(session.epochs))


def _request(run: Run, session: Session) -> StepRequest:
    """What the next step is asked for."""
    recipe, baseline = session.recipe, session.baseline
    return StepRequest(
        recipe,
        baseline,
        choice.step_bounds(recipe, baseline, _share(session)),
        lambda graph: cut_models.scores(run, session.actions.gates, recipe, graph),
        session.avoid,
        frozen.frozen_layers(run.student),
    )


def _prepare(run: Run, session: Session) -> None:
    """What is needed for a step, and once before the first: dense fitness, dense model, teacher, images."""
    if session.dense_fitness is None:
        history = session.record["history"]
        session.record["baseline"]["fitness"] = max(
            (row["fitness"] for row in history if row["fitness"] is not None), default=session.fitness
        )
    if session.done == 0:
        allowed, dense = session.recipe.max_drop, session.dense_fitness
        if allowed is not None and dense is not None and dense <= allowed:
            messages.max_drop_protects_nothing(allowed, dense)
        deployment.keep_dense(run, session.recipe)
        teacher.take_over(run, session)
    if session.recipe.reconstruct != "none":
        ddp.by_first(lambda: _look_at_images(run, session))
    session.say_frozen(run)


def _look_at_images(run: Run, session: Session) -> None:
    if session.images is None:
        session.images = cut_models.images(run)


def _cut(run: Run, session: Session, back: undo.Undo) -> tuple[ChannelGraph, list[str], Check | None]:
    """Returns the graph as it was before the cut, the names of blocks that went whole, and what the plan was timed at.

    The plan of the last step is timed: the bounds of the others are on the way.
    """
    last = session.done + 1 == len(session.epochs)
    graph, removed, check = cut_models.cut_training(
        run.model,
        run.average,
        run.optimizer,
        _request(run, session),
        session.images,
        back,
        latency_of_run.plan_timer(run, session.recipe, session.baseline) if last else None,
    )
    if check is not None:
        latency.tell_check(check)
    return graph, removed, check


def _make_sparse(run: Run, session: Session) -> None:
    """Choose which single weights are zero from now on, of average and live model alike."""
    pattern = session.pattern
    if pattern is None:
        return
    asked = session.recipe.sparsity is not None
    part = _share(session) if asked else 1.0  # else the model came with its zeros: all of them stay
    chosen = ddp.from_first(lambda: masks.choose(run.average_student, pattern, part, session.frozen))
    for item in (run.average_student, run.student):
        masks.apply(item, chosen)
    session.actions.hold(run.student, chosen)


def _record(run: Run, session: Session, start: float, check: Check | None) -> dict[str, Any]:
    """Note the step in the record, which began at `start`; returns its row."""
    session.size = model_size.size_of(run.student)
    session.done += 1
    seconds = time.perf_counter() - start
    device = session.baseline.profile
    predicted = None if device is None else model_size.latency_of(run.student, device)
    return records.add_step(session.record, run.epoch + 1, session.size, session.fitness, seconds, predicted, check)


def _graph_until_next_step(run: Run, session: Session) -> ChannelGraph | None:
    """The graph after a cut, where something looks at it until the next one."""
    recipe = session.recipe
    if not session.unfinished or (recipe.importance not in GRADIENT_IMPORTANCES and recipe.regularize == "none"):
        return None
    frozen_layers = frozen.frozen_layers(run.student)
    return channel_groups.build(run.student, recipe.protect, session.avoid, frozen_layers).without_trace()
