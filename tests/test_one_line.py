# yolo-prune, AGPL-3.0 license
"""A mistake typed at `yolo` is one line and no traceback; the host's own errors stay as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.helpers.environments import Environment
from yolo_prune.errors import PruneError

cfg = pytest.importorskip("ultralytics.cfg")


def _one_line(environment: Environment, *words: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must fail with one line of ours, and return that line."""
    done = environment.run(*words, cwd=cwd)
    assert done.code == 1, done.text
    assert "Traceback" not in done.text
    lines = [line for line in done.err.splitlines() if line.startswith("yolo-prune: ")]
    assert len(lines) == 1, done.text
    assert done.err.splitlines()[-1] == lines[0]
    return lines[0]


@pytest.mark.parametrize("mode", ["predict", "val", "export", "track", "benchmark"])
def test_yolo_refuses_other_modes_in_one_line(wheel_env: Environment, mode: str) -> None:
    line = _one_line(wheel_env, "yolo", mode, "model=yolov8n.yaml", "source=none.jpg", "data=none.yaml", "prune=0.5")
    assert f"prune=0.5: pruning happens in `yolo train`, not in `yolo {mode}`" in line


def test_yolo_train_refuses_a_wrong_value_and_leaves_nothing(wheel_env: Environment, tmp_path: Path) -> None:
    words = ("yolo", "train", "model=yolov8n.yaml", "data=none.yaml", "epochs=1", "prune=1.5")
    assert "prune=1.5" in _one_line(wheel_env, *words, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no model at all\n", b"PK\x03\x04 cut off"])
def test_a_model_file_that_is_none(wheel_env: Environment, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pt").write_bytes(content)
    line = _one_line(
        wheel_env, "yolo", "train", "model=broken.pt", "data=none.yaml", "epochs=1", "prune=0.5", cwd=tmp_path
    )
    assert "model=broken.pt: cannot be pruned" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prune_stepz=3",), "prune_stepz=3 is unknown: did you mean prune_steps=?"),
        (("prune=0.5", "device=0,1"), "device=0,1: "),
        (("prune=0.5", "prune_steps=2", "device=cpu"), "data=none.yaml: "),
        (("prune=",), "prune"),
    ],
)
def test_what_the_host_cannot_read_is_one_line_too(
    wheel_env: Environment, tiny_data: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    if said.startswith("device") and torch.cuda.device_count() > 1:
        pytest.skip("this machine has the two GPUs that are asked for")
    data = tiny_data if said.startswith("device") else "none.yaml"  # a missing data set is said first
    line = _one_line(wheel_env, "yolo", "train", "model=yolov8n.yaml", f"data={data}", *words, cwd=tmp_path)
    assert said in line


def test_the_hosts_errors_stay_as_they_are(wheel_env: Environment, stock_env: Environment, tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no model at all\n")
    words = ("yolo", "predict", "model=broken.pt", "source=none.jpg")
    with_plugin, without = (environment.run(*words, cwd=tmp_path) for environment in (wheel_env, stock_env))
    assert with_plugin.code == without.code == 1
    assert with_plugin.err.splitlines()[-1] == without.err.splitlines()[-1]
    assert re.search(r"^Traceback", with_plugin.err, re.MULTILINE)


def test_python_gets_an_exception_to_catch() -> None:
    with pytest.raises(PruneError):
        YOLO("yolov8n.yaml").train(data="none.yaml", epochs=1, prune="abc")
    with pytest.raises(ValueError, match="prune"):
        YOLO("yolov8n.yaml").train(data="none.yaml", epochs=1, prune=1.5)


def test_a_model_that_cannot_be_pruned_is_refused_before_the_run_touches_its_folder(
    wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.csv").write_text("an earlier run's\n")
    torch.save({"model": YOLO("yolov8s-worldv2.yaml").model}, tmp_path / "world.pt")
    torch.save({"model": YOLO("yolov8n.yaml").model}, tmp_path / "eight.pt")
    words = (f"data={tiny_data}", f"project={tmp_path}", "name=run", "exist_ok=True", "imgsz=64", "device=cpu")
    for model, bound, reason in (("world.pt", "50%", "WorldModel"), ("eight.pt", "0.1%", "out of reach")):
        line = _one_line(
            wheel_env, "yolo", "train", f"model={tmp_path / model}", f"prune_flops={bound}", *words, cwd=tmp_path
        )
        assert reason in line
        assert [path.name for path in run.iterdir()] == ["results.csv"]
        assert (run / "results.csv").read_text() == "an earlier run's\n"
