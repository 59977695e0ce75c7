# yolo-prune, AGPL-3.0 license
"""Planted truths: a network whose sensitive branch is known, and cuts whose reconstruction is known exactly.

Each fails when what it guards is changed: the weights of groups, their least, the ridge, and each part of the
reconstruction.
"""

from __future__ import annotations

import functools
from copy import deepcopy
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from ultralytics import YOLO
from ultralytics.nn.tasks import ClassificationModel

from tests.helpers.oracle import assert_no_trace, flat, kill, lively, random_plan
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph import channel_groups
from yolo_prune.importance import gradients
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.settings import Settings
from yolo_prune.surgery import cut_channels, least_squares, reconstruct

SIDE, CLASSES = 32, 4
MATTERS, IDLE = "model.1.conv", "model.2.conv"  # two branches that are alike but for what is made of them


def two_branches() -> Any:
    """A stock classifier: a stem, two branches beside each other, and a head that reads both."""
    rows = [[-1, 1, "Conv", [8, 3, 2]], [0, 1, "Conv", [32, 3, 2]], [0, 1, "Conv", [32, 3, 2]]]
    head = [[[1, 2], 1, "Concat", [1]], [-1, 1, "Classify", ["nc"]]]
    torch.manual_seed(0)
    return ClassificationModel({"nc": CLASSES, "backbone": rows, "head": head}, nc=CLASSES, verbose=False)


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes in one of four directions on noise, and which."""
    drawn = torch.Generator().manual_seed(seed)
    kinds = torch.randint(CLASSES, (count,), generator=drawn)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    waves = torch.stack([torch.sin(v * 1.2) for v in (x, y, x + y, x - y)])[kinds][:, None]
    phase = torch.rand(count, 3, 1, 1, generator=drawn)
    noise = torch.rand(count, 3, SIDE, SIDE, generator=drawn)
    return (0.1 * waves * (0.5 + phase) + noise).clamp(0, 1), kinds


def planted() -> Any:
    """The classifier with a head that makes fifty times as much of the first branch as of the second."""
    model = two_branches().train()
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.momentum = 1.0
    weight = model.model[4].conv.conv.weight.data
    weight[:, :32], weight[:, 32:] = weight[:, :32] * 5, weight[:, 32:] * 0.1
    with torch.no_grad():
        model(images(64, 1)[0])
    return model.eval()


def worth(model: Any, found: channel_groups.ChannelGraph) -> dict[str, np.ndarray]:
    """What channels are worth by the gradients of a few batches."""
    network = deepcopy(model)
    for parameter in network.parameters():
        parameter.requires_grad_()
    seen = gradients.Gates(found, network, "fisher")
    for seed in (2, 3, 4):
        network.zero_grad()
        x, kinds = images(16, seed)
        features = network.model[3]([network.model[i](network.model[0](x)) for i in (1, 2)])
        head = network.model[4]
        functional.cross_entropy(head.linear(head.pool(head.conv(features)).flatten(1)), kinds).backward()
        seen.look()
    return seen.scores()


def test_the_branch_that_matters_keeps_more_and_the_cut_costs_less() -> None:
    model = planted()
    asked = {"importance": "fisher", "scope": "global", "round": 1, "min_channels": 2}
    wanted = from_arguments({"prune_flops": "60%", **{f"prune_{key}": value for key, value in asked.items()}})
    assert wanted is not None
    baseline = Baseline.of(model, channel_groups.build(model))
    bounds = choice.step_bounds(wanted, baseline)
    found, plan = choice.choose(model, StepRequest(wanted, baseline, bounds, lambda groups: worth(model, groups)))
    left = {name: len(plan.keep.get(name, range(32))) for name in (MATTERS, IDLE)}
    assert left[MATTERS] >= 2 * left[IDLE], left

    flat = choice.plan(model, found, wanted, baseline, bounds, worth(model, found), dict.fromkeys(plan.keep, 1.0))
    x = images(32, 9)[0]
    with torch.no_grad():
        whole = model(x)[1]
        moved = {}
        for name, chosen in (("weighed", plan), ("flat", flat)):
            small = deepcopy(model)
            cut_channels.apply(small, found, chosen)
            moved[name] = float((small(x)[1] - whole).norm())
    assert moved["weighed"] < 0.9 * moved["flat"], moved


def test_weights_of_groups_are_exact() -> None:
    model = two_branches()
    found = channel_groups.build(model)
    sizes = {group.name: group.size for group in found.groups}
    sums = dict.fromkeys(sizes, 2.0)
    sums.update({MATTERS: 16.0, IDLE: 0.2})
    others = [name for name in sizes if name not in (MATTERS, IDLE)]
    assert len(others) >= 1
    weights = gradients.weights({name: np.full(sizes[name], sums[name] / sizes[name]) for name in sizes}, found)
    median = float(np.median([sums[name] for name in sizes]))
    assert weights[MATTERS] == pytest.approx(16 / median)
    assert weights[IDLE] == pytest.approx(0.2 / median)
    nothing = gradients.weights({n: np.full(sizes[n], sums[n] * (n != IDLE) / sizes[n]) for n in sizes}, found)
    assert nothing[IDLE] == 0.05, "what seems to cost nothing is not for free, and is not dear either"
    assert set(gradients.weights({name: np.zeros(size) for name, size in sizes.items()}, found).values()) == {1.0}


# Reconstruction -------------------------------------------------------------------------------------------------------


def white(rows: int, columns: int) -> torch.Tensor:
    """(rows, columns) orthogonal columns of mean 0 and mean square 1."""
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))
    return torch.linalg.qr(drawn - drawn.mean(0))[0] * rows**0.5


def test_a_layer_comes_back_but_for_the_share_that_the_ridge_holds() -> None:
    """Of white inputs a ridge r leaves r / (1 + r) of the error; where nothing is noise, the least r is taken."""
    read, layer = white(96, 8) + torch.linspace(-2, 5, 8), nn.Linear(8, 3)
    true, shift = torch.randn(3, 8, generator=torch.Generator().manual_seed(4)), torch.tensor([1.0, -2.0, 0.5])
    off = true - layer.weight.detach()
    wanted = read @ true.T + shift
    least_squares.fit(layer, read, wanted.view(12, 8, 3))
    left = (true - layer.weight.detach()).norm() / off.norm()
    least = min(least_squares.RIDGES)
    assert float(left) == pytest.approx(least / (1 + least), rel=1e-2)
    assert torch.allclose(layer(read).mean(0), wanted.mean(0), atol=1e-4), "the bias makes up for what the ridge holds"


@pytest.mark.parametrize("weights", [6, 40], ids=["more places than weights", "fewer"])
@pytest.mark.parametrize(("noise", "among"), [(0.0, (0.003,)), (50.0, (0.3, 1.0))])
def test_the_ridge_is_that_of_least_error_on_images_held_out(
    weights: int, noise: float, among: tuple[float, ...]
) -> None:
    """By brute force: every ridge on three of four images, and the one that misses least on the fourth for all."""
    drawn = torch.Generator().manual_seed(6)
    read = torch.randn(32, weights, generator=drawn)
    layer, true = nn.Linear(weights, 3), torch.randn(3, weights, generator=drawn)
    wanted = read @ true.T + noise * torch.randn(32, 3, generator=drawn)
    left = layer.weight.detach().clone()
    a, error = read - read.mean(0), wanted - wanted.mean(0) - (read - read.mean(0)) @ left.T

    def moved(rows: torch.Tensor, ridge: float) -> torch.Tensor:
        square = a[rows].T @ a[rows]
        return torch.linalg.solve(
            square + ridge * square.trace() / weights * torch.eye(weights), a[rows].T @ error[rows]
        )

    held = torch.arange(32) // 4 % 4 == 3
    misses = {one: float((error - a @ moved(~held, one))[held].norm()) for one in least_squares.RIDGES}
    best = min(misses, key=lambda one: misses[one])
    assert best in among, misses
    least_squares.fit(layer, read, wanted.view(8, 4, 3))
    assert torch.allclose(layer.weight.detach() - left, moved(held | True, best).T, atol=1e-3)


class Chain(nn.Module):
    """Two 1x1 convolutions, the first twice as wide as it need be: its odd channels are sums of even ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 6, 1)
        self.first.weight.data[0::2] = torch.eye(8)[:, :, None, None]
        mixed = torch.randn(8, 8)
        self.first.weight.data[1::2] = mixed[:, :, None, None]
        self.first.bias.data.zero_()
        self.second.weight.data[:, 1::2] *= 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize(("part", "at_most", "at_least"), [("none", 9.0, 0.5), ("weights", 0.1, 0.0)])
def test_inputs_that_are_sums_of_others_are_not_missed(part: str, at_most: float, at_least: float) -> None:
    """All that the cut takes can be said with what stays: the ridge alone keeps a share from coming back."""
    model = Chain()
    x = white(512, 8).view(8, 64, 8).permute(0, 2, 1).reshape(8, 8, 8, 8).contiguous()
    before = model(x).detach()
    noted = reconstruct.DenseOutputs({"second": (None, np.arange(0, 16, 2))})
    noted.places["second"] = torch.arange(64)
    noted.outputs["second"] = before.flatten(2).transpose(1, 2)
    cut_channels.cut_conv(model.first, np.arange(0, 16, 2), None)
    cut_channels.cut_conv(model.second, None, np.arange(0, 16, 2))
    lost = float((model(x).detach() - before).norm() / before.norm())
    assert lost > 0.5
    if part == "weights":
        reconstruct.restore(model, noted, x, part)
    left = float((model(x).detach() - before).norm() / before.norm())
    assert at_least <= left <= at_most, left


@functools.cache
def checkpoint() -> tuple[Any, float]:
    """The classifier, trained for some seconds: (model, its loss on images that it has not seen)."""
    model = two_branches().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for seed in range(60):
        x, kinds = images(16, seed)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), kinds).backward()
        optimizer.step()
    return model.eval(), loss_of(model)


def loss_of(model: Any) -> float:
    x, kinds = images(256, 1000)
    with torch.no_grad():
        return float(functional.cross_entropy(model.eval()(x)[1], kinds))


def test_each_part_of_the_reconstruction_gives_back_a_part_of_the_loss() -> None:
    """A fifth of the FLOPs left, no training: what each part gives back on images that it has not seen."""
    model, dense = checkpoint()
    assert dense < 0.5 * np.log(CLASSES), "it has learned something"
    wanted = from_arguments({"prune_flops": "20%", "prune_scope": "uniform", "prune_round": 1, "prune_min_channels": 2})
    assert wanted is not None
    baseline = Baseline.of(model, channel_groups.build(model))
    found, plan = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    assert len(plan.keep) > 2
    losses = []
    for part in get_args(Settings.model_fields["reconstruct"].annotation):
        small = deepcopy(model)
        with reconstruct.reconstructed(small, found, plan, images(128, 77)[0], part):
            cut_channels.apply(small, found, plan)
        losses.append(loss_of(small))
    assert len(losses) == 4
    assert all(later < 0.75 * earlier for earlier, later in pairwise(losses)), losses
    assert losses[-1] < dense + 0.1, losses


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov8n-seg.yaml", "yolo11n.yaml"])
def test_dead_channels_blocks_and_heads_leave_no_trace(name: str) -> None:
    """One plan of the oracle for each kind of whole part; tests/graph/test_families.py draws many for all families."""
    torch.manual_seed(0)
    model = lively(YOLO(name, verbose=False).model).double().eval()
    found = channel_groups.build(model)
    plan = random_plan(found, 7, 0.6, 0.5)
    assert len(plan.blocks) >= 1
    assert len(plan.keep) > 30
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = assert_no_trace(model, found, plan, lambda model: list(flat(model(x))), 1e-8)
    assert len(before) >= 3
    assert float(before[0].std()) > 1e-6, "the model answers to its input"


@pytest.mark.parametrize(("block", "width", "where"), [("PSA", "key_dim", "key"), ("A2C2f", "head_dim", "head")])
def test_attention_with_half_of_its_keys_attends_as_before(block: str, width: str, where: str) -> None:
    """The scores are divided by the root of the keys' width, and are sums of products of queries and keys.

    Where half of the keys are dead, these sums stay through the cut and the divisor does not: the queries make up for
    it. The plans of the oracle often remove the few blocks that attend, or cut no key of theirs.
    """
    torch.manual_seed(0)
    rows = [[-1, 1, "Conv", [128, 3, 4]], [-1, 1, block, [128, *((True, 1) if block == "A2C2f" else ())]]]
    layers = {"nc": CLASSES, "backbone": rows, "head": [[-1, 1, "Classify", ["nc"]]]}
    model = lively(ClassificationModel(layers, nc=CLASSES, verbose=False)).double().eval()
    attentions = [part for part in model.modules() if hasattr(part, width)]
    before = [getattr(part, width) for part in attentions]
    found = channel_groups.build(model)
    halved = [group for group in found.groups if (group.tie or "").endswith(f"attn.{where}")]
    assert {group.head.side for group in halved if group.head is not None} >= {"key"}
    plan = PrunePlan({group.name: np.arange(0, group.size, 2) for group in halved})
    kill(model, found, plan)
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        cut_channels.apply(model, found, plan)
        left = model(x)
    assert attentions
    assert [getattr(part, width) * 2 for part in attentions] == before
    for was, now in zip(flat(expected), flat(left), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-9, atol=1e-12)
