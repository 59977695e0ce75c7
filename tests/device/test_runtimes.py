# yolo-prune, AGPL-3.0 license
"""How a network is opened in a runtime, for its time and for a proof."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_openvino_is_timed_as_it_runs_and_proven_in_the_precision_of_its_file(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows the host tells it to compute in FP32."""
    told: list[str | None] = []

    class Core:
        def read_model(self, path: str) -> str:
            return path

        def compile_model(self, network: str, device: str, options: dict[str, str]) -> Any:
            told.append(options.get("INFERENCE_PRECISION_HINT"))
            image = SimpleNamespace(element_type=SimpleNamespace(to_dtype=lambda: "float32"))
            return SimpleNamespace(create_infer_request=lambda: None, input=lambda _: image)

    monkeypatch.setattr(runtimes.platform, "system", lambda: system)
    monkeypatch.setattr(runtimes.platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))
    for precision in ("fp32", "fp16", "int8"):
        runtimes.load(tmp_path / "model.xml", "openvino", 1, precision, (1, 3, 64, 64))
    assert told == ([None] * 3 if system == "Linux" else ["f32"] * 3)
    told.clear()
    for precision in ("fp32", "fp16", "int8"):
        runtimes.runner(tmp_path / "model.xml", "openvino", 1, precision)
    assert told == ["f32", "f16", "f32"]


@pytest.mark.parametrize("chosen", ["f32", "bf16", "f16"])
def test_what_openvino_computes_in_by_itself_is_said(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Core:
        def get_property(self, device: str, name: str) -> SimpleNamespace:
            asked.append((device, name))
            return SimpleNamespace(to_string=lambda: chosen)

    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))
    line = runtimes.other_than_fp32("openvino", "fp32")
    assert asked == [("CPU", "INFERENCE_PRECISION_HINT")]
    assert (line is None) == (chosen == "f32")
    assert line is None or f"OpenVINO computes in {chosen} on this processor" in line
    assert runtimes.other_than_fp32("openvino", "int8") is None
    assert runtimes.other_than_fp32("onnx", "fp32") is None


def test_the_installed_openvino_says_what_it_computes_in() -> None:
    openvino = pytest.importorskip("openvino")
    line = runtimes.other_than_fp32("openvino", "fp32")
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (line is not None and "OpenVINO computes in bf16" in line) == able


@pytest.mark.parametrize("error", [ImportError("no module"), OSError("libgomp.so.1: cannot open shared object file")])
def test_a_runtime_that_cannot_be_imported_is_missing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise error

    monkeypatch.setattr(runtimes, "import_module", fails)
    assert runtimes.missing("ncnn") == "ncnn"
