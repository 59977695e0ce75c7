# yolo-prune, AGPL-3.0 license
"""The table of runtimes' channel steps: its figures, that each has a source, and that docs/profiles.md shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_prune.cost import channel_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kind", "precision", "processor", "channels"),
    [
        ("onnx", "fp32", "AVX-512", 16),
        ("onnx", "fp32", "AVX2", 8),
        ("onnx", "fp16", "AVX2", 8),  # a CPU computes it in FP32
        ("openvino", "fp32", "AVX-512", 16),
        ("onnx", "int8", "AVX2", 4),  # most of such a file is computed in FP32
        ("openvino", "int8", "AVX2", 8),
        ("ncnn", "fp32", "NEON", 4),
        ("ncnn", "fp16", "NEON", 8),
        ("engine", "fp16", "AVX2", 8),  # a GPU: the processor does not matter
        ("engine", "int8", "", 32),
        ("onnx", "fp32", "", None),
        ("ncnn", "int8", "AVX2", None),  # INT8 is never answered with the figure of FP32
    ],
)
def test_a_runtime_works_in_its_steps(kind: str, precision: str, processor: str, channels: int | None) -> None:
    step = channel_steps.known(kind, precision, processor)
    assert (step and step.channels) == channels


def test_each_row_stands_once_and_names_its_source() -> None:
    keys = [(step.format, step.precision, step.processor) for step in channel_steps.KNOWN]
    assert len(set(keys)) == len(keys) > 10
    assert all(len(step.source) > 10 for step in channel_steps.KNOWN)
