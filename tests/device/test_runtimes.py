# yolo-prune, AGPL-3.0 license
"""How a network is opened in a runtime, for its time and for a proof."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from yolo_prune.device import runtimes


def test_ncnn_is_timed_as_it_runs_and_proven_in_the_precision_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an Arm that can it computes in half precision by itself, which is no proof of a file in FP32."""

    class Net:
        def __init__(self) -> None:
            self.opt = SimpleNamespace(**dict.fromkeys(half, "its own"))
            nets.append(self)

        def load_param(self, path: str) -> int:
            return 0

        load_model = load_param

        def input_names(self) -> list[str]:
            return ["in0"]

        output_names = input_names

    nets: list[Net] = []
    half = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
    monkeypatch.setitem(sys.modules, "ncnn", SimpleNamespace(Net=Net))
    file = tmp_path / "model.ncnn.param"
    runtimes.load(file, "ncnn", 1, "fp32", (1, 3, 64, 64))
    for precision in ("fp32", "fp16"):
        runtimes.runner(file, "ncnn", 1, precision)
    assert [[getattr(net.opt, name) for name in half] for net in nets] == [["its own"] * 3, [False] * 3, [True] * 3]


@pytest.mark.parametrize("chosen", ["f32", "bf16", "f16"])
def test_what_openvino_would_compute_in_if_it_were_left_alone_is_said(
    chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    class Core:
        def get_property(self, device: str, name: str) -> SimpleNamespace:
            asked.append((device, name))
            return SimpleNamespace(to_string=lambda: chosen)

    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))
    line = runtimes.unasked("openvino", "fp32")
    assert asked == [("CPU", "INFERENCE_PRECISION_HINT")]
    assert (line is None) == (chosen == "f32")
    assert line is None or f"it takes {chosen} on this processor" in line
    assert runtimes.unasked("openvino", "int8") is None
    assert runtimes.unasked("onnx", "fp32") is None


def test_the_installed_openvino_says_what_it_would_compute_in() -> None:
    openvino = pytest.importorskip("openvino")
    line = runtimes.unasked("openvino", "fp32")
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (line is not None and "it takes bf16" in line) == able
