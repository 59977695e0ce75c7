# yolo-prune, AGPL-3.0 license
"""One vector of all channels: the worked example of its docstring, both ways."""

from __future__ import annotations

import numpy as np
import torch

from yolo_prune.graph.channel_vector import LayerChannels, LayerPositions, VectorLayout, along


def example() -> tuple[VectorLayout, LayerPositions]:
    """Groups a of two channels and b of three; one layer reads a and then b twice, another b backwards, and more."""
    layout = VectorLayout({"a": 2, "b": 3})
    first = [
        LayerChannels("a", np.arange(2), np.arange(2)),
        LayerChannels("b", np.arange(2, 8), np.array([0, 1, 2, 0, 1, 2])),
    ]
    second = [LayerChannels("b", np.array([0, 1, 3]), np.array([2, 1, 0]))]  # position 2 is of no group
    return layout, LayerPositions(layout, [8, 4], [first, second])


def test_values_of_several_positions_and_layers_add_up() -> None:
    _, places = example()
    total = places.collect([torch.arange(8.0), torch.tensor([100.0, 200.0, 7.0, 300.0])])
    assert total.tolist() == [0, 1, 2 + 5 + 300, 3 + 6 + 200, 4 + 7 + 100]


def test_what_stands_in_the_vector_goes_to_every_position() -> None:
    _, places = example()
    first, second = places.spread(torch.tensor([10.0, 11.0, 20.0, 21.0, 22.0]), rest=1.0)
    assert first.tolist() == [10, 11, 20, 21, 22, 20, 21, 22]
    assert second.tolist() == [22, 21, 1, 20]


def test_groups_know_their_part_and_channels_their_group() -> None:
    layout, _ = example()
    assert layout.size == 5
    assert layout.owners().tolist() == [0, 0, 1, 1, 1]
    assert {name: part.tolist() for name, part in layout.split(torch.arange(5)).items()} == {
        "a": [0, 1],
        "b": [2, 3, 4],
    }
    assert LayerPositions(layout, [], []).collect([]).tolist() == [0] * 5


def test_sums_along_a_dimension_are_those_of_torch() -> None:
    weight = torch.rand(4, 5, 3, 2)
    assert torch.allclose(along(weight, 0), weight.sum((1, 2, 3)))
    assert torch.allclose(along(weight, 1), weight.sum((0, 2, 3)))
    assert torch.allclose(along(weight[:, :, 0, 0], 1), weight[:, :, 0, 0].sum(0))
    assert torch.equal(along(weight[:, 0, 0, 0], 0), weight[:, 0, 0, 0])
