# yolo-prune, AGPL-3.0 license
"""Protected: what depends on the position of a channel, or on how many there are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from tests.helpers.custom_blocks.base import Between, named


@named
class SplitBySizes(Between):
    def make(self, c: int) -> None:
        self.m, self.mix = Conv(c // 2, c // 2, 3), Conv(3 * c // 2, c, 1)

    def between(self, y: Tensor) -> Tensor:
        a, b = y.split((self.c // 2, self.c // 2), 1)
        return self.mix(torch.cat((a, b, self.m(b)), 1))


@named
class SplitByKeyword(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.cat(torch.split(tensor=y, split_size_or_sections=self.c // 2, dim=1)[::-1], 1)


@named
class AttentionByShape(Between):
    def between(self, y: Tensor) -> Tensor:
        b, c, h, w = y.shape
        q = y.view(b, 4, c // 4, h * w)
        return (q @ (q.transpose(-2, -1) @ q).softmax(-1)).view(b, c, h, w)


@named
class AttentionByInput(nn.Module):
    """The number of channels is that of the input, which no operation but three convolutions reads."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 1)
        self.q, self.k, self.v = nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """BoTNet's."""
        x = self.a(x)
        b, c, h, w = x.shape
        q, k, v = (f(x).view(b, 4, c // 4, h * w) for f in (self.q, self.k, self.v))
        weight = (q.transpose(-2, -1) @ k * (c // 4) ** -0.5).softmax(-1)
        return self.b((v @ weight.transpose(-2, -1)).view(b, c, h, w))


@named
class ScaledByCount(Between):
    def between(self, y: Tensor) -> Tensor:
        return y / y.shape[1]


@named
class ScaledByRoot(Between):
    def make(self, c: int) -> None:
        self.m = Conv(c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y) * (y.size(1) ** 0.5 + math.sqrt(y.shape[-3]))


@named
class MadeByCount(Between):
    def make(self, c: int) -> None:
        self.m = Conv(c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y) + torch.linspace(0, 1, y.shape[1]).view(1, -1, 1, 1)


@named
class MaskByPosition(Between):
    def between(self, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, :8] = 0
        return y


@named
class MaskByView(Between):
    def between(self, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, :8].zero_()
        return y


@named
class MaskByData(Between):
    def between(self, y: Tensor) -> Tensor:
        y = y.clone()
        y.data[:, 3] = 0
        return y


@named
class EverySecond(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.cat((y[:, ::2], y[:, 1::2]), 1)


@named
class IndexSelect(Between):
    def make(self, c: int) -> None:
        self.order = torch.randperm(c)

    def between(self, y: Tensor) -> Tensor:
        return y.index_select(1, self.order)


@named
class IndexByTensor(Between):
    def between(self, y: Tensor) -> Tensor:
        return y[:, torch.arange(self.c - 1, -1, -1)]


@named
class MaskBuffer(Between):
    def make(self, c: int) -> None:
        self.register_buffer("mask", (torch.arange(c) % 3 > 0).float().view(1, c, 1, 1))

    def between(self, y: Tensor) -> Tensor:
        return y * self.mask


@named
class WhereByConstant(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.where((torch.arange(self.c) < 5).view(1, -1, 1, 1), torch.zeros(()).to(y), y)


@named
class LayerScale(Between):
    def make(self, c: int) -> None:
        self.gamma = nn.Parameter(torch.rand(c, 1, 1))

    def between(self, y: Tensor) -> Tensor:
        return self.gamma * y


@named
class BuiltBuffer(Between):
    def between(self, y: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        out[:, : self.c // 2] = y[:, self.c // 2 :]
        return out + y


@named
class CopiedIn(Between):
    def between(self, y: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        out.copy_(y)
        return out


@named
class Rolled(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.roll(y, 1, dims=1)


@named
class Shifted(Between):
    def between(self, y: Tensor) -> Tensor:
        return F.pad(y, (0, 0, 0, 0, 1, -1))


@named
class Shuffled(Between):
    def between(self, y: Tensor) -> Tensor:
        b, c, h, w = y.shape
        return y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


@named
class ShuffledByLayer(Between):
    def make(self, c: int) -> None:
        self.m = nn.ChannelShuffle(2)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


@named
class Pixels(Between):
    def make(self, c: int) -> None:
        self.mix = Conv(c // 4, c, 3, 2)

    def between(self, y: Tensor) -> Tensor:
        return self.mix(F.pixel_shuffle(y, 2))


@named
class Positions(Between):
    """Sine positions of as many channels as remembered."""

    def between(self, y: Tensor) -> Tensor:
        angle = torch.arange(self.c, dtype=y.dtype).view(-1, 1, 1) / math.pi
        return y + torch.sin(angle * torch.ones(1, *y.shape[2:], dtype=y.dtype))


@named
class ExpandedByConstant(Between):
    def between(self, y: Tensor) -> Tensor:
        return y.mean((2, 3), keepdim=True).expand(-1, self.c, *y.shape[2:]) + y


@named
class ByShapeOfAnother(Between):
    """A slice as wide as another tensor."""

    def make(self, c: int) -> None:
        self.m = Conv(c, c // 2, 1)

    def between(self, y: Tensor) -> Tensor:
        z = self.m(y)
        return torch.cat((y[:, : z.shape[1]] + z, y[:, z.shape[1] :]), 1)


@named
class Remembered(Between):
    """Reads what it made at the call before, where that was of the same size."""

    def make(self, c: int) -> None:
        self.mix, self._last = Conv(2 * c, c, 1), None

    def between(self, y: Tensor) -> Tensor:
        last = y if self._last is None or self._last.shape != y.shape else self._last
        self._last = y
        return self.mix(torch.cat((y, last), 1))


@named
class SqueezedInPlace(Between):
    def between(self, y: Tensor) -> Tensor:
        z = y.mean((2, 3), keepdim=True).clone().squeeze_()
        return y * z.view(len(y), z.shape[-1], 1, 1)
