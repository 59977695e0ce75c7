# yolo-prune, AGPL-3.0 license
"""In how many channels at a time runtimes are known to work: one table, each row with its source. Pure.

Channels that are no whole step cost as much as the step, so counts that change become multiples of it. What was
measured goes before this table: a device profile, or a look at the machine (device/quick_look.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from yolo_prune.recipe.formats import FORMATS

FINEST = 8  # chunks of fewer channels would make the search long and save little
COARSEST = 32


@dataclass(frozen=True)
class ChannelMultiple:
    """What counts that change become multiples of, and why; empty where nothing was asked or known."""

    channels: int = FINEST
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the record."""
        return asdict(self)


OPEN = ChannelMultiple()


class Step(NamedTuple):
    """One row: a runtime in a precision works in so many channels; `processor` is empty where it does not matter."""

    format: str
    precision: str
    processor: str
    channels: int
    source: str


_NCHWC = "MLAS, core/mlas/lib/platform.cpp: NchwcBlockSize"
_QGEMM = "MLAS, core/mlas/lib/mlasi.h: MLAS_QGEMM_STRIDEN_THREAD_ALIGN"
_ONEDNN = "oneDNN, Understanding Memory Formats"
_PACKING = "ncnn, src/layer: elempack of Convolution"
_TENSOR_CORES = "TensorRT Developer Guide, Optimizing for Tensor Cores"

KNOWN = (
    Step("onnx", "fp32", "AVX-512", 16, f"{_NCHWC} (nChw16c)"),
    Step("onnx", "fp32", "AVX2", 8, f"{_NCHWC} (nChw8c)"),
    Step("onnx", "fp32", "NEON", 4, "MLAS, core/mlas/lib/sgemm.cpp: 4 rows a kernel; NCHWc blocks, if built in, 16"),
    Step("onnx", "int8", "AVX-512", 16, _QGEMM),
    Step(
        "onnx", "int8", "AVX2", 4, "measured (docs/int8.md): from 64 to 32 channels time falls evenly, by 4 at a time"
    ),
    Step("openvino", "fp32", "AVX-512", 16, f"{_ONEDNN} (nChw16c)"),
    Step("openvino", "fp32", "AVX2", 8, f"{_ONEDNN} (nChw8c)"),
    Step("openvino", "int8", "AVX-512", 16, f"{_ONEDNN} (OIhw4i16o4i)"),
    Step("openvino", "int8", "AVX2", 8, f"{_ONEDNN} (OIhw2i8o4i)"),
    Step("ncnn", "fp32", "AVX-512", 16, f"{_PACKING} (x86)"),
    Step("ncnn", "fp32", "AVX2", 8, f"{_PACKING} (x86)"),
    Step("ncnn", "fp32", "NEON", 4, f"{_PACKING} (arm)"),
    Step("ncnn", "fp16", "NEON", 8, f"{_PACKING} (arm, use_fp16_arithmetic)"),
    Step("ncnn", "int8", "NEON", 8, f"{_PACKING} (arm, int8)"),
    Step("engine", "fp32", "", 4, f"{_TENSOR_CORES} (TF32)"),
    Step("engine", "fp16", "", 8, _TENSOR_CORES),
    Step("engine", "int8", "", 32, _TENSOR_CORES),
)


def known(kind: str, precision: str, processor: str) -> Step | None:
    """The row of a runtime; that of FP32 where its CPU has none of a half precision. None where nothing is known.

    Args:
        kind: the format. processor: "AVX-512", "AVX2", "NEON", or empty where that is not known.
    """
    wanted = (precision, "fp32") if precision == "fp16" else (precision,)
    for one in wanted:
        for step in KNOWN:
            if (step.format, step.precision) == (kind, one) and step.processor in ("", processor):
                return step
    return None


def table() -> str:
    """The table in docs/profiles.md."""
    lines = ["| runtime | precision | processor | channels | source |", "| --- | --- | --- | --- | --- |"]
    for step in KNOWN:
        runtime, processor = FORMATS[step.format].runtime, step.processor or "any GPU"
        lines.append(f"| {runtime} | {step.precision} | {processor} | {step.channels} | {step.source} |")
    return "\n".join(lines)
