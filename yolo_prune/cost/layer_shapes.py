# yolo-prune, AGPL-3.0 license
"""The layers of a network as far as their cost is concerned: what each does to how large a tensor.

What counts is what is deployed. The host's exporter fuses a copy before it writes a file (ultralytics 8.4.190,
engine/exporter.py, `model.fuse`): BatchNorm goes into convolutions, the branches of RepConv and RepVGGDW become one
convolution, one of the two branches of an end-to-end head (YOLOv10, YOLO26) goes, and so does what only training needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from yolo_prune.cost.latency_model import Row
from yolo_prune.errors import HostError
from yolo_prune.graph import image_shape
from yolo_prune.graph.convolutions import is_depthwise
from yolo_prune.graph.model_state import copy_of, given
from yolo_prune.host import exporter

Operation = Literal["conv", "depthwise", "deconv", "linear"]
_Counted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


@dataclass(frozen=True)
class LayerShape:
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


def exports_end2end(model: nn.Module) -> bool:
    """Whether the host's exporter, asked for nothing else, writes the one-to-one branch of a head that has both.

    It sets the branch by its argument `nms` (8.4.190, engine/exporter.py: `model.end2end = self.args.nms is False`),
    whose default is None there; older hosts (8.4.0) cannot set it, and write what the head is.
    """
    if not _can_choose(model):
        return bool(getattr(model, "end2end", False))
    return exporter.default("nms") is False and _has_both(model)


def _can_choose(model: nn.Module) -> bool:
    return getattr(getattr(type(model), "end2end", None), "fset", None) is not None


def _has_both(model: Any) -> bool:
    return getattr(model.model[-1], "one2one_cv2", None) is not None


def deployed(model: nn.Module, end2end: bool | None = None) -> nn.Module:
    """A copy of a stock model as the host's exporter makes it: fused, with one branch of its head, in eval mode.

    Args:
        model: it is not changed. end2end: whether the one-to-one branch stays, of a head that has both; None asks the
            host's exporter.
    """
    fused: Any = copy_of(model).float().eval()  # heads remember the last image size
    if _can_choose(fused) and _has_both(fused):
        fused.end2end = exports_end2end(fused) if end2end is None else end2end
    result: nn.Module = fused.fuse(verbose=False)
    return result


def layers_of(model: nn.Module, imgsz: int, end2end: bool | None = None) -> list[LayerShape]:
    """Every convolution and linear layer of the deployed model that an image of imgsz x imgsz passes, in order.

    Args:
        model: a stock YOLO model on any device; it is not changed. A layer that is passed several times comes as often.
        imgsz: pixels. end2end: as of `deployed`.

    Returns:
        The layers, with the names that they have in `model`; one that is fused of several has that of the largest.

    Raises:
        HostError: the host fuses layers of this model in a way that is not known here.
    """
    own = {name for name, module in model.named_modules() if isinstance(module, _Counted)}
    model = deployed(model, end2end)
    places = {module: name for name, module in model.named_modules() if isinstance(module, _Counted)}
    layers: list[LayerShape] = []

    def note(module: _Counted, args: Any, kwargs: Any, output: torch.Tensor) -> None:
        block, _, last = places[module].rpartition(".")
        act = getattr(model.get_submodule(block), "act", None) if last == "conv" else None
        activation = _ACTIVATIONS.get(type(act).__name__, "none")
        taken = given(args, kwargs)
        layers.append(_shape(module, own_name(places[module], own), taken, output, activation, image=not layers))

    for module in places:
        module.register_forward_hook(note, with_kwargs=True)
    first = next(model.parameters())
    with torch.no_grad():
        model(torch.zeros(1, image_shape.channels(model), imgsz, imgsz, device=first.device, dtype=first.dtype))
    return layers


def _shape(
    module: _Counted, name: str, taken: torch.Tensor, made: torch.Tensor, activation: str, image: bool
) -> LayerShape:
    """A layer as it stands between what it takes and what it makes."""
    if isinstance(module, nn.Linear):
        rows, one = (1, taken.numel() // max(module.in_features, 1)), (1, 1)
        return LayerShape(name, "linear", one, one, (0, 0), rows, rows, module.in_features, module.out_features)
    deep = is_depthwise(module)
    operation: Operation = "deconv" if isinstance(module, nn.ConvTranspose2d) else "depthwise" if deep else "conv"
    padding = module.padding if isinstance(module.padding, tuple) else tuple(k // 2 for k in module.kernel_size)
    return LayerShape(
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
        activation,
        image,
    )


def own_name(name: str, own: set[str]) -> str:
    """The name in the model of a layer of its fused copy.

    RepConv makes `conv` of `conv1.conv` and `conv2.conv` (nn/modules/conv.py, `fuse_convs`), RepVGGDW puts the layer in
    the place of its block `conv` (nn/modules/block.py, `fuse`).
    """
    for known in (name, f"{name}.conv", f"{name.removesuffix('.conv')}.conv1.conv"):
        if known in own:
            return known
    raise HostError(f"ultralytics fuses a layer {name} of this model, which is not known here: bound its FLOPs instead")


def _two(values: object) -> tuple[int, int]:
    height, width = cast("tuple[int, int]", values)
    return int(height), int(width)
