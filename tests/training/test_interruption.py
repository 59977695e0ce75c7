# yolo-prune, AGPL-3.0 license
"""Ctrl-C, a full disk and a second run in the same folder: one line each, and nothing of the run is lost."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.runs import ANY_CHOICE, SMALL
from tests.helpers.small_models import untrained
from tests.helpers.untrained import save
from yolo_prune import folder_lock
from yolo_prune.errors import PruneError
from yolo_prune.host import console
from yolo_prune.host.run import Run
from yolo_prune.training.interruption import said


def start(data: Path, folder: Path, event: str, error: BaseException) -> Any:
    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise error

    yolo = untrained()
    yolo.add_callback(event, stop)
    words = {**SMALL, "data": str(data), "project": str(folder), "name": "run", "epochs": 3, "prune": 0.5}
    return yolo.train(**words, prune_start=0.7, **ANY_CHOICE)


def stand_in(folder: Path, resumed: bool = False, **others: Any) -> Run:
    """A run that has no more than its files."""
    return Run(
        SimpleNamespace(resume=resumed, save_dir=folder, last=folder / "last.pt", best=folder / "best.pt", **others)
    )


def write_and_stop(*written: Path, error: BaseException | None = None) -> None:
    for path in written:
        path.touch()
    raise error or KeyboardInterrupt


def test_ctrl_c_says_how_to_go_on(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ultralytics"), pytest.raises(KeyboardInterrupt) as caught:
        start(tiny_data, tmp_path, "on_train_batch_end", KeyboardInterrupt())
    last = tmp_path / "run" / "weights" / "last.pt"
    assert f"stopped. To go on: yolo train resume model={last}" in caplog.text
    assert getattr(caught.value, "yolo_prune_said", False), "so that no traceback follows"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PruneError, match=r"cannot be written: No space left on device.*resume model=") as refused:
        start(tiny_data, tmp_path / "full", "on_fit_epoch_end", full)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("number", "name", "words"),
    [
        (errno.ENOSPC, None, "{run} cannot be written: no. Make room. No epoch"),
        (errno.EDQUOT, "/else/where", "/else/where cannot be written: no. Make room. No epoch"),
        (errno.EROFS, 3, "{run} cannot be written: no. Make it writable. No epoch"),
        (errno.EACCES, "{run}/results.csv", "{run}/results.csv cannot be written: no. Make it writable. No epoch"),
        (errno.EACCES, b"/data/a.txt", "/data/a.txt cannot be opened: no. Allow it to be. No epoch"),
        (errno.EIO, None, "a disk cannot be read or written: no. Look after the disk. No epoch"),
        (errno.EIO, "/data/a.jpg", "/data/a.jpg cannot be read or written: no. Look after the disk. No epoch"),
    ],
)
def test_what_a_disk_refuses_is_told_apart(tmp_path: Path, number: int, name: Any, words: str) -> None:
    run = stand_in(tmp_path)
    named = name.format(run=tmp_path) if isinstance(name, str) else name
    with pytest.raises(PruneError) as refused, said(run):
        raise OSError(number, "no", named)
    assert str(refused.value).startswith(words.format(run=tmp_path))


def test_of_a_copy_the_file_that_is_made_is_named(tmp_path: Path) -> None:
    run = stand_in(tmp_path)
    with pytest.raises(PruneError, match=r"^/new cannot be written: no\."), said(run):
        raise OSError(errno.ENOSPC, "no", "/old", None, "/new")  # as shutil.copyfile says it


@pytest.mark.parametrize(
    ("name", "resumed", "written", "said_so"),
    [
        ("best.pt", False, True, "start it again. What it had cut by then, untrained, is {file}"),
        ("best.pt", False, False, "there is nothing to resume: start it again\n"),  # it is of an earlier run
        ("last.pt", False, True, "To go on: yolo train resume model={file}"),
        ("last.pt", False, False, "there is nothing to resume: start it again\n"),
        ("last.pt", True, False, "To go on: yolo train resume model={file}"),
    ],
)
def test_what_an_earlier_run_left_in_the_folder_is_not_named(
    name: str, resumed: bool, written: bool, said_so: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.touch()
    os.utime(path, (1, 1))
    run = stand_in(tmp_path, resumed)
    with caplog.at_level(logging.WARNING, logger="ultralytics"), pytest.raises(KeyboardInterrupt), said(run):
        write_and_stop(*([path] if written else []))
    assert said_so.format(file=path) in caplog.text


def test_an_error_of_no_file_stays_what_it_is(tmp_path: Path) -> None:
    run = stand_in(tmp_path)
    for error in (PermissionError(errno.EACCES, "a socket's"), FileNotFoundError(errno.ENOENT, "gone", "/data/a.jpg")):
        with pytest.raises(type(error)) as caught, said(run):
            raise error
        assert caught.value is error


def test_the_parent_of_workers_that_failed_says_how_to_go_on(tmp_path: Path) -> None:
    parent = stand_in(tmp_path, ddp=True)
    with pytest.raises(PruneError, match=r"a process of this training failed; .* start it again"), said(parent):
        raise subprocess.CalledProcessError(1, ["python"])
    with pytest.raises(PruneError, match=r"To go on: yolo train resume model=.*last\.pt"), said(parent):
        write_and_stop(parent.last, error=subprocess.CalledProcessError(1, ["python"]))


def test_a_command_that_a_callback_ran_and_that_failed_is_no_process_of_the_training(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="rsync"), said(stand_in(tmp_path)):
        raise subprocess.CalledProcessError(1, ["rsync"])


@pytest.mark.parametrize(
    ("epoch", "ended"), [(1, False), (2, True), (-1, True)], ids=["on its way", "last", "stripped"]
)
def test_a_run_whose_epochs_are_done_is_not_said_to_go_on(
    epoch: int, ended: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`prune_qat=` and `prune_deploy=` work for minutes after the last epoch."""
    run = stand_in(tmp_path, epochs=3, model="small.pt")

    def stop() -> None:
        content = torch.load(save(run.best, 0), weights_only=False)
        torch.save({**content, "epoch": epoch}, run.last)
        raise KeyboardInterrupt

    with caplog.at_level(logging.WARNING, logger="ultralytics"), pytest.raises(KeyboardInterrupt), said(run):
        stop()
    assert (f"All epochs had been trained: the model is {run.best}" in caplog.text) is ended
    assert ("yolo train resume" in caplog.text) is not ended


def test_a_lock_that_was_removed_while_it_was_opened_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stock, opened = tmp_path / "lock", folder_lock._lock, []

    def lock(stream: Any) -> bool:
        opened.append(stream)
        if len(opened) == 1:
            path.unlink()  # whoever held it lets go now
        return stock(stream)

    monkeypatch.setattr(folder_lock, "_lock", lock)
    assert folder_lock.try_to_hold(path)
    assert len(opened) == 2
    assert path.exists(), "the next process finds it, and does not get it"
    folder_lock.let_go(path)


def test_a_class_of_the_users_own_is_found_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own_blocks.py").write_text("from torch import nn\nclass Block(nn.Identity): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = stand_in(tmp_path, start_epoch=0, epoch=1, model=nn.Sequential(importlib.import_module("own_blocks").Block()))
    with caplog.at_level(logging.WARNING, logger="ultralytics"), pytest.raises(KeyboardInterrupt), said(run):
        write_and_stop(run.last)
    assert f"To go on: PYTHONPATH={tmp_path.resolve()} yolo train resume model={run.last}" in caplog.text


HOLD = """
import sys
from pathlib import Path
from yolo_prune.host.run import Run
from yolo_prune import folder_lock
from yolo_prune.training.interruption import said
folder_lock.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks of this kind are of POSIX")
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(PruneError, match=r"another run is training in .*another name="):
        folder_lock.hold(tmp_path)
    holder.kill()
    holder.wait()
    folder_lock.hold(tmp_path)  # a killed run holds nothing
    folder_lock.hold(tmp_path)
    folder_lock.release(tmp_path)


FORK = """
import os, sys, time
from pathlib import Path
from yolo_prune import folder_lock
folder_lock.hold(Path(sys.argv[1]))
if child := os.fork():
    print(child, flush=True)
else:
    time.sleep(600)  # a worker that loads data
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks of this kind are of POSIX")
def test_workers_that_outlive_a_killed_run_do_not_hold_its_folder(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", FORK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run.stdout
    child = int(run.stdout.readline())
    try:
        run.wait(60)
        folder_lock.hold(tmp_path)
        folder_lock.release(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_traceback_is_left_out_of_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    error = KeyboardInterrupt()
    error.yolo_prune_said = True  # type: ignore[attr-defined]
    console.install([])
    sys.excepthook(KeyboardInterrupt, error, None)
    assert capsys.readouterr().err == ""
