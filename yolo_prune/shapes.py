# yolo-prune, AGPL-3.0 license
"""The layers of a network as far as their cost is concerned: what each does to how large a tensor."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from yolo_prune.latency_model import Row

Operation = Literal["conv", "depthwise", "deconv", "linear"]


@dataclass(frozen=True)
class Layer:
    """A layer of a network, as far as its cost is concerned.

    Attributes:
        name: in the model. kernel, stride, padding: (height, width). size, made: (height, width) of input and output;
            of a linear layer (1, rows). inp, out: channels. groups: 1 but for grouped convolutions.
        activation: "silu", "relu", or "none" for none and for those that are not told apart.
        image: whether it is the first, which reads the image.
    """

    name: str
    operation: Operation
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    size: tuple[int, int]
    made: tuple[int, int]
    inp: int
    out: int
    groups: int = 1
    activation: str = "none"
    image: bool = False

    @property
    def kind(self) -> str:
        """What layers of equal cost share, such as `conv 3x3/1 40x40 silu`."""
        grouped = f" groups {self.groups}" if self.groups > 1 else ""
        shape = "x".join(map(str, self.kernel)) + f"/{self.stride[0]} " + "x".join(map(str, self.made))
        return f"{self.operation}{' image' * self.image}{grouped} {shape} {self.activation}"

    @property
    def row(self) -> Row:
        """The layer in a model of latency."""
        return Row(self.kind, self.inp, self.out, self.made[0] * self.made[1])

    @property
    def work(self) -> int:
        """Multiply-adds."""
        shared = self.inp if self.operation == "depthwise" else self.groups
        return self.out * self.inp // shared * self.kernel[0] * self.kernel[1] * self.made[0] * self.made[1]


_ACTIVATIONS = {"SiLU": "silu", "ReLU": "relu"}


def layers_of(model: nn.Module, imgsz: int) -> list[Layer]:
    """Every convolution and linear layer that an image of imgsz x imgsz passes, in order.

    Args:
        model: a stock YOLO model on any device; it is not changed. A layer that is passed several times comes as often.
    """
    model = copy_of(model).eval()  # heads remember the last image size
    names = {module: name for name, module in model.named_modules()}
    found: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        name = names[module]
        taken, made = inputs[0], output
        if isinstance(module, nn.Linear):
            rows = (1, taken.numel() // max(module.in_features, 1))
            one = (1, 1)
            found.append(Layer(name, "linear", one, one, (0, 0), rows, rows, module.in_features, module.out_features))
            return
        assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        deep = module.groups == module.in_channels == module.out_channels > 1
        act = "none"
        if name.endswith(".conv"):
            act = _ACTIVATIONS.get(type(getattr(model.get_submodule(name[: -len(".conv")]), "act", None)).__name__, act)
        operation: Operation = "deconv" if isinstance(module, nn.ConvTranspose2d) else "depthwise" if deep else "conv"
        padding = module.padding if isinstance(module.padding, tuple) else tuple(k // 2 for k in module.kernel_size)
        found.append(
            Layer(
                name,
                operation,
                _two(module.kernel_size),
                _two(module.stride),
                _two(padding),
                _two(taken.shape[-2:]),
                _two(made.shape[-2:]),
                module.in_channels,
                module.out_channels,
                1 if deep else module.groups,
                act,
                image=not found,
            )
        )

    wanted = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    for module in names:
        if isinstance(module, wanted):
            module.register_forward_hook(note)
    first = next(model.parameters())
    channels = int(getattr(model, "yaml", {}).get("channels", 3))
    with torch.no_grad():
        model(torch.zeros(1, channels, imgsz, imgsz, device=first.device, dtype=first.dtype))
    return found


def copy_of(model: nn.Module) -> nn.Module:
    """A copy without the loss, which holds the model: copying that would copy all twice."""
    criterion = model.__dict__.pop("criterion", None)
    try:
        return deepcopy(model)
    finally:
        if criterion is not None:
            model.criterion = criterion


def _two(values: object) -> tuple[int, int]:
    height, width = cast("tuple[int, int]", values)
    return int(height), int(width)
