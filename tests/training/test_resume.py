# yolo-prune, AGPL-3.0 license
"""What a resumed run reads of its earlier part: whole, or not at all and said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from yolo_prune.errors import RecipeError
from yolo_prune.host.run import Run
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.setting_names import REMOVED
from yolo_prune.training import latency_of_run, resume

SIZE = {"params": 10, "gflops": 1.5}
RECORD: dict[str, Any] = {
    "baseline": {"fitness": 0.5},
    "history": [{"epoch": n, "fitness": 0.5, **SIZE} for n in (1, 2, 3)],
    "steps": [{"step": 1, "epoch": 2, "fitness_before": 0.5, "fitness_cut": 0.4, "fitness_after": None, **SIZE}],
}
DAMAGED = [
    "",
    "[]",
    "null",
    "[" * 100_000,
    '{"history": [',
    "\\udc80",
    *(json.dumps({**RECORD, **change}) for change in (
        {"baseline": []},
        {"baseline": None},
        {"baseline": {"fitness": "much"}},
        {"history": {}},
        {"history": ["x"]},
        {"history": [{"epoch": "2", "fitness": 0.5, **SIZE}]},
        {"history": [{"epoch": 2, "fitness": [], **SIZE}]},
        {"history": [{"epoch": 2, "fitness": 0.5}]},
        {"steps": 3},
        {"steps": [{}]},
        {"steps": [{**RECORD["steps"][0], "epoch": None}]},
        {"max_drop": "none"},
        {"max_drop": {"undone": True}},
    )),
]  # fmt: skip


def run_in(folder: Path, **arguments: Any) -> Run:
    (folder / "pruning").mkdir(exist_ok=True)
    return Run(SimpleNamespace(save_dir=folder, start_epoch=2, resume=True, args=SimpleNamespace(**arguments)))


def test_a_run_goes_on_with_the_recipe_that_it_began_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("flops: 50%\nsteps: 3\n")
    third = resume.recipe_of(run_in(tmp_path, prune=1 / 3, epochs=10))
    assert third is not None
    (tmp_path / "pruning" / "record.json").write_text(json.dumps({"recipe": third.as_dict()}))
    assert resume.recipe_of(run_in(tmp_path, prune=1 / 3, epochs=10)) == third
    with caplog.at_level("WARNING", logger="ultralytics"):
        resume.recipe_of(run_in(tmp_path, prune_flops="40%", epochs=10))
    assert "the recipe (balanced) is another one" in caplog.text
    caplog.clear()
    run = run_in(tmp_path, prune=str(file), prune_round=16, epochs=10)
    (tmp_path / "pruning" / "record.json").unlink()
    began = resume.recipe_of(run)
    assert began is not None
    (tmp_path / "pruning" / "record.json").write_text(json.dumps({"recipe": began.as_dict()}))
    again = resume.recipe_of(run)
    assert again == began
    assert again.model_fields_set == began.model_fields_set
    assert not caplog.messages
    file.write_text("flops: 30%\nsteps: 3\nmin_channels: 4\n")
    with caplog.at_level("WARNING", logger="ultralytics"):
        assert resume.recipe_of(run) == began
    assert "than when this run began: it goes on with flops=50%, min_channels=None" in caplog.text
    file.unlink()
    assert resume.recipe_of(run) == began
    (tmp_path / "pruning" / "record.json").unlink()
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        resume.recipe_of(run)


def test_a_run_that_began_before_a_setting_was_removed_goes_on_where_it_asked_nothing_by_it(tmp_path: Path) -> None:
    run = run_in(tmp_path, prune=0.5, prune_round=16, epochs=10)
    began = from_arguments({"prune": "gentle", "prune_round": 8})
    assert began is not None
    for removed in REMOVED:
        for nothing in (None, 0.0):
            written = {"recipe": {**began.as_dict(), removed: nothing}}
            (tmp_path / "pruning" / "record.json").write_text(json.dumps(written))
            again = resume.recipe_of(run)
            assert again is not None
            assert (again.flops, again.round) == (began.flops, 8)
        (tmp_path / "pruning" / "record.json").write_text(json.dumps({"recipe": {**began.as_dict(), removed: 0.1}}))
        with pytest.raises(RecipeError, match=rf"^prune_{removed}=0\.1 is unknown: it was removed; in its [^\n]+$"):
            resume.recipe_of(run_in(tmp_path, prune=0.5, epochs=10, **{f"prune_{removed}": 0.1}))
    (tmp_path / "pruning" / "record.json").write_text(
        json.dumps({"recipe": {**began.as_dict(), "restart_lr": "cosine"}})
    )
    with pytest.raises(RecipeError, match=r"^prune_restart_lr=cosine was removed; in its place True [^\n]+$"):
        resume.recipe_of(run_in(tmp_path, prune=0.5, epochs=10, prune_restart_lr="cosine"))
    (tmp_path / "pruning" / "record.json").write_text('{"recipe": [1]}')
    assert resume.recipe_of(run) == from_arguments({"prune": 0.5, "prune_round": 16})


def test_a_profile_of_an_earlier_run_in_the_folder_is_not_this_runs(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    left = tmp_path / "pruning" / "device.json"
    left.write_text("{}")
    wanted = from_arguments({"prune": 0.5})
    assert wanted is not None
    assert latency_of_run.profile_of_run(run, nn.Identity(), wanted, print) is None
    assert not left.exists()


def test_the_epochs_behind_the_checkpoint_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_in(tmp_path)
    assert resume.earlier_record(run) == {}
    for more in ({}, {"max_drop": {"undone": None}}, {"max_drop": None}):
        (tmp_path / "pruning" / "record.json").write_text(json.dumps({**RECORD, **more}))
        assert resume.earlier_record(run) == {**RECORD, **more, "history": RECORD["history"][:2]}
    assert not caplog.messages


@pytest.mark.parametrize(
    ("entry", "there"),
    [
        ({"undone": {"step": 1}, "epoch": 3}, True),  # the checkpoint was saved as of the epoch before
        ({"undone": {"step": 1}, "epoch": 4}, False),
        ({"undone": None, "final": 0.5, "kept": True}, False),
        (None, False),
    ],
)
def test_a_step_that_was_undone_after_the_checkpoint_may_be_taken(entry: Any, there: bool, tmp_path: Path) -> None:
    """An epochN.pt may be older than all that its record tells."""
    found = resume.went_back(run_in(tmp_path), {**RECORD, "max_drop": entry})
    assert found == (entry if there else None)


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_record_is_said_in_one_line(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_in(tmp_path)
    (tmp_path / "pruning" / "record.json").write_text(text)
    assert resume.earlier_record(run) == {}
    (line,) = caplog.messages
    assert "record.json is not read, and begins anew: it is damaged" in line
    assert "\n" not in line
