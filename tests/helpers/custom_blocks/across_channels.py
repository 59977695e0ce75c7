# yolo-prune, AGPL-3.0 license
"""Protected: what one channel gives depends on other channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from tests.helpers.custom_blocks.base import Between, named


@named
class GroupNormed(Between):
    def make(self, c: int) -> None:
        self.m = nn.GroupNorm(4, c)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


@named
class InstanceNormed(Between):
    def make(self, c: int) -> None:
        self.m = nn.InstanceNorm2d(c, affine=True)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


@named
class LayerNormed(Between):
    def make(self, c: int) -> None:
        self.m = nn.LayerNorm(c)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@named
class LocalNormed(Between):
    def between(self, y: Tensor) -> Tensor:
        return F.local_response_norm(y, 3)


@named
class SumOfChannels(Between):
    def between(self, y: Tensor) -> Tensor:
        return y * torch.sigmoid(y.mean(dim=1, keepdim=True))


@named
class Cbam(Between):
    def make(self, c: int) -> None:
        self.m = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def between(self, y: Tensor) -> Tensor:
        return y * torch.sigmoid(self.m(torch.cat([torch.mean(y, 1, True), torch.max(y, 1, keepdim=True)[0]], 1)))


@named
class Eca(Between):
    def make(self, c: int) -> None:
        self.m = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def between(self, y: Tensor) -> Tensor:
        z = F.adaptive_avg_pool2d(y, 1)
        return y * self.m(z.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1).sigmoid()


@named
class SoftmaxOfChannels(Between):
    def make(self, c: int) -> None:
        self.m = nn.Softmax2d()

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


@named
class Cumulated(Between):
    def between(self, y: Tensor) -> Tensor:
        return y.cumsum(1) / self.c


@named
class Sorted(Between):
    def between(self, y: Tensor) -> Tensor:
        return y.sort(dim=1).values


@named
class TopK(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.cat([torch.topk(y, self.c // 2, dim=1)[0]] * 2, 1)


@named
class Normalized(Between):
    def between(self, y: Tensor) -> Tensor:
        return F.normalize(y)


@named
class Einsum(Between):
    def make(self, c: int) -> None:
        self.w = nn.Parameter(torch.rand(c, c) / c)

    def between(self, y: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", y, self.w)


@named
class GatedHalf(Between):
    def make(self, c: int) -> None:
        self.mix = Conv(c // 2, c, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.mix(F.glu(y, 1))


@named
class Involution(Between):
    def make(self, c: int) -> None:
        self.k = nn.Conv2d(c, 9 * 4, 1)

    def between(self, y: Tensor) -> Tensor:
        b, c, h, w = y.shape
        kernels = self.k(y).view(b, 4, 1, 9, h, w)
        return (kernels * F.unfold(y, 3, padding=1).view(b, 4, c // 4, 9, h, w)).sum(3).view(b, c, h, w)


@named
class Deformed(Between):
    def make(self, c: int) -> None:
        self.offset, self.w = nn.Conv2d(c, 18, 3, padding=1), nn.Parameter(torch.rand(c, c, 3, 3) / c)

    def between(self, y: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d

        return deform_conv2d(y, self.offset(y), self.w, padding=1)


@named
class Channelwise(Between):
    """A loop over channels."""

    def between(self, y: Tensor) -> Tensor:
        return torch.stack([one * i for i, one in enumerate(y.unbind(1))], 1) / self.c


@named
class Triplet(Between):
    """A convolution over channels and columns."""

    def make(self, c: int) -> None:
        self.m = nn.Conv2d(2, 1, 7, padding=3)

    def between(self, y: Tensor) -> Tensor:
        turned = y.permute(0, 2, 1, 3)
        pooled = torch.cat((turned.mean(1, keepdim=True), turned.amax(1, keepdim=True)), 1)
        return (turned * self.m(pooled).sigmoid()).permute(0, 2, 1, 3)


@named
class Recurrent(Between):
    def make(self, c: int) -> None:
        self.m = nn.GRU(c, c, batch_first=True)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y.flatten(2).transpose(1, 2))[0].transpose(1, 2).reshape(y.shape)


@named
class Transformer(Between):
    def make(self, c: int) -> None:
        self.m = nn.TransformerEncoderLayer(c, 4, 2 * c, batch_first=True, dropout=0.0)

    def between(self, y: Tensor) -> Tensor:
        return self.m(y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(y.shape)


@named
class Haar(Between):
    """Fixed filters, one a channel."""

    def between(self, y: Tensor) -> Tensor:
        return F.conv2d(y, torch.ones(self.c, 1, 3, 3, dtype=y.dtype) / 9, padding=1, groups=self.c)


@named
class Fourier(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(y, dim=(1, 3)), s=(y.shape[1], y.shape[3]), dim=(1, 3))


@named
class Bilinear(Between):
    def between(self, y: Tensor) -> Tensor:
        flat = y.flatten(2)
        return torch.bmm(torch.bmm(flat, flat.transpose(1, 2)).softmax(-1), flat).view_as(y)
