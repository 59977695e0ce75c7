# yolo-prune, AGPL-3.0 license
"""The lowest ultralytics that is supported, fetched into an environment of its own; skipped where that cannot be."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.environments import Environment, make_environment
from tests.helpers.small_models import SMALL_MODEL
from tests.test_wheel import COMMANDS, SMALL, shapes
from yolo_prune.host import releases

# What touches the host is run against the newest by this very suite. Here, against the lowest, stand the tests that
# use it, one for each use; what differs in an argument, an optimizer of torch or a model alone is the same there.
TESTS = {
    "test_install.py": "not shipped_recipe",  # all that is put into it
    "test_one_line.py": "(other_modes and val) or python_gets or (that_is_none and model) or cannot_read",
    "training/test_session.py": "half or record or csv or loggers or (resumed_run and 2) or attach",
    "training/test_optimizer_state.py": "(built_small and MuSGD) or ema",  # its own optimizer, and its average
    "training/test_again.py": "same_classes or pretrained or load_gives or data_sets_trains or yaml_builds",
    "training/test_turns.py": "freeze or nan_right or out_of_memory",  # how it recovers by itself
    # of the families those with the most blocks
    "graph/test_families.py": "(dead or bounds) and (yolov10n.yaml or yolo26n-pose.yaml)",
}


@pytest.fixture(scope="module")
def lowest_env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and the lowest supported ultralytics, which has to be fetched."""
    environment = make_environment(tmp_path_factory.mktemp("lowest") / "venv", [wheel])
    pip = [str(environment.python), "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed"]
    done = subprocess.run([*pip, f"ultralytics=={releases.LOWEST}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ultralytics {releases.LOWEST} cannot be fetched here: {done.stderr.strip().splitlines()[-1]}")
    version = environment.run("python", "-c", "import ultralytics; print(ultralytics.__version__)")
    assert version.out.strip().endswith(releases.LOWEST)
    return environment


@pytest.fixture(scope="module")
def without(lowest_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the lowest supported ultralytics and without yolo-prune."""
    environment = make_environment(tmp_path_factory.mktemp("lowest-stock") / "venv")
    (environment.site / "ultralytics").symlink_to(lowest_env.site / "ultralytics", target_is_directory=True)
    return environment


# A command that fails, and then another, in one process
FAILS_THEN = """
import sys, traceback
from ultralytics import cfg
for words in sys.argv[1:]:
    sys.argv = cfg.ARGV = ["yolo", *words.split()]
    try:
        cfg.entrypoint()
    except Exception:
        traceback.print_exc()
        print("FAILED", words.split()[0])
    else:
        print("DONE", words.split()[0])
"""


def test_the_lowest_host_prunes_and_trains_again_and_stock_refuses(
    lowest_env: Environment, without: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    same = " ".join((f"data={tiny_data}", "name=run", "exist_ok=True", *SMALL))
    best = tmp_path / "a" / "run" / "weights" / "best.pt"
    trainings = (
        f"train project={tmp_path / 'a'} model={SMALL_MODEL} epochs=3 prune=0.5 prune_steps=2",
        f"train project={tmp_path / 'b'} model={best} epochs=1",
    )
    done = lowest_env.run("python", "-c", COMMANDS, same, *trainings)
    assert done.code == 0, done.text[-3000:]
    record = json.loads((tmp_path / "a" / "run" / "pruning" / "record.json").read_text())
    assert 0.48 <= record["final"]["gflops"] / record["baseline"]["gflops"] <= 0.5
    assert [row["fitness_after"] is not None for row in record["steps"]] == [True] * len(record["steps"])
    assert shapes(best) == shapes(tmp_path / "b" / "run" / "weights" / "best.pt")
    assert len(shapes(best)) > 50

    commands = (
        f"train project={tmp_path / 'c'} model={best} epochs=1 {same}",
        f"predict model={best} source={tiny_data.parent / 'images' / 'val'} imgsz=64",
    )
    done = without.run("python", "-c", FAILS_THEN, *commands)
    assert done.code == 0, done.text[-3000:]
    assert [line for line in done.out.splitlines() if line.startswith(("FAILED", "DONE"))] == [
        "FAILED train",
        "DONE predict",
    ], done.text[-3000:]
    assert "pip install yolo-prune" in done.text
    assert f"Ultralytics {releases.LOWEST}" in done.text


def test_commands_that_load_a_file_say_that_this_host_cannot_do_it_safely(
    lowest_env: Environment, tmp_path: Path
) -> None:
    code = (
        "import torch, ultralytics as u; from yolo_prune import cli\n"
        "torch.save({'model': u.YOLO('yolov8n.yaml').model}, 'a.pt')\n"
        "print('codes', cli.main(['inspect', 'model=a.pt']), cli.main(['inspect', 'model=a.pt', 'safe=False']))"
    )
    done = lowest_env.run("python", "-c", code, cwd=tmp_path)
    assert done.out.splitlines()[-1] == "codes 1 0", done.text[-2000:]
    assert "no restricted loading" in done.err
    assert "Traceback" not in done.text
    assert "channel groups hold" in done.text


def test_the_tests_of_the_host_pass_on_the_lowest(lowest_env: Environment) -> None:
    chosen = " or ".join(f"({file.rpartition('/')[2]} and ({words}))" for file, words in TESTS.items())
    done = lowest_env.run(
        *("python", "-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider", "-n", "0", "-k", chosen),
        *(f"tests/{file}" for file in TESTS),
        cwd=ROOT,
        env={"YOLO_PRUNE_TESTS": "lowest"},
        timeout=900,
    )
    assert done.code == 0, done.text[-6000:]
    passed = [line for line in done.out.splitlines() if " PASSED " in line]
    assert [file for file in TESTS if not any(line.startswith(f"tests/{file}::") for line in passed)] == []
