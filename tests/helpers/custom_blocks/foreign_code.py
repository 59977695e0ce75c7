# yolo-prune, AGPL-3.0 license
"""Protected: code that PyTorch's functions do not show: scripts, NumPy, lists, functions of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from tests.helpers.custom_blocks.base import Between, named


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
class ByValue(Between):
    def between(self, y: Tensor) -> Tensor:
        return y * 2 if y[:, 0].mean() > y.mean() else y


@named
class Unregistered(Between):
    """Layers in a plain list, which the model does not know."""

    def make(self, c: int) -> None:
        self.m = [nn.Conv2d(c, c, 1)]

    def between(self, y: Tensor) -> Tensor:
        return self.m[0](y)


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
