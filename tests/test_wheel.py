# yolo-prune, AGPL-3.0 license
"""What a user does: the wheel in an environment of its own, the real `yolo` in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from tests.helpers.environments import Done, Environment
from tests.helpers.small_models import SMALL_MODEL
from yolo_prune import cli

SMALL = ("imgsz=64", "batch=4", "workers=0", "device=cpu", "plots=False", "amp=False", "seed=0")


def yolo_train(environment: Environment, data: Path, project: Path, *words: str, **options: Any) -> Done:
    return environment.run(
        "yolo", "train", f"data={data}", f"project={project}", "name=run", "exist_ok=True", *SMALL, *words, **options
    )


@pytest.fixture(scope="module")
def pruned(wheel_env: Environment, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A best.pt made by `yolo train … prune=0.5`."""
    project = tmp_path_factory.mktemp("runs")
    done = yolo_train(
        wheel_env,
        tiny_data,
        project,
        f"model={SMALL_MODEL}",
        "epochs=2",
        "prune=0.5",
        "prune_schedule=oneshot",
        "prune_start=0.5",
    )
    assert done.code == 0, done.text[-3000:]
    assert "prune: step 1/1" in done.text.replace("\x1b[34m\x1b[1m", "").replace("\x1b[0m", "")
    record = json.loads((project / "run" / "pruning" / "record.json").read_text())
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    assert (project / "run" / "pruning.png").is_file()
    best = project / "run" / "weights" / "best.pt"
    assert f"next: yolo-prune export model={best} data={tiny_data} format=onnx" in done.text
    return project / "run" / "weights" / "best.pt"


def shapes(weights: Path) -> list[tuple[int, ...]]:
    """The shapes of a checkpoint's parameters."""
    return [tuple(p.shape) for p in YOLO(weights).model.parameters()]


def test_yolo_train_without_the_plugin_arguments_is_the_hosts_own(
    wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    done = yolo_train(wheel_env, tiny_data, tmp_path, f"model={SMALL_MODEL}", "epochs=1")
    assert done.code == 0, done.text[-3000:]
    assert "prune:" not in done.text
    assert not (tmp_path / "run" / "pruning").exists()
    arguments = (tmp_path / "run" / "args.yaml").read_text().splitlines()
    assert not [line for line in arguments if line.startswith("prune")]


def test_turned_off_the_host_does_not_know_the_arguments(
    wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    done = yolo_train(
        wheel_env, tiny_data, tmp_path, "model=yolov8n.yaml", "epochs=1", "prune=0.5", env={"YOLO_PRUNE": "0"}
    )
    assert done.code != 0
    assert "'prune' is not a valid YOLO argument" in done.text


# One `yolo` after the other, in one process
COMMANDS = """
import sys
from ultralytics import cfg
same, *commands = (words.split() for words in sys.argv[1:])
for words in commands:
    sys.argv = cfg.ARGV = ["yolo", *words, *same]
    cfg.entrypoint()
"""


@pytest.mark.parametrize("safe", ["0", "1"])
def test_a_machine_without_yolo_prune_predicts_validates_and_exports(
    safe: str, stock_env: Environment, pruned: Path, tiny_data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "best.pt"
    model.write_bytes(pruned.read_bytes())
    image = tiny_data.parent / "images" / "val" / "0.png"
    same = f"model={model} imgsz=64 device=cpu"
    words = (f"predict source={image} save=False", f"val data={tiny_data} plots=False", "export format=onnx")
    done = stock_env.run("python", "-c", COMMANDS, same, *words, cwd=tmp_path, env={"ULTRALYTICS_SAFE_LOAD": safe})
    assert done.code == 0, done.text[-3000:]
    assert (tmp_path / "best.onnx").stat().st_size > 100_000


def test_stock_train_refuses_a_pruned_checkpoint_and_names_yolo_prune(
    stock_env: Environment, pruned: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = yolo_train(stock_env, tiny_data, tmp_path, f"model={pruned}", "epochs=1")
    assert done.code != 0
    assert "pip install yolo-prune" in done.text
    assert not list(tmp_path.rglob("*.pt")), "nothing of full width was trained"


def test_with_yolo_prune_train_keeps_the_widths(
    wheel_env: Environment, pruned: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = yolo_train(wheel_env, tiny_data, tmp_path, f"model={pruned}", "epochs=1")
    assert done.code == 0, done.text[-3000:]
    assert shapes(tmp_path / "run" / "weights" / "best.pt") == shapes(pruned)


def test_apply_and_inspect_on_the_command_line(
    wheel_env: Environment, pruned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = wheel_env.run("yolo-prune", "apply", f"model={pruned}", "flops=70%", f"out={tmp_path / 'small.pt'}")
    assert done.code == 0, done.text[-3000:]
    assert "GFLOPs" in done.text
    assert shapes(tmp_path / "small.pt") != shapes(pruned)
    with caplog.at_level("INFO", logger="ultralytics"):
        assert cli.main(["inspect", f"model={tmp_path / 'small.pt'}"]) == 0
    assert "model.10.dfl.conv" in caplog.text
    assert "channel groups hold" in caplog.text


class Touching:
    """A pickle of it makes a file where it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "ran"
    torch.save({"model": Touching(marker)}, tmp_path / "bad.pt")
    for command in ("apply", "inspect", "export"):
        words = ["flops=50%"] if command == "apply" else []
        assert cli.main([command, f"model={tmp_path / 'bad.pt'}", *words]) == 1
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "bad.pt" in said.err
    assert not marker.exists(), "the pickle ran"
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert marker.exists(), "opened without a guard it does run"
