# yolo-prune, AGPL-3.0 license
"""Running statistics follow what a cut changed; where it changed nothing, they stay, whatever the images at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.reconstruction import away, cut, images, settled, small
from yolo_prune.surgery import norm_statistics


def test_statistics_move_as_far_as_what_is_read() -> None:
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean = torch.tensor([1.0, -2.0, 0.5])
    norm.running_var = torch.tensor([4.0, 0.25, 9.0])
    x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    mean, before = x.mean((0, 2, 3)), norm_statistics.standing(norm, x)
    norm_statistics.follow(norm, x, before)
    assert torch.allclose(norm.running_mean, torch.tensor([1.0, -2.0, 0.5]), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.tensor([4.0, 0.25, 9.0]), rtol=1e-5)

    norm_statistics.follow(norm, 2 * x + 3, before)
    assert torch.allclose(norm.running_mean, torch.tensor([1.0, -2.0, 0.5]) + mean + 3, atol=1e-5)
    assert torch.allclose(norm.running_var, 4 * torch.tensor([4.0, 0.25, 9.0]), rtol=0.02), "eps beside the variance"

    one = before.of_rows(np.array([2]))
    assert torch.equal(one.offset, before.offset[2:])
    assert torch.equal(one.ratio, before.ratio[2:])


def test_a_channel_that_is_always_the_same_leaves_numbers() -> None:
    norm = nn.BatchNorm2d(1).eval()
    before = norm_statistics.standing(norm, torch.zeros(2, 1, 4, 4))
    norm_statistics.follow(norm, torch.zeros(2, 1, 4, 4), before)
    assert norm.running_var.item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("method", ["bn", "weights"])
def test_cutting_dead_channels_changes_nothing_on_whatever_images(method: str) -> None:
    """The oracle, with images of other statistics than the model's own."""
    model = small()
    names = {"model.4.m.0.cv1.conv", "model.9.cv1.conv"}
    for name in names:
        block: Any = model.get_submodule(name.removesuffix(".conv"))
        block.bn.weight.data[1::2] = block.bn.bias.data[1::2] = 0
    x, others = 0.8 * settled(model) + 0.1, images(8, seed=3)
    assert not norm_statistics.untrue(model, x), "else the statistics of the images are taken, and this shows nothing"
    assert away(cut(model, method, x, names), model, others) < 1e-3
