# yolo-prune, AGPL-3.0 license
"""The host's real trainer, small: what a run that prunes leaves behind, and how it meets the host's own turns."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_flops, get_num_params

import yolo_prune
from tests.helpers.checkout import needs
from tests.helpers.drawing import drawn
from tests.helpers.runs import ANY_CHOICE, StoppedError, keep_as_killed, record_of, stop_in, train
from tests.helpers.small_models import untrained
from yolo_prune.cost.model_size import Size
from yolo_prune.errors import HostError, PruneError
from yolo_prune.host.run import Run
from yolo_prune.recipe.arguments import load
from yolo_prune.training import resume, session

# Uniform, for its widths follow from the bound alone; those of other scopes from weights and gradients, too.
TWO_STEPS: dict[str, Any] = {
    "prune": 0.5,
    "prune_scope": "uniform",
    "prune_steps": 2,
    "prune_start": 0.2,
    "prune_end": 0.6,
}
KILLED_IN = (1, 2, 4)  # epochs, from 0: at the first step, between the two, and after them


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save_dir of a run of five epochs with two steps, at the start of the second and of the fourth.

    Beside it is what a kill in one of KILLED_IN would have left of it.
    """
    folder = tmp_path_factory.mktemp("session")
    model = untrained()

    def note(trainer: Any) -> None:
        with (folder / "rows").open("a") as file:
            file.write(f"{trainer.epoch + 1} {record_of(folder / 'run')['history'][-1]['epoch']}\n")

    model.add_callback("on_model_save", note)
    for epoch in KILLED_IN:
        keep_as_killed(model, epoch, 0, folder / f"killed in {epoch}")
    with drawn():
        train(tiny_data, folder, model, epochs=5, **TWO_STEPS)
    return folder / "run"


def test_the_record_has_an_epoch_before_last_pt_does(run: Path) -> None:
    """A kill between the two would take the row of the last epoch for good: nothing is left to resume then."""
    assert (run.parent / "rows").read_text().splitlines() == [f"{epoch} {epoch}" for epoch in range(1, 6)]


def test_best_and_last_have_half_the_flops(run: Path) -> None:
    record = record_of(run)
    dense = untrained().model
    for name in ("best.pt", "last.pt"):
        model, _ = load_checkpoint(run / "weights" / name)
        gflops = get_flops(model, 640)
        assert 0.48 * record["baseline"]["gflops"] <= gflops <= 0.5 * record["baseline"]["gflops"]
        assert gflops == pytest.approx(record["final"]["gflops"])
        assert get_num_params(model) == record["final"]["params"] < get_num_params(dense)


def test_the_record_tells_the_run(run: Path) -> None:
    record = record_of(run)
    assert {"recipe", "baseline", "steps", "final", "layers", "versions"} <= set(record)
    for key in ("baseline", "final"):
        assert set(record[key]) == {
            *("params", "gflops", "gflops_deployed", "size_bytes", "peak_activation_bytes", "fitness", "latency_ms"),
        }
        assert record[key]["fitness"] is not None
    assert [row["epoch"] for row in record["steps"]] == [2, 4]
    for row in record["steps"]:
        assert {"epoch", "params", "gflops", "fitness_before", "fitness_cut", "fitness_after", "seconds"} <= set(row)
        assert row["fitness_before"] is not None
        assert row["fitness_cut"] is not None
        assert row["fitness_after"] is not None
        assert row["seconds"] > 0
    assert 0 < record["final"]["peak_activation_bytes"] <= record["baseline"]["peak_activation_bytes"] < 1e6
    gflops = [record["baseline"]["gflops"], *(row["gflops"] for row in record["steps"])]
    assert gflops == sorted(gflops, reverse=True)
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3, 4, 5]
    assert record["channel_multiple"]["channels"] == 8
    assert "as measured before" in record["channel_multiple"]["why"]
    assert record["recipe"]["steps"] == 2
    assert record["versions"]["torch"] == str(torch.__version__)


def test_the_layers_of_the_record_are_those_of_the_checkpoint(run: Path) -> None:
    model, _ = load_checkpoint(run / "weights" / "best.pt")
    found = {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    layers = record_of(run)["layers"]
    assert {row["name"]: row["after"] for row in layers} == found
    assert sum(row["after"] < row["before"] for row in layers) > len(layers) / 2
    for row in layers:
        assert row["after"] == row["before"] or row["after"] % 8 == 0, row
    assert [row["part"] for row in layers] == sorted(
        (row["part"] for row in layers), key=["backbone", "neck", "head"].index
    )
    outputs = {f"model.10.cv{branch}.{scale}.2" for branch in (2, 3) for scale in range(2)} | {"model.10.dfl.conv"}
    assert {row["name"] for row in layers if row["fixed"]} == outputs
    assert {row["kind"] for row in layers} == {"Conv", "C2f", "SPPF", "Detect"}
    assert record_of(run)["fitness_is"] == "mAP50-95"


def test_a_run_that_has_ended_is_not_resumed(run: Path) -> None:
    """The host would go on with its example data, coco8.yaml, which it downloads."""
    last = run / "weights" / "last.pt"
    with pytest.raises(PruneError, match=r"nothing is left to resume of .*last\.pt.*tiny\.yaml epochs="):
        YOLO(last).train(resume=True)


def test_csv_and_picture_stand_beside(run: Path) -> None:
    with (run / "pruning" / "record.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert float(rows[1]["gflops"]) == pytest.approx(record_of(run)["final"]["gflops"])
    assert (run / "pruning.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not [path for path in run.rglob(".*") if path.is_file()], "a half-written file was left"


def test_the_hosts_own_csv_shows_params_and_gflops_change(run: Path) -> None:
    with (run / "results.csv").open() as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    gflops = [float(row["model/GFLOPs"]) for row in rows]
    assert len(gflops) == 5
    assert gflops[0] > gflops[1] == gflops[2] > gflops[3] == gflops[4]
    assert float(rows[0]["model/parameters"]) > float(rows[4]["model/parameters"])


def test_the_hosts_loggers_see_params_and_gflops(tiny_data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from ultralytics.utils.callbacks import tensorboard

    scalars: dict[tuple[str, int], float] = {}

    class Writer:
        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            scalars[name, epoch] = float(value)

    monkeypatch.setattr(tensorboard, "WRITER", Writer(), raising=False)  # absent without tensorboard
    yolo = untrained()

    def integrate(trainer: Any) -> None:  # where the host adds its integrations: behind the default callbacks
        trainer.add_callback("on_train_epoch_end", tensorboard.on_train_epoch_end)

    yolo.add_callback("on_pretrain_routine_start", integrate)
    train(tiny_data, tmp_path, yolo, epochs=2, prune=0.5, prune_schedule="oneshot", prune_start=0.5, **ANY_CHOICE)
    assert scalars["model/GFLOPs", 2] <= 0.5 * scalars["model/GFLOPs", 1]
    assert scalars["model/parameters", 2] < scalars["model/parameters", 1]


def test_the_checkpoint_holds_stock_classes_only(run: Path) -> None:
    model, _ = load_checkpoint(run / "weights" / "best.pt")
    assert {type(m).__module__.split(".")[0] for m in model.modules()} <= {"torch", "ultralytics"}


@pytest.fixture
def whole(run: Path, tmp_path: Path) -> Iterator[Path]:
    """The run, moved away so that what is left of it by a kill can stand in its place; put back afterwards."""
    away = Path(shutil.move(run, tmp_path / "whole"))
    yield away
    shutil.rmtree(run)
    shutil.move(away, run)


@pytest.mark.parametrize("killed_in", KILLED_IN)
def test_a_resumed_run_ends_at_the_same_widths(killed_in: int, run: Path, whole: Path) -> None:
    shutil.copytree(run.parent / f"killed in {killed_in}", run)
    assert [row["epoch"] for row in record_of(run)["history"]] == list(range(1, killed_in + 1))
    YOLO(run / "weights" / "last.pt").train(resume=True)
    again, expected = record_of(run), record_of(whole)
    assert [row["epoch"] for row in again["steps"]] == [2, 4]
    assert [row["epoch"] for row in again["history"]] == [1, 2, 3, 4, 5]
    assert again["baseline"]["gflops"] == expected["baseline"]["gflops"]
    assert again["final"]["params"] == expected["final"]["params"]
    assert again["layers"] == expected["layers"]


def test_a_second_run_that_is_killed_before_its_first_step_is_not_taken_for_the_first(
    run: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo = YOLO(run / "weights" / "best.pt")
    stop_in(yolo, 1)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, epochs=4, prune=0.3, prune_schedule="oneshot", prune_start=0.5)
    with caplog.at_level("INFO", logger="ultralytics"):
        YOLO(tmp_path / "run" / "weights" / "last.pt").train(resume=True)
    (line,) = (line for line in caplog.messages if "next: " in line)
    assert f"dense={run / 'weights' / 'best.pt'} " in line, "the checkpoint that it began with, not its own last.pt"
    record = record_of(tmp_path / "run")
    assert record["baseline"]["params"] == record_of(run)["final"]["params"]
    assert [row["epoch"] for row in record["steps"]] == [3]
    assert 0.68 <= record["final"]["gflops"] / record["baseline"]["gflops"] <= 0.7


def test_early_stopping_waits_until_pruning_is_finished(tiny_data: Path, tmp_path: Path) -> None:
    yolo = untrained()

    def level(trainer: Any) -> None:  # a fitness that never improves: patience=1 would stop in the second epoch
        validate = trainer.validate
        trainer.validate = lambda: (validate()[0], 0.5)

    yolo.add_callback("on_train_start", level)
    arguments = {"epochs": 12, "patience": 1, "val": True}
    train(tiny_data, tmp_path, yolo, prune=0.3, prune_steps=2, prune_start=0.1, prune_end=0.5, **arguments)
    record = record_of(tmp_path / "run")
    assert len(record["steps"]) == 2
    assert len(record["history"]) < 12, "after the last step patience counts again"


def test_a_step_in_the_first_epoch_measures_the_dense_model_first(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path, epochs=1, prune=0.5, prune_schedule="oneshot", prune_start=0)
    record = record_of(tmp_path / "run")
    assert record["baseline"]["fitness"] is not None
    assert record["steps"][0]["epoch"] == 1
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]


@pytest.mark.parametrize("name", ["aggressive", "balanced", "gentle", "oneshot", "raspberry-pi-5"])
def test_every_shipped_recipe_runs(name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.deployment, "at_end", lambda *_: None)  # tests/training/test_deployment.py has it
    wanted = load(name)
    train(tiny_data, tmp_path, epochs=2, val=False, prune=name)
    record = record_of(tmp_path / "run")
    assert record["recipe"]["name"] == name
    assert wanted.flops is not None
    bound = wanted.flops.limit(record["baseline"]["gflops"])
    points = 100 * (bound - record["final"]["gflops"]) / record["baseline"]["gflops"]
    assert 0 <= points <= 2


@pytest.mark.parametrize("exist_ok", [False, True])
def test_a_plain_training_of_a_pruned_model_is_resumed_as_it_is(
    exist_ok: bool, run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Its checkpoint still has what the run that pruned it had noted, and its folder may have that run's record."""
    if exist_ok:
        shutil.copytree(run, tmp_path / "run")
    yolo = YOLO(run / "weights" / "best.pt")
    stop_in(yolo, 2)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, epochs=4)
    again = YOLO(tmp_path / "run" / "weights" / "last.pt")
    again.train(resume=True)
    assert again.trainer.epoch == 3


def test_a_validation_between_epochs_measures_what_an_epochs_does() -> None:
    """On COCO the host would take the figures of COCO's own evaluation, and several looks at an image if asked."""

    def validator(model: nn.Module) -> dict[str, float]:
        assert vars(arguments) == {"plots": False, "val": False, "save_json": False, "augment": False, "conf": 0.1}
        return {"fitness": 0.5, "metrics/mAP50(B)": 0.7}

    arguments = SimpleNamespace(plots=True, val=True, save_json=True, augment=True, conf=0.1)
    validator.args = arguments  # type: ignore[attr-defined]
    trainer = SimpleNamespace(get_validator=lambda: validator, ema=SimpleNamespace(ema=nn.Identity()))
    assert Run(trainer).validate() == 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"compile": True}, "compile=True"),
        pytest.param({"quantize": 8}, "quantize=8", marks=needs("quantize")),
        ({"time": 0.1}, "time=0.1"),
        ({"prune_flops": "0.1%", "prune": None}, "out of reach"),
        ({"prune_importance": "hessian"}, "prune_importance=hessian is unknown"),
        ({"prune_steps": 9}, "more steps than epochs"),
        ({"prune_start": 0.9, "prune_end": 0.1}, "prune_start=0.9"),
    ],
)
def test_what_cannot_be_served_is_refused_before_training(
    arguments: dict[str, Any], words: str, tiny_data: Path, tmp_path: Path
) -> None:
    started = []
    yolo = untrained()
    yolo.add_callback("on_train_start", started.append)
    with pytest.raises(PruneError) as caught:
        train(tiny_data, tmp_path, yolo, **{"epochs": 6, "prune": 0.5, **arguments})
    assert words in str(caught.value)
    assert not started
    assert not list(tmp_path.rglob("*.pt"))


def test_another_family_is_refused_by_name_before_its_data_is_read(tmp_path: Path) -> None:
    yolo = YOLO("yolov8s-worldv2.yaml")
    with pytest.raises(PruneError, match="WorldModel"):
        train(Path("nowhere.yaml"), tmp_path, yolo, epochs=6, prune=0.5)


def test_a_met_bound_trains_on_and_says_so(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level("WARNING", logger="ultralytics"):
        train(tiny_data, tmp_path, epochs=1, prune_flops="20G", prune_schedule="oneshot")
    assert "NOTHING WILL BE CUT" in caplog.text
    assert "already meets prune_flops=20G. A bound below what it has cuts it" in caplog.text
    record = record_of(tmp_path / "run")
    assert record["steps"] == []
    assert record["final"]["params"] == record["baseline"]["params"]


def test_prune_in_python_without_training() -> None:
    yolo = untrained()
    record = yolo_prune.prune(yolo, flops="50%")
    assert 0.48 <= record["final"]["gflops"] / record["baseline"]["gflops"] <= 0.5
    assert get_num_params(yolo.model) == record["final"]["params"]
    assert len(yolo.predict(torch.zeros(1, 3, 64, 64), verbose=False)) == 1
    with pytest.raises(PruneError, match="nothing to aim at"):
        yolo_prune.prune(untrained())
    with pytest.raises(PruneError, match="unknown setting"):
        yolo_prune.prune(untrained(), flops="50%", colour="red")


def test_the_session_is_only_on_the_trainer(run: Path) -> None:
    assert session.of(object()) is None
    assert issubclass(HostError, PruneError)


def test_a_resumed_run_forgets_epochs_that_it_trains_again() -> None:
    """A run killed between record.json and last.pt of its fourth epoch is resumed from the third."""
    kept = [{"epoch": epoch, "fitness": epoch / 10, "params": 5, "gflops": 1.0} for epoch in (1, 2, 3, 4)]
    record: dict[str, Any] = {"history": list(kept), "steps": [{"epoch": 4, "fitness_after": None}]}
    run = SimpleNamespace(start_epoch=3)
    resume.complete_record(run, record, Size(5, 1.0))  # type: ignore[arg-type]
    assert record["history"] == kept[:3]
    assert record["steps"][0]["fitness_after"] is None
