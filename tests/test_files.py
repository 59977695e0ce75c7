# yolo-prune, AGPL-3.0 license
"""Files take their place whole or not at all, follow no link, and are tried before any work."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.checkout import ROOT
from yolo_prune import files
from yolo_prune.errors import PruneError
from yolo_prune.export import artifact_files


def _names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_file_is_replaced_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "record.json"
    files.replace(target, "née\n")
    files.replace(target, b"new")
    assert target.read_bytes() == b"new"
    assert _names(target.parent) == ["record.json"]


def test_a_planted_link_is_never_followed(tmp_path: Path) -> None:
    """The names that the temporary file had before this module, and every name that is there while it is written."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in (".out.json", ".out.json.part", f".out.json.{os.getpid()}", f".out.json.{os.getpid()}.old"):
        (folder / name).symlink_to(mine)
    seen: set[str] = set()
    for _ in range(3):
        with files.writing(folder / "out.json") as stream:
            stream.write(b"theirs")
            seen |= {name for name in _names(folder) if not (folder / name).is_symlink()} - {"out.json"}
    assert len(seen) == 3  # another name each time: nobody can plant the next one
    source = tmp_path / "source"
    source.mkdir()
    (source / "x").write_text("x")
    artifact_files.place(source, folder / "best_ncnn_model")
    artifact_files.place(source / "x", folder / "out.json")
    assert mine.read_text() == "mine"


def test_an_existing_name_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even who guesses the name gets nothing: the file must not exist."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "guessed")
    (tmp_path / f"{files._own_prefix()}guessed").symlink_to(mine)
    with pytest.raises(PruneError, match=r"out\.json cannot be written: File exists"):
        files.replace(tmp_path / "out.json", b"theirs")
    assert mine.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot be asked whether a process lives")
def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys; from pathlib import Path; from yolo_prune import files\n"
        "with files.room(Path('model')) as folder, files.writing(Path('record.json')) as stream:\n"
        "    (folder / 'half').touch(); stream.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, env=environment, check=False)
    left = _names(tmp_path)
    assert len(left) == 2, "a file and a folder"
    elsewhere = tmp_path / left[0].replace(files._machine(), "0badcafe")  # of another machine, still writing
    elsewhere.touch()
    (tmp_path / "best.pt").touch()
    (tmp_path / ".yolo-prune-0badcafe-1-of-old").touch()
    os.utime(tmp_path / ".yolo-prune-0badcafe-1-of-old", (0, 0))
    (tmp_path / f"{left[1]}x").symlink_to(tmp_path / "best.pt")
    with files.writing(tmp_path / "record.json") as stream:
        stream.write(b"whole")
        files.sweep(tmp_path)
    assert _names(tmp_path) == sorted([elsewhere.name, "best.pt", "record.json"])
    assert (tmp_path / "record.json").read_bytes() == b"whole"


def test_a_link_at_the_place_itself_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """As a content-addressed store has them: what the link points to is not ours to change."""
    store = tmp_path / "store"
    store.write_text("kept")
    (tmp_path / "last.pt").symlink_to(store)
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nowhere")
    for name in ("last.pt", "dangling.pt"):
        files.require_place("out", tmp_path / name, "a.pt")
        files.replace(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
        assert not (tmp_path / name).is_symlink()
    assert store.read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()
    kept = tmp_path / "kept_model"
    kept.mkdir()
    (kept / "a").write_text("kept")
    (tmp_path / "best_model").symlink_to(kept)
    new = tmp_path / "new_model"
    new.mkdir()
    artifact_files.place(new, tmp_path / "best_model")
    assert not (tmp_path / "best_model").is_symlink()
    assert _names(kept) == ["a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("other")])
def test_whatever_stops_it_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "record.json"
    target.write_text("old")
    wanted: Any = PruneError if isinstance(error, OSError) else type(error)

    def write(moment: str) -> None:
        with files.writing(target) as stream:
            stream.write(b"half")
            if moment == "write":
                raise error

    def fail(*_: object) -> None:
        raise error

    for moment in ("write", "rename"):
        with pytest.MonkeyPatch.context() as patch:
            if moment == "rename":
                patch.setattr(files.os, "replace", fail)
            with pytest.raises(wanted) as caught:
                write(moment)
        assert target.read_text() == "old"
        assert _names(tmp_path) == ["record.json"]
    if isinstance(error, OSError):
        assert str(caught.value) == f"{target} cannot be written: No space left on device"


def test_content_is_synced_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    stock_sync, stock_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        stock_sync(descriptor)

    def rename(source: Any, target: Any) -> None:
        order.append("rename")
        stock_replace(source, target)

    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(files.os, "replace", rename)
    files.replace(tmp_path / "a", b"x")
    assert order == ["file", "rename", "folder"]


def test_the_mode_is_what_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.replace(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    name = "x" * 250 + ".json"
    files.replace(tmp_path / name, b"x")
    assert _names(tmp_path) == [name]
    with pytest.raises(PruneError, match="cannot be written: File name too long"):
        files.replace(tmp_path / ("x" * 256), b"x")


def test_a_folder_that_cannot_be_put_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, source = tmp_path / "target", tmp_path / "source"
    target.mkdir()
    (target / "old").write_text("old")
    source.mkdir()
    stock = os.replace

    def fail(first: Any, second: Any) -> None:
        if Path(second) == target and not Path(first).name.startswith("old-"):
            raise OSError(18, "Invalid cross-device link")
        stock(first, second)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(PruneError, match="target cannot be written: Invalid cross-device link"):
        artifact_files.place(source, target)
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["source", "target"]


# The place is tried before the work -----------------------------------------------------------------------------------


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("old")
    files.require_place("out", tmp_path / "there.json", "a.json")
    files.require_place("out", tmp_path / "new" / "folder" / "a.json", "a.json")
    files.require_folder("out", tmp_path / "another" / "one")
    assert (tmp_path / "there.json").read_text() == "old"
    assert _names(tmp_path / "new" / "folder") == []
    assert _names(tmp_path / "another" / "one") == []


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    cases: list[tuple[Path, str]] = [
        (tmp_path / "folder.json", r"cannot be written: a folder of that name is there"),
        (tmp_path / "pipe.json", r"cannot be written: what is there is no ordinary file"),
        (tmp_path / "file" / "a.json", r"cannot be written: (Not a directory|File exists)"),
        (tmp_path / ("x" * 300 + ".json"), r"cannot be written: File name too long"),
        (tmp_path / "a\0b.json", r"cannot be written: no name of a file"),
        (tmp_path / "\ud800.json", r"cannot be written: no name of a file"),
        (Path("/proc/nothing/a.json"), r"cannot be written: "),
    ]
    for target, words in cases:
        with pytest.raises(PruneError, match=words) as caught:
            files.require_place("out", target, "a.json")
        assert str(caught.value).startswith("out=")
        assert str(caught.value).endswith("name a file in a folder of yours, such as out=a.json")
        assert "\n" not in str(caught.value)
        with pytest.raises(PruneError, match="cannot be written"):
            files.replace(target, b"x")
    for folder, words in ((tmp_path / "file", "a file is in the way"), (Path("/proc/nothing"), "nothing can be")):
        with pytest.raises(PruneError, match=words):
            files.require_folder("out", folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_nobody_else_replaces_files() -> None:
    """The pattern that there were seven copies of stands in one module."""
    guessable = re.compile(r"os\.replace\(|os\.rename\(|os\.getpid\(\)|\.rename\(|with_name\(f\"\.\{")
    users = {path.name for path in (ROOT / "yolo_prune").glob("*.py") if guessable.search(path.read_text("utf-8"))}
    assert users == {"files.py"}
    tree = ast.parse((ROOT / "yolo_prune" / "files.py").read_text("utf-8"))
    assert {"replace", "writing", "room", "put"} <= {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
