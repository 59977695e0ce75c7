# yolo-prune, AGPL-3.0 license
"""What a resumed run reads of its earlier part: whole, or not at all and said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_prune.host.run import Run
from yolo_prune.training import resume

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


def run_in(folder: Path) -> Run:
    (folder / "pruning").mkdir()
    return Run(SimpleNamespace(save_dir=folder, start_epoch=2))


def test_the_epochs_behind_the_checkpoint_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_in(tmp_path)
    assert resume.earlier_record(run) == {}
    for more in ({}, {"max_drop": {"undone": None}}, {"max_drop": None}):
        (tmp_path / "pruning" / "record.json").write_text(json.dumps({**RECORD, **more}))
        assert resume.earlier_record(run) == {**RECORD, **more, "history": RECORD["history"][:2]}
    assert not caplog.messages


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_record_is_said_in_one_line(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_in(tmp_path)
    (tmp_path / "pruning" / "record.json").write_text(text)
    assert resume.earlier_record(run) == {}
    (line,) = caplog.messages
    assert "record.json is not read, and begins anew: it is damaged" in line
    assert "\n" not in line
