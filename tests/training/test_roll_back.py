# yolo-prune, AGPL-3.0 license
"""The largest drop allowed: as far as fitness allows, and back to the last good state where it does not."""

from __future__ import annotations

import inspect
import logging
import math
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import BaseModel, DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from tests.helpers import task_data
from tests.helpers.foreign import RunsCode
from tests.helpers.runs import SMALL, StoppedError, record_of, stop_in, train
from tests.helpers.small_models import small_with, untrained
from yolo_prune import api
from yolo_prune.errors import HostError, PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host.run import Run
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.training import cut_models, max_drop, roll_back, session, teacher

MAX_DROP: dict[str, Any] = {"prune": 0.6, "prune_max_drop": 0.9, "prune_steps": 2, "prune_start": 0.2, "prune_end": 0.5}


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"),
    [([2, 4], 10, 7), ([4], 9, 7), ([0], 2, 1), ([8], 10, 9), ([9], 10, None), ([], 10, None)],
)
def test_the_last_step_is_judged_half_way_to_the_end(steps: list[int], epochs: int, expected: int | None) -> None:
    assert max_drop.check_epoch(steps, epochs) == expected


@pytest.mark.parametrize(("undone", "expected"), [(None, True), ({"step": 3}, False)])
def test_nothing_is_undecided_after_a_step_was_taken_back(undone: dict[str, int] | None, expected: bool) -> None:
    """No step follows: patience counts again, and nothing is kept for a resume."""
    record = {"max_drop": {"undone": undone}}
    session = SimpleNamespace(recipe=SimpleNamespace(max_drop=0.01), epochs=[0, 10], unfinished=False, record=record)
    assert max_drop.undecided_after(session, 40, 100) is expected  # type: ignore[arg-type]


def _trainer(model: Any, optimizer: Any, folder: Path) -> SimpleNamespace:
    def get_model(cfg: Any, weights: Any, verbose: bool) -> DetectionModel:
        return DetectionModel(cfg, nc=2, verbose=verbose)

    return SimpleNamespace(
        model=model,
        ema=ModelEMA(model),
        optimizer=optimizer,
        save_dir=folder,
        device=torch.device("cpu"),
        get_model=get_model,
    )


def test_a_kept_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    trainer = _trainer(model, torch.optim.SGD(model.parameters(), 0.1), tmp_path)
    (tmp_path / "pruning").mkdir()
    roll_back.keep(Run(trainer))
    good = tmp_path / "pruning" / "good.pt"
    state = torch.load(good, weights_only=True)
    mark = tmp_path / "ran"
    torch.save({**state, "more": RunsCode(mark)}, good)
    with pytest.raises(PruneError, match=r"good\.pt is not loaded, .*more than plain data") as caught:
        roll_back.go_back(Run(trainer))
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    for content in (b"", b"PK", torch.zeros(1).numpy().tobytes()):
        good.write_bytes(content)
        with pytest.raises(PruneError, match=r"good\.pt"):
            roll_back.go_back(Run(trainer))
    torch.save({**state, "live": {}}, good)
    with pytest.raises(PruneError, match=r"good\.pt is not of this run"):
        roll_back.go_back(Run(trainer))
    activation = f"__import__('pathlib').Path({str(mark)!r}).touch() or nn.SiLU()"  # the host evaluates it
    layers = [[-1, 1, "torch_safe_load", [str(good)]]]  # and calls what a layer names
    for change in ({"activation": activation}, {"backbone": [*state["yaml"]["backbone"][:-1], *layers]}):
        for which in ("yaml", "exact"):
            torch.save({**state, which: {**state[which], **change}}, good)
            with pytest.raises(PruneError, match=r"good\.pt is not of this run, .*other layers"):
                roll_back.go_back(Run(trainer))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["Pose26", "v10Detect"])
def test_what_trains_after_going_back_is_the_new_model_alone(
    name: str, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task_data.make(tmp_path / "data", "pose") if name == "Pose26" else tiny_data
    monkeypatch.setattr(max_drop, "_dropped_too_far", lambda own: own.steps[-1]["step"] == 2)
    seen: dict[str, Any] = {}

    def after(trainer: Any) -> None:
        steps = session.of(trainer).record["steps"]
        if not steps or "undone" not in steps[-1] or seen:
            return
        model, loss = trainer.model, trainer.model.criterion
        seen["taught"] = isinstance(loss, teacher.TaughtLoss) and session.of(trainer).teacher is loss.teacher
        inside = {id(part) for part in model.parameters()}
        parts = [one for half in (loss.one2many, loss.one2one) for one in vars(half).values()]
        held = [p for one in parts if isinstance(one, torch.nn.Module) for p in one.parameters()]
        seen["strangers"] = [part for part in held if id(part) not in inside]
        seen["updates"], seen["epoch"] = getattr(loss, "updates", None), trainer.epoch
        seen["flow"] = {n: p.detach().clone() for n, p in model.named_parameters() if "flow_model" in n}

    def last(trainer: Any) -> None:
        now = dict(trainer.model.named_parameters())
        seen["still"] = [name for name, was in seen["flow"].items() if torch.equal(was, now[name])]

    yolo = YOLO(
        small_with(tmp_path / "p.yaml", name, "kpt_shape", kpt_shape=[17, 3], end2end=True, reg_max=1)
        if name == "Pose26"
        else small_with(tmp_path / "v10.yaml", name)
    )
    yolo.add_callback("on_train_batch_end", after)
    yolo.add_callback("on_train_end", last)
    arguments = {"epochs": 5, "nbs": 4, **MAX_DROP, "prune_steps": 2, "prune_end": 0.6}
    taught = name == "Pose26"
    train(data, tmp_path, yolo, prune_distill_outputs=float(taught), **arguments)
    assert seen["taught"] == taught, "the first step stays, so the dense model goes on as its teacher"
    assert "undone" in record_of(tmp_path / "run")["steps"][1]
    assert not seen["strangers"]
    assert seen["updates"] == seen["epoch"], "an end-to-end loss goes on where it was"
    assert bool(seen["flow"]) == (name == "Pose26")
    assert not [name for name in seen["still"] if name.endswith("weight")]


def test_going_back_gives_the_state_that_was(tmp_path: Path) -> None:
    """The next training step is the one that would have been without the cut, to the last bit."""
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=2, verbose=False).train()
    model.load(DetectionModel("yolov8n.yaml", nc=80, verbose=False))  # fine-tuned: its class towers stay 80 wide
    if "one2one_cv3" in inspect.getsource(BaseModel.load):  # not of older hosts
        assert model.model[-1].cv3[0][0].conv.out_channels == 80
    model.model[-1].dfl.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def learn(network: Any) -> None:
        torch.manual_seed(1)
        raw = network(torch.rand(2, 3, 64, 64))
        sum(value.float().pow(2).mean() for value in (raw["boxes"], raw["scores"])).backward()
        optimizer.step()
        optimizer.zero_grad()

    learn(model)
    (tmp_path / "pruning").mkdir()
    trainer = _trainer(model, optimizer, tmp_path)
    for parameter in trainer.ema.ema.parameters():
        parameter.data *= 0.5  # the average is not the live model
    trainer.ema.updates = 77
    average = deepcopy(trainer.ema.ema.state_dict())
    roll_back.keep(Run(trainer))
    expected, state = deepcopy(model), deepcopy(optimizer.state_dict())
    wanted = from_arguments({"prune": 0.5})
    assert wanted is not None
    baseline = Baseline.of(model, channel_groups.build(model))
    cut_models.cut_training(
        model, trainer.ema.ema, optimizer, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline))
    )
    learn(model)
    roll_back.go_back(Run(trainer))
    assert trainer.model is not model
    trainer.ema.update(trainer.model)  # one step later it is still the average that was kept, nearly
    assert trainer.ema.updates == 78
    decay = 0.9999 * (1 - math.exp(-78 / 2000))
    for key, was in average.items():
        if was.is_floating_point():
            now = decay * was + (1 - decay) * trainer.model.state_dict()[key]
            assert torch.allclose(trainer.ema.ema.state_dict()[key], now, atol=1e-6), key
    for (name, one), other in zip(trainer.model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for (name, one), other in zip(trainer.model.named_parameters(), expected.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad, name
    own = optimizer.state_dict()
    assert own["param_groups"][0]["params"] == state["param_groups"][0]["params"]
    for key, entry in own["state"].items():
        assert all(torch.equal(entry[k], v) for k, v in state["state"][key].items())
    learn(trainer.model)
    other = torch.optim.AdamW([p for p in expected.parameters() if p.requires_grad])
    other.load_state_dict(state)
    optimizer = other
    learn(expected)
    assert torch.equal(trainer.model.model[0].conv.weight, expected.model[0].conv.weight)


def test_a_drop_that_is_allowed_changes_nothing(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path, epochs=5, **MAX_DROP)
    record = record_of(tmp_path / "run")
    assert len(record["steps"]) == 2
    assert record["max_drop"]["undone"] is None
    assert record["max_drop"]["kept"] is True
    assert record["final"]["gflops"] <= 0.4 * record["baseline"]["gflops"]
    assert not (tmp_path / "run" / "pruning" / "good.pt").exists()


def test_a_step_that_breaks_it_is_undone_and_the_last(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(max_drop, "_dropped_too_far", lambda own: own.steps[-1]["step"] == 2)
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        yolo = train(tiny_data, tmp_path, epochs=8, **{**MAX_DROP, "prune_steps": 3, "prune_end": 0.8})
    record = record_of(tmp_path / "run")
    first, second = record["steps"]
    assert second["undone"] > second["epoch"]
    assert record["final"]["params"] == first["params"] > second["params"]
    assert record["max_drop"]["undone"]["step"] == 2
    assert record["max_drop"]["epoch"] == second["undone"]
    since = [row["fitness"] for row in record["history"] if row["epoch"] >= second["undone"]]
    assert record["best"]["fitness"] == max(record["max_drop"]["fitness_back"], *since)
    assert [row["params"] for row in record["history"]][-1] == first["params"]
    assert len(record["history"]) == 8
    assert "step 2 is undone at epoch" in caplog.text
    for name in ("best", "last"):
        found = YOLO(tmp_path / "run" / "weights" / f"{name}.pt")
        assert sum(p.numel() for p in found.model.parameters()) == first["params"]
    assert sum(p.numel() for p in yolo.model.parameters()) == first["params"]


@pytest.mark.parametrize("undone", [1, 2])
def test_a_run_that_went_back_and_was_killed_takes_no_step_when_resumed(
    undone: int,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(max_drop, "_dropped_too_far", lambda own: own.steps[-1]["step"] == undone)

    yolo = untrained()
    stop_in(yolo, 7, "on_train_epoch_end")
    arguments = {**SMALL, **MAX_DROP, "prune_steps": 3, "prune_end": 0.8, "epochs": 9}
    with pytest.raises(StoppedError):
        yolo.train(data=str(tiny_data), project=str(tmp_path), name="run", exist_ok=True, **arguments)
    before = record_of(tmp_path / "run")
    assert before["max_drop"]["undone"]["step"] == undone
    mixed: list[int] = []
    monkeypatch.setattr(Run, "validate_on_both_canvases", lambda run: mixed.append(run.start_epoch))
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        YOLO(tmp_path / "run" / "weights" / "last.pt").train(resume=True)
    assert mixed, "as the part before was validated, whose best fitness goes on"
    assert "it is cut before the first epoch" not in caplog.text
    assert ("NOTHING WAS CUT: the first step was undone" in caplog.text) is (undone == 1)
    assert ("next: yolo-prune export" in caplog.text) is (undone == 2)
    record = record_of(tmp_path / "run")
    assert len(record["history"]) == 9
    assert record["max_drop"]["undone"]["step"] == undone
    assert len(record["steps"]) == undone
    assert record["final"]["params"] == before["final"]["params"]


def test_a_run_that_was_killed_as_it_went_back_to_the_dense_model_is_not_cut_again(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(max_drop, "_dropped_too_far", lambda own: True)
    stock, saved = Run.save_as_of_the_epoch_before, []

    def kill(run: Run) -> None:
        stock(run)
        saved.append(run.epoch)
        if len(saved) == 2:  # the first is of the cut
            raise StoppedError

    monkeypatch.setattr(Run, "save_as_of_the_epoch_before", kill)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, epochs=5, **MAX_DROP)
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        YOLO(tmp_path / "run" / "weights" / "last.pt").train(resume=True)
    assert len(saved) == 2, "no step is taken"
    assert "NOTHING WAS CUT: the first step was undone" in caplog.text
    assert record_of(tmp_path / "run")["final"]["params"] == record_of(tmp_path / "run")["baseline"]["params"]


def test_a_larger_final_drop_is_said_loudly(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Run.validate
    monkeypatch.setattr(Run, "validate", lambda run: max(real(run) or 0, 0.9))
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        train(tiny_data, tmp_path, epochs=1, prune="oneshot", prune_max_drop=0.01)
    assert "prune_max_drop IS EXCEEDED" in caplog.text
    assert record_of(tmp_path / "run")["max_drop"]["kept"] is False


def test_an_allowance_of_all_fitness_is_said_loudly(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        train(tiny_data, tmp_path, epochs=1, prune="oneshot", prune_max_drop=0.5)
    assert "prune_max_drop=0.5 PROTECTS NOTHING" in caplog.text


def test_auto_goes_as_far_as_it_can(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path, epochs=9, prune="auto", prune_max_drop=0.9)
    record = record_of(tmp_path / "run")
    assert record["recipe"]["flops"] is None
    assert len(record["steps"]) == 7  # eight steps from the first to the sixth epoch are seven
    gflops = [row["gflops"] for row in record["steps"]]
    assert gflops == sorted(gflops, reverse=True)
    assert record["final"]["gflops"] < 0.2 * record["baseline"]["gflops"]
    assert record["bounds"]["flops"] >= 1e9 * record["final"]["gflops"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"val": False}, "prune_max_drop=0.01 with val=False: the drop is one of fitness, so write val=True"),
        ({"distill_model": "yolov8s.pt"}, "prune_max_drop=0.01 with distill_model=yolov8s.pt is not supported"),
    ],
)
def test_what_does_not_go_with_max_drop(arguments: dict[str, Any], words: str, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=words):
        train(tiny_data, tmp_path, epochs=5, prune=0.5, prune_max_drop=0.01, **arguments)


def test_one_cut_has_no_max_drop() -> None:
    with pytest.raises(PruneError, match=r"max_drop=0.01 is kept by a training .* one cut wants a bound"):
        api.prune(untrained(), flops="50%", max_drop=0.01)
