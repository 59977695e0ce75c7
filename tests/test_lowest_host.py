# yolo-prune, AGPL-3.0 license
"""The oldest ultralytics that pyproject.toml admits: prune, train again. Other tests run against the newest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Environment, make_environment
from tests.test_wheel import shapes, yolo_train
from yolo_prune import host


@pytest.fixture(scope="module")
def lowest_env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and the lowest supported ultralytics, which has to be fetched."""
    environment = make_environment(tmp_path_factory.mktemp("lowest") / "venv", [wheel])
    pip = [str(environment.python), "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed"]
    done = subprocess.run([*pip, f"ultralytics=={host.LOWEST}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ultralytics {host.LOWEST} cannot be fetched here: {done.stderr.strip().splitlines()[-1]}")
    return environment


def test_the_lowest_host_prunes_and_trains_again(lowest_env: Environment, tiny_data: Path, tmp_path: Path) -> None:
    version = lowest_env.run("python", "-c", "import ultralytics; print(ultralytics.__version__)")
    assert version.out.strip().endswith(host.LOWEST)
    done = yolo_train(
        lowest_env, tiny_data, tmp_path / "a", "model=yolov8n.yaml", "epochs=3", "prune=0.5", "prune_steps=2"
    )
    assert done.code == 0, done.text[-3000:]
    record = json.loads((tmp_path / "a" / "run" / "pruning" / "record.json").read_text())
    assert 0.48 <= record["final"]["gflops"] / record["baseline"]["gflops"] <= 0.5
    assert [row["fitness_after"] is not None for row in record["steps"]] == [True] * len(record["steps"])
    best = tmp_path / "a" / "run" / "weights" / "best.pt"
    done = yolo_train(lowest_env, tiny_data, tmp_path / "b", f"model={best}", "epochs=1")
    assert done.code == 0, done.text[-3000:]
    assert shapes(lowest_env, tmp_path / "b" / "run" / "weights" / "best.pt") == shapes(lowest_env, best)
