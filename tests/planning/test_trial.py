# yolo-prune, AGPL-3.0 license
"""What a trial of a cut sees, and what it says where it sees nothing: planning/trial.py on models with small blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Bottleneck, C2f, Conv, GhostConv
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers.custom_blocks import Between, yaml_with
from tests.helpers.oracle import lively
from yolo_prune.graph import channel_groups
from yolo_prune.planning import dry_cut, trial

BLOCK = 5  # its place in yaml_with


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A detector with a block of a class in it, that answers to its input."""

    def make(block: type[nn.Module]) -> Any:
        monkeypatch.setattr(tasks, block.__name__, block, raising=False)
        torch.manual_seed(0)
        return lively(DetectionModel(yaml_with(block.__name__), verbose=False).eval())

    return make


def pruned(model: Any, **asked: Any) -> dict[str, tuple[int, int]]:
    """Widths of the block's layers before and after a cut of half."""
    record = yolo_prune.prune(model, **{"flops": "50%", "round": 4, "min_channels": 4, **asked})
    layers = {layer["name"]: (layer["before"], layer["after"]) for layer in record["layers"]}
    return {name: widths for name, widths in layers.items() if name.startswith(f"model.{BLOCK}.")}


def is_whole(widths: dict[str, tuple[int, int]]) -> bool:
    """Whether all layers of the block have the width that they had."""
    return bool(widths) and all(before == after for before, after in widths.values())


class Tall(Between):
    """Scales by a number that its layer tells, and runs on maps of a least size alone."""

    least = 1

    def between(self, y: Tensor) -> Tensor:
        assert y.shape[-1] >= self.least
        return y * (self.a.conv.out_channels / 8)


def test_a_model_that_runs_on_no_image_of_64_pixels_is_tried_on_a_larger_one(network: Any, caplog: Any) -> None:
    model = network(Tall)
    model.model[BLOCK].least = 8  # at stride 16
    with caplog.at_level("INFO", logger="ultralytics"):
        assert is_whole(pruned(model))
    assert [line for line in caplog.messages if f"model.{BLOCK} (Tall) computes something else" in line]


def test_that_no_cut_can_be_tried_is_said(network: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    model = network(Tall)
    found = channel_groups.build(model)
    plan = dry_cut._halves(found)
    fails = trial._Pass(False, fault=trial.Fault("model.3", "fails in evaluation (words)"))
    monkeypatch.setattr(trial, "_run", lambda *_, **__: fails)
    with caplog.at_level("INFO", logger="ultralytics"):
        assert trial.examine(model, found, plan) is None
    assert [line for line in caplog.messages if "uncut, model.3 fails in evaluation (words)" in line]


class BehindDropout(Between):
    """Draws in evaluation too, and scales by a number that its layer tells."""

    def between(self, y: Tensor) -> Tensor:
        return nn.functional.dropout(y, 0.1) * (self.a.conv.out_channels / 8)


class InTraining(Between):
    """The same, in training mode alone, where a dropout draws."""

    def make(self, c: int) -> None:
        self.drop = nn.Dropout2d(0.1)

    def between(self, y: Tensor) -> Tensor:
        return self.drop(y) * (self.a.conv.out_channels / 8) if self.training else y * 4


@pytest.mark.parametrize(("block", "where"), [(BehindDropout, "than before:"), (InTraining, "in training mode")])
def test_what_dropout_hides_and_what_training_mode_does_is_seen(
    block: type[nn.Module], where: str, network: Any, caplog: Any
) -> None:
    model = network(block)
    with caplog.at_level("INFO", logger="ultralytics"):
        assert is_whole(pruned(model))
    said = [line for line in caplog.messages if "cut in a trial" in line]
    assert len(said) == 1
    assert f"model.{BLOCK} ({block.__name__}) computes something else" in said[0]
    assert where in said[0]


class NoiseInTraining(Between):
    """Legal: it draws a slope for each value in training mode, and so others after a cut."""

    def between(self, y: Tensor) -> Tensor:
        return nn.functional.rrelu(y, 0.1, 0.9, training=self.training)


def test_noise_in_training_mode_is_no_fault(network: Any) -> None:
    assert not is_whole(pruned(network(NoiseInTraining)))


class OfAFork(nn.Module):
    """A residual block that remembers its width."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b, self.width = Conv(c, c, 1), Conv(c, c, 1), c

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        assert y.shape[1] == self.width
        return x + self.b(y)


def test_blocks_of_a_class_that_a_fork_put_into_the_host_go_together(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(OfAFork, "__module__", "ultralytics.nn.extra_modules.block")
    monkeypatch.setattr(tasks, "OfAFork", OfAFork, raising=False)
    spec = yaml_with("OfAFork")
    spec["backbone"][BLOCK : BLOCK + 1] *= 12
    spec["head"] = [[[3, BLOCK + 12], 1, "Detect", ["nc"]]]
    with caplog.at_level("INFO", logger="ultralytics"):
        assert is_whole(pruned(lively(DetectionModel(spec, verbose=False).eval())))
    said = [line for line in caplog.messages if "cut in a trial" in line]
    assert len(said) == 2
    assert "10 more of its class" in said[1]


class OwnLast(C2f):
    """Its last part is no Conv: the columns that read a block's output are elsewhere."""

    def __init__(self, c: int) -> None:
        super().__init__(c, c, 2, True)
        self.cv2 = GhostConv(4 * self.c, c)


class ByIndex(Between):
    """Runs a list of residual blocks, and one of them once more."""

    def make(self, c: int) -> None:
        self.m = nn.Sequential(*(Bottleneck(c, c) for _ in range(3)))

    def between(self, y: Tensor) -> Tensor:
        return self.m(y) + self.m[0](y)


class ByAttribute(ByIndex):
    """Reads an attribute of one of them."""

    def between(self, y: Tensor) -> Tensor:
        return self.m(y) * (1 if self.m[1].cv1.conv.stride == (1, 1) else 2)


@pytest.mark.parametrize("block", [OwnLast, ByIndex, ByAttribute])
def test_blocks_that_cannot_be_removed_whole_stay_and_the_rest_is_cut(block: type[nn.Module], network: Any) -> None:
    model = network(block)
    record = yolo_prune.prune(model, flops="30%", round=4, min_channels=4, depth=1.0)
    assert record["final"]["gflops"] <= 0.305 * record["baseline"]["gflops"]
    assert not [name for name in record["removed"]["blocks"] if name.startswith(f"model.{BLOCK}.")]
    model(torch.rand(2, 3, 64, 64))


class Scaled(Conv):
    """Its activation is the one object that all convolutions of the host have."""

    def __init__(self, c: int) -> None:
        super().__init__(c, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) * (32 / self.conv.out_channels))


def test_what_shows_in_an_activation_that_all_share_is_said_of_the_block_that_ran_it(network: Any, caplog: Any) -> None:
    model = network(Scaled)
    assert model.model[BLOCK].act is model.model[0].act
    with caplog.at_level("INFO", logger="ultralytics"):
        assert is_whole(pruned(model))
    said = [line for line in caplog.messages if "cut in a trial" in line]
    assert len(said) == 1
    assert f"model.{BLOCK} (Scaled) computes something else" in said[0]
