# yolo-prune, AGPL-3.0 license
"""What a training leaves as it is (freeze=) keeps its channels, by name and with the reason; bounds say so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers.oracle import lively
from tests.helpers.runs import record_of, train
from tests.importance.test_gradients import loss_of
from yolo_prune.errors import BoundError
from yolo_prune.graph import channel_groups
from yolo_prune.importance import gradients, scoring
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.sparsity_pattern import parse
from yolo_prune.surgery import masks
from yolo_prune.training import frozen, preflight

ONCE: dict[str, Any] = {"prune": 0.3, "prune_start": 0.5, "prune_reconstruct": "none", "nbs": 4}


def small(freeze: object = None) -> Any:
    torch.manual_seed(0)
    model = lively(DetectionModel("yolov8n.yaml", nc=2, verbose=False)).train()
    for name in frozen.layers_to_freeze(model, freeze):
        model.get_submodule(name).weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        (2, "model.0, model.1"),
        ([0, 3], "model.0, model.3"),
        (["2.m", 5], "model.2.m, model.5"),
        (["2.m.0.cv1"], "model.2.m.0.cv1"),
        (0, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_names_are_those_that_the_host_freezes(freeze: object, words: str) -> None:
    model = small(freeze)
    assert frozen.in_words(model, frozen.frozen_layers(model)) == words
    assert frozen.frozen_layers(model) == frozen.layers_to_freeze(model, freeze)
    assert not any("dfl" in name for name in frozen.frozen_layers(model))


def test_frozen_makers_are_protected_and_all_else_is_as_it_was() -> None:
    model = small(5)
    free, found = channel_groups.build(model), channel_groups.build(model, frozen=frozen.frozen_layers(model))
    gone = {group.name for group in free.groups} - {group.name for group in found.groups}
    assert gone == {
        group.name for group in free.groups if group.name.startswith(tuple(f"model.{n}." for n in range(5)))
    }
    assert len(gone) > 5
    for name in frozen.frozen_layers(model):
        assert found.protected[name] == channel_groups.FROZEN
        assert name not in found.native  # not by the model's nature: its yaml still carries the width
    assert len(found.protected) == len(free.protected) + len(frozen.frozen_layers(model))
    whole = channel_groups.build(small(), frozen=("model.4.m.0.cv1.conv",))
    assert not any(block.name == "model.4.m.0" for block in whole.blocks)
    assert any(block.name == "model.4.m.0" for block in free.blocks)


def spoken_of(model: Any, found: channel_groups.ChannelGraph, kind: str = "fisher") -> dict[str, np.ndarray]:
    seen = gradients.Gates(found, model, kind)
    loss_of(model, 1).backward()
    seen.look()
    return seen.scores()


def test_what_no_gradient_speaks_of_has_no_score_and_is_not_first_to_go() -> None:
    readers = ("model.6.cv1.conv", "model.18.cv1.conv")  # of model.5's channels, and other's
    model = small()
    for name in (*readers, "model.5.bn"):
        model.get_submodule(name).weight.requires_grad_(False)
    model.get_submodule("model.6.m.0.cv1.conv").weight.requires_grad_(False)
    found = channel_groups.build(model)
    scores = spoken_of(model, found)
    assert "model.5.conv" not in scores  # its only reader and its norm are frozen
    by_norm = scores["model.6.cv1.conv[2/2]"]  # a reader of several is frozen; its norm is not
    assert (by_norm > 0).all()
    recipe = from_arguments({"prune": 0.5, "prune_importance": "fisher"})
    assert recipe is not None
    full = choice._without_gaps(scores, found, model)
    assert set(full) == {group.name for group in found.groups}
    typical = np.median([value.mean() for value in scores.values()])
    assert full["model.5.conv"].mean() == pytest.approx(typical)
    l2 = scoring.score(found, model, "l2")["model.5.conv"]
    assert np.array_equal(np.argsort(full["model.5.conv"]), np.argsort(l2))
    weights = gradients.weights(full, found)
    assert weights["model.5.conv"] > 10 * gradients._LEAST_WEIGHT
    baseline = Baseline.of(model, found)
    _, plan = choice.choose(
        model, StepRequest(recipe, baseline, choice.step_bounds(recipe, baseline), lambda groups: scores)
    )
    assert len(plan.keep.get("model.5.conv", range(128))) > 40


def test_a_norm_says_what_a_reader_would_have_said() -> None:
    """Where nothing stands between norm and reader but an activation, both rank channels alike."""
    model = small()
    found = channel_groups.build(model)
    before = spoken_of(model, found, "taylor")["model.4.m.0.cv1.conv"]
    model.zero_grad()
    model.get_submodule("model.4.m.0.cv2.conv").weight.requires_grad_(False)
    after = spoken_of(model, found, "taylor")["model.4.m.0.cv1.conv"]
    assert (after > 0).all()
    assert np.corrcoef(np.log(before), np.log(after))[0, 1] > 0.5
    assert 0.1 < after.mean() / before.mean() < 10


def test_a_bound_that_freezing_puts_out_of_reach_says_so() -> None:
    model = small()
    near = from_arguments({"prune": 0.8})
    assert near is not None
    preflight.model(model, near, "model.pt")
    with pytest.raises(BoundError, match=r"out of reach because \d+ layers are frozen and keep their channels"):
        preflight.model(model, near, "model.pt", freeze=22)
    far = from_arguments({"prune": 0.999})
    assert far is not None
    with pytest.raises(BoundError) as caught:
        preflight.model(model, far, "model.pt", freeze=5)
    assert "frozen" not in str(caught.value)


@pytest.mark.parametrize("sparsity", ["0.5", "2:4"])
def test_single_weights_of_frozen_layers_are_not_made_zero(sparsity: str) -> None:
    model = small(3)
    still = frozen.frozen_layers(model)
    every = masks.choose(model, parse(sparsity))
    chosen = masks.choose(model, parse(sparsity), frozen=still)
    assert set(every) - set(chosen) == set(still) & set(every)
    assert len(set(still) & set(every)) > 3
    kept = torch.cat([mask.flatten() for mask in chosen.values()])
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.001)  # of what is not frozen


def widths(model: nn.Module) -> dict[str, int]:
    return {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def test_a_run_with_frozen_layers_keeps_their_channels_and_says_it_once(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        train(tiny_data, tmp_path, YOLO("yolov8n.yaml"), epochs=2, freeze=10, **ONCE)
    told = [message for message in caplog.messages if "layers are frozen" in message]
    assert len(told) == 1
    assert "27 layers are frozen (freeze=10) and keep their channels" in told[0]
    assert told[0].endswith("model.0, model.1, model.2, model.3, model.4, model.5, model.6, model.7, model.8, model.9")
    before, after = widths(YOLO("yolov8n.yaml").model), widths(YOLO(tmp_path / "run" / "weights" / "last.pt").model)
    kept = {name: after[name] == count for name, count in before.items()}
    frozen_ones = [name for name in kept if int(name.split(".")[1]) < 10]
    assert len(frozen_ones) == 27
    assert all(kept[name] for name in frozen_ones)
    assert sum(not same for same in kept.values()) > 10
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.7 * record["baseline"]["gflops"] * 1.001


def test_attach_and_a_callback_that_freezes(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def freeze(trainer: Any) -> None:
        for name, value in trainer.model.named_parameters():
            if name.startswith(("model.4.", "model.6.m.")):
                value.requires_grad = False

    yolo = YOLO("yolov8n.yaml")
    yolo_prune.attach(yolo, 0.3, start=0.5, reconstruct="none")
    yolo.add_callback("on_train_start", freeze)
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        train(tiny_data, tmp_path, yolo, epochs=2, nbs=4, freeze=["0.conv"])
    told = [message for message in caplog.messages if "layers are frozen" in message]
    assert [message.rpartition(": ")[2] for message in told] == ["model.0", "model.0, model.4, model.6.m"]
    before, after = widths(YOLO("yolov8n.yaml").model), widths(YOLO(tmp_path / "run" / "weights" / "last.pt").model)
    held = [name for name in before if name.startswith(("model.0.", "model.4.", "model.6.m."))]
    assert len(held) == 1 + 6 + 4
    assert all(after[name] == before[name] for name in held)
    assert sum(after[name] != before[name] for name in before) > 10
