# yolo-prune, AGPL-3.0 license
"""The host's own turns in a run that prunes: arguments, running out of memory, NaN, scaled gradients, distillation."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_num_params, unwrap_model

from tests.helpers.checkout import needs
from tests.helpers.runs import ANY_CHOICE, StoppedError, record_of, stop_in, train, widths
from tests.helpers.small_models import SMALL_MODEL, untrained

ONCE: dict[str, Any] = {"prune": 0.5, "prune_schedule": "oneshot"}
TWICE: dict[str, Any] = {"prune": 0.5, "prune_steps": 2, "prune_start": 0, "prune_end": 0.5}


def check(run: Path) -> None:
    """A run has pruned to its bound, and its best.pt is what its record says."""
    record = record_of(run)
    model, _ = load_checkpoint(run / "weights" / "best.pt")
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    assert get_num_params(model) == record["final"]["params"]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    "arguments",
    [
        {"val": False, "freeze": 3, "cos_lr": True, "fraction": 0.5, "optimizer": "NAdam"},
        {"save_period": 1, "multi_scale": 0.5, "close_mosaic": 2, "single_cls": True, "batch": 2, "nbs": 8},
        pytest.param({"cls_pw": 0.5, "optimizer": "RMSprop"}, marks=needs("cls_pw")),
        *({"optimizer": name} for name in ("auto", "MuSGD", "AdamW")),  # others: test_optimizers, test_optimizer_state
    ],
    ids=str,
)
def test_arguments_of_the_host_go_with_pruning(arguments: dict[str, Any], tiny_data: Path, tmp_path: Path) -> None:
    choice = {} if arguments.get("optimizer") in ("auto", "MuSGD") else ANY_CHOICE
    train(tiny_data, tmp_path, epochs=3, **TWICE, **choice, **arguments)
    check(tmp_path / "run")
    if "save_period" in arguments:
        assert (tmp_path / "run" / "weights" / "epoch2.pt").is_file()
    assert not list((tmp_path / "run" / "weights").glob(".*")), "a folder of half-written files was left"


def test_a_frozen_layer_keeps_its_values_through_the_steps(tiny_data: Path, tmp_path: Path) -> None:
    yolo = untrained()
    first: list[torch.Tensor] = []
    yolo.add_callback("on_train_start", lambda t: first.append(t.model.model[0].conv.weight.detach().clone()))
    train(tiny_data, tmp_path, yolo, epochs=3, freeze=1, **TWICE)
    model, _ = load_checkpoint(tmp_path / "run" / "weights" / "last.pt")
    left = {tuple(row.flatten().tolist()) for row in model.model[0].conv.weight}
    assert left <= {tuple(row.flatten().tolist()) for row in first[0].half().float()}, "rows of a frozen layer only go"


@pytest.mark.skipif(
    "_oom_retries" not in inspect.getsource(BaseTrainer._do_train), reason="this ultralytics does not retry"
)
def test_out_of_memory_in_the_epoch_of_a_step_does_not_repeat_it(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    yolo = untrained()
    failed: list[int] = []

    def fail_once(trainer: Any) -> None:
        stock = trainer.preprocess_batch

        def preprocess(batch: Any) -> Any:
            if not failed:
                failed.append(trainer.epoch)
                raise RuntimeError("CUDA out of memory (a stand-in)")
            return stock(batch)

        trainer.preprocess_batch = preprocess

    yolo.add_callback("on_train_start", fail_once)
    with caplog.at_level("WARNING", logger="ultralytics"):
        train(tiny_data, tmp_path, yolo, epochs=2, prune_start=0, **ONCE)
    assert failed == [0]
    assert "out of memory" in caplog.text
    assert [row["epoch"] for row in record_of(tmp_path / "run")["steps"]] == [1]
    check(tmp_path / "run")


@pytest.mark.parametrize(("importance", "start", "steps"), [("obdc", 0.4, [2]), ("activation", 0.7, [3])])
def test_nan_right_after_a_step_or_before_it_is_recovered(
    importance: str, start: float, steps: list[int], tiny_data: Path, tmp_path: Path, caplog: Any
) -> None:
    yolo = untrained()
    poisoned = []

    def poison(trainer: Any) -> None:
        if trainer.epoch == 1 and not poisoned:
            poisoned.append(trainer.epoch)
            trainer.loss = torch.tensor(math.nan)
            stock = trainer.validate
            trainer.validate = lambda: (stock()[0], math.nan)  # the lowest host wants fitness to be NaN too

    def heal(trainer: Any) -> None:
        vars(trainer).pop("validate", None)

    yolo.add_callback("on_train_epoch_end", poison)
    yolo.add_callback("on_train_epoch_start", heal)
    with caplog.at_level("WARNING", logger="ultralytics"):
        train(tiny_data, tmp_path, yolo, epochs=3, prune_start=start, prune_importance=importance, **ONCE)
    assert poisoned
    assert "recovering from last.pt" in caplog.text
    assert [row["epoch"] for row in record_of(tmp_path / "run")["steps"]] == steps
    check(tmp_path / "run")


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="this torch has no scaler for the CPU")
def test_the_state_of_the_grad_scaler_survives_a_step(tiny_data: Path, tmp_path: Path) -> None:
    """With a scaler that works on the CPU; what it does on a GPU was not run."""
    yolo = untrained()
    scales: list[tuple[int, float, int]] = []

    def scaled(trainer: Any) -> None:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=2)

    def note(trainer: Any) -> None:
        state = trainer.scaler.state_dict()
        scales.append((trainer.epoch, state["scale"], state["_growth_tracker"]))

    yolo.add_callback("on_train_start", scaled)
    yolo.add_callback("on_train_epoch_start", note)  # after ours: the host runs its default callbacks first
    yolo.add_callback("on_train_epoch_end", note)
    train(tiny_data, tmp_path, yolo, epochs=4, nbs=4, prune_start=0.5, **ONCE)
    ends, starts = scales[1::2], scales[2::2]
    assert [scale[1:] for scale in ends[:-1]] == [scale[1:] for scale in starts], "nothing happens to it between epochs"
    assert ends[-1][1] > 512, "and it goes on growing after the step"
    check(tmp_path / "run")


# Distillation ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model of the student's layers, twice as wide."""
    folder = tmp_path_factory.mktemp("teacher")
    wider = folder / "wider.yaml"
    wider.write_text("width_multiple: 2.0\n" + SMALL_MODEL.read_text(encoding="utf-8"), encoding="utf-8")
    train(tiny_data, folder, YOLO(wider), epochs=1, val=False)
    return folder / "run" / "weights" / "best.pt"


@needs("distill_model")
@pytest.mark.parametrize("killed", [False, True])
def test_a_student_is_pruned_and_its_teacher_is_not(
    killed: bool, teacher: Path, tiny_data: Path, tmp_path: Path
) -> None:
    yolo = untrained()
    untouched = widths(load_checkpoint(teacher)[0])
    sums: list[float] = []

    def look(trainer: Any) -> None:
        model = unwrap_model(trainer.model)
        assert widths(model.teacher_model) == untouched
        sums.append(sum(float(value.double().sum()) for value in model.teacher_model.state_dict().values()))
        for wrapper in (model, trainer.ema.ema):
            features = [wrapper.student_model.model[i].cv2.conv.out_channels for i in wrapper.feats_idx[:-1]]
            assert [projector[0].weight.shape[1] for projector in wrapper.projector] == features
        assert set(map(id, model.projector.parameters())) <= {
            id(p) for group in trainer.optimizer.param_groups for p in group["params"]
        }

    yolo.add_callback("on_train_epoch_end", look)
    arguments = {"epochs": 4, "nbs": 4, "prune_start": 0.25, "prune_end": 0.75, "prune": 0.5, "prune_steps": 2}
    if killed:
        stop_in(yolo, 2)
        with pytest.raises(StoppedError):
            train(tiny_data, tmp_path, yolo, distill_model=str(teacher), **arguments)
        yolo = YOLO(tmp_path / "run" / "weights" / "last.pt")
        yolo.add_callback("on_train_epoch_end", look)
        yolo.train(resume=True)
    else:
        train(tiny_data, tmp_path, yolo, distill_model=str(teacher), **arguments)
    assert len(sums) == 4
    assert len(set(sums)) == 1
    record = record_of(tmp_path / "run")
    assert [row["epoch"] for row in record["steps"]] == [2, 4]
    assert {type(m).__name__ for m in load_checkpoint(tmp_path / "run" / "weights" / "best.pt")[0].children()} == {
        "Sequential"
    }
    check(tmp_path / "run")
