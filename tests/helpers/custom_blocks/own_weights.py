# yolo-prune, AGPL-3.0 license
"""Protected: layers of a kind of its own, and weights that are made, shared or used by a function."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, Conv

from tests.helpers.custom_blocks.base import Between, named


@named
class FunctionalConv(Between):
    def make(self, c: int) -> None:
        self.m = nn.Conv2d(c, c, 3, padding=1)

    def between(self, y: Tensor) -> Tensor:
        return F.conv2d(y, self.m.weight, self.m.bias, padding=1)


@named
class WeightsUsedTwice(Between):
    """The convolution `a` is called, and its weight is used once more."""

    def between(self, y: Tensor) -> Tensor:
        return y + F.conv2d(torch.ones_like(y), self.a.conv.weight).mean()


@named
class FunctionalNorm(Between):
    def make(self, c: int) -> None:
        self.m = nn.BatchNorm2d(c)

    def between(self, y: Tensor) -> Tensor:
        return F.batch_norm(y, self.m.running_mean, self.m.running_var, self.m.weight, self.m.bias)


class Standardized(nn.Conv2d):
    """A convolution whose weights are standardised at each call."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean(dim=(1, 2, 3), keepdim=True)) / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        return self._conv_forward(x, w, self.bias)


class Reversed(nn.BatchNorm2d):
    """A BatchNorm that gives its channels in reverse."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(1)


@named
class OwnConv(Between):
    def make(self, c: int) -> None:
        self.m = Standardized(c, c, 3, padding=1)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


@named
class OwnNorm(Between):
    def make(self, c: int) -> None:
        self.m = Reversed(c)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


class Mixed(C2f):
    """A known block with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).split((self.c, self.c), 1)
        return self.cv2(torch.cat((b, a, *(m(a) for m in self.m)), 1))


@named
class OwnC2f(Between):
    def make(self, c: int) -> None:
        self.m = Mixed(c, c)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution `a` stands for the one in the block that splits."""
        return self.b(self.between(x) + 0 * self.a(x).flip(1))


@named
class WeightNormed(Between):
    def make(self, c: int) -> None:
        self.a = nn.utils.parametrizations.weight_norm(nn.Conv2d(c, c, 3, padding=1))

    def between(self, y: Tensor) -> Tensor:
        return y.relu()


@named
class OldWeightNormed(Between):
    def make(self, c: int) -> None:
        self.a = nn.utils.weight_norm(nn.Conv2d(c, c, 3, padding=1))

    def between(self, y: Tensor) -> Tensor:
        return y.relu()


@named
class SpectralNormed(Between):
    def make(self, c: int) -> None:
        self.a = nn.utils.parametrizations.spectral_norm(nn.Conv2d(c, c, 3, padding=1))

    def between(self, y: Tensor) -> Tensor:
        return y.relu()


@named
class Masked(Between):
    def make(self, c: int) -> None:
        from torch.nn.utils import prune

        self.a = nn.Conv2d(c, c, 3, padding=1)
        prune.l1_unstructured(self.a, "weight", 0.5)

    def between(self, y: Tensor) -> Tensor:
        return y.relu()


@named
class TiedWeights(Between):
    def make(self, c: int) -> None:
        self.m = Conv(c, c, 1)
        self.m.conv.weight = self.a.conv.weight

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)
