# yolo-prune, AGPL-3.0 license
"""Followed: every form of call of what is known."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
from torch import Tensor, nn
from ultralytics.nn.modules import Bottleneck, Conv, DWConv

from tests.helpers.custom_blocks.base import Between, followed


@followed
class Keywords(Between):
    def between(self, y: Tensor) -> Tensor:
        y = torch.cat(tensors=list(y.chunk(chunks=2, dim=1)), dim=1)
        y = torch.transpose(input=y, dim0=2, dim1=3).transpose(dim1=-1, dim0=-2)
        return torch.permute(y, dims=(0, 2, 3, 1)).permute(dims=[0, 3, 1, 2])


@followed
class NegativeDims(Between):
    def between(self, y: Tensor) -> Tensor:
        a, b = torch.chunk(y, 2, dim=-3)
        return torch.concat((a, b), axis=-3).permute(0, -2, -1, -3).movedim(-1, 1)


@followed
class Flattened(Between):
    def between(self, y: Tensor) -> Tensor:
        flat = torch.flatten(y, start_dim=2).transpose(1, 2).softmax(dim=1)
        return y * flat.mean(dim=1).unsqueeze(-1).unsqueeze(-1)


@followed
class SqueezeExcite(Between):
    def make(self, c: int) -> None:
        self.gate = nn.Sequential(nn.Conv2d(c, c // 4, 1), nn.ReLU(), nn.Conv2d(c // 4, c, 1), nn.Sigmoid())

    def between(self, y: Tensor) -> Tensor:
        return y * self.gate(y.mean((2, 3), keepdim=True)).expand_as(y)


@followed
class SqueezeExciteLinear(Between):
    def make(self, c: int) -> None:
        self.down, self.up = nn.Linear(c, c // 4), nn.Linear(c // 4, c)

    def between(self, y: Tensor) -> Tensor:
        gate = F.hardtanh(self.up(F.celu(self.down(F.adaptive_avg_pool2d(y, 1).flatten(1)))))
        return y * gate[:, :, None, None]


@followed
class SqueezeExciteByShape(Between):
    """As the papers' code has it: by the numbers of the input's shape."""

    def make(self, c: int) -> None:
        self.fc = nn.Sequential(nn.Linear(c, c // 4), nn.ReLU(), nn.Linear(c // 4, c), nn.Sigmoid())

    def between(self, y: Tensor) -> Tensor:
        b, c, _, _ = y.size()
        gate = self.fc(F.adaptive_avg_pool2d(y, 1).view(b, c)).view(b, c, 1, 1)
        return y * gate.expand_as(y)


@followed
class PixelsInOneDimension(Between):
    def between(self, y: Tensor) -> Tensor:
        b, c, h, w = y.shape
        flat = y * y.reshape(b, c, h * w).softmax(-1).view(b, -1, h, w)
        return flat + y.mean((2, 3), keepdim=True).expand(-1, c, h, w) + y.mean((2, 3), keepdim=True).repeat(1, 1, h, w)


@followed
class SimAM(Between):
    def between(self, y: Tensor) -> Tensor:
        d = (y - y.mean(dim=[2, 3], keepdim=True)).pow(2)
        return y * torch.sigmoid(d / (4 * (d.sum(dim=[2, 3], keepdim=True) / (y.shape[2] * y.shape[3]) + 1e-4)) + 0.5)


@followed
class OneChannelGate(Between):
    def make(self, c: int) -> None:
        self.gate = nn.Conv2d(c, 1, 3, padding=1)

    def between(self, y: Tensor) -> Tensor:
        return y * torch.sigmoid(self.gate(y)) + y


@followed
class CoordAtt(Between):
    def make(self, c: int) -> None:
        self.one, self.h, self.w = Conv(c, 8, 1), nn.Conv2d(8, c, 1), nn.Conv2d(8, c, 1)

    def between(self, y: Tensor) -> Tensor:
        rows, columns = y.mean(3, keepdim=True), y.mean(2, keepdim=True).permute(0, 1, 3, 2)
        rows, columns = self.one(torch.cat([rows, columns], dim=2)).split([y.size(2), y.size(3)], dim=2)
        return y * self.h(rows).sigmoid() * self.w(columns.permute(0, 1, 3, 2)).sigmoid()


@followed
class FocusInside(Between):
    def make(self, c: int) -> None:
        self.mix = Conv(4 * c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        parts = (y[..., ::2, ::2], y[..., 1::2, ::2], y[:, :, ::2, 1::2], y[..., 1::2, 1::2])
        return F.interpolate(self.mix(torch.cat(parts, 1)), size=y.shape[2:], mode="nearest")


@followed
class WeightedAdd(Between):
    def make(self, c: int) -> None:
        self.w, self.other = nn.Parameter(torch.ones(2)), Conv(c, c, 3)

    def between(self, y: Tensor) -> Tensor:
        w = F.relu(self.w)
        w = w / (w.sum() + 1e-4)
        return F.silu(w[0] * y + w[1] * self.other(y))


@followed
class Ghost(Between):
    def make(self, c: int) -> None:
        self.cheap, self.mix = DWConv(c, c, 5), Conv(2 * c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.mix(torch.cat((y, self.cheap(y)), 1))


@followed
class Elan(Between):
    def make(self, c: int) -> None:
        self.p, self.q, self.r = Conv(c, 16, 1), Conv(c, 16, 1), Conv(16, 16, 3)
        self.mix = Conv(48, c, 1)

    def between(self, y: Tensor) -> Tensor:
        q = self.q(y)
        return self.mix(torch.cat((self.p(y), q, self.r(q)), 1))


@followed
class Res2Chunks(Between):
    def make(self, c: int) -> None:
        self.m = nn.ModuleList(nn.Conv2d(c // 4, c // 4, 3, padding=1) for _ in range(3))

    def between(self, y: Tensor) -> Tensor:
        parts = list(y.chunk(4, 1))
        for i, layer in enumerate(self.m):
            parts[i + 1] = layer(parts[i] + parts[i + 1])
        return torch.cat(parts, 1)


@followed
class SwappedHalves(Between):
    """The second split has the parts of the first, the other way round."""

    def between(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        c, d = torch.cat((b, a), 1).chunk(2, 1)
        return torch.cat((c.relu(), d), 1)


@followed
class TreeOfChunks(Between):
    def between(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        (a1, a2), (b1, b2) = a.chunk(2, 1), b.chunk(2, 1)
        return torch.cat((a1 + b2, a2.relu(), b1, b2), 1)


@followed
class CachedGrid(Between):
    """Coordinates that it keeps for the size that came last."""

    def make(self, c: int) -> None:
        self.mix, self._grid = Conv(c + 1, c, 1), None

    def between(self, y: Tensor) -> Tensor:
        if self._grid is None or self._grid.shape[-2:] != y.shape[-2:]:
            self._grid = torch.linspace(-1, 1, y.shape[-1]).expand(1, 1, *y.shape[-2:])
        return self.mix(torch.cat((y, self._grid.expand(len(y), -1, -1, -1)), 1))


@followed
class Twice(Between):
    def make(self, c: int) -> None:
        self.m = Conv(c, c, 3)

    def between(self, y: Tensor) -> Tensor:
        return self.m(self.m(y))


@followed
class DropPath(Between):
    def between(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        return y.div(0.9) * y.new_empty((y.shape[0],) + (1,) * (y.ndim - 1)).bernoulli_(0.9)


@followed
class InPlace(Between):
    def between(self, y: Tensor) -> Tensor:
        z = y.clone()
        z.mul_(0.5).add_(y).relu_()
        z += y
        return z


@followed
class KeywordLayer(Between):
    def between(self, y: Tensor) -> Tensor:
        return self.b.conv(input=y)


@followed
class Containers(Between):
    def make(self, c: int) -> None:
        self.inner = Pair()

    def between(self, y: Tensor) -> Tensor:
        out = self.inner({"x": y, "more": [y, (y,)]})
        return out["sum"] + out["list"][0]


class Pair(nn.Module):
    def forward(self, x: dict[str, Any]) -> dict[str, Any]:
        """A dict in, a dict out."""
        return {"sum": x["x"] + x["more"][0], "list": [x["more"][1][0].abs()]}


@followed
class SlopePerChannel(Between):
    def make(self, c: int) -> None:
        self.act = nn.PReLU(c)
        nn.init.uniform_(self.act.weight, -1, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.act(y - 0.2 * y.detach())


@followed
class Stacked(Between):
    def make(self, c: int) -> None:
        self.w, self.other = nn.Parameter(torch.ones(2)), Conv(c, c, 3)

    def between(self, y: Tensor) -> Tensor:
        w = self.w.softmax(0)
        return (torch.stack((y, self.other(y)), dim=1) * w.view(1, -1, 1, 1, 1)).sum(dim=1)


@followed
class Sequence(Between):
    """Residual blocks in a sequence that the block walks by itself: none can be removed whole."""

    def make(self, c: int) -> None:
        self.m = nn.Sequential(Bottleneck(c, c), Bottleneck(c, c))
        self.mix = Conv(3 * c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        parts = [y]
        parts.extend(m(parts[-1]) for m in self.m)
        return self.mix(torch.cat(parts, 1))


class Dense(nn.Sequential):
    """A sequence with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """All that its entries give."""
        parts = [x]
        for block in self:
            parts.append(block(parts[-1]))
        return torch.cat(parts, 1)


@followed
class OwnSequence(Between):
    def make(self, c: int) -> None:
        self.m, self.mix = Dense(Bottleneck(c, c), Bottleneck(c, c)), Conv(3 * c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.mix(self.m(y))


@followed
class PreActivation(Between):
    """A BatchNorm before the convolution, under the names that the host gives one behind it."""

    def make(self, c: int) -> None:
        self.bn, self.conv, self.mix = nn.BatchNorm2d(c), nn.Conv2d(c, c // 2, 1), Conv(c // 2, c)

    def between(self, y: Tensor) -> Tensor:
        return self.mix(self.conv(self.bn(y).relu()))


@followed
class Checkpointed(Between):
    def make(self, c: int) -> None:
        self.m = Conv(c, c, 3)

    def between(self, y: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.m, y, use_reentrant=False)


class NormedBetween(Between):
    """A BatchNorm that lacks something."""

    def norm(self, c: int) -> nn.BatchNorm2d:
        raise NotImplementedError

    def make(self, c: int) -> None:
        self.conv, self.bn, self.act = nn.Conv2d(c, c, 3, padding=1), self.norm(c), nn.SiLU()

    def between(self, y: Tensor) -> Tensor:
        return y + self.act(self.bn(self.conv(y)))


@followed
class NoScale(NormedBetween):
    def norm(self, c: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(c, affine=False)


@followed
class NoStatistics(NormedBetween):
    def norm(self, c: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(c, track_running_stats=False)


@followed
class NeitherScaleNorStatistics(NormedBetween):
    def norm(self, c: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(c, affine=False, track_running_stats=False)


@followed
class NoShift(NormedBetween):
    def norm(self, c: int) -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(c)
        norm.register_parameter("bias", None)  # newer torch has an argument for it
        return norm


@followed
class Transposed(Between):
    """Transposed convolutions, of one group and depthwise."""

    def make(self, c: int) -> None:
        self.up = nn.ConvTranspose2d(c, c // 2, 2, 2)
        self.deep = nn.ConvTranspose2d(c // 2, c // 2, 2, 2, groups=c // 2)
        self.mix = Conv(c // 2, c, 4, 4)

    def between(self, y: Tensor) -> Tensor:
        return self.mix(self.deep(self.up(y)))


@followed
class TwiceBesideItself(Between):
    """A tensor concatenated with itself, added to and multiplied by halves; a convolution run at two places."""

    def make(self, c: int) -> None:
        self.wide, self.twice, self.mix = Conv(c, 2 * c, 1), Conv(c, c, 3), Conv(2 * c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        one, two = (torch.cat((y, y), 1) + self.wide(y)).chunk(2, 1)
        return self.mix(torch.cat((self.twice(one), self.twice(one * two)), 1))


@followed
class InferenceTower(Between):
    """A tower that is not trained, in inference mode: torch counts no changes of what is made there."""

    def make(self, c: int) -> None:
        self.tower, self.mix = Conv(c, c, 3), Conv(2 * c, c, 1)

    def between(self, y: Tensor) -> Tensor:
        with torch.inference_mode():
            z = self.tower(y.detach())
        return self.mix(torch.cat((y, z.clone()), 1))
