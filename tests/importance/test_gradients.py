# yolo-prune, AGPL-3.0 license
"""Importance from gradients: what is accumulated is the derivative at a gate, and runs and one-shot cuts use it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers.oracle import lively
from tests.helpers.runs import record_of, train
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import datasets
from yolo_prune.importance import calibration, gradients


def small(name: str = "yolov8n") -> Any:
    torch.manual_seed(0)
    return lively(DetectionModel(f"{name}.yaml", nc=2, verbose=False)).train()


def loss_of(model: Any, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    raw = model(torch.rand(4, 3, 64, 64))
    raw = raw.get("one2many", raw)
    return raw["boxes"].float().pow(2).mean() + raw["scores"].float().sigmoid().mean()


def readers(found: channel_groups.ChannelGraph, name: str) -> list[channel_groups.Member]:
    group = next(group for group in found.groups if group.name == name)
    return [member for member in group.members if member.side == "in"]


# a plain one, half of a C2f's cv1, one that is pooled and read four times over, one read by several layers
@pytest.mark.parametrize(
    "name", ["model.4.m.0.cv1.conv", "model.6.cv1.conv[2/2]", "model.9.cv1.conv", "model.15.cv2.conv"]
)
def test_what_is_accumulated_is_the_derivative_at_a_gate(name: str) -> None:
    model = small()
    found = channel_groups.build(model)
    size = next(group.size for group in found.groups if group.name == name)
    gate = torch.ones(size, requires_grad=True)
    for member in readers(found, name):
        module: Any = model.get_submodule(member.module)

        def hook(module: Any, inputs: Any, member: channel_groups.Member = member) -> Any:
            factor = torch.ones(module.in_channels)
            factor = factor.index_put((torch.as_tensor(member.positions),), gate[torch.as_tensor(member.channels)])
            return (inputs[0] * factor[None, :, None, None],)

        module.register_forward_pre_hook(hook)
    seen = {kind: gradients.Gates(found, model, kind) for kind in ("taylor", "fisher")}
    expected = []
    for seed in (1, 2, 3):
        model.zero_grad()
        gate.grad = None
        loss_of(model, seed).backward()
        assert gate.grad is not None
        expected.append(gate.grad.numpy().copy())
        for one in seen.values():
            one.look()
    np.testing.assert_allclose(seen["taylor"].scores()[name], np.abs(expected).mean(0), rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(seen["fisher"].scores()[name], np.square(expected).mean(0) / 2, rtol=4e-3, atol=1e-12)


def test_obdc_is_the_diagonal_of_single_weights() -> None:
    model = small()
    found = channel_groups.build(model)
    seen = gradients.Gates(found, model, "obdc")
    loss_of(model, 1).backward()
    seen.look()
    expected = 0.0
    for member in readers(found, "model.15.cv2.conv"):
        weight: Any = model.get_submodule(member.module).weight
        column = (weight * weight.grad).detach()[:, member.positions[member.channels == 3]]
        expected += float(column.pow(2).sum()) / 2
    assert seen.scores()["model.15.cv2.conv"][3] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", gradients.GRADIENT_IMPORTANCES)
def test_dead_channels_are_worth_nothing(kind: str) -> None:
    model = small()
    block = model.model[4].m[0].cv1
    block.bn.weight.data[:5] = 0
    block.bn.bias.data[:5] = 0
    found = channel_groups.build(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0)
    seen = gradients.Gates(found, model, kind)
    seen.attach(optimizer)
    for seed in (1, 2):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
    assert seen.seen
    scores = seen.scores()
    assert (scores["model.4.m.0.cv1.conv"][:5] == 0).all()
    assert (scores["model.4.m.0.cv1.conv"][5:] > 0).all()
    assert {group.name: group.size for group in found.groups} == {name: len(value) for name, value in scores.items()}
    assert all(np.isfinite(value).all() and (value >= 0).all() for value in scores.values())
    held = sum(total.numel() for total in seen.state()["sums"].values())
    assert held == sum(group.size for group in found.groups)  # a float a channel, none a weight
    before = seen.seen
    seen.detach()
    loss_of(model, 3).backward()
    optimizer.step()
    assert seen.seen == before


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_every_group_of_attention_has_its_gate(name: str) -> None:
    model = small(name)
    found = channel_groups.build(model)
    seen = gradients.Gates(found, model, "taylor")
    raw = model(torch.rand(4, 3, 64, 64))
    sum(
        value.float().pow(2).mean()
        for part in raw.values()
        for value in (part.values() if isinstance(part, dict) else [part])
        if isinstance(value, torch.Tensor)
    ).backward()
    seen.look()
    scores = seen.scores()
    assert {group.name for group in found.groups} == set(scores)
    assert all(value.any() for value in scores.values())


def test_gradients_that_are_accumulated_or_scaled_give_the_same() -> None:
    """The hook is before the optimizer's step: there the host has unscaled, and k batches are one."""
    one, other = small(), small()
    found = channel_groups.build(one)
    first, second = gradients.Gates(found, one, "fisher"), gradients.Gates(found, other, "fisher")
    plain = torch.optim.SGD(one.parameters(), lr=0)
    first.attach(plain)
    sum(loss_of(one, seed) for seed in (1, 2)).backward()
    plain.step()
    scaled = torch.optim.SGD(other.parameters(), lr=0)
    second.attach(scaled)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for seed in (1, 2):
        scaler.scale(loss_of(other, seed)).backward()
    scaler.unscale_(scaled)
    scaler.step(scaled)
    scores = first.scores()
    assert len(scores) == len(found.groups)
    assert any(value.any() for value in scores.values())
    for name, value in second.scores().items():
        np.testing.assert_allclose(value, scores[name], rtol=1e-2, atol=1e-9 + 1e-4 * scores[name].max())


def by_one_copy_a_group(model: Any, found: channel_groups.ChannelGraph, kind: str) -> dict[str, np.ndarray]:
    """One look, group by group and layer by layer: the formula at its plainest."""
    modules, scores = dict(model.named_modules()), {}
    for group in found.groups:
        total = torch.zeros(group.size)
        readers = [m for m in group.members if m.side == "in" and hasattr(modules.get(m.module), "weight")]
        norms = [m for m in group.members if isinstance(modules.get(m.module), nn.BatchNorm2d)]
        for member in readers or norms:
            module: Any = modules[member.module]
            product = module.weight.detach() * module.weight.grad
            if not readers:
                other = module.bias.detach() * module.bias.grad
                product = product**2 + other**2 if kind == "obdc" else product + other
            else:
                product = (product**2 if kind == "obdc" else product).transpose(0, 1).flatten(1).sum(1)
            total.index_add_(0, torch.as_tensor(member.channels), product[torch.as_tensor(member.positions)])
        half = 1.0 if kind == "taylor" else 0.5
        scores[group.name] = (
            half * (total.abs() if kind == "taylor" else total**2 if kind == "fisher" else total).numpy()
        )
    return scores


@pytest.mark.parametrize("kind", ["fisher", "obdc", "taylor"])
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_one_vector_of_all_channels_gives_what_each_group_by_itself_does(name: str, kind: str) -> None:
    model = small(name)
    found = channel_groups.build(model)
    loss_of(model, 1).backward()
    seen = gradients.Gates(found, model, kind)
    seen.look()
    expected = by_one_copy_a_group(model, found, kind)
    scores = seen.scores()
    assert set(scores) == set(expected)
    for group, value in scores.items():
        np.testing.assert_allclose(value, expected[group], rtol=1e-3, atol=1e-5 * expected[group].max(), err_msg=group)


class Copies(TorchDispatchMode):
    """Counts tensors that are made from host data or copied between devices or types."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        if "_to_copy" in name or "lift_fresh" in name or "scalar_tensor" in name or "_local_scalar_dense" in name:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["fisher", "obdc", "taylor"])
def test_a_look_moves_nothing_and_waits_for_nothing(kind: str) -> None:
    model = small()
    seen = gradients.Gates(channel_groups.build(model), model, kind)
    loss_of(model, 1).backward()
    seen.look()
    with Copies() as copies:
        seen.look(torch.zeros(()))
    assert copies.names == []
    assert seen.seen == 2


def test_where_an_epoch_has_many_steps_some_are_passed_over() -> None:
    model = small()
    found = channel_groups.build(model)
    weight = nn.Parameter(torch.zeros(1))
    loss_of(model, 1).backward()
    for steps, expected in ((0, 6), (5, 6), (127, 6), (140, 3), (64 * 5, 2)):
        optimizer = torch.optim.SGD([weight], lr=0.0)
        seen = gradients.Gates(found, model, "fisher", steps)
        seen.attach(optimizer)
        for _ in range(6):
            optimizer.step()
        assert seen.seen == expected, steps


def test_what_is_old_counts_half() -> None:
    model = small()
    seen = gradients.Gates(channel_groups.build(model), model, "fisher")
    loss_of(model, 1).backward()
    seen.look()
    early = seen.scores()["model.0.conv"]
    seen.fade()
    for parameter in model.parameters():
        parameter.grad = None if parameter.grad is None else 2 * parameter.grad
    seen.look()
    np.testing.assert_allclose(seen.scores()["model.0.conv"], (0.5 * early + 4 * early) / 1.5, rtol=1e-5)


def test_weights_compare_what_is_decided_together() -> None:
    found = channel_groups.build(small())
    worth = {group.name: np.ones(group.size) for group in found.groups}
    worth["model.4.m.0.cv1.conv"] = np.full(32, 1000.0)
    weights = gradients.weights(worth, found)
    assert weights["model.4.m.0.cv1.conv"] == max(weights.values()) > 100
    tied = [group.name for group in found.groups if group.tie and "model.6.cv1" in group.name]
    assert len(tied) == 2
    assert weights[tied[0]] == weights[tied[1]]


@pytest.mark.parametrize("kind", ["obdc", "activation"])
def test_a_run_uses_its_own_gradients(kind: str, tiny_data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    told: list[tuple[float, dict[str, np.ndarray]]] = []
    real = gradients.Gates.scores

    def scores(self: gradients.Gates) -> dict[str, np.ndarray]:
        told.append((self.seen, real(self)))
        return told[-1][1]

    monkeypatch.setattr(gradients.Gates, "scores", scores)
    monkeypatch.setattr(calibration, "gather", lambda *given: pytest.fail("an extra pass"))
    train(
        tiny_data, tmp_path, epochs=4, prune=0.4, prune_importance=kind, prune_scope="global", prune_steps=2,
        prune_start=0.3, prune_end=0.6, nbs=4,
    )  # fmt: skip
    assert len(told) == 2
    assert all(seen > 0 and any(value.any() for value in found.values()) for seen, found in told)
    sizes = [{name: len(value) for name, value in found.items()} for _, found in told]
    assert sizes[0] != sizes[1]
    record = record_of(tmp_path / "run")
    assert record["recipe"]["importance"] == kind
    assert record["final"]["gflops"] <= 0.6 * record["baseline"]["gflops"]


def test_a_cut_before_the_first_batch_looks_at_a_few(tiny_data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[int] = []
    real = calibration.gather

    def gather(network: nn.Module, found: Any, kind: str, batches: Any) -> Any:
        calls.append(len(batches))
        return real(network, found, kind, batches)

    monkeypatch.setattr(calibration, "gather", gather)
    train(tiny_data, tmp_path, epochs=1, prune=0.4, prune_importance="taylor", prune_schedule="oneshot", prune_start=0)
    assert len(calls) == 1
    assert calls[0] > 0


def test_one_cut_by_gradients_needs_data(
    tiny_data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo = YOLO("yolov8n.yaml")
    yolo.model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    with pytest.raises(PruneError, match=r"importance=fisher is of gradients on data: add data=my.yaml, or use l2"):
        yolo_prune.prune(yolo, flops="60%", importance="fisher")
    monkeypatch.setattr(datasets, "_BATCH", 2)  # so that of the eight images there are, gradients are taken of four
    monkeypatch.setattr(calibration, "IMAGES", 4)
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        told = yolo_prune.prune(yolo, flops="60%", importance="fisher", data=str(tiny_data), imgsz=64)
    assert "channels are chosen on 4 images and cut, and what stays is fitted on 8 images to make" in caplog.text
    assert told["final"]["gflops"] <= 0.6 * told["baseline"]["gflops"]
    assert told["recipe"]["importance"] == "fisher"
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        yolo_prune.prune(YOLO("yolov8n.yaml"), flops="60%")
    assert "without data=" in caplog.text


def test_what_was_seen_can_be_put_away_and_taken_up_again() -> None:
    model = small()
    found = channel_groups.build(model)
    one, other = gradients.Gates(found, model, "fisher"), gradients.Gates(found, model, "fisher")
    for seed in (1, 2):
        model.zero_grad()
        loss_of(model, seed).backward()
        one.look()
        if seed == 1:
            one.fade()
            assert other.load_state(one.state())
        else:
            other.look()
    for name, value in one.scores().items():
        assert value.any()
        assert np.array_equal(value, other.scores()[name]), name
    assert not gradients.Gates(found, model, "taylor").load_state(one.state())
    wrong = one.state()
    wrong["sums"] = {name: value[:-1] for name, value in wrong["sums"].items()}
    assert not other.load_state(wrong)
    assert other.seen == one.seen


def test_gradients_that_are_no_numbers_are_one_line(tiny_data: Path) -> None:
    """Looks with NaN in them are not counted; where none is left, that is said, and no traceback."""
    network = YOLO("yolov8n.yaml").model
    batches = datasets.read(network, str(tiny_data), 64, 2)
    with torch.no_grad():
        network.model[0].conv.weight[0] = float("nan")
    with pytest.raises(PruneError, match="the gradients of this DetectionModel on this data are no finite numbers"):
        calibration.gather(network, channel_groups.build(network), "obdc", batches)


@pytest.mark.parametrize("kind", ["taylor", "obdc"])
def test_a_norm_without_a_shift_speaks_by_its_scale_where_the_readers_are_frozen(kind: str) -> None:
    model = small()
    norm = model.model[1].bn
    norm.register_parameter("bias", None)
    gates = gradients.Gates(channel_groups.build(model), model, kind)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.weight.grad = torch.linspace(1, 2, 32)
    gates.look()
    product = (norm.weight.detach() * norm.weight.grad).double().numpy()
    expected = product if kind == "taylor" else product**2 / 2
    np.testing.assert_allclose(gates.scores()["model.1.conv"], expected, rtol=1e-5)


@pytest.mark.parametrize(("side", "together"), [(64, 1), (640, 1), (672, 2), (896, 2), (928, 4), (1280, 4), (1920, 8)])
def test_batches_of_large_images_are_smaller(side: int, together: int) -> None:
    assert datasets.batches_together(side) == together


@pytest.mark.parametrize("kind", ["taylor", "activation"])
def test_large_images_are_looked_at_few_by_few_and_say_the_same(
    kind: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(network: Any, batch: Any) -> None:  # the sum over images, as the host's loss is but for its norming
        seen.append(len(batch["img"]))
        network(batch["img"])[0].square().sum().backward()

    monkeypatch.setattr(calibration.loss, "backward", backward)
    monkeypatch.setattr(gradients, "_PASSES_PER_LOOK", 1)
    model = small().eval()
    found = channel_groups.build(model)
    scores = []
    for whole in (64, 32):
        seen: list[int] = []
        monkeypatch.setattr(datasets, "_WHOLE", whole)
        scores.append(calibration.gather(model, found, kind, datasets.read(model, tiny_data, 64, 8)))
        assert seen == ([8] if whole == 64 else [2, 2, 2, 2])
    for name, values in scores[0].items():
        np.testing.assert_allclose(scores[1][name], values, rtol=1e-3)
    assert any(values.any() for values in scores[0].values())
