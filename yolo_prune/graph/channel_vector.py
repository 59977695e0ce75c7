# yolo-prune, AGPL-3.0 license
"""All channels of a model in one vector, and where the layers of the model have them.

A worked example, with groups "a" of two channels and "b" of three: the vector is [a0, a1, b0, b1, b2]. A layer that
reads b twice over, behind a, gives seven values, which are gathered at positions 0..6 and added at 0, 1, 2, 3, 4, 2, 3
and 4 (and back: what stands there is handed to each position).

Index tensors go to the device once: moved at every look they cost more than the arithmetic (yolo12x: 1,174 copies from
the host at every step of the optimizer).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class LayerChannels:
    """What one layer has of a group.

    Attributes:
        group: its name. positions: (n,) along the layer's side. channels: (n,) the group's channel at each of them.
    """

    group: str
    positions: np.ndarray
    channels: np.ndarray


def along(values: torch.Tensor, axis: int) -> torch.Tensor:
    """(length,) sums of a weight over all its dimensions but one, the first or the second."""
    values = values if axis == 0 else values.sum(0)  # in the order of memory: four times as fast as all at once
    return values.reshape(len(values), -1).sum(1)


class VectorLayout:
    """Where each group's channels stand in a vector of all.

    Args:
        sizes: group name -> channels, in the order in which they stand.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        ends = np.cumsum([0, *self.sizes.values()]).tolist()
        self.spans = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(self.sizes)}
        self.size: int = ends[-1]
        self.number = {name: i for i, name in enumerate(self.sizes)}  # group name -> which one it is

    def owners(self) -> torch.Tensor:
        """(size,) which group each channel is of."""
        return torch.repeat_interleave(torch.tensor(list(self.sizes.values()), dtype=torch.long))

    def split(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """Group name -> (size of the group,) of a vector of all."""
        return {name: vector[span] for name, span in self.spans.items()}


class LayerPositions:
    """Where some layers have channels of a vector of all.

    Args:
        layout: of the vector. lengths: how many values each layer gives. shares: of each layer, what it has.
    """

    def __init__(self, layout: VectorLayout, lengths: Sequence[int], shares: Sequence[Iterable[LayerChannels]]) -> None:
        self._size, self._lengths = layout.size, list(lengths)
        starts = np.cumsum([0, *lengths])[:-1]
        pairs = [
            (start + share.positions, layout.spans[share.group].start + share.channels)
            for start, some in zip(starts, shares, strict=True)
            for share in some
        ]
        empty = np.zeros(0, dtype=np.int64)
        self._positions = torch.as_tensor(np.concatenate([empty, *(where for where, _ in pairs)]).astype(np.int64))
        self._channels = torch.as_tensor(np.concatenate([empty, *(which for _, which in pairs)]).astype(np.int64))

    def collect(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """(size,) of the vector: the sum of what the layers give for each channel.

        Args:
            values: of each layer, (length,), all on one device.
        """
        every = torch.cat(list(values)) if values else torch.zeros(0)
        self._follow(every.device)
        total = torch.zeros(self._size, device=every.device, dtype=every.dtype)
        return total.index_add_(0, self._channels, every[self._positions])

    def spread(self, vector: torch.Tensor, rest: float) -> list[torch.Tensor]:
        """Of each layer, (length,) the channel's value at each position; `rest` where no channel stands."""
        self._follow(vector.device)
        whole = torch.full((sum(self._lengths),), rest, device=vector.device, dtype=vector.dtype)
        whole[self._positions] = vector[self._channels]
        return list(whole.split(self._lengths))

    def _follow(self, device: torch.device) -> None:
        if self._positions.device != device:
            self._positions, self._channels = self._positions.to(device), self._channels.to(device)
