# yolo-prune, AGPL-3.0 license
"""Training images in the grey frame that the host validates in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from ultralytics import YOLO

from tests.helpers.runs import ANY_CHOICE, train
from tests.helpers.small_models import untrained
from yolo_prune.host import frames
from yolo_prune.host.run import Run

SHARES = st.floats(0.05, 0.95)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 32), st.lists(SHARES, min_size=4, max_size=4))
def test_in_pixels_labels_move_by_the_border_and_keep_their_size(
    rows: int, columns: int, border: int, shares: list[float]
) -> None:
    height, width = 32 * rows, 32 * columns
    batch = {
        "img": torch.rand(1, 3, height, width),
        "bboxes": torch.tensor([[*shares, 0.7]]),  # a box that is turned has an angle
        "keypoints": torch.tensor([[[*shares[:2], 2.0]]]),
    }
    found = frames.lay(dict(batch), border)
    assert found["img"].shape == (1, 3, height + 2 * border, width + 2 * border)
    assert torch.equal(found["img"][..., border:-border, border:-border], batch["img"])
    grey = torch.ones(found["img"].shape, dtype=torch.bool)
    grey[..., border:-border, border:-border] = False
    assert (found["img"][grey] * 255).round().unique().tolist() == [114]
    sides, framed = torch.tensor([width, height]), torch.tensor([width + 2 * border, height + 2 * border])
    close = {"rtol": 0, "atol": 1e-3}
    torch.testing.assert_close(found["bboxes"][0, :2] * framed, batch["bboxes"][0, :2] * sides + border, **close)
    torch.testing.assert_close(found["bboxes"][0, 2:4] * framed, batch["bboxes"][0, 2:4] * sides, **close)
    torch.testing.assert_close(found["keypoints"][0, 0, :2] * framed, batch["keypoints"][0, 0, :2] * sides + border)
    assert (found["bboxes"][0, 4], found["keypoints"][0, 0, 2]) == (batch["bboxes"][0, 4], 2.0)
    assert batch["bboxes"][0, :4].tolist() == pytest.approx(shares), "the batch that was given is as it was"


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_masks_stay_on_what_they_cover(ratio: int) -> None:
    image = torch.zeros(2, 3, 64, 96)
    image[:, :, 16:32, 32:64] = 1.0
    mask = image[:, 0, ::ratio, ::ratio]
    batch = {"img": image, "bboxes": torch.zeros(0, 4), "masks": mask, "sem_masks": mask}
    found = frames.lay(batch, 16)
    for name in ("masks", "sem_masks"):
        assert torch.equal(found[name] == 1, (found["img"] == 1)[:, 0, ::ratio, ::ratio]), name


def a_trainer(task: str = "detect", rect: bool = False, model: nn.Module | None = None) -> Any:
    def plain(batch: dict[str, Any]) -> dict[str, Any]:
        return batch

    return SimpleNamespace(
        args=SimpleNamespace(task=task, rect=rect), model=model or nn.Identity(), stride=32, preprocess_batch=plain
    )


def seen_by(trainer: Any, count: int, files: tuple[tuple[int, int], ...] = ((200, 200),)) -> list[int]:
    """The heights of so many batches of 64 x 64, from files of these heights and widths."""
    batch = {"img": torch.zeros(len(files), 3, 64, 64), "bboxes": torch.zeros(0, 4), "ori_shape": files}
    return [int(trainer.preprocess_batch(dict(batch))["img"].shape[2]) for _ in range(count)]


def test_every_second_batch_of_each_epoch_until_it_is_told_otherwise() -> None:
    trainer = a_trainer()
    stock = trainer.preprocess_batch
    for _ in range(2):  # epochs
        Run(trainer).train_in_frames(True)
        assert seen_by(trainer, 3) == [64, 96, 64]
    Run(trainer).train_in_frames(False)
    assert trainer.preprocess_batch is stock
    assert set(vars(trainer)) == set(vars(a_trainer()))


@pytest.mark.parametrize(
    ("files", "framed"),
    [
        (((200, 200), (200, 200), (100, 200)), True),  # most are square
        (((200, 200), (100, 200), (200, 100)), False),
        (((101, 200),), True),  # bars of 15.8 pixels on a canvas of 64
        (((100, 200),), False),  # bars of 16, as wide as the frame
        (((200, 101),), True),
        (((200, 200), (100, 200)), False),
    ],
)
def test_images_with_bars_of_their_own_are_left_as_they_are(files: tuple[tuple[int, int], ...], framed: bool) -> None:
    trainer = a_trainer()
    Run(trainer).train_in_frames(True)
    assert seen_by(trainer, 2, files) == [64, 96 if framed else 64]


def test_a_batch_that_does_not_say_its_shapes_is_left_as_it_is() -> None:
    trainer = a_trainer()
    Run(trainer).train_in_frames(True)
    batch = {"img": torch.zeros(1, 3, 64, 64), "bboxes": torch.zeros(0, 4)}
    assert [trainer.preprocess_batch(dict(batch))["img"].shape[2] for _ in range(2)] == [64, 64]


class RTDETRDetectionModel(nn.Module):
    """Has the name of the host's."""


class Distilling(nn.Module):
    """As the host's DistillationModel has it."""

    def __init__(self) -> None:
        super().__init__()
        self.student_model = RTDETRDetectionModel()


@pytest.mark.parametrize(
    "other", [{"task": "classify"}, {"rect": True}, {"model": RTDETRDetectionModel()}, {"model": Distilling()}]
)
def test_what_is_validated_without_frames_is_trained_without(other: dict[str, Any]) -> None:
    trainer = a_trainer(**other)
    Run(trainer).train_in_frames(True)
    assert seen_by(trainer, 2) == [64, 64]


def canvases_of(yolo: YOLO) -> list[tuple[int, int]]:
    """Epoch and height of each batch of the next training, as the network is given it."""
    seen: list[tuple[int, int]] = []

    def begin(trainer: Any) -> None:
        def keep(network: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(args[0], dict):
                seen.append((trainer.epoch, int(args[0]["img"].shape[2])))

        trainer.model.register_forward_pre_hook(keep)

    yolo.add_callback("on_train_start", begin)
    return seen


@pytest.mark.parametrize(("frames_too", "after"), [(True, [64, 96]), (False, [64, 64])])
def test_a_run_learns_from_both_canvases_from_its_cut_on(
    frames_too: bool, after: list[int], tiny_data: Path, tmp_path: Path
) -> None:
    yolo = untrained()
    seen = canvases_of(yolo)
    arguments = {**ANY_CHOICE, "prune_frames": frames_too, "prune_start": 0.5, "val": False}
    train(tiny_data, tmp_path, yolo, prune=0.5, epochs=2, batch=4, imgsz=64, **arguments)
    of_epoch = [[height for epoch, height in seen if epoch == number][:2] for number in (0, 1)]
    assert of_epoch == [[64, 64], after]
