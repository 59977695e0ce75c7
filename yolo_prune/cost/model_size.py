# yolo-prune, AGPL-3.0 license
"""Params and FLOPs as the host prints them, latency as a device profile predicts it, bytes of the exported file.

All are functions of the counts.

The host counts FLOPs with thop on the unfused model at 640 x 640 (ultralytics 8.4.190, utils/torch_utils.py:
`get_flops`, `model_info`): a convolution costs k*k*in*out*area multiply-adds, a BatchNorm 4 a value, two FLOPs each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune.allocation.costs import Cost, Effect, Latency
from yolo_prune.allocation.units import Part, Unit
from yolo_prune.cost import activation_memory, file_size
from yolo_prune.cost.file_size import Deployment
from yolo_prune.cost.layer_shapes import deployed, layers_of
from yolo_prune.cost.profile_file import Profile
from yolo_prune.errors import HostError, PruneError
from yolo_prune.graph import image_shape
from yolo_prune.graph.channel_groups import IMAGE, ChannelGraph
from yolo_prune.graph.residual import ResidualBlock
from yolo_prune.host import checkpoint, flops

_NORM_OPS = 2  # multiply-adds a value that thop charges for a BatchNorm, and as many for its scale and shift


@dataclass(frozen=True)
class Size:
    """What a model is: parameters, and GFLOPs at 640 x 640 as the host counts them."""

    params: int
    gflops: float

    @property
    def flops(self) -> float:
        """FLOPs at 640 x 640."""
        return self.gflops * 1e9


def size_of(model: nn.Module) -> Size:
    """Count a stock model as the host does.

    Raises:
        HostError: the host cannot count FLOPs (thop is missing or failed), so no FLOPs bound could be kept.
    """
    gflops = _gflops(model)
    if gflops <= 0:
        raise HostError("ultralytics could not count the FLOPs of this model; is ultralytics-thop installed?")
    return Size(flops.params(model), gflops)


@dataclass(frozen=True)
class DeployedSize:
    """What a model is as it is exported: fused, and of an end-to-end head (YOLOv10, 26) one branch.

    Attributes:
        gflops: at 640 x 640, as the host prints them of a fused model. bytes: of the file, as file_size.py counts them.
        activations: bytes of the tensors that live at once, at most, as activation_memory.py counts them.
            Each is None where that is not known.
    """

    gflops: float | None
    bytes: int | None
    activations: int | None = None


UNKNOWN = DeployedSize(None, None)


def deployed_size(model: nn.Module, deployment: Deployment) -> DeployedSize:
    """GFLOPs, bytes and memory of the exported model; unknown where it has quantizers, which the host does not fuse."""
    if checkpoint.has_quantizers(model):
        return UNKNOWN
    fused = deployed(model)
    gflops, size = _gflops(fused) or None, file_size.bytes_of(fused, deployment)
    return DeployedSize(gflops, size, activation_memory.peak_bytes(fused, deployment))


def activations(model: nn.Module, deployment: Deployment) -> int | None:
    """The memory alone, of `deployed_size`."""
    return None if checkpoint.has_quantizers(model) else activation_memory.peak_bytes(deployed(model), deployment)


class _Reading(nn.Module):
    """A model behind a parameter with as many columns as its image has channels."""

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        like = next(model.parameters())
        self.image = nn.Parameter(torch.empty(1, channels, device=like.device, dtype=like.dtype), requires_grad=False)
        self.model = model
        if hasattr(model, "stride"):
            self.stride = model.stride

    def forward(self, image: torch.Tensor) -> Any:
        return self.model(image)


def _gflops(model: nn.Module) -> float:
    """The host's count, 0.0 where it fails.

    It takes the image's channels from the columns of the first parameter (8.4.190, utils/torch_utils.py:654), and gives
    0.0 for a model that begins with Focus or with a grouped convolution, whose weight has other columns.
    """
    channels, first = image_shape.channels(model), next(model.parameters())
    plain = first.ndim > 1 and first.shape[1] == channels
    return flops.gflops(model if plain else _Reading(model, channels), IMAGE)


def flops_cost(
    graph: ChannelGraph, units: Sequence[Unit], size: Size, limit: float, parts: Sequence[Part] = ()
) -> Cost:
    """FLOPs at 640 x 640 as a function of the units' counts, equal to the host's figure for the model as it is.

    Args:
        graph: the channel groups and layers. units: what allocation decides. size: the host's count of the same model.
        limit: the bound in FLOPs. parts: what may go whole.
    """
    kernel, single, scale, _ = _kinds(graph)
    norm = _NORM_OPS * (np.array([layer.kind == "norm" for layer in graph.layers]) + scale)
    product = np.array([layer.kind == "product" for layer in graph.layers])
    whole, scaled = (np.array([getattr(layer, name) for layer in graph.layers]) for name in ("area", "scaled"))
    # Hosts count at 640 x 640 or at the smallest image and scale up, and attention's products or not: of the four ways
    # the one that leaves least unexplained is this host's.
    ways = [
        _cost("FLOPs", graph, units, size.flops, limit, 2 * kernel * area, 2 * outs * area, parts)
        for area in (whole, scaled)
        for outs in (single + norm + product, single + norm)
    ]
    return min(ways, key=lambda cost: abs(cost.fixed))


def params_cost(
    graph: ChannelGraph, units: Sequence[Unit], size: Size, limit: float, parts: Sequence[Part] = ()
) -> Cost:
    """Parameters as a function of the units' counts; `limit` is the bound in parameters."""
    kernel, single, scale, bias = _kinds(graph)
    return _cost("params", graph, units, size.params, limit, kernel, single + bias + scale, parts)


def size_cost(
    graph: ChannelGraph,
    units: Sequence[Unit],
    model: nn.Module,
    deployment: Deployment,
    limit: float,
    parts: Sequence[Part] = (),
) -> Cost:
    """Bytes of the exported file as a function of the units' counts, equal to `deployed_size` for the model as it is.

    Args:
        model: that the groups are of. deployment: what it is exported as. limit: the bound in bytes.
    """
    fused = deployed(model)
    row, _ = _index(graph, units)
    per_pair, per_output = np.zeros(len(row)), np.zeros(len(row))
    for name, rate in file_size.rates(fused, set(row), deployment):
        if name in row:
            per_pair[row[name]] += rate.per_pair
            per_output[row[name]] += rate.per_output
    total = file_size.bytes_of(fused, deployment)
    return _cost("size", graph, units, total, limit, per_pair, per_output, parts)


def latency_of(model: nn.Module, profile: Profile) -> float:
    """Milliseconds that a profile predicts for a model as it is deployed.

    Raises:
        PruneError: the profile was measured with another kind of model, or another input size.
    """
    stride = int(torch.as_tensor(getattr(model, "stride", 1)).max())
    if profile.imgsz % stride:
        raise PruneError(
            f"the device profile was measured at {profile.imgsz} pixels, which this model cannot take: a multiple of "
            f"{stride} is needed; measure the device with it: yolo-prune profile model=... format={profile.format}"
        )
    rows = [layer.row for layer in layers_of(model, profile.imgsz, profile.end2end)]
    profile.require(rows)
    return profile.predict(rows)


def latency_cost(
    graph: ChannelGraph,
    units: Sequence[Unit],
    model: nn.Module,
    profile: Profile,
    limit: float,
    parts: Sequence[Part] = (),
) -> Latency:
    """Latency as a function of the units' counts, equal to `latency_of` for the model as it is.

    Args:
        graph: the channel groups and layers of `model`. units: what allocation decides. limit: the bound in ms.
    """
    row, column = _index(graph, units)
    outs, ins, out0, in0 = _counts(graph, units, row, column)
    figures, free = np.zeros((len(row), 4)), np.zeros(len(row), dtype=bool)
    for layer in layers_of(model, profile.imgsz, profile.end2end):
        figures[row[layer.name]] += profile.figures(layer.kind, layer.row.area)
        free[row[layer.name]] = layer.image
    per_pair, per_output, per_input, per_call = figures.T
    return Latency(
        "latency",
        limit,
        profile.fixed,
        per_pair=per_pair,
        per_output=per_output,
        per_input=per_input,
        per_call=per_call,
        out0=out0,
        in0=in0,
        outs=outs,
        ins=ins,
        step_out=profile.steps.out,
        step_in=profile.steps.inp,
        tail=profile.steps.tail,
        free=free,
        parts=_effects(graph, units, parts, row, column),
    )


def _kinds(graph: ChannelGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(layers,) each: weights for an output and an input; for an output of a depthwise layer; scales; biases."""
    layers = graph.layers
    deep = np.array([layer.kind == "depthwise" for layer in layers])
    kernel = np.array([layer.kernel for layer in layers], dtype=float)
    scale = np.array([layer.scale for layer in layers], dtype=float)
    bias = np.array([layer.bias for layer in layers], dtype=float)
    return kernel * ~deep, kernel * deep, scale, bias


def _cost(
    name: str,
    graph: ChannelGraph,
    units: Sequence[Unit],
    total: float,
    limit: float,
    per_pair: np.ndarray,
    per_output: np.ndarray,
    parts: Sequence[Part],
) -> Cost:
    """The bilinear form; what the host counts beyond convolutions and BatchNorm (pools, upsampling) is `fixed`."""
    row, column = _index(graph, units)
    outs, ins, out0, in0 = _counts(graph, units, row, column)
    counts = np.array([u.size for u in units], dtype=float)
    bare = Cost(name, limit, 0.0, per_pair, per_output, out0, in0, outs, ins)
    return replace(bare, fixed=total - bare(counts), parts=_effects(graph, units, parts, row, column))


def _index(graph: ChannelGraph, units: Sequence[Unit]) -> tuple[dict[str, int], dict[str, int]]:
    """Layer name -> row, group name -> column."""
    row = {layer.name: i for i, layer in enumerate(graph.layers)}
    return row, {group: u for u, item in enumerate(units) for group in item.groups}


def _counts(
    graph: ChannelGraph, units: Sequence[Unit], row: Mapping[str, int], column: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(layers, units) how often a unit's channels are a layer's outputs and inputs; (layers,) those of no unit."""
    outs, ins = np.zeros((len(row), len(units))), np.zeros((len(row), len(units)))
    for group in graph.groups:
        for member in group.members:
            if member.module in row:
                side = ins if member.side == "in" else outs
                side[row[member.module], column[group.name]] += len(member.positions) / group.size * group.times
    counts = np.array([u.size for u in units], dtype=float)
    out0 = np.array([layer.out for layer in graph.layers]) - outs @ counts
    in0 = np.array([layer.inp for layer in graph.layers]) - ins @ counts  # of depthwise layers and norms not used
    return outs, ins, out0, in0


def _effects(
    graph: ChannelGraph,
    units: Sequence[Unit],
    parts: Sequence[Part],
    row: Mapping[str, int],
    column: Mapping[str, int],
) -> dict[str, Effect]:
    """What the removal of each part does to a bilinear form."""
    blocks = {block.name: block for block in graph.blocks}
    effects = {}
    left: dict[str, float] = {}
    for part in parts:
        layers, columns = np.ones(len(row)), np.ones(len(units))
        ins, in0 = np.zeros((len(row), len(units))), np.zeros(len(row))
        if part.heads:
            attentions = {attention for attention, _ in part.heads}
            for group in graph.groups:
                if group.head is not None and group.head.attention in attentions:
                    columns[column[group.name]] = part.left / left.get(part.pool, 1.0)
            left[part.pool] = part.left
        else:
            block = blocks[part.name]
            layers = np.array([float(not name.startswith(f"{block.name}.")) for name in row])
            if block.consumer:
                _no_longer_read(graph, block, row, column, ins, in0)
        effects[part.name] = Effect(layers, columns, ins, in0)
    return effects


def _no_longer_read(
    graph: ChannelGraph,
    block: ResidualBlock,
    row: Mapping[str, int],
    column: Mapping[str, int],
    ins: np.ndarray,
    in0: np.ndarray,
) -> None:
    """Take the columns that read a block's output from its consumer, in place."""
    reader = row[block.consumer]
    free = 0
    for group in graph.groups:
        for member in group.members:
            if member.module == block.consumer and member.side == "in":
                count = int(np.isin(member.positions, block.own).sum())
                ins[reader, column[group.name]] -= count / group.size * group.times
                free += count
    in0[reader] -= len(block.own) - free
