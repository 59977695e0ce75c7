# yolo-prune, AGPL-3.0 license
"""A dense model of a comparison trains as a pruned one does after its cut; one that prunes is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.callbacks import base

from tests.helpers.runs import ANY_CHOICE, train
from tests.helpers.small_models import untrained
from tests.helpers.untrained import save
from yolo_prune.host import atomic_saving
from yolo_prune.host.run import Run
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.training import dense_alike


def test_a_dense_model_steps_averages_and_sees_frames_as_a_pruned_one(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {event: list(callbacks) for event, callbacks in base.default_callbacks.items()}
    monkeypatch.setattr(base, "default_callbacks", known)
    recipe = from_arguments({"prune": 0.5, "prune_ema": 0.2})
    assert recipe is not None
    dense_alike.train_all_as(recipe)
    dense_alike.train_all_as(recipe)
    assert len(known["on_train_epoch_start"]) == len(set(known["on_train_epoch_start"]))
    seen: dict[str, list[Any]] = {}

    def look(name: str) -> Any:
        def at_the_end(trainer: Any) -> None:
            framed = "preprocess_batch" in vars(trainer)
            seen.setdefault(name, []).append((trainer.accumulate, round(trainer.ema.decay(100), 4), framed))

        return at_the_end

    for name, more in (("dense", {}), ("pruned", {"prune": 0.5, "prune_ema": 0.2, "prune_start": 0.5, **ANY_CHOICE})):
        yolo = untrained()
        yolo.add_callback("on_train_epoch_end", look(name))
        train(tiny_data, tmp_path / name, yolo, epochs=2, optimizer="AdamW", warmup_epochs=0, val=False, **more)
        assert hasattr(yolo.trainer, "yolo_prune_cadence") is (name == "dense")
    assert seen["dense"] == [seen["pruned"][1]] * 2, "from the first epoch on as the other from its cut on"
    assert seen["pruned"][0] != seen["pruned"][1]
    assert seen["pruned"][1] == (1, round(99 / 103, 4), True)


def test_best_is_the_model_as_it_came_until_an_epoch_is_better(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a run that prunes is what was cut: else a training that harms would harm dense models alone."""
    known = {event: list(callbacks) for event, callbacks in base.default_callbacks.items()}
    monkeypatch.setattr(base, "default_callbacks", known)
    recipe = from_arguments({"prune": 0.5})
    assert recipe is not None
    atomic_saving.protect_all()
    dense_alike.train_all_as(recipe)
    monkeypatch.setattr(Run, "_validated", lambda run: (0.9, {}))
    yolo = YOLO(save(tmp_path / "best.pt", 0))
    train(tiny_data, tmp_path, yolo, epochs=2, optimizer="AdamW")
    before, after = (YOLO(path).model for path in (tmp_path / "best.pt", tmp_path / "run" / "weights" / "best.pt"))
    for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert torch.equal(old, new), name
    last = YOLO(tmp_path / "run" / "weights" / "last.pt").model
    assert not torch.equal(next(before.parameters()), next(last.parameters()))
