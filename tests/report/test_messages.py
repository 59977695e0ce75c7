# yolo-prune, AGPL-3.0 license
"""The command that a run ends with."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_prune import cli, log
from yolo_prune.cost.file_size import Deployment
from yolo_prune.host.run import Run
from yolo_prune.training import run_record


def _said(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str = "onnx", deploy: tuple[str, ...] = ()) -> list[str]:
    """What is said after a run in a folder with a blank in its name, which began with dense.pt there."""
    lines: list[str] = []
    monkeypatch.setattr(log, "say", lines.append)
    folder = folder / "my runs"
    folder.mkdir(exist_ok=True)
    for name in ("dense.pt", "best.pt"):
        (folder / name).touch()
    arguments = SimpleNamespace(model=str(folder / "dense.pt"), data="my data.yaml")
    run = Run(SimpleNamespace(args=arguments, best=folder / "best.pt", last=folder / "last.pt"))
    session: Any = SimpleNamespace(
        unfinished=False,
        recipe=SimpleNamespace(deploy=deploy),
        baseline=SimpleNamespace(deployment=Deployment(kind)),
        record={"model": run_record.checkpoint_given(run)},
    )
    run_record.say_next(run, session)
    return lines


def test_the_next_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (line,) = _said(monkeypatch, tmp_path, "ncnn")
    program, command, *words = shlex.split(line.removeprefix("next: "))
    assert (program, command) == ("yolo-prune", "export")
    folder = tmp_path / "my runs"
    assert cli.parse("export", words, cli.arguments_of("export")) == {
        "model": str(folder / "best.pt"),
        "dense": str(folder / "dense.pt"),
        "data": "my data.yaml",
        "format": "ncnn",
    }


def test_a_run_that_has_exported_says_nothing_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _said(monkeypatch, tmp_path, deploy=("onnx",)) == []
