# yolo-prune, AGPL-3.0 license
"""The scores: dead channels come last, magnitudes are those of the fused weight, one can add one's own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.importance import gradients, scoring


def small() -> nn.Module:
    torch.manual_seed(0)
    return DetectionModel("yolov8n.yaml", nc=3, verbose=False).eval()


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(scoring.IMPORTANCES)
    yield
    scoring.IMPORTANCES.clear()
    scoring.IMPORTANCES.update(before)


def test_known_importances() -> None:
    assert scoring.names() == sorted([*("bn", "fpgm", "l1", "l2", "lamp", "random"), *gradients.GRADIENT_IMPORTANCES])


@pytest.mark.parametrize("name", ["l1", "l2", "lamp"])
def test_a_channel_without_weights_comes_last(name: str) -> None:
    model = small()
    with torch.no_grad():
        model.model[0].conv.weight[5] = 0
        model.model[1].conv.weight[:, 5] = 0
    found = channel_groups.build(model)
    scores = scoring.score(found, model, name)["model.0.conv"]
    assert scores.argmin() == 5
    assert scores.mean() == pytest.approx(1)


def test_bn_is_the_size_of_the_batchnorm_scale() -> None:
    model = small()
    with torch.no_grad():
        model.model[0].bn.weight.copy_(torch.linspace(-1, 1, 16))
    scores = scoring.score(channel_groups.build(model), model, "bn")["model.0.conv"]
    expected = np.abs(np.linspace(-1, 1, 16))
    np.testing.assert_allclose(scores, expected / expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["l1", "l2", "lamp", "fpgm"])
def test_magnitudes_do_not_depend_on_how_a_filter_is_split_with_its_batchnorm(name: str) -> None:
    model, other = small(), small()
    factor = torch.linspace(0.25, 4, 16)
    with torch.no_grad():  # the same function: the convolution is scaled, its BatchNorm scales back
        block = other.model[0]
        block.conv.weight.mul_(factor.view(-1, 1, 1, 1))
        block.bn.running_mean.mul_(factor)
        block.bn.running_var.copy_((block.bn.running_var + block.bn.eps) * factor**2 - block.bn.eps)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model(x)[0], other(x)[0], rtol=1e-3, atol=1e-3)
    one = scoring.score(channel_groups.build(model), model, name)["model.0.conv"]
    two = scoring.score(channel_groups.build(other), other, name)["model.0.conv"]
    np.testing.assert_allclose(one, two, rtol=1e-3)


def test_fpgm_likes_the_filter_that_is_unlike_the_others() -> None:
    model = small()
    with torch.no_grad():
        model.model[0].conv.weight.copy_(model.model[0].conv.weight[:1].expand(16, -1, -1, -1))
        model.model[0].conv.weight[7] *= 3
        model.model[1].conv.weight.copy_(model.model[1].conv.weight[:, :1].expand(-1, 16, -1, -1))
    scores = scoring.score(channel_groups.build(model), model, "fpgm")["model.0.conv"]
    assert scores.argmax() == 7


@pytest.mark.parametrize("name", ["l1", "l2", "bn", "lamp", "fpgm"])
def test_a_group_without_any_weight_has_finite_scores(name: str) -> None:
    model = small()
    with torch.no_grad():
        for p in (*model.model[0].parameters(), model.model[1].conv.weight):
            p.zero_()
    scores = scoring.score(channel_groups.build(model), model, name)["model.0.conv"]
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


def test_random_is_the_same_for_the_same_model() -> None:
    model = small()
    found = channel_groups.build(model)
    one, two = (scoring.score(found, model, "random") for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert len({tuple(np.round(scores[:4], 6)) for scores in one.values()}) == len(one)


@pytest.mark.usefixtures("registry")
def test_register_adds_an_importance_that_prune_takes() -> None:
    @yolo_prune.register("last_channels")
    def last_channels(group: channel_groups.ChannelGroup, model: nn.Module) -> torch.Tensor:
        return torch.arange(group.size, dtype=torch.float32)

    model = small()
    first = model.model[3].conv.weight.detach().clone()
    yolo_prune.prune(model, flops="50%", importance="last_channels")
    kept = model.model[3].conv.weight
    before = model.model[1].conv.weight.shape[0]
    torch.testing.assert_close(kept, first[-kept.shape[0] :, -before:])


@pytest.mark.usefixtures("registry")
def test_register_says_what_is_wrong() -> None:
    with pytest.raises(PruneError, match="exists already"):
        yolo_prune.register("l2")
    with pytest.raises(PruneError, match="letters, digits and underscores"):
        yolo_prune.register("no spaces")
    with pytest.raises(PruneError, match="wants a function"):
        yolo_prune.register("thing")(3)
    yolo_prune.register("short")(lambda group, model: torch.ones(1))
    model = small()
    with pytest.raises(PruneError, match=r"must return 16 finite scores >= 0 for model.0.conv, returned shape \(1,\)"):
        scoring.score(channel_groups.build(model), model, "short")
    with pytest.raises(PruneError, match="unknown; known are"):
        scoring.score(channel_groups.build(model), model, "hessian")
