# yolo-prune, AGPL-3.0 license
"""Every elementwise activation of torch is followed; where an operation keeps a model whole, it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.nn.modules import Conv

import yolo_prune
from tests.graph.test_custom_blocks import check
from tests.helpers import custom_blocks
from tests.helpers.oracle import lively
from yolo_prune.errors import BoundError
from yolo_prune.graph import channel_groups

# torch.nn.modules.activation but GLU, MultiheadAttention, Softmax and its like, which mix channels; and dropouts.
MODULES = [
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh"),
    *("LogSigmoid", "Softplus", "Softshrink", "Softsign", "Tanhshrink", "Hardtanh", "Hardshrink", "Hardsigmoid"),
    *("Hardswish", "Threshold(0.1, 0.0)", "Identity", "Dropout", "AlphaDropout", "Dropout2d", "FeatureAlphaDropout"),
]
IN_PLACE = {"relu", "leaky_relu", "rrelu", "elu", "selu", "celu", "threshold", "hardtanh"}


@pytest.fixture(autouse=True)
def _activation() -> Iterator[None]:
    """The host keeps a yaml's activation on the class of all convolutions."""
    stock = Conv.default_act
    yield
    Conv.default_act = stock


def with_activation(folder: Path, activation: str) -> YOLO:
    """A small detector of that activation."""
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**custom_blocks.yaml_with("C2f"), "activation": activation}), encoding="utf-8")
    return YOLO(path)


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, tmp_path: Path) -> None:
    module = f"torch.nn.{name}" if name.endswith(")") else f"torch.nn.{name}()"
    found = channel_groups.build(with_activation(tmp_path, module).model)
    assert found.untaught == {}
    assert found.prunable_share() > 0.9


@pytest.mark.parametrize("channels", [1, 32])
def test_slopes_are_cut_with_their_channels(channels: int) -> None:
    custom_blocks.register()
    torch.manual_seed(0)
    model = YOLO_of(nn.PReLU(channels))
    found = channel_groups.build(model)
    assert "model.5.a.conv" not in found.protected
    vectors = [m.module for group in found.groups for m in group.members if m.module.endswith(".act.weight")]
    assert vectors == (["model.5.act.weight"] if channels > 1 else [])
    check(model, found)


def YOLO_of(act: nn.Module) -> Any:  # noqa: N802
    """A detector with a block of that activation."""
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(custom_blocks.yaml_with("SlopePerChannel"), verbose=False)
    model.model[5].act = act
    return lively(model.eval())


def functional() -> list[Any]:
    """Every form of the functional ones: of torch.nn.functional, of torch, and methods, in place too."""
    names = [
        *("relu", "relu6", "elu", "selu", "celu", "leaky_relu", "rrelu", "gelu", "silu", "mish", "softplus"),
        *("softshrink", "softsign", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "logsigmoid", "tanhshrink"),
        *("sigmoid", "tanh", "threshold"),
    ]
    forms: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in names:
        more = (0.1, 0.0) if name == "threshold" else ()
        forms[f"F.{name}"] = lambda y, name=name, more=more: getattr(F, name)(y, *more)
        if name in IN_PLACE:
            forms[f"F.{name}_"] = lambda y, name=name, more=more: getattr(F, f"{name}_")(y.clone(), *more)
    for name in (
        "relu",
        "sigmoid",
        "tanh",
        "sqrt",
        "exp",
        "square",
        "abs",
        "erf",
        "sin",
        "clamp_",
        "neg_",
        "reciprocal",
    ):
        more = (-1.0, 1.0) if name == "clamp_" else ()
        forms[f"Tensor.{name}"] = lambda y, name=name, more=more: getattr(y.clone(), name)(*more)
    forms["torch.clamp"] = lambda y: torch.clamp(input=y, min=-1, max=1)
    forms["aten"] = lambda y: torch.ops.aten.silu(y) + torch.ops.aten.relu.default(y)
    return [pytest.param(form, id=name) for name, form in forms.items()]


class Tried(custom_blocks.Between):
    """What is tried, between two convolutions."""

    form: Callable[[Tensor], Tensor]

    def between(self, y: Tensor) -> Tensor:
        return type(self).form(y)


class Small(nn.Module):
    """A model of one block and a last layer, as the host's hold theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Tried(8), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Any:
        """What the last layer gives."""
        return self.model(x)


@pytest.mark.parametrize("form", functional())
def test_functions(form: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tried, "form", staticmethod(form), raising=False)
    model = Small()
    found = channel_groups.build(model)
    assert found.untaught == {}
    assert set(found.protected) == {"model.1"}


def test_a_yaml_with_prelu_is_pruned_in_a_training(tmp_path: Path, tiny_data: Path) -> None:
    model = with_activation(tmp_path, "torch.nn.PReLU()")
    full = sum(p.numel() for p in model.model.parameters())
    model.train(data=str(tiny_data), epochs=2, imgsz=64, batch=4, workers=0, device="cpu", plots=False, prune=0.4)
    assert sum(p.numel() for p in model.model.parameters()) < 0.8 * full


def test_a_bound_out_of_reach_names_what_keeps_the_model_whole(tmp_path: Path) -> None:
    model = with_activation(tmp_path, "torch.nn.Softmax2d()")
    words = r"of its convolution weights stay: \d+% goes through softmax in model\.0\.act.*\(Softmax2d\)"
    with pytest.raises(BoundError, match=words) as caught:
        yolo_prune.prune(model, flops="60%")
    assert "lower prune_round" not in str(caught.value)
