# yolo-prune, AGPL-3.0 license
"""Blocks as users write them into their own yamls, each a few lines. FOLLOWED are cut, NAMED are protected by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
import ultralytics.nn.tasks as tasks
from torch import Tensor, nn
from ultralytics.nn.modules import Bottleneck, C2f, Conv, DWConv

FOLLOWED: list[type[nn.Module]] = []
NAMED: list[type[nn.Module]] = []


def followed(block: Any) -> Any:
    """A block whose channels are cut: the convolution `a` in it has a group."""
    FOLLOWED.append(block)
    return block


def named(block: Any) -> Any:
    """A block that is protected, and said so: the convolution `a` in it keeps its channels."""
    NAMED.append(block)
    return block


def register() -> None:
    """Let the host's `parse_model` find the blocks by name."""
    for block in (*FOLLOWED, *NAMED):
        setattr(tasks, block.__name__, block)


def yaml_with(name: str, c: int = 32) -> dict[str, Any]:
    """A small detector with one such block in its backbone."""
    return {
        "nc": 3,
        "backbone": [
            *([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "C2f", [32, True]]),
            *([-1, 1, "Conv", [c, 3, 2]], [-1, 1, "Conv", [c, 3, 2]], [-1, 1, name, [c]], [-1, 1, "SPPF", [c, 5]]),
        ],
        "head": [[[3, 6], 1, "Detect", ["nc"]]],
    }


class Between(nn.Module):
    """Two convolutions and what a block does between them."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = Conv(c, c, 1), Conv(c, c, 1)
        self.c = c
        self.make(c)

    def make(self, c: int) -> None:
        """Further parts."""

    def between(self, y: Tensor) -> Tensor:
        """What is tried."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Convolution, what is tried, convolution."""
        return self.b(self.between(self.a(x)))


# Followed: every form of call of what is known ------------------------------------------------------------------------


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


# Named: what depends on positions, on counts, on other channels -------------------------------------------------------


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


@torch.jit.script
def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@torch.jit.script
def _zero_some(x: Tensor) -> None:
    x[:, :8] = 0


@named
class Scripted(Between):
    def between(self, y: Tensor) -> Tensor:
        return _swish(y)


@named
class ScriptedBeside(Between):
    def between(self, y: Tensor) -> Tensor:
        return y + _swish(y)


@named
class ScriptedInPlace(Between):
    def between(self, y: Tensor) -> Tensor:
        y = y.clone()
        _zero_some(y)
        return y


@named
class ScriptedModule(Between):
    def make(self, c: int) -> None:
        self.m = torch.jit.script(nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU()))

    def between(self, y: Tensor) -> Tensor:
        return self.m(y)


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
class Numpy(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(y.detach().cpu().numpy()))


@named
class NumpyInPlace(Between):
    def between(self, y: Tensor) -> Tensor:
        y = y.detach().clone()
        y.numpy()[:, :4] = 0
        return y


@named
class NumpyArray(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(y.detach()) * 2)


@named
class List(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.tensor(y.tolist(), dtype=y.dtype)


@named
class Vmap(Between):
    def between(self, y: Tensor) -> Tensor:
        return torch.vmap(lambda one: one * torch.arange(self.c).view(-1, 1, 1).to(one))(y)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Some channels twice."""
        y = x.clone()
        y[:, :8] *= 2
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Wrong, and not used here."""
        return grad


@named
class OwnFunction(Between):
    def between(self, y: Tensor) -> Tensor:
        return _Doubled.apply(y)


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
class ByValue(Between):
    def between(self, y: Tensor) -> Tensor:
        return y * 2 if y[:, 0].mean() > y.mean() else y


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


@named
class Positions(Between):
    """Sine positions of as many channels as remembered."""

    def between(self, y: Tensor) -> Tensor:
        angle = torch.arange(self.c, dtype=y.dtype).view(-1, 1, 1) / math.pi
        return y + torch.sin(angle * torch.ones(1, *y.shape[2:], dtype=y.dtype))


@named
class Channelwise(Between):
    """A loop over channels."""

    def between(self, y: Tensor) -> Tensor:
        return torch.stack([one * i for i, one in enumerate(y.unbind(1))], 1) / self.c


@named
class ExpandedByConstant(Between):
    def between(self, y: Tensor) -> Tensor:
        return y.mean((2, 3), keepdim=True).expand(-1, self.c, *y.shape[2:]) + y


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
class Unregistered(Between):
    """Layers in a plain list, which the model does not know."""

    def make(self, c: int) -> None:
        self.m = [nn.Conv2d(c, c, 1)]

    def between(self, y: Tensor) -> Tensor:
        return self.m[0](y)


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


@named
class ByShapeOfAnother(Between):
    """A slice as wide as another tensor."""

    def make(self, c: int) -> None:
        self.m = Conv(c, c // 2, 1)

    def between(self, y: Tensor) -> Tensor:
        z = self.m(y)
        return torch.cat((y[:, : z.shape[1]] + z, y[:, z.shape[1] :]), 1)


def _without_five(module: nn.Module, given: Any, out: Tensor) -> Tensor:
    """A hook that changes what a layer gives."""
    out = out.clone()
    out[:, :5] = 0
    return out


@named
class Hooked(Between):
    def make(self, c: int) -> None:
        self.a = nn.Conv2d(c, c, 1)
        self.a.register_forward_hook(_without_five)

    def between(self, y: Tensor) -> Tensor:
        return y.relu()
