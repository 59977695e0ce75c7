# yolo-prune, AGPL-3.0 license
"""The command that a run ends with."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Conv

from yolo_prune import cli, log, shell
from yolo_prune.cost.file_size import Deployment
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint, console
from yolo_prune.host.run import Run
from yolo_prune.report import messages, text
from yolo_prune.training import run_record


def _said(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    kind: str = "onnx",
    deploy: tuple[str, ...] = (),
    model: nn.Module = nn.Sequential(Conv(3, 8)),  # noqa: B008
) -> list[str]:
    """What is said after a run in a folder with a blank in its name, which began with dense.pt there."""
    lines: list[str] = []
    monkeypatch.setattr(log, "say", lines.append)
    folder = folder / "my runs"
    folder.mkdir(exist_ok=True)
    for name in ("dense.pt", "best.pt"):
        (folder / name).touch()
    arguments = SimpleNamespace(model=str(folder / "dense.pt"), data="my data.yaml")
    monkeypatch.setattr(
        checkpoint, "restricted", lambda: True
    )  # of old hosts, and of a torch older than 2.6, it is not
    run = Run(SimpleNamespace(model=model, args=arguments, best=folder / "best.pt", last=folder / "last.pt"))
    session: Any = SimpleNamespace(
        unfinished=False,
        recipe=SimpleNamespace(deploy=deploy),
        baseline=SimpleNamespace(deployment=Deployment(kind)),
        record={"steps": [], "model": run_record.checkpoint_given(run)},
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


@pytest.mark.parametrize(
    ("system", "folders", "line"),
    [
        ("posix", [], "yolo train 'model=my runs/best.pt'"),
        ("posix", ["/my code", "/b"], "PYTHONPATH='/my code:/b' yolo train 'model=my runs/best.pt'"),
        ("nt", [], 'yolo train "model=my runs/best.pt"'),
        ("nt", ["C:\\my code", "D:\\b"], 'set "PYTHONPATH=C:\\my code;D:\\b" && yolo train "model=my runs/best.pt"'),
    ],
)
def test_a_command_is_for_the_shell_of_the_system(
    system: str, folders: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    separator = ";" if system == "nt" else ":"
    monkeypatch.setattr(shell, "os", SimpleNamespace(name=system, pathsep=separator))
    assert text.command(["yolo", "train", "model=my runs/best.pt"], folders) == line


def test_a_figure_that_is_not_known_is_a_dash() -> None:
    assert [text.figure(one, ".2f", "~") for one in (None, 0.0, 1.234)] == ["-", "0.00~", "1.23~"]
    assert [text.megabytes(one) for one in (None, 0, 2_345_000)] == ["-", "0.00", "2.35"]


def test_cmd_does_not_end_a_command_at_what_is_in_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "os", SimpleNamespace(name="nt", pathsep=";"))
    assert text.command(["model=C:\\R&D\\best.pt", "data=my.yaml"]) == '"model=C:\\R&D\\best.pt" data=my.yaml'


def test_a_model_with_classes_of_the_users_own_needs_trust_and_their_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_blocks.py").write_text("from torch import nn\nclass Block(nn.Identity): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = nn.Sequential(importlib.import_module("my_blocks").Block())
    (line,) = _said(monkeypatch, tmp_path, model=model)
    place, *words = shlex.split(line.removeprefix("next: "))
    assert place == f"PYTHONPATH={tmp_path.resolve()}"
    assert words[:2] == ["yolo-prune", "export"]
    assert words[-1] == "safe=False"

    torch.save({"model": model}, tmp_path / "best.pt")
    monkeypatch.delitem(sys.modules, "my_blocks")
    assert checkpoint.foreign_code.folders_of(["torchvision", "__main__"]) == []
    monkeypatch.setattr("sys.path", [path for path in sys.path if path != str(tmp_path)])
    monkeypatch.setattr(checkpoint.tasks, "check_requirements", lambda *_: pytest.fail("the host installs a package"))
    with pytest.raises(PruneError, match=r"classes of the module my_blocks, .* PYTHONPATH=FOLDER"):
        checkpoint.load(tmp_path / "best.pt", safe=False)

    monkeypatch.setattr(checkpoint.tasks, "check_requirements", lambda *_: False)
    monkeypatch.setattr(sys, "argv", ["yolo", "train", f"model={tmp_path / 'best.pt'}", "prune=0.5"])
    with pytest.raises(ModuleNotFoundError) as caught:
        checkpoint.tasks.load_checkpoint(tmp_path / "best.pt")
    line = console.host_fault(caught.value, caught.tb, ["prune"])
    assert re.fullmatch(r"model=.*best\.pt: .* the module my_blocks, .* PYTHONPATH=FOLDER yolo train .*", line or "")


def test_a_run_that_has_exported_says_nothing_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _said(monkeypatch, tmp_path, deploy=("onnx",)) == []


@pytest.mark.parametrize(("reconstruct", "said"), [("none", False), ("weights", True)])
def test_a_step_does_not_promise_what_it_will_not_do(
    reconstruct: str, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(log, "say", lines.append)
    messages.step_begins(1, 3, reconstruct)
    assert lines[0].startswith("step 1/3 begins: channels are chosen and cut")
    assert ("fitted to make up for it" in lines[0]) is said
