# yolo-prune, AGPL-3.0 license
"""Validation on the host's canvas and on that of an exported file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset
from ultralytics import YOLO
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.utils.callbacks import base

from tests.helpers.runs import ANY_CHOICE, train
from tests.helpers.small_models import untrained
from yolo_prune.host import canvases


def watched(yolo: YOLO) -> list[tuple[str, list[tuple[int, int]]]]:
    """The heights and widths of the batches of each validation, and when it was."""
    seen: list[tuple[str, list[tuple[int, int]]]] = []

    def begin(validator: Any) -> None:
        seen.append(("train" if validator.training else "val", []))

        def keep(batch: Any, stock: Any = validator.preprocess) -> Any:
            found = stock(batch)
            seen[-1][1].append(tuple(found["img"].shape[2:]))
            return found

        validator.preprocess = keep

    def end(validator: Any) -> None:
        del validator.preprocess

    yolo.add_callback("on_val_start", begin)
    yolo.add_callback("on_val_end", end)
    return seen


class Shapes(Dataset[Any]):
    """What a dataset of the host says of the canvas of each image; batches of two."""

    rect, imgsz, pad = True, 64, 0.5

    def __init__(self) -> None:
        self.batch_shapes = np.full((3, 2), 96)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return int(self.batch_shapes[index // 2, 0])


@pytest.mark.parametrize("workers", [0, 1])
def test_worker_processes_hear_of_it(workers: int) -> None:
    """On a CPU the host's trainer has none."""
    loader, finals = InfiniteDataLoader(Shapes(), batch_size=2, num_workers=workers), []

    def sides() -> list[int]:
        return [int(batch[0]) for batch in loader]

    trainer = SimpleNamespace(args=SimpleNamespace(rect=False), test_loader=loader)
    trainer.final_eval = lambda: finals.append(sides())
    assert sides() == [96, 96, 96]
    assert canvases.mix(trainer) == 64
    assert sides() == [96, 64, 96]
    assert canvases.mix(trainer) is None, "it is so already"
    assert sides() == [96, 64, 96]
    trainer.final_eval()
    assert finals == [[96, 96, 96]]
    loader.close()


def test_new_loaders_are_mixed_as_well() -> None:
    """The host makes them where it ran out of memory."""
    finals: list[int] = []
    trainer = SimpleNamespace(args=SimpleNamespace(rect=False), final_eval=lambda: finals.append(1))
    for _ in range(2):
        trainer.test_loader = SimpleNamespace(dataset=Shapes())
        assert canvases.mix(trainer) == 64
    trainer.final_eval()
    assert (finals, trainer.test_loader.dataset.batch_shapes[1, 0]) == ([1], 96)


def test_epochs_are_validated_on_both_canvases_and_best_on_the_hosts(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo = untrained()
    seen = watched(yolo)
    with caplog.at_level("INFO"):
        train(tiny_data, tmp_path, yolo, prune=0.5, epochs=2, batch=1, nbs=1, imgsz=64, **ANY_CHOICE)
    assert "every second batch is validated on 64 x 64" in caplog.text
    assert "after the cut every second batch of square images of training lies in that frame" in caplog.text
    epochs = [shapes for when, shapes in seen if when == "train"]
    assert len(epochs) == 2
    assert all(shapes[:2] == [(96, 96), (64, 64)] for shapes in epochs)
    when, last = seen[-1]
    assert (when, set(last)) == ("val", {(96, 96)})


def test_one_batch_and_rectangles_that_were_asked_for_stay_the_hosts(tiny_data: Path, tmp_path: Path) -> None:
    for name, settings in {"one": {"batch": 8}, "rect": {"batch": 1, "rect": True}}.items():
        yolo = untrained()
        seen = watched(yolo)
        train(tiny_data, tmp_path / name, yolo, prune=0.5, epochs=1, imgsz=64, **settings, **ANY_CHOICE)
        assert {shape for _, shapes in seen for shape in shapes} == {(96, 96)}, name


def test_a_loader_without_frames_is_left_as_it_is() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(rect=False), test_loader=None)
    assert canvases.mix(trainer) is None
    trainer.test_loader = SimpleNamespace(dataset=Shapes())
    trainer.test_loader.dataset.pad = 0.0  # semantic
    assert canvases.mix(trainer) is None


def test_all_trainings_of_a_process_may_choose_alike(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for event in canvases.EVENTS:
        monkeypatch.setitem(base.default_callbacks, event, [*base.default_callbacks[event]])
    canvases.mix_in_all()
    counts = [len(base.default_callbacks[event]) for event in canvases.EVENTS]
    canvases.mix_in_all()
    assert [len(base.default_callbacks[event]) for event in canvases.EVENTS] == counts
    yolo = untrained()
    seen = watched(yolo)
    train(tiny_data, tmp_path, yolo, epochs=1, batch=1, nbs=1, imgsz=64)
    (_, epoch), (_, last) = seen
    assert (epoch[:2], set(last)) == ([(96, 96), (64, 64)], {(96, 96)})
