# yolo-prune, AGPL-3.0 license
"""The input of a pruned model follows the channels of the data's images, as its class count does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics import YOLO

import yolo_prune
from tests.helpers.runs import record_of, train, widths
from tests.helpers.small_models import untrained
from yolo_prune.commands.apply import apply
from yolo_prune.host import trainable_check


def with_channels(data: Path, channels: int, folder: Path) -> Path:
    """The same images, read in another way; of more than 3 channels the host wants files that have as many."""
    content = {**yaml.safe_load(data.read_text()), "channels": channels}
    if channels > 3:
        import cv2
        import numpy as np

        root = folder / f"with{channels}"
        for image in Path(content["path"]).glob("images/*/*.png"):
            target = root / image.relative_to(content["path"]).with_suffix(".tiff")
            target.parent.mkdir(parents=True, exist_ok=True)
            pixels = cv2.imread(str(image))
            cv2.imwritemulti(str(target), [pixels[..., number % 3].astype(np.uint8) for number in range(channels)])
            label = Path(str(image).replace("images", "labels")).with_suffix(".txt")
            copy = Path(str(target).replace("images", "labels")).with_suffix(".txt")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(label.read_text())
        content["path"] = str(root)
    path = folder / f"channels{channels}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned checkpoint."""
    yolo = untrained()
    yolo_prune.prune(yolo, flops="50%")
    path = tmp_path_factory.mktemp("pruned") / "pruned.pt"
    torch.save({"model": yolo.model, "ema": None, "epoch": -1, "train_args": {}}, path)
    return path


@pytest.fixture
def pruned(made: Path, tmp_path: Path) -> Path:
    """A copy in the folder of the test."""
    return Path(shutil.copy(made, tmp_path))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_pruned_model_trains_on_images_of_other_channels_at_its_widths(
    channels: int, pruned: Path, tiny_data: Path, tmp_path: Path
) -> None:
    before = widths(YOLO(pruned).model)
    data = with_channels(tiny_data, channels, tmp_path)
    trained = train(data, tmp_path, YOLO(pruned), epochs=1)
    now = widths(trained.model)
    assert now.pop("model.0.conv") == (before.pop("model.0.conv")[0], channels)
    head = ("model.10.cv3.0.2", "model.10.cv3.1.2")  # of two classes
    assert all(now.pop(name)[0] == 2 and before.pop(name)[0] == 80 for name in head)
    assert now == before
    last = tmp_path / "run" / "weights" / "last.pt"
    trainable_check.require_file(last)
    back = train(tiny_data, tmp_path, YOLO(last), epochs=1)  # and back to colour
    assert widths(back.model) == {**widths(trained.model), "model.0.conv": (now_first(trained), 3)}


def now_first(yolo: YOLO) -> int:
    return widths(yolo.model)["model.0.conv"][0]


def test_it_is_pruned_again_and_resumed(pruned: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = with_channels(tiny_data, 1, tmp_path)
    train(data, tmp_path, YOLO(pruned), epochs=2, prune=0.3, prune_schedule="oneshot", prune_start=0.5)
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.7 * record["baseline"]["gflops"]
    last = tmp_path / "run" / "weights" / "last.pt"
    assert widths(YOLO(last).model)["model.0.conv"][1] == 1
    told = apply(str(last), flops="80%", out=str(tmp_path / "smaller.pt"))
    assert told["final"]["gflops"] <= 0.8 * told["baseline"]["gflops"]
    YOLO(tmp_path / "smaller.pt").predict(torch.zeros(1, 1, 64, 64), imgsz=64, verbose=False)


def test_an_old_checkpoint_that_does_not_say_its_channels(pruned: Path, tiny_data: Path, tmp_path: Path) -> None:
    content = torch.load(pruned, weights_only=False)
    del content["model"].yaml["yolo_prune"]["channels"]
    torch.save(content, pruned)
    trained = train(with_channels(tiny_data, 1, tmp_path), tmp_path, YOLO(pruned), epochs=1)
    assert widths(trained.model)["model.0.conv"][1] == 1
