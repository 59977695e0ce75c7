# yolo-prune, AGPL-3.0 license
"""What was asked for and is not done is said: names that are none, whole parts that stay, prune= at resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers import small_models
from tests.helpers.runs import record_of, train
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.commands.apply import apply
from yolo_prune.commands.inspect import inspect
from yolo_prune.cost import model_size
from yolo_prune.errors import HostError, PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.planning import unmet_requests
from yolo_prune.surgery import cut_channels


def saved(folder: Path, stock: str = "yolov8n.yaml") -> Path:
    path = folder / "model.pt"
    torch.save({"model": DetectionModel(stock, verbose=False), "ema": None, "epoch": -1, "train_args": {}}, path)
    return path


def recipe_of(folder: Path, pattern: str) -> str:
    (folder / "mine.yaml").write_text(f'flops: 70%\nprotect: ["{pattern}"]\n')
    return str(folder / "mine.yaml")


def test_a_pattern_that_protects_nothing_is_refused_with_the_nearest(tiny_data: Path, tmp_path: Path) -> None:
    path = saved(tmp_path)
    mine = recipe_of(tmp_path, "model.2.cvv1")
    with pytest.raises(PruneError, match=r"protect: model\.2\.cvv1: .*did you mean model\.2\.cv1"):
        yolo_prune.prune(YOLO(path), recipe=mine)
    with pytest.raises(PruneError, match=r"did you mean model\.2\.cv1"):
        apply(str(path), recipe=mine)
    with pytest.raises(PruneError, match=r"no layer of this model is called model\.33\.\* \(did you mean model\."):
        inspect(str(path), protect="model.0, model.33.*")
    with pytest.raises(PruneError, match=r"protect: model\.2\.cvv1: "):
        train(tiny_data, tmp_path, YOLO(path), epochs=1, prune=mine)
    assert not (tmp_path / "run").exists()
    with pytest.raises(PruneError, match=r"protect: model\.2\.cvv1: "):  # a model that has no file
        train(tiny_data, tmp_path, epochs=1, prune=mine)


# yolov8n has layers 0 to 9 as its backbone and 22 as its head; a classifier has nothing between the two.
@pytest.mark.parametrize(
    ("given", "kept"), [("backbone", range(10)), ("neck,model.0", [0, *range(10, 22)]), (["head"], [22])], ids=str
)
def test_parts_of_the_model_are_names(given: str | list[str], kept: list[int]) -> None:
    model = DetectionModel("yolov8n.yaml", verbose=False)
    patterns = given.split(",") if isinstance(given, str) else given
    removable = {int(block.name.split(".")[1]) for block in channel_groups.build(model, patterns).blocks}
    assert removable == {2, 4, 6, 8} - set(kept)
    told = yolo_prune.prune(model, flops="85%", protect=given, scope="uniform", depth=1.0)
    cut = {int(row["name"].split(".")[1]) for row in told["layers"] if row["after"] < row["before"]}
    assert len(cut) > 3
    assert cut.isdisjoint(kept)


def test_a_part_that_is_misspelt_or_not_there_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(PruneError, match=r"protect: hed: no layer of this model is called hed \(did you mean head"):
        apply(str(path), flops="70%", protect="hed")
    assert {row["reason"] for row in inspect(str(path), protect="backbone")["layers"][:9]} == {
        "protected by the recipe (backbone)"
    }
    with pytest.raises(
        PruneError, match=r"stay: 40% protected by the recipe \(backbone\)\. Raise the bound, or protect less$"
    ):
        apply(str(path), flops="20%", protect="backbone")
    with pytest.raises(PruneError, match=r"no layer of this model is called neck"):
        yolo_prune.prune(YOLO("yolov8n-cls.yaml", verbose=False), flops="70%", protect="neck")


@pytest.mark.parametrize("pattern", ["model.2.cv1", "model.2.cv1.conv", "model.2.*", "model.?.conv", "*.cv3.*"])
def test_patterns_that_mean_a_layer_pass(pattern: str, tmp_path: Path) -> None:
    told = yolo_prune.prune(DetectionModel("yolov8n.yaml", verbose=False), recipe=recipe_of(tmp_path, pattern))
    assert told["final"]["gflops"] <= 0.7 * told["baseline"]["gflops"]


@pytest.mark.parametrize(
    ("stock", "name", "share", "words"),
    [
        ("yolov8n.yaml", "heads", 0.5, "heads=0.5 removed nothing: this model has no attentions of several heads"),
        ("yolov8n.yaml", "depth", 0.05, "depth=0.05 removed nothing: 0.05 of its 6 residual blocks is less than one"),
    ],
)
def test_depth_and_heads_that_removed_nothing_are_said(
    stock: str, name: str, share: float, words: str, caplog: Any
) -> None:
    model = DetectionModel(stock, verbose=False)
    with caplog.at_level("INFO", logger="ultralytics"):
        told = yolo_prune.prune(model, flops="70%", **{name: share})
    assert not told["removed"]["blocks"]
    assert sum(words in line for line in caplog.messages) == 1


def test_in_a_training_too_and_not_where_something_went(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    asked: dict[str, Any] = {"prune": 0.5, "prune_depth": 1.0, "prune_heads": 0.5, "prune_schedule": "oneshot"}
    with caplog.at_level("INFO", logger="ultralytics"):
        train(tiny_data, tmp_path, YOLO("yolov8n.yaml"), epochs=1, **asked)
    assert record_of(tmp_path / "run")["removed"]["blocks"]
    assert "heads=0.5 removed nothing" in caplog.text
    assert "depth=1 removed nothing" not in caplog.text


def test_prune_beside_resume_is_ignored_and_said(tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    stopping = YOLO("yolov8n.yaml")
    stopping.add_callback("on_train_epoch_end", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_data, tmp_path, stopping, epochs=3, prune=0.3, prune_schedule="oneshot", prune_start=0.5)
    last = tmp_path / "run" / "weights" / "last.pt"
    with caplog.at_level("INFO", logger="ultralytics"):
        YOLO(last).train(resume=True, prune=0.99)
    said = [line for line in caplog.messages if "prune=0.99 is ignored beside resume" in line]
    assert len(said) == 1
    told = record_of(tmp_path / "run")
    assert 0.6 < told["final"]["gflops"] / told["baseline"]["gflops"] <= 0.7


def _interrupt(trainer: Any) -> None:
    if trainer.epoch == 1:
        raise KeyboardInterrupt


def counted_otherwise(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Let the forecast of parameters take channels for so many times dearer than they are."""
    stock = model_size.params_cost

    def cost(*given: Any) -> Any:
        right = stock(*given)
        fixed = given[2].params - factor * (given[2].params - right.fixed)
        return replace(right, per_pair=factor * right.per_pair, per_output=factor * right.per_output, fixed=fixed)

    monkeypatch.setattr(model_size, "params_cost", cost)


def test_a_bound_that_one_cut_has_missed_is_kept_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    counted_otherwise(monkeypatch, 1.05)
    cuts: list[PrunePlan] = []
    stock = cut_channels.apply
    monkeypatch.setattr(cut_channels, "apply", lambda m, g, plan: cuts.append(plan) or stock(m, g, plan))
    model = small_models.untrained().model
    record = yolo_prune.prune(model, params="60%", round=8)
    tried = len([plan for plan in cuts if plan.keep]) // 2  # each is tried on a copy first
    assert tried > 1
    assert record["final"]["params"] == sum(p.numel() for p in model.parameters())
    assert record["final"]["params"] <= 0.6 * record["baseline"]["params"]


def test_a_bound_that_no_cut_keeps_is_said_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    counted_otherwise(monkeypatch, 2.0)
    model = small_models.untrained().model
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(HostError, match=r"after 3 cuts the model still has \S+ params where at most \S+ params were"):
        yolo_prune.prune(model, params="60%", round=1)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_cut_model_that_is_slower_than_its_plan_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_models.untrained().model
    baseline = SimpleNamespace(profile="a device")
    monkeypatch.setattr(model_size, "latency_of", lambda network, profile: 5.0)
    assert unmet_requests.slower_than_predicted(model, baseline, PrunePlan(predicted=4.99)) == []
    lines = unmet_requests.slower_than_predicted(model, baseline, PrunePlan(predicted=4.9))
    assert lines == ["the cut model is predicted at 5 ms, where its plan was at 4.9 ms"]
