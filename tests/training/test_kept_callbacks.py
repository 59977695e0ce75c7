# yolo-prune, AGPL-3.0 license
"""`prune=` prunes whoever took our callbacks away: users, Ray Tune's trials, trainers of one's own."""

from __future__ import annotations

import csv
import json
import logging
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

import yolo_prune
from tests.helpers.checkout import ROOT
from tests.helpers.environments import Environment, make_environment
from tests.helpers.runs import ANY_CHOICE, SMALL, record_of, train
from tests.helpers.small_models import SMALL_MODEL, untrained
from yolo_prune.errors import HostError


class OwnTrainer(DetectionTrainer):
    """Overrides callbacks, as its users may."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for event in ("on_pretrain_routine_end", "on_train_epoch_start", "on_fit_epoch_end"):
            self.set_callback(event, print_nothing)


def print_nothing(trainer: Any) -> None:
    pass


def _reset(yolo: YOLO) -> None:
    yolo.reset_callbacks()


def _clear(yolo: YOLO) -> None:
    for event in list(yolo.callbacks):
        yolo.clear_callback(event)


def _replace(yolo: YOLO) -> None:
    yolo.callbacks = defaultdict(list, on_train_start=[print_nothing])


@pytest.mark.parametrize("take_away", [_reset, _clear, _replace])
def test_callbacks_that_were_taken_away_are_back_in_a_run_that_asks(
    take_away: Any, tiny_data: Path, tmp_path: Path
) -> None:
    yolo = untrained()
    take_away(yolo)
    train(tiny_data, tmp_path, yolo, epochs=2, prune=0.5, prune_schedule="oneshot", prune_start=0.5, **ANY_CHOICE)
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    assert [row["epoch"] for row in record["history"]] == [1, 2]
    assert record["steps"][0]["fitness_after"] is not None
    with (tmp_path / "run" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["model/parameters"]) for row in rows] == [
        pytest.approx(row["params"], rel=1e-4) for row in record["history"]
    ]


def test_a_trainer_that_replaces_callbacks_prunes(tiny_data: Path, tmp_path: Path) -> None:
    arguments = {"data": str(tiny_data), "project": str(tmp_path), "name": "run", "epochs": 1, "prune": 0.5, **SMALL}
    untrained().train(trainer=OwnTrainer, **arguments, **ANY_CHOICE)
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]


def test_a_plain_run_gets_nothing_back(tiny_data: Path, tmp_path: Path) -> None:
    yolo = untrained()
    yolo.reset_callbacks()
    train(tiny_data, tmp_path, yolo, epochs=1)
    ours = [f for known in yolo.trainer.callbacks.values() for f in known if f.__module__.startswith("yolo_prune")]
    assert not ours
    assert not (tmp_path / "run" / "pruning").exists()


def test_reset_callbacks_says_that_it_takes_what_attach_put(caplog: pytest.LogCaptureFixture) -> None:
    yolo = untrained()
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        yolo.reset_callbacks()
        assert "attach" not in caplog.text
        yolo_prune.attach(yolo, 0.5)
        yolo.reset_callbacks()
    assert "reset_callbacks() takes away what attach() put on this model" in caplog.text


@pytest.mark.parametrize("use_ray", [False, True])
def test_tune_after_attach_is_refused(use_ray: bool, tiny_data: Path) -> None:
    yolo = untrained()
    yolo_prune.attach(yolo, 0.5)
    with pytest.raises(HostError, match=r"tune\(\) after attach\(\).*such as prune=0.5"):
        yolo.tune(data=str(tiny_data), use_ray=use_ray, iterations=1)


TUNE = """
import json, sys
from ultralytics import YOLO
if __name__ == "__main__":
    YOLO(sys.argv[2]).tune(**json.loads(sys.argv[1]))
"""
ONE_TRIAL = {
    **ANY_CHOICE,
    "prune": 0.5,
    "epochs": 1,
    "plots": False,
    "val": True,
    "save": True,
    "imgsz": 64,
    "batch": 4,
}


def records_below(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("pruning/record.json"))]


def test_tune_prunes_in_each_of_its_processes(wheel_env: Environment, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text(TUNE)
    words = {**ONE_TRIAL, "data": str(tiny_data), "project": str(tmp_path / "runs"), "device": "cpu", "iterations": 1}
    done = wheel_env.run("python", "tune.py", json.dumps(words), SMALL_MODEL, cwd=tmp_path)
    assert done.code == 0, done.text[-3000:]
    (record,) = records_below(tmp_path)
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]


RAY = """
import json, sys
import ray
from ray import tune
from ultralytics import YOLO
if __name__ == "__main__":
    ray.init(num_cpus=int(sys.argv[2]), include_dashboard=False, logging_level="error")
    yolo = YOLO("yolov8n.yaml")
    space = {"lr0": tune.uniform(1e-4, 1e-2)}
    results = yolo.tune(use_ray=True, iterations=2, space=space, search_alg="random", **json.loads(sys.argv[1]))
    print("ERRORS", results.num_errors, "TRIALS", len(results))
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install yolo-prune[ray]")
def test_two_trials_of_ray_tune_prune(wheel: Path, tiny_data: Path, tmp_path: Path) -> None:
    from ultralytics.utils import NUM_THREADS

    environment = make_environment(tmp_path / "venv", [wheel])
    (tmp_path / "tune.py").write_text(RAY)
    words = {**ONE_TRIAL, "data": str(tiny_data), "project": str(tmp_path / "runs"), "device": "cpu", "workers": 0}
    variables = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0"}
    done = environment.run("python", "tune.py", json.dumps(words), str(NUM_THREADS), cwd=tmp_path, env=variables)
    assert done.code == 0, done.text[-3000:]
    assert "ERRORS 0 TRIALS 2" in done.out, done.text[-3000:]
    found = records_below(tmp_path)
    assert len(found) == 2, done.text[-3000:]
    assert all(record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"] for record in found)


def test_the_extra_for_ray_is_what_the_host_asks_for() -> None:
    assert 'ray = ["ray[tune]>=2.41", "optuna"]' in (ROOT / "pyproject.toml").read_text()  # its default search
