# yolo-prune, AGPL-3.0 license
"""Params and FLOPs: as the host prints them, and as functions of the channel counts.

The host counts FLOPs with thop on the unfused model at 640 x 640 (ultralytics 8.4.190, utils/torch_utils.py:
`get_flops`, `model_info`): a convolution costs k*k*in*out*area multiply-adds, a BatchNorm 4 a value, two FLOPs each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from ultralytics.utils.torch_utils import get_flops, get_num_params

from yolo_prune.allocate import Cost, Unit
from yolo_prune.errors import HostError
from yolo_prune.graph import ChannelGraph

IMAGE = 640  # pixels: the size at which the host states GFLOPs
_BATCHNORM_OPS = 4  # multiply-adds a value that thop charges for an affine BatchNorm


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
    gflops = float(get_flops(model, IMAGE))
    if gflops <= 0:
        raise HostError("ultralytics could not count the FLOPs of this model; is ultralytics-thop installed?")
    return Size(int(get_num_params(model)), gflops)


def flops_cost(graph: ChannelGraph, units: Sequence[Unit], size: Size, limit: float) -> Cost:
    """FLOPs at 640 x 640 as a function of the units' counts, equal to the host's figure for the model as it is.

    Args:
        graph: the channel groups and layers. units: what allocation decides. size: the host's count of the same model.
        limit: the bound in FLOPs.
    """
    area = np.array([layer.area for layer in graph.layers]) * IMAGE**2
    kernel = np.array([layer.kernel / layer.groups for layer in graph.layers])
    bn = np.array([layer.bn is not None for layer in graph.layers])
    return _cost("FLOPs", graph, units, size.flops, limit, 2 * kernel * area, 2 * _BATCHNORM_OPS * bn * area)


def params_cost(graph: ChannelGraph, units: Sequence[Unit], size: Size, limit: float) -> Cost:
    """Parameters as a function of the units' counts; `limit` is the bound in parameters."""
    kernel = np.array([layer.kernel / layer.groups for layer in graph.layers])
    bias = np.array([float(layer.bias) + 2.0 * (layer.bn is not None) for layer in graph.layers])
    return _cost("params", graph, units, size.params, limit, kernel, bias)


def _cost(
    name: str,
    graph: ChannelGraph,
    units: Sequence[Unit],
    total: float,
    limit: float,
    unit: np.ndarray,
    out_unit: np.ndarray,
) -> Cost:
    """The bilinear form; what the host counts beyond convolutions and BatchNorm (pools, upsampling) is `fixed`."""
    row = {layer.name: i for i, layer in enumerate(graph.layers)}
    column = {group: u for u, item in enumerate(units) for group in item.groups}
    outs, ins = np.zeros((len(row), len(units))), np.zeros((len(row), len(units)))
    for group in graph.groups:
        for member in group.members:
            if member.module in row:
                side = outs if member.side == "out" else ins
                side[row[member.module], column[group.name]] += len(member.positions) / group.size
    counts = np.array([u.size for u in units], dtype=float)
    out0 = np.array([layer.out for layer in graph.layers]) - outs @ counts
    in0 = np.array([layer.inp for layer in graph.layers]) - ins @ counts
    bare = Cost(name, limit, 0.0, unit, out_unit, out0, in0, outs, ins)
    return Cost(name, limit, total - bare(counts), unit, out_unit, out0, in0, outs, ins)
