# yolo-prune, AGPL-3.0 license
"""best.pt after a cut: the model as it was cut, until an epoch is better. What a training makes worse is not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_num_params

from tests.helpers.runs import ANY_CHOICE, record_of, train
from tests.helpers.small_models import untrained
from yolo_prune.host.run import Run

CUT: dict[str, Any] = {"prune": 0.5, "prune_scope": "uniform", "prune_reconstruct": "none", "epochs": 3, "nbs": 4}


class Watched:
    """A run of three epochs whose fitness right after the cut is as told; notes what stood there at that moment."""

    def __init__(self, data: Path, folder: Path, epoch: int, fitness: float, patch: pytest.MonkeyPatch) -> None:
        self.average: dict[str, torch.Tensor] = {}
        self.files: list[str] = []
        self.stopper = 0.0
        model = untrained()
        real = Run.count_as_best

        def count(run: Run) -> float | None:
            with pytest.MonkeyPatch.context() as told:
                told.setattr(Run, "_validated", lambda _: (fitness, {"metrics/mAP50(B)": 0.125}))
                return real(run)

        def look(trainer: Any) -> None:
            if trainer.epoch == epoch:
                self.average = {name: value.clone() for name, value in trainer.ema.ema.state_dict().items()}
                self.files = sorted(path.name for path in trainer.wdir.iterdir())
            self.stopper = trainer.stopper.best_fitness

        patch.setattr(Run, "count_as_best", count)
        model.add_callback("on_train_epoch_start", look)
        train(data, folder, model, prune_start=epoch / 3, **CUT)
        self.folder = folder / "run"
        self.record = record_of(self.folder)

    def is_the_cut(self, name: str) -> bool:
        """Whether a checkpoint of the run is, tensor by tensor, the average right after the cut."""
        found = load_checkpoint(self.folder / "weights" / name)[0].state_dict()
        return all(torch.equal(found[name], value.half().float()) for name, value in self.average.items())


@pytest.mark.parametrize(("epoch", "files"), [(0, ["best.pt"]), (1, ["best.pt", "last.pt"])])
def test_it_is_the_model_as_cut_where_no_epoch_is_better(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    epoch: int,
    files: list[str],
) -> None:
    run = Watched(tiny_data, tmp_path, epoch, 0.9, monkeypatch)
    assert run.files == files  # a last.pt of no epoch would be one that cannot be resumed
    assert run.is_the_cut("best.pt")
    assert not run.is_the_cut("last.pt")
    assert [row["fitness_cut"] for row in run.record["steps"]] == [0.9]
    assert run.record["final"]["fitness"] == 0.9
    assert run.record["best"] == {"epoch": epoch + 1, "right_after_cut": True, "fitness": 0.9}
    assert run.stopper < 0.9  # patience counts epochs
    assert load_checkpoint(run.folder / "weights" / "best.pt")[1]["train_metrics"]["metrics/mAP50(B)"] == 0.125
    assert "no epoch was better than the model right after the cut" in caplog.text


def test_it_is_that_of_an_epoch_that_is_better(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Watched(tiny_data, tmp_path, 1, -1.0, monkeypatch)
    assert not run.is_the_cut("best.pt")
    assert run.record["steps"][0]["fitness_cut"] == -1
    assert run.record["final"]["fitness"] == run.record["best"]["fitness"] >= 0
    assert not run.record["best"]["right_after_cut"]
    assert "no epoch was better" not in caplog.text


@pytest.mark.parametrize("without", [{"val": False}, {"save": False}])
def test_a_run_that_does_not_choose_validates_nothing(tiny_data: Path, tmp_path: Path, without: dict[str, Any]) -> None:
    train(tiny_data, tmp_path, prune_start=0.4, **CUT, **without)
    assert [row["fitness_cut"] for row in record_of(tmp_path / "run")["steps"]] == [None]


def test_without_save_the_record_is_of_the_last_epoch(tiny_data: Path, tmp_path: Path) -> None:
    """The host writes no other then, whichever was the best."""
    yolo = untrained()

    def claim(trainer: Any) -> None:
        trainer.best_fitness = trainer.fitness = 0.9 if trainer.epoch == 1 else 0.25

    yolo.add_callback("on_fit_epoch_end", claim)
    yolo.callbacks["on_fit_epoch_end"] = yolo.callbacks["on_fit_epoch_end"][::-1]  # before ours
    train(tiny_data, tmp_path, yolo, prune_start=0.4, save=False, **CUT)
    record = record_of(tmp_path / "run")
    epochs = len(record["history"])
    assert max(row["fitness"] for row in record["history"]) == 0.9
    assert record["final"]["fitness"] == 0.25
    assert record["best"] == {"epoch": epochs, "right_after_cut": False, "fitness": 0.25}


def test_best_is_the_best_at_the_final_width(tiny_data: Path, tmp_path: Path) -> None:
    seen: dict[int, float | None] = {}
    yolo = untrained()
    yolo.add_callback("on_train_epoch_end", lambda trainer: seen.update({trainer.epoch: trainer.best_fitness}))

    def claim(trainer: Any) -> None:  # a dense epoch so good that no pruned one can beat it
        if trainer.epoch == 0:
            trainer.best_fitness = 99.0

    yolo.add_callback("on_fit_epoch_end", claim)
    train(tiny_data, tmp_path, yolo, epochs=3, prune=0.5, prune_schedule="oneshot", prune_start=0.4, **ANY_CHOICE)
    model, _ = load_checkpoint(tmp_path / "run" / "weights" / "best.pt")
    record = record_of(tmp_path / "run")
    assert seen[1] == record["steps"][0]["fitness_cut"] < 99, "the best of the dense width is forgotten at the cut"
    assert get_num_params(model) == record["final"]["params"]
