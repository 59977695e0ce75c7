# yolo-prune, AGPL-3.0 license
"""All or nothing: a cut or a step that is stopped anywhere leaves everything as it was, and can be done again."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import unwrap_model

import yolo_prune
from tests.helpers.oracle import lively
from tests.helpers.runs import record_of, train, widths
from tests.helpers.small_models import SMALL_MODEL
from yolo_prune.cost import model_size
from yolo_prune.graph import blocks
from yolo_prune.host import yolo_object
from yolo_prune.host.run import Run
from yolo_prune.planning import trial
from yolo_prune.report import record
from yolo_prune.surgery import cut_channels, least_squares, masks
from yolo_prune.surgery import widths as architecture
from yolo_prune.training import optimizer_state, session, step
from yolo_prune.training.session_data import Session


class StoppedError(Exception):
    """What a test stops a cut with."""


def picture(model: nn.Module) -> dict[str, Any]:
    """All of a model that a cut could change: objects by their identity, tensors by their values."""
    modules = {}
    for name, module in model.named_modules():
        plain = {k: deepcopy(v) for k, v in vars(module).items() if isinstance(v, (int, float, str, bool, list, tuple))}
        modules[name] = (id(module), plain, list(module._modules), list(module._parameters), list(module._buffers))
    parameters = {n: (id(p), p.requires_grad, p.detach().clone()) for n, p in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return {"modules": modules, "parameters": parameters, "buffers": buffers, "yaml": deepcopy(model.yaml)}


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Assert that two pictures are of one model in one state."""
    assert before["modules"] == after["modules"]
    assert before["yaml"] == after["yaml"]
    assert before["parameters"].keys() == after["parameters"].keys()
    for name, (identity, trained, value) in before["parameters"].items():
        assert after["parameters"][name][:2] == (identity, trained), name
        assert torch.equal(after["parameters"][name][2], value), name
    assert before["buffers"].keys() == after["buffers"].keys()
    for name, value in before["buffers"].items():
        assert torch.equal(after["buffers"][name], value), name


def stop_at(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, error: BaseException, late: bool = False
) -> list[int]:
    """Let one function of a module raise, once: before its work, or after it."""
    stock, count = getattr(where, name), [0]

    def stopping(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == 1:
            if late:
                stock(*args, **kwargs)
            raise error
        return stock(*args, **kwargs)

    monkeypatch.setattr(where, name, stopping)
    return count


# (module, function, after its work, what stops it); in the order in which a cut comes to them
IN_PRUNE = [
    (cut_channels, "_cut_batchnorm", True, KeyboardInterrupt()),
    (blocks, "set_sizes", True, StoppedError()),
    (masks, "apply", True, StoppedError()),
    (architecture, "stamp", True, KeyboardInterrupt()),
    (model_size, "size_of", False, StoppedError()),
    (yolo_object, "refresh", True, torch.OutOfMemoryError("CUDA out of memory")),
    (record, "finish", False, StoppedError()),
]


def test_a_cut_that_is_stopped_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped at one place after the other, and each time all is as it was; then it is done."""
    yolo = untrained()
    wanted: dict[str, Any] = {"flops": "50%", "depth": 0.5, "sparsity": "2:4"}
    earlier = _calls_before_the_cut(wanted)
    for where, name, late, error in IN_PRUNE:
        _stopped(yolo, wanted, (where, name, late, error), earlier.get(name, 0), monkeypatch)
    told = yolo_prune.prune(yolo, **wanted)
    assert told["final"]["gflops"] <= 0.5 * told["baseline"]["gflops"]


def test_a_cut_that_is_stopped_while_it_reconstructs_leaves_the_model(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo = YOLO("yolov8n.yaml")
    yolo.model = lively(DetectionModel("yolov8n.yaml", nc=2, verbose=False))
    wanted = {"flops": "50%", "depth": 0.5, "sparsity": "2:4", "data": tiny_data, "imgsz": 64, "importance": "l2"}
    _stopped(yolo, wanted, (least_squares, "fit", True, StoppedError()), 0, monkeypatch)
    told = yolo_prune.prune(yolo, **wanted)
    assert told["final"]["gflops"] <= 0.5 * told["baseline"]["gflops"]


def untrained() -> YOLO:
    """A small model that answers to its input, the same each time."""
    torch.manual_seed(0)
    yolo = YOLO(SMALL_MODEL)
    lively(yolo.model)
    return yolo


def _stopped(
    yolo: YOLO,
    wanted: dict[str, Any],
    stop: tuple[Any, str, bool, BaseException],
    earlier: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut, be stopped at a call of a function, after so many earlier ones, and see that nothing changed."""
    where, name, late, error = stop
    before, outer = picture(yolo.model), dict(vars(yolo))
    with monkeypatch.context() as patch:
        count = stop_at(patch, where, name, error, late)
        count[0] = -earlier
        with pytest.raises(type(error)):
            yolo_prune.prune(yolo, **wanted)
        assert count[0] == 1, name
    same(before, picture(yolo.model))
    assert {k: v for k, v in vars(yolo).items() if not k.startswith("_")} == {
        k: v for k, v in outer.items() if not k.startswith("_")
    }, name


def _calls_before_the_cut(wanted: dict[str, Any]) -> dict[str, int]:
    """How often functions are called before the model itself is cut, by the trial or for what is measured first."""
    yolo = untrained()
    calls: dict[str, int] = {}
    at_cut: dict[str, int] = {}

    def counting(name: str, stock: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return stock(*args, **kwargs)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((cut_channels, "_cut_batchnorm"), (blocks, "set_sizes"), (model_size, "size_of")):
            calls[name] = 0
            patch.setattr(module, name, counting(name, getattr(module, name)))
        apply = cut_channels.apply

        def cut(model: nn.Module, *args: Any) -> Any:
            if model is yolo.model:
                at_cut.update(calls)
            return apply(model, *args)

        patch.setattr(cut_channels, "apply", cut)
        yolo_prune.prune(yolo, **wanted)
    assert len(at_cut) == 3
    return at_cut


def state_of(trainer: Any) -> dict[str, Any]:
    """A training as a step could change it."""
    optimizer = trainer.optimizer
    inner = {k: v for k, v in vars(session.of(trainer)).items() if k not in {"record", "actions", "images", "cadence"}}
    return {
        "live": picture(unwrap_model(trainer.model)),
        "average": picture(trainer.ema.ema),
        "groups": [{**g, "params": [id(p) for p in g["params"]]} for g in optimizer.param_groups],
        "state": {id(p): {k: deepcopy(v) for k, v in s.items()} for p, s in optimizer.state.items()},
        "stopper": dict(vars(trainer.stopper)),
        "best": (trainer.best_fitness, trainer.fitness, trainer.epoch, trainer.ema.updates),
        "record": deepcopy(session.of(trainer).record),
        "session": deepcopy({k: v for k, v in inner.items() if k != "baseline"}),
        "last": trainer.last.read_bytes() if trainer.last.exists() else None,
    }


def same_training(before: dict[str, Any], after: dict[str, Any]) -> None:
    same(before["live"], after["live"])
    same(before["average"], after["average"])
    for key in ("groups", "stopper", "best", "record", "last"):
        assert before[key] == after[key], key
    assert before["session"].keys() == after["session"].keys()
    assert before["session"]["done"] == after["session"]["done"]
    assert before["session"]["size"] == after["session"]["size"]
    assert before["state"].keys() == after["state"].keys()
    for identity, entries in before["state"].items():
        for key, value in entries.items():
            now = after["state"][identity][key]
            assert torch.equal(value, now) if isinstance(value, torch.Tensor) else value == now


IN_A_STEP = [
    (optimizer_state, "carry_optimizer", True),
    (least_squares, "fit", True),
    (Run, "rewire_after_cut", True),
    (architecture, "stamp", True),
    (Session, "start_actions", True),
    (Run, "save_as_of_the_epoch_before", False),
]


def test_a_step_that_is_stopped_leaves_the_training_and_can_be_taken_again(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken again and again, and each time stopped one place further; then it is done."""
    stock, seen = step.take, []

    def taking(run: Run, of_it: Session) -> None:
        trainer = run.trainer
        if seen:
            return stock(run, of_it)
        before = state_of(trainer)
        assert len(before["state"]) > 0  # the optimizer has momentum, which a step slices
        for where, name, late in IN_A_STEP:
            error = KeyboardInterrupt() if name == "stamp" else StoppedError(name)
            with monkeypatch.context() as patch:
                count = stop_at(patch, where, name, error, late)
                with pytest.raises(type(error)):
                    stock(run, of_it)
                assert count[0] == 1, name
            same_training(before, state_of(trainer))
            seen.append(name)
        hooks = len(trainer.optimizer._optimizer_step_pre_hooks)
        of_it.actions.resume(trainer.optimizer)  # as an epoch does: nothing hangs twice
        assert len(trainer.optimizer._optimizer_step_pre_hooks) == hooks
        return stock(run, of_it)

    monkeypatch.setattr(step, "take", taking)
    arguments = {"prune": 0.4, "prune_steps": 2, "prune_schedule": "linear", "prune_start": 0.34, "prune_end": 0.67}
    yolo = train(tiny_data, tmp_path, epochs=3, nbs=4, prune_depth=0.5, **arguments)
    assert seen == [name for _, name, _ in IN_A_STEP]
    told = record_of(tmp_path / "run")
    assert [row["step"] for row in told["steps"]] == [1, 2]
    assert told["final"]["gflops"] <= 0.6 * told["baseline"]["gflops"]
    assert widths(yolo.model) == widths(unwrap_model(yolo.trainer.model))


def test_an_interrupted_step_ends_the_training_and_resume_goes_on(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, optimizer_state, "carry_optimizer", KeyboardInterrupt(), True)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_data, tmp_path, epochs=3, prune=0.4, prune_schedule="oneshot", prune_start=0.4)
    last = tmp_path / "run" / "weights" / "last.pt"
    assert widths(YOLO(last).model)["model.1.conv"] == widths(untrained().model)["model.1.conv"]
    YOLO(last).train(resume=True)
    told = record_of(tmp_path / "run")
    assert len(told["steps"]) == 1
    assert told["final"]["gflops"] <= 0.6 * told["baseline"]["gflops"]


def test_a_fault_in_the_choice_leaves_an_nn_module(monkeypatch: pytest.MonkeyPatch) -> None:
    network = DetectionModel("yolov8n.yaml", verbose=False).train()
    next(network.parameters()).requires_grad_(False)
    before = picture(network)
    stop_at(monkeypatch, trial, "examine", StoppedError("here"), True)
    with pytest.raises(StoppedError):
        yolo_prune.prune(network, flops="50%")
    same(before, picture(network))
