# yolo-prune, AGPL-3.0 license
"""Memory of activations: known answers of the liveness, and of models whose operations are few.

Beside files that the host writes: tests/cost/test_exported.py and test_file_size.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from yolo_prune.cost.activation_memory import Operation, peak, peak_bytes
from yolo_prune.cost.file_size import Deployment


@pytest.mark.parametrize(
    ("operations", "sizes", "kept", "most"),
    [
        ([Operation((0,), (1,))], [3, 5], [1], 8),
        ([Operation((0,), (1,)), Operation((1,), (2,))], [3, 5, 7], [2], 12),
        ([Operation((0,), (1,)), Operation((1,), (2,), True)], [3, 5, 5], [2], 8),  # over 1, which nobody reads again
        ([Operation((0,), (1,)), Operation((1,), (2,), True), Operation((1, 2), (3,))], [3, 5, 5, 2], [3], 12),
        ([Operation((0,), (1,)), Operation((1,), (2,)), Operation((0, 2), (3,))], [3, 5, 7, 1], [3], 15),  # 0 waits
        ([Operation((0,), (1,)), Operation((1,), (2,))], [9, 1, 1], [2], 10),
        ([Operation((0,), (1, 2)), Operation((1,), (3,))], [4, 2, 2, 2], [3], 8),  # 2 is read by nobody
        ([Operation((0,), (1, 2)), Operation((1,), (3,))], [4, 2, 9, 8], [3, 2], 19),  # 2 is an output
        ([], [6], [0], 6),
    ],
)
def test_what_lives_at_once(operations: list[Operation], sizes: list[int], kept: list[int], most: int) -> None:
    assert peak(operations, sizes, kept) == most


class Residual(nn.Module):
    """A convolution of 3 to 4 channels, then x + relu(conv(x)), then half of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.stride = torch.tensor([32])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values, of 1024 each: image 3; first 3 + 4; second 4 + 4; the sum over one of them; split 4 + 4."""
        x = self.first(x)
        x = x + nn.functional.relu(self.second(x), inplace=True)
        return x.chunk(2, 1)[0].reshape(1, -1)


@pytest.mark.parametrize(
    ("kind", "precision", "value"),
    [
        ("onnx", "fp32", 4),
        ("onnx", "fp16", 2),
        ("ncnn", "fp16", 2),
        ("onnx", "int8", 4),
        ("mnn", "int8", 4),
        *((kind, "int8", 1) for kind in ("openvino", "litert", "engine")),
    ],
)
def test_a_model_of_few_operations(kind: str, precision: str, value: int) -> None:
    assert peak_bytes(Residual(), Deployment(kind, precision, 32)) == 8 * 32 * 32 * value
    assert peak_bytes(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(5, 5)), Deployment()) is None  # does not run
    assert peak_bytes(Residual(), Deployment(kind, precision, 33)) == 8 * 64 * 64 * value  # rounded as the host does
