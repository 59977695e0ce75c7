# yolo-prune, AGPL-3.0 license
"""Costs as functions of the counts of units. Pure: numpy alone.

`Cost` is exact and bilinear: FLOPs and parameters. `Latency` is what a device profile predicts: the same layers, with
channels rounded up to the steps that the device works in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

AnyCost = TypeVar("AnyCost", bound="Costing")


class Costing(Protocol):
    """What allocation asks of a cost: its value, what a step changes, and itself without a part."""

    @property
    def name(self) -> str: ...
    @property
    def limit(self) -> float: ...
    def __call__(self, n: np.ndarray) -> float: ...
    def change(self, n: np.ndarray, step: np.ndarray) -> np.ndarray: ...
    def without(self: AnyCost, part: str) -> AnyCost: ...
    def live(self) -> np.ndarray: ...
    @property
    def step(self) -> int: ...


@dataclass(frozen=True)
class Effect:
    """What the removal of a part does to a cost: see Cost.

    Attributes:
        layers: (layers,) 0 for a layer that goes, 1 for one that stays. columns: (units,) factor on a unit's channels.
        ins: (layers, units) and in0: (layers,) what is added to the cost's own, for a reader of a part's output.
    """

    layers: np.ndarray
    columns: np.ndarray
    ins: np.ndarray
    in0: np.ndarray


@dataclass(frozen=True)
class Cost:
    """A cost of a model as a function of the counts n of its units.

    cost(n) = fixed + sum_l per_pair_l * out_l(n) * in_l(n) + sum_l per_output_l * out_l(n),
    out_l(n) = out0_l + outs_l . n and in_l(n) = in0_l + ins_l . n

    Attributes:
        name: "FLOPs" or "params". limit: the bound, in the cost's own unit. fixed: what no count changes.
        per_pair, per_output: (layers,) of a layer, for each pair of an output and an input, and for each output.
        out0, in0: (layers,) counts of no unit. outs, ins: (layers, units), how often a unit's channels appear there.
        parts: name of a part -> what its removal does.
    """

    name: str
    limit: float
    fixed: float
    per_pair: np.ndarray
    per_output: np.ndarray
    out0: np.ndarray
    in0: np.ndarray
    outs: np.ndarray
    ins: np.ndarray
    parts: Mapping[str, Effect] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Channels that go at least together before the cost falls."""
        return 1

    def without(self, part: str) -> Cost:
        """The cost of the model without a part."""
        effect = self.parts[part]
        return replace(
            self,
            per_pair=self.per_pair * effect.layers,
            per_output=self.per_output * effect.layers,
            outs=self.outs * effect.columns,
            ins=(self.ins + effect.ins) * effect.columns,
            in0=self.in0 + effect.in0,
        )

    def live(self) -> np.ndarray:
        """(units,) whether a unit's channels cost anything."""
        costs_something: np.ndarray = (self.outs + self.ins).T @ (self.per_pair + self.per_output) > 0
        return costs_something

    def __call__(self, n: np.ndarray) -> float:
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        return float(self.fixed + self.per_pair @ (out * inp) + self.per_output @ out)

    def change(self, n: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(units,) the change of the cost when unit u alone goes from n[u] to n[u] + step[u]; exact."""
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        slope = self.outs.T @ (self.per_pair * inp + self.per_output) + self.ins.T @ (self.per_pair * out)
        bend = (self.per_pair[:, None] * self.outs * self.ins).sum(axis=0)
        return slope * step + bend * step**2


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a model on a measured device, as a function of the counts n of its units.

    A layer with `in_l(n)` inputs and `out_l(n)` outputs, rounded up to the device's steps as I and O, costs
    `per_pair_l * O * I + per_output_l * O + per_input_l * I + per_call_l` milliseconds; O is `tail` dearer where
    outputs are no whole steps.

    Attributes:
        name: "latency". limit: the bound in ms. fixed: ms that no count changes.
        per_pair, per_output, per_input, per_call: (layers,) ms. out0, in0: (layers,) counts of no unit.
        outs, ins: (layers, units), how often a unit's channels appear there.
        step_out, step_in: channels; a step of 1 rounds nothing. tail: share, 0 or more. free: (layers,) True where
            inputs are not rounded, for an image's three channels.
        parts: name of a part -> what its removal does.
    """

    name: str
    limit: float
    fixed: float
    per_pair: np.ndarray
    per_output: np.ndarray
    per_input: np.ndarray
    per_call: np.ndarray
    out0: np.ndarray
    in0: np.ndarray
    outs: np.ndarray
    ins: np.ndarray
    step_out: int
    step_in: int
    tail: float
    free: np.ndarray
    parts: Mapping[str, Effect] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Channels that go at least together before the cost falls."""
        return max(self.step_out, self.step_in)

    def without(self, part: str) -> Latency:
        """The latency of the model without a part."""
        effect = self.parts[part]
        return replace(
            self,
            per_pair=self.per_pair * effect.layers,
            per_output=self.per_output * effect.layers,
            per_input=self.per_input * effect.layers,
            per_call=self.per_call * effect.layers,
            outs=self.outs * effect.columns,
            ins=(self.ins + effect.ins) * effect.columns,
            in0=self.in0 + effect.in0,
        )

    def live(self) -> np.ndarray:
        """(units,) whether a unit's channels cost anything."""
        costs_something: np.ndarray = (self.outs + self.ins).T @ (self.per_pair + self.per_output + self.per_input) > 0
        return costs_something

    def __call__(self, n: np.ndarray) -> float:
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        return float(self.fixed + self._layers(out, inp).sum())

    def change(self, n: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(units,) the change of the latency when unit u alone goes from n[u] to n[u] + step[u]."""
        out, inp = self.out0 + self.outs @ n, self.in0 + self.ins @ n
        rows, columns = np.nonzero((self.outs != 0) | (self.ins != 0))
        moved = step[columns]
        later = self._layers(
            out[rows] + self.outs[rows, columns] * moved, inp[rows] + self.ins[rows, columns] * moved, rows
        )
        total = np.zeros(len(n))
        np.add.at(total, columns, later - self._layers(out, inp)[rows])
        return total

    def _layers(self, out: np.ndarray, inp: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(layers,) ms of the layers in `rows` for their outputs and inputs."""
        o, i = rounded(out, self.step_out), np.where(self.free[rows], inp, rounded(inp, self.step_in))
        o = np.where(o > out + 1e-6, o * (1 + self.tail), o)
        ms: np.ndarray = self.per_pair[rows] * o * i + self.per_output[rows] * o + self.per_input[rows] * i
        return ms + self.per_call[rows]


def rounded(channels: np.ndarray, step: int) -> np.ndarray:
    """Channels rounded up to whole steps; same shape."""
    whole: np.ndarray = np.ceil((channels - 1e-6) / step) * step
    return whole
