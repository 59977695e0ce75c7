# yolo-prune, AGPL-3.0 license
"""A pruned model that learns what the dense one puts out: real trainings, and what is refused."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import RTDETRDetectionModel, load_checkpoint

from tests.helpers.foreign import plant
from tests.helpers.runs import StoppedError, stop_in, train
from tests.helpers.small_models import small_with
from yolo_prune.errors import PruneError
from yolo_prune.host import detection_head
from yolo_prune.host.run import Run
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.training import session, teacher
from yolo_prune.training.output_loss import Gains
from yolo_prune.training.teacher import TaughtLoss

SETTINGS: dict[str, Any] = {"prune": 0.5, "prune_start": 0.34, "prune_distill_outputs": 1}


def tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def be_sure(trainer: Any) -> None:
    """A model of random weights gives every class some 0.00001: let these give a half."""
    for model in (trainer.model, trainer.ema.ema):
        for branch in ("cv3", "one2one_cv3"):
            for level in getattr(model.model[-1], branch, None) or ():
                torch.nn.init.zeros_(level[-1].bias)


def model_with(folder: Path, branches: int) -> YOLO:
    """The small model with one branch in its head as yolov8, or two as yolo26."""
    more = {"end2end": True, "reg_max": 1} if branches == 2 else {}
    return YOLO(small_with(folder / "model.yaml", "Detect", **more))


@pytest.mark.parametrize("branches", [1, 2])
def test_a_run_learns_what_it_put_out_before_its_cut(
    branches: int, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo, seen = model_with(tmp_path, branches), {}

    def end(trainer: Any) -> None:
        loss = trainer.model.criterion
        seen[trainer.epoch] = tensors(trainer.ema.ema) if trainer.epoch == 0 else loss
        seen["items"] = list(trainer.loss_items)
        if trainer.epoch == 1:
            seen["teacher"] = tensors(loss.teacher)

    yolo.add_callback("on_train_start", be_sure)
    yolo.add_callback("on_train_epoch_end", end)
    stop_in(yolo, 2, "on_train_epoch_start")
    with caplog.at_level("INFO", logger="ultralytics"), pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, epochs=3, nbs=4, warmup_epochs=0, lr0=0.001, **SETTINGS)
    said = [line for line in caplog.messages if "learning what the dense model puts out" in line]
    assert len(said) == 1
    assert " 0.00% of the loss" not in said[0], said
    assert all(torch.equal(value, seen["teacher"][key]) for key, value in seen[0].items()), "its statistics stay too"
    assert type(seen[1]) is TaughtLoss
    assert not any(part is seen[1].teacher for part in yolo.trainer.model.modules())
    assert type(yolo.trainer.ema.ema.criterion) is not TaughtLoss, "validation losses are the host's"
    header = (tmp_path / "run" / "results.csv").read_text().splitlines()[0]
    assert sum("train/" in word for word in header.split(",")) == len(seen["items"]) == 3

    last, kept = tmp_path / "run" / "weights" / "last.pt", tmp_path / "run" / "pruning" / "outputs-teacher.pt"
    assert getattr(load_checkpoint(last)[0], "criterion", None) is None
    state, mark = kept.read_bytes(), tmp_path / "ran"
    plant(kept, mark)
    with pytest.raises(PruneError, match=r"outputs-teacher\.pt is not loaded, .*more than plain data"):
        YOLO(last).train(resume=True)
    assert not mark.exists()
    kept.write_bytes(state)

    resumed, again = YOLO(last), {}

    def look(trainer: Any) -> None:
        loss = trainer.model.criterion
        again.update(loss=loss, teacher=tensors(loss.teacher), updates=getattr(loss, "updates", None))

    resumed.add_callback("on_train_batch_end", look)
    resumed.train(resume=True)
    assert again["teacher"].keys() == seen["teacher"].keys()
    assert all(torch.equal(value, again["teacher"][key]) for key, value in seen["teacher"].items())
    if branches == 2:
        assert again["updates"] == 2, "the weights of the two branches go on where they were"
    assert type(resumed.trainer.model.criterion) is not TaughtLoss
    assert not kept.exists()
    assert session.of(resumed.trainer).teacher is None


@pytest.fixture(scope="module", params=[1, 2])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, dict[str, Any]]:
    """A student, its copy as a teacher, and a batch."""
    torch.manual_seed(0)
    student: Any = model_with(tmp_path_factory.mktemp("pair"), request.param).model
    student.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=3)
    be_sure(SimpleNamespace(model=student, ema=SimpleNamespace(ema=student)))
    dense = deepcopy(student).eval().requires_grad_(False)
    batch = {"img": torch.rand(2, 3, 64, 64), "batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1)}
    return student, dense, {**batch, "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}


def test_the_host_s_loss_is_as_it_was_and_one_term_follows(pair: tuple[Any, Any, dict[str, Any]]) -> None:
    student, dense, batch = pair
    own = student.init_criterion()
    student.train()
    outputs = student(batch["img"])
    plain, items = own(outputs, batch)
    once, _ = TaughtLoss(own, dense, 1, Gains(0.5, 7.5, 1.5))(outputs, batch)
    twice, again = TaughtLoss(own, dense, 2, Gains(0.5, 7.5, 1.5))(outputs, batch)
    assert torch.equal(once[:-1], plain)
    assert str(again) == str(items)  # a table, or, of the lowest host, a tensor
    assert float(once[-1].detach()) > 0.01, "BatchNorm in training is not the teacher's"
    assert float(twice[-1].detach()) == pytest.approx(2 * float(once[-1].detach()), rel=1e-5)
    if hasattr(own, "o2m"):  # the branches weigh as they do in the host's loss, which is 0.8 and 0.2 at first
        alone = []
        for own.o2m, own.o2o in ((1.0, 0.0), (0.0, 1.0)):
            alone.append(float(TaughtLoss(own, dense, 1, Gains(0.5, 7.5, 1.5))(outputs, batch)[0][-1].detach()))
        assert float(once[-1].detach()) == pytest.approx(0.8 * alone[0] + 0.2 * alone[1], rel=1e-4)
        assert min(alone) > 0.01
    once[-1].backward()
    assert all(parameter.grad is None for parameter in dense.parameters())
    branches = ["cv2", "cv3", *(["one2one_cv2", "one2one_cv3"] if hasattr(student.model[-1], "one2one_cv2") else [])]
    for branch in branches:
        pulls = [p.grad for p in getattr(student.model[-1], branch).parameters()]
        assert all(one is not None and float(one.abs().max()) > 0 for one in pulls), branch
    student.zero_grad()


def test_a_copy_that_sees_as_its_teacher_does_learns_nothing(pair: tuple[Any, Any, dict[str, Any]]) -> None:
    student, dense, batch = pair
    same = detection_head.raw(deepcopy(dense).requires_grad_(True), batch["img"])
    loss, _ = TaughtLoss(student.init_criterion(), dense, 1, Gains(0.5, 7.5, 1.5))(same, batch)
    assert float(loss[-1].detach()) == pytest.approx(0, abs=1e-5)


def test_files_and_copies_hold_no_teacher_of_their_own(pair: tuple[Any, Any, dict[str, Any]]) -> None:
    student, dense, _ = pair
    loss = TaughtLoss(student.init_criterion(), dense, 1, Gains(0.5, 7.5, 1.5))
    student.criterion = loss
    try:
        assert type(pickle.loads(pickle.dumps(loss))) is type(loss.own)
        copy = deepcopy(loss)
        assert copy.teacher is dense
        assert copy.own is not loss.own
        run, wanted = Run(SimpleNamespace(model=student)), from_arguments(SETTINGS)
        teacher.follow(run, SimpleNamespace(recipe=wanted, done=0, teacher=dense))  # it went back to before its cut
        assert student.criterion is loss.own
    finally:
        student.criterion = None


@pytest.mark.parametrize("task", ["classify", "semantic", "depth"])
def test_a_task_without_boxes_is_refused_by_name(task: str) -> None:
    own = SimpleNamespace(task=task, distill_model=None)
    with pytest.raises(PruneError, match=f"prune_distill_outputs=1 .*task={task} has") as caught:
        teacher.arrange(Run(SimpleNamespace(args=own)), from_arguments(SETTINGS))
    assert "\n" not in str(caught.value)


def test_two_teachers_and_another_head_are_refused() -> None:
    wanted = from_arguments(SETTINGS)
    own = SimpleNamespace(task="detect", distill_model="other.pt")
    with pytest.raises(PruneError, match=r"prune_distill_outputs=1 and distill_model=other\.pt name two teachers"):
        teacher.arrange(Run(SimpleNamespace(args=own)), wanted)
    with pytest.raises(PruneError, match=r"the head of detr\.yaml \(RTDETRDetectionModel\) puts out none"):
        teacher.require(RTDETRDetectionModel("yolov8n-rtdetr.yaml", verbose=False), wanted, "detr.yaml")
