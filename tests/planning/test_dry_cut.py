# yolo-prune, AGPL-3.0 license
"""A cut is tried on a copy first: blocks that the tracer misreads are found, named and protected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics.nn.tasks as tasks
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers.oracle import lively, random_plan
from tests.helpers.runs import record_of, train, widths
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.errors import BoundError, PruneError
from yolo_prune.graph import channel_groups, operations, trace, tracer
from yolo_prune.planning import trial


class Splits(nn.Module):
    """Splits by sizes that it remembers."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.c = c // 2
        self.cv1, self.m, self.cv2 = Conv(c, c, 1), Conv(self.c, self.c, 3), Conv(3 * self.c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).split((self.c, self.c), 1)
        return self.cv2(torch.cat((a, b, self.m(b)), 1))


class Masks(nn.Module):
    """Zeroes channels by their position: runs after a cut, and computes something else."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).clone()
        y[:, :8] = 0
        return self.b(y)


class OnlyInTraining(nn.Module):
    """Adds something of a remembered width in training mode alone."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b, self.c = Conv(c, c, 1), Conv(c, c, 1), c

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.training:
            y = y + torch.zeros(1, self.c, 1, 1, device=y.device)
        return self.b(y)


class Normed(nn.Module):
    """A convolution whose weight is computed from other parameters at each call."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = nn.utils.parametrizations.weight_norm(nn.Conv2d(c, c, 3, padding=1)), Conv(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Gate(nn.Module):
    """Legal: the activation of a channel that is 0 is not 0."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).sigmoid())


class Noise(Gate):
    """Legal: it is never the same twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + 0.5 * torch.randn(x.shape[0], 1, 1, 1))


class RunningNorm(nn.Module):
    """Legal: a norm of torch, none of the BatchNorms, that keeps running statistics."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 3)
        self.d = nn.InstanceNorm2d(c, affine=True, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.d(self.a(x)))


class RunningMean(nn.Module):
    """Legal: a forward in training mode replaces a buffer that evaluation reads."""

    mean: Tensor

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 3)
        self.register_buffer("mean", torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean((0, 2, 3), keepdim=True)
        return self.b(y - self.mean)


class CountsCalls(Gate):
    """Legal: something outside of the module, which no copy puts back, changes with each call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        CountsCalls.calls += 1
        return self.b(self.a(x) * (1 + CountsCalls.calls % 7))


BLOCKS = (Splits, Masks, OnlyInTraining, Normed, Gate, Noise, RunningNorm, RunningMean, CountsCalls)


@pytest.fixture(autouse=True)
def _known_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in BLOCKS:
        monkeypatch.setattr(tasks, block.__name__, block, raising=False)


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer that fixes nothing inside a block, so that what is found is found by the cut alone."""
    stock = trace.Trace.fix

    def fix(self: trace.Trace, ids: np.ndarray, why: str) -> None:
        if "output of the model" in why or "grouped" in why or "combined with channels of no layer" in why:
            stock(self, ids, why)

    def followed(call: operations.Call) -> bool:  # what it does not know it takes for elementwise
        if not operations.followed(call._replace(sized=True)) and isinstance(call.out, torch.Tensor):
            call.put(call.out, call.first[1].ids, call.first[1].dim)
        return True

    monkeypatch.setattr(trace.Trace, "fix", fix)
    monkeypatch.setattr(tracer, "followed", followed)
    monkeypatch.setattr(tracer, "is_layer", lambda module: isinstance(module, (*trace.LAYERS, nn.BatchNorm2d)))


def detector(*names: str, c: int = 64) -> DetectionModel:
    torch.manual_seed(0)
    custom = [[-1, 1, name, [c]] for name in names]
    count = len(custom)
    spec = {
        "nc": 3,
        "backbone": [
            *([-1, 1, "Conv", [32, 3, 2]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "C2f", [64, True]]),
            *([-1, 1, "Conv", [c, 3, 2]], [-1, 1, "C2f", [c, True]], [-1, 1, "Conv", [c, 3, 2]]),
            *custom,
            [-1, 1, "SPPF", [c, 5]],
        ],
        "head": [[[4, 6 + count], 1, "Detect", ["nc"]]],
    }
    model = DetectionModel(spec, verbose=False)
    lively(model)
    return model


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Splits", "fails in evaluation"),
        ("Masks", "computes something else"),
        ("OnlyInTraining", "fails in training mode"),
        ("Normed", "cannot be cut"),
    ],
)
@pytest.mark.usefixtures("credulous")
def test_a_block_that_the_tracer_misreads_is_protected_and_named(name: str, words: str, caplog: Any) -> None:
    model = detector(name)
    before = widths(model)
    assert any(
        m.startswith("model.6.") for g in channel_groups.build(model).groups for m in (x.module for x in g.members)
    )
    with caplog.at_level("INFO", logger="ultralytics"):
        record = yolo_prune.prune(model, flops="60%", scope="uniform")
    said = [line for line in caplog.messages if f"model.6 ({name}) {words}" in line]
    assert len(said) == 1
    assert "protected" in said[0]
    assert record["final"]["gflops"] <= 0.6 * record["baseline"]["gflops"]
    now = widths(model)
    inside = [layer for layer in now if layer.startswith("model.6.")]
    assert inside
    assert all(now[layer] == before[layer] for layer in inside)
    assert now["model.5.conv"][0] == before["model.5.conv"][0]  # what it reads
    for training in (False, True):
        model.train(training)(torch.rand(2, 3, 64, 64))


@pytest.mark.usefixtures("credulous")
def test_all_blocks_of_a_users_class_are_protected_at_once(caplog: Any) -> None:
    model = detector("Splits", "Masks", "Splits")
    with caplog.at_level("INFO", logger="ultralytics"):
        yolo_prune.prune(model, flops="50%", scope="uniform")
    said = [line for line in caplog.messages if "cut in a trial" in line]
    assert len(said) == 2
    assert "1 more of its class" in said[0]
    model(torch.rand(1, 3, 64, 64))


@pytest.mark.usefixtures("credulous")
def test_what_is_out_of_reach_because_of_it_is_said_with_the_block() -> None:
    model = detector("Splits", c=256)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(BoundError, match=r"Protected, because a cut fails there: model\.6 \(Splits\)") as caught:
        yolo_prune.prune(model, flops="8%")
    assert "protect less" not in str(caught.value)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["Gate", "Noise"])
def test_legal_blocks_are_cut(name: str, caplog: Any) -> None:
    model = detector(name)
    before = widths(model)
    with caplog.at_level("INFO", logger="ultralytics"):
        yolo_prune.prune(model, flops="50%", scope="uniform")
    assert "cut in a trial" not in caplog.text
    assert widths(model)["model.6.a.conv"][0] < before["model.6.a.conv"][0]


@pytest.mark.parametrize("name", ["RunningNorm", "RunningMean", "CountsCalls"])
@pytest.mark.parametrize("protect", [(), ("model.5", "model.6.*")])
def test_what_a_forward_changes_in_a_block_is_no_fault_of_the_cut(
    name: str, protect: tuple[str, ...], caplog: Any
) -> None:
    model = detector(name)
    before = widths(model)
    with caplog.at_level("INFO", logger="ultralytics"):
        record = yolo_prune.prune(model, flops="60%", scope="uniform", protect=list(protect))
    assert "cut in a trial" not in caplog.text
    assert record["final"]["gflops"] <= 0.6 * record["baseline"]["gflops"]
    if protect:
        now = widths(model)
        assert all(now[layer] == before[layer] for layer in now if layer.startswith("model.6."))
    for training in (False, True):
        model.train(training)(torch.rand(2, 3, 64, 64))


@pytest.mark.usefixtures("credulous")
@pytest.mark.parametrize("name", ["RunningNorm", "RunningMean"])
def test_running_statistics_that_a_cut_does_not_fit_protect_their_block_alone(name: str, caplog: Any) -> None:
    model = detector(name)
    before = widths(model)
    with caplog.at_level("INFO", logger="ultralytics"):
        record = yolo_prune.prune(model, flops="60%", scope="uniform")
    assert [f"model.6 ({name})" in line for line in caplog.messages if "cut in a trial" in line] == [True]
    assert record["final"]["gflops"] <= 0.6 * record["baseline"]["gflops"]
    now = widths(model)
    assert all(now[layer] == before[layer] for layer in now if layer.startswith("model.6."))


def test_where_nothing_helps_the_model_stays_and_the_block_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DetectionModel("yolov8n.yaml", verbose=False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr(trial, "examine", lambda *_: trial.Fault("model.3.conv", "fails in evaluation (words)"))
    with pytest.raises(PruneError, match=r"model\.3\.conv fails in evaluation \(words\).*Nothing was cut"):
        yolo_prune.prune(model, flops="90%")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


# The trial itself, without any tracer: groups of a stock model with one index that is off ----------


@pytest.fixture(scope="module")
def stock() -> tuple[nn.Module, channel_groups.ChannelGraph, PrunePlan]:
    torch.manual_seed(0)
    model = lively(DetectionModel("yolov8n.yaml", nc=5, verbose=False))
    found = channel_groups.build(model).without_trace()
    return model, found, random_plan(found, 3, 0.6)


def with_member(found: channel_groups.ChannelGraph, module: str, side: str, change: Any) -> channel_groups.ChannelGraph:
    """The same graph with the members of one side of a layer changed, None dropping them."""

    def members(group: channel_groups.ChannelGroup) -> Iterator[channel_groups.Member]:
        for member in group.members:
            if (member.module, member.side) != (module, side):
                yield member
            elif change is not None:
                yield replace(member, positions=change(member.positions))

    return replace(found, groups=tuple(replace(group, members=tuple(members(group))) for group in found.groups))


def test_a_right_plan_passes_and_changes_nothing(stock: Any) -> None:
    model, found, plan = stock
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = {name: module.training for name, module in model.named_modules()}
    random = torch.get_rng_state()
    assert plan.keep
    assert trial.examine(model, found, plan) is None
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == flags


@pytest.mark.parametrize("layer", ["model.1.conv", "model.12.cv2.conv", "model.22.cv3.1.1.conv"])
@pytest.mark.parametrize("kind", ["columns not cut", "columns turned"])
def test_an_index_that_is_off_is_found_at_its_layer(stock: Any, layer: str, kind: str) -> None:
    model, found, plan = stock
    size = model.get_submodule(layer).in_channels

    def turned(positions: np.ndarray) -> np.ndarray:
        return (positions + 1) % size

    wrong = with_member(found, layer, "in", None if kind == "columns not cut" else turned)
    fault = trial.examine(model, wrong, plan)
    assert fault is not None
    assert fault.name.startswith(layer.removesuffix(".conv")) or layer.startswith(fault.name)


FAMILIES = (
    "yolov8n-seg",
    "yolov8n-pose",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolo26n",
)


@pytest.mark.parametrize(("name", "live"), [*((name, True) for name in FAMILIES), ("yolo26n", False)])
def test_no_false_alarm_in_a_stock_model(name: str, live: bool) -> None:
    torch.manual_seed(0)
    model: Any = YOLO(f"{name}.yaml").model
    if live:
        lively(model)
    found = channel_groups.build(model).without_trace()
    for seed, whole in ((1, 0.0), (2, 0.4)):
        plan = random_plan(found, seed, 0.9, whole)
        assert plan.keep
        assert trial.examine(model, found, plan) is None


# In a training -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("credulous")
def test_a_training_finds_the_block_before_its_first_epoch(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    import yaml

    spec = {key: value for key, value in detector("Splits").yaml.items() if key in {"nc", "backbone", "head"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    with caplog.at_level("INFO", logger="ultralytics"):
        yolo = train(tiny_data, tmp_path, YOLO(tmp_path / "mine.yaml"), epochs=2, prune=0.3)
    said = [number for number, line in enumerate(caplog.messages) if "model.6 (Splits) fails" in line]
    first = next(number for number, line in enumerate(caplog.messages) if "Starting training" in line)
    assert len(said) == 1
    assert said[0] < first
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.7 * record["baseline"]["gflops"]
    assert widths(yolo.model)["model.6.m.conv"] == (32, 32)
