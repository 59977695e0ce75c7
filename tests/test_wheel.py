# yolo-prune, AGPL-3.0 license
"""What a user does: the wheel in an environment of its own, the real `yolo` in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.environments import Done, Environment

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
        "model=yolov8n.yaml",
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


def shapes(environment: Environment, weights: Path) -> str:
    code = (
        "import sys\nfrom ultralytics import YOLO\n"
        "print('shapes', [tuple(p.shape) for p in YOLO(sys.argv[1]).model.parameters()])"
    )
    done = environment.run("python", "-c", code, weights)
    assert done.code == 0, done.text[-3000:]
    return next(line for line in done.out.splitlines() if line.startswith("shapes"))


def test_yolo_train_without_the_plugin_arguments_is_the_hosts_own(
    wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    done = yolo_train(wheel_env, tiny_data, tmp_path, "model=yolov8n.yaml", "epochs=1")
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


@pytest.mark.parametrize("safe", ["0", "1"])
def test_a_machine_without_yolo_prune_predicts_validates_and_exports(
    safe: str, stock_env: Environment, pruned: Path, tiny_data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "best.pt"
    model.write_bytes(pruned.read_bytes())
    image = tiny_data.parent / "images" / "val" / "0.png"
    for words in (
        ("predict", f"source={image}", "save=False"),
        ("val", f"data={tiny_data}", "plots=False"),
        ("export", "format=onnx"),
    ):
        done = stock_env.run(
            "yolo",
            *words,
            f"model={model}",
            "imgsz=64",
            "device=cpu",
            cwd=tmp_path,
            env={"ULTRALYTICS_SAFE_LOAD": safe},
        )
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
    assert shapes(wheel_env, tmp_path / "run" / "weights" / "best.pt") == shapes(wheel_env, pruned)


BAD = [
    (("prune=1.5",), "prune=1.5"),
    (("prune=abc",), "prune=abc"),
    (("prune=missing.yaml",), "missing.yaml"),
    (("prune_flops=0%",), "prune_flops=0%"),
    (("prune_flops=0.1%",), "out of reach"),
    (("prune=0.5", "prune_start=0.9", "prune_end=0.1"), "prune_start=0.9"),
    (("prune=0.5", "prune_steps=50"), "more steps than epochs"),
    (("prune=0.5", "compile=True"), "compile=True"),
    (("prune=0.5", "quantize=8"), "quantize=8"),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_clear_line_before_training(
    words: tuple[str, ...], expected: str, wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    done = yolo_train(wheel_env, tiny_data, tmp_path, "model=yolov8n.yaml", "epochs=6", *words)
    assert done.code == 1
    assert "Traceback" not in done.text, done.text[-3000:]
    lines = [line for line in done.err.splitlines() if line.startswith("yolo-prune:")]
    assert len(lines) == 1, done.err[-3000:]
    assert expected in lines[0]
    assert "Starting training" not in done.text


def test_all_faults_of_a_recipe_are_named_at_once(wheel_env: Environment, tiny_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("flosp: 50%\nsteps: many\ncolour: red\n")
    done = yolo_train(wheel_env, tiny_data, tmp_path, "model=yolov8n.yaml", "epochs=6", f"prune={recipe}")
    assert done.code == 1
    assert "Traceback" not in done.text
    for place, key in ((1, "flosp"), (2, "steps"), (3, "colour")):
        assert any(f"mine.yaml:{place}" in line and key in line for line in done.err.splitlines()), done.err


def test_prune_outside_train_is_one_clear_line(wheel_env: Environment, pruned: Path) -> None:
    done = wheel_env.run("yolo", "predict", f"model={pruned}", "prune=0.5")
    assert done.code == 1
    assert "Traceback" not in done.text
    assert "prune=0.5" in done.err
    assert "yolo train" in done.err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"not a model at all"])
def test_a_file_that_is_no_model_is_one_clear_line(
    content: bytes, wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(content)
    done = yolo_train(wheel_env, tiny_data, tmp_path, f"model={broken}", "epochs=6", "prune=0.5")
    assert done.code == 1
    assert "Traceback" not in done.text, done.text[-2000:]
    assert "broken.pt" in done.err
    done = wheel_env.run("yolo-prune", "apply", f"model={broken}", "flops=50%")
    assert done.code == 1
    assert "Traceback" not in done.text, done.text[-2000:]
    assert "broken.pt" in done.err


def test_apply_and_inspect_on_the_command_line(wheel_env: Environment, pruned: Path, tmp_path: Path) -> None:
    done = wheel_env.run("yolo-prune", "apply", f"model={pruned}", "flops=70%", f"out={tmp_path / 'small.pt'}")
    assert done.code == 0, done.text[-3000:]
    assert "GFLOPs" in done.text
    assert shapes(wheel_env, tmp_path / "small.pt") != shapes(wheel_env, pruned)
    done = wheel_env.run("yolo-prune", "inspect", f"model={tmp_path / 'small.pt'}")
    assert done.code == 0, done.text[-3000:]
    assert "model.22.dfl.conv" in done.text
    assert "channel groups hold" in done.text


def test_a_pickle_that_would_run_code_is_refused(wheel_env: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = (
        "import pathlib, sys, torch\n"
        "class Bad:\n"
        "    def __reduce__(self):\n"
        "        return pathlib.Path.touch, (pathlib.Path(sys.argv[2]),)\n"
        "torch.save({'model': Bad()}, sys.argv[1])\n"
    )
    done = wheel_env.run("python", "-c", code, tmp_path / "bad.pt", marker)
    assert done.code == 0, done.text
    for command in ("apply", "inspect", "export"):
        words = ["flops=50%"] if command == "apply" else []
        done = wheel_env.run("yolo-prune", command, f"model={tmp_path / 'bad.pt'}", *words)
        assert done.code == 1, done.text
        assert "Traceback" not in done.text
        assert "bad.pt" in done.err
    assert not marker.exists(), "the pickle ran"
