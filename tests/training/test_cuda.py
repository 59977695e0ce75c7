# yolo-prune, AGPL-3.0 license
"""The parts of benchmarks/gpu.py, small: on a GPU where there is one, on the CPU so that the program is known to run.

Each part is a process of its own on a GPU, for a fault there can poison what follows. On the CPU they run in this one,
without AMP, fused optimizers and CUDA's latency.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.checkout import ROOT
from tests.helpers.small_models import SMALL_MODEL

PROGRAM = ROOT / "benchmarks" / "gpu.py"


def _program() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAM.parent))
        return importlib.import_module("gpu")


gpu = _program()
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")
# On the CPU: those with a fault put into the training, and what trains nothing. The others train as these do.
ON_CPU = ("going_back", "nan_recovery", "out_of_memory", "out_of_memory_in_a_cut", "latency")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(gpu.small_set(tmp_path_factory.mktemp("data"), True))


@ON_GPU
@pytest.mark.parametrize("name", gpu.PARTS)
def test_on_a_gpu(name: str, data: str, tmp_path: Path) -> None:
    found = gpu.in_its_process(name, gpu.Settings("0", True, tmp_path, data, ""), gpu.PARTS[name][1])
    if found["status"] == "skipped":
        pytest.skip(found["reason"])
    assert found["status"] == "ok", json.dumps(found, indent=1)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_same_on_the_cpu(name: str, data: str, tmp_path: Path) -> None:
    found = gpu.attempt(name, gpu.Settings("cpu", True, tmp_path, data, str(SMALL_MODEL)))
    assert found["status"] == "ok", json.dumps(found, indent=1)


def test_what_only_a_gpu_can_do_is_skipped_with_its_reason(data: str, tmp_path: Path) -> None:
    settings = gpu.Settings("cpu", True, tmp_path, data, "")
    assert gpu.attempt("skipped_step", settings) == {"status": "skipped", "reason": "fused AdamW with AMP is for CUDA"}


def test_a_fault_stops_no_other_part_and_what_was_found_is_written(tmp_path: Path, monkeypatch: Any, data: str) -> None:
    done = {"calls": 0}

    def in_its_process(name: str, settings: Any, limit: float) -> dict[str, Any]:
        done["calls"] += 1
        assert 0 < limit <= gpu.PARTS[name][1] * gpu.SLOW_CPU
        if done["calls"] == 2:  # what came before is on disk
            assert json.loads(out.read_text())["parts"]["dense"]["status"] == "failed"
        return [{"status": "failed", "error": "it broke"}, {"status": "wrong", "faults": ["no"]}, {"status": "ok"}][
            done["calls"] - 1
        ]

    out = tmp_path / "deep" / "gpu.json"
    monkeypatch.setattr(gpu, "in_its_process", in_its_process)
    monkeypatch.setattr(gpu, "small_set", lambda folder, quick: data)
    assert gpu.main(["device=cpu", "--quick", "only=dense,amp,start_0", f"out={out}"]) == 1
    told = json.loads(out.read_text())
    assert [found["status"] for found in told["parts"].values()] == ["failed", "wrong", "ok"]
    assert told["machine"]["torch"] == torch.__version__
    assert gpu.main(["device=cpu", "--quick", "only=dense", f"out={out}", "budget=0"]) == 0
    assert json.loads(out.read_text())["parts"]["dense"]["status"] == "left out"


def test_a_part_that_hangs_is_ended_at_its_limit(tmp_path: Path, data: str) -> None:
    found = gpu.in_its_process("dense", gpu.Settings("cpu", True, tmp_path, data, ""), 1.0)
    assert found["status"] == "late"
    assert found["limit"] == 1


def test_the_command_runs_a_part_in_its_process(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["device=cpu", "--quick", "only=skipped_step,latency_onnxruntime", f"out={out}"]) == 0
    parts = json.loads(out.read_text())["parts"]
    assert parts["skipped_step"]["status"] == "skipped"
    assert parts["latency_onnxruntime"]["status"] == "ok", parts
    assert parts["latency_onnxruntime"]["provider"] == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["only=amp,x"], "unknown: x"), (["size=3"], "unknown: "), (["device=0"], "no CUDA device is at hand")],
)
def test_wrong_words_are_one_line(words: list[str], said: str, capsys: Any) -> None:
    if words == ["device=0"] and torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main(words) == 2
    assert said in capsys.readouterr().out
