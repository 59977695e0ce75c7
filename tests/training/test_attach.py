# yolo-prune, AGPL-3.0 license
"""`attach`: its recipe is for one YOLO object and one training, the next that comes to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

import yolo_prune
from tests.helpers.runs import StoppedError, record_of, stop_in, train
from tests.helpers.small_models import SMALL_MODEL, untrained
from tests.helpers.untrained import save
from yolo_prune import folder_lock
from yolo_prune.errors import HostError, PruneError
from yolo_prune.host import yolo_methods


def _stop(trainer: Any) -> None:
    raise StoppedError


def test_attach_prunes_one_object_only(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yolo = untrained()
    yolo_prune.attach(yolo, 0.5, schedule="oneshot", start=0)
    train(tiny_data, tmp_path / "a", yolo, epochs=1)
    train(tiny_data, tmp_path / "b", epochs=1)
    yolo.overrides.setdefault("model", str(SMALL_MODEL))  # the lowest host forgets it in a training
    train(tiny_data, tmp_path / "c", yolo, epochs=1)
    assert not (tmp_path / "c" / "run" / "pruning").exists(), "the recipe was for one training"
    yolo.overrides.setdefault("model", str(SMALL_MODEL))
    caplog.clear()
    train(tiny_data, tmp_path / "d", yolo, epochs=2, prune="oneshot", prune_flops="70%", prune_start=0.5)
    assert len(record_of(tmp_path / "d" / "run")["steps"]) == 1
    told = [line for line in caplog.messages if "FLOPs" in line]
    assert told
    assert len(told) == len(set(told)), "not by what attach left as well"
    assert (
        record_of(tmp_path / "a" / "run")["final"]["gflops"]
        <= 0.5 * record_of(tmp_path / "a" / "run")["baseline"]["gflops"]
    )
    assert not (tmp_path / "b" / "run" / "pruning").exists()


def test_a_recipe_whose_training_was_stopped_is_for_the_next_one_and_the_cut_is_taken_back(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo = YOLO(save(tmp_path / "dense.pt", 0))
    yolo_prune.attach(yolo, 0.5, schedule="oneshot", start=0.3)
    yolo.add_callback("on_pretrain_routine_start", _stop)  # before anything is built
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path / "a", yolo, epochs=2)
    yolo.callbacks["on_pretrain_routine_start"].remove(_stop)
    stop_in(yolo, 2)
    with pytest.raises(StoppedError):  # past its cut
        train(tiny_data, tmp_path / "b", yolo, epochs=3)
    yolo.callbacks["on_train_batch_end"].pop()
    cut = record_of(tmp_path / "b" / "run")["steps"][0]["params"]
    train(tiny_data, tmp_path / "c", yolo, epochs=3)
    (step,) = record_of(tmp_path / "c" / "run")["steps"]
    assert step["params"] == pytest.approx(cut, rel=0.05), "of the dense model, and not of what was cut already"
    assert "the training before was stopped past a cut: this one begins anew" in caplog.text
    yolo.overrides.setdefault("model", str(tmp_path / "dense.pt"))  # the lowest host forgets it in a training
    train(tiny_data, tmp_path / "d", yolo, epochs=1)
    assert not (tmp_path / "d" / "run" / "pruning").exists(), "the recipe was for the training that came to its end"


def test_an_attached_run_that_is_stopped_says_how_to_go_on(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo = untrained()
    yolo_prune.attach(yolo, 0.5, schedule="oneshot", start=0.5)
    stop_in(yolo, 1, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_data, tmp_path, yolo, epochs=2)
    last = tmp_path / "run" / "weights" / "last.pt"
    assert f'stopped. To go on: model = YOLO("{last}"), attach(model, ...) as before, and model.train' in caplog.text
    folder_lock.hold(tmp_path / "run")  # it is free


def test_attach_and_several_data_sets_are_refused(tiny_data: Path) -> None:
    yolo = untrained()
    yolo_prune.attach(yolo, 0.5)
    with pytest.raises(HostError, match=r"attach\(\) with data=\[\.\.\.\] of 2 data sets: its recipe is for one"):
        yolo.train(data=[str(tiny_data), str(tiny_data)], epochs=1)


def test_a_run_with_an_attached_recipe_is_resumed_with_it_or_not_at_all(tiny_data: Path, tmp_path: Path) -> None:
    yolo = untrained()
    stop_in(yolo, 2)
    yolo_prune.attach(yolo, 0.5, schedule="linear", steps=2, start=0.2, end=0.6)
    with pytest.raises(StoppedError):
        train(tiny_data, tmp_path, yolo, epochs=5)
    last = tmp_path / "run" / "weights" / "last.pt"
    with pytest.raises(PruneError, match=r"last\.pt is of a run that attach\(\) gave its recipe"):
        YOLO(last).train(resume=True)
    again = YOLO(last)
    yolo_prune.attach(again, 0.5, schedule="linear", steps=2, start=0.2, end=0.6)
    again.train(resume=True)
    assert [row["epoch"] for row in record_of(tmp_path / "run")["steps"]] == [2, 4]


@pytest.mark.parametrize("change", ["prune", "load"])
def test_what_was_changed_after_a_stopped_training_is_not_taken_back(change: str, tmp_path: Path) -> None:
    yolo = YOLO(save(tmp_path / "dense.pt", 0))
    before = YOLO(tmp_path / "dense.pt").model
    yolo.yolo_prune_stopped = (yolo.model, before)
    if change == "prune":
        yolo_prune.prune(yolo, flops="70%", importance="l2")
    else:
        yolo.load(before)
    own = yolo.model
    yolo_methods._take_back_cut(yolo)
    assert yolo.model is own
