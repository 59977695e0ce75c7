# yolo-prune, AGPL-3.0 license
"""The folder of a sweep: one sweep at a time, of one request; and what its points have come to, which survives a kill.

    sweep.json              the request, and what makes it the one that it is
    train.json              the cuts that are not trained, decided once
    NAME/                   the run folder of a point, as the host leaves it
    NAME/cut.json           what it is after the cut alone; NAME/cut.pt, its model
    NAME/trained.json       what it is after its training
    NAME/cut.log, train.log what the host said

A point is finished where its file is there: each is written whole, by the process that did the work, as its last act.
Files of a point are noted relative to the folder, which may be moved; others, such as the user's model, absolute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yolo_prune import files, folder_lock
from yolo_prune.errors import PruneError
from yolo_prune.report import text
from yolo_prune.sweeps import request as requests
from yolo_prune.sweeps.points import Point
from yolo_prune.sweeps.request import Request

_REQUEST = "sweep.json"
STAGES = ("cut", "trained")


def take(asked: Request) -> Path:
    """Take the folder of a request for this process.

    Raises:
        PruneError: it cannot be written, another sweep is at work in it, or the results of another one lie there.
    """
    folder = Path(asked.out)
    try:
        foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / _REQUEST).exists()
    except OSError:
        foreign = False  # said below
    if foreign and not all(item.name.startswith((".", "device-")) for item in folder.iterdir()):
        raise PruneError(f"out={folder} holds other files and no sweep; name a new folder, such as {_another(folder)}")
    files.require_folder("out", folder)
    folder = folder.resolve()
    try:
        free = folder_lock.try_to_hold(folder / ".running")
    except OSError as error:
        raise PruneError(f"out={asked.out}: nothing can be written there: {files.reason(error)}") from None
    if not free:
        raise PruneError(
            f"another sweep is at work in {asked.out}: wait for it, or name another folder, such as "
            f"{_another(Path(asked.out))}"
        )
    files.sweep(folder)
    return folder


def give_back(folder: Path) -> None:
    """Let another sweep have the folder."""
    folder_lock.let_go(folder / ".running")


def require_same(folder: Path, asked: Request) -> None:
    """Raise unless the results that lie in a folder are of this request.

    Raises:
        PruneError: they are of another one; the line says in what.
    """
    old = read(folder / _REQUEST)
    if not old:
        return
    before = int(old.get("request", {}).get("epochs") or 0)
    words = requests.differences(old.get("identity", {}), requests.identity(asked), (before, asked.epochs))
    if words:
        raise PruneError(
            f"out={asked.out} holds another sweep ({'; '.join(words)}); name another folder, such as "
            f"{_another(Path(asked.out))}, or give the same arguments to go on with it"
        )


def require_same_cuts(folder: Path, asked: Request, every: Iterable[Point]) -> None:
    """Raise where a point that lies in a folder was cut by other arguments than it would be now, by another version.

    Args:
        every: the points of the request. Their device profiles may lie elsewhere now; `require_same` knows the content.

    Raises:
        PruneError: the line names the point and what differs.
    """
    for point in every:
        after = json.loads(json.dumps(point.cut or {}))
        for stage in STAGES:
            content = outcome(folder, point.name, stage) or {}
            before = content.get("point", {}).get("cut") or {}
            if not content or content.get("failed") or "point" not in content:
                continue
            if "prune_profile" in before and "prune_profile" in after:
                before = {**before, "prune_profile": after["prune_profile"]}
            if words := requests.differences(before, after, (0, 0)):
                raise PruneError(
                    f"out={asked.out}: another version of yolo-prune cut {point.name} otherwise ({'; '.join(words)}), "
                    f"and the two do not compare; name another folder, such as {_another(Path(asked.out))}"
                )


def note(folder: Path, asked: Request) -> None:
    """Write down whose folder it is."""
    write(folder / _REQUEST, {"request": asked.as_dict(), "identity": requests.identity(asked)})


def outcome(folder: Path, name: str, stage: str) -> dict[str, Any] | None:
    """What a point came to in a stage of `STAGES`, its `weights` as they lie now; None where it is not finished."""
    content = read(folder / name / f"{stage}.json")
    if content.get("weights"):
        content["weights"] = str(now(folder, name, content["weights"]))
    return content or None


def finish(folder: Path, name: str, stage: str, content: Mapping[str, Any]) -> None:
    """Write down what a point came to: from here on it is finished. Its `weights` are a path, absolute or as given."""
    if content.get("weights"):
        content = {**content, "weights": noted(folder, name, content["weights"])}
    write(folder / name / f"{stage}.json", content)


def noted(folder: Path, name: str, path: str | Path) -> str:
    """How the path of a file is written down: relative to the folder of the sweep where it is in that of the point."""
    whole = Path(os.path.abspath(path))
    own = whole.is_relative_to(folder / name)
    return whole.relative_to(folder).as_posix() if own else str(whole)


def now(folder: Path, name: str, path: str) -> Path:
    """Where a file lies that was `noted`.

    Earlier versions noted files of the point absolute, and the user's as they had been given.
    """
    given = Path(path)
    if given.parts[:1] == (name,):
        return folder / given
    if given.is_absolute() and not given.exists() and name in given.parts:  # the folder has been moved since
        end = len(given.parts) - given.parts[::-1].index(name)
        moved = folder.joinpath(name, *given.parts[end:])
        return moved if moved.exists() else given
    return given


def beaten(folder: Path) -> list[str] | None:
    """The points that are not trained, where that was decided in an earlier part of this sweep."""
    names = read(folder / "train.json").get("beaten")
    return names if isinstance(names, list) else None


def decide(folder: Path, names: list[str]) -> None:
    """Write down which points are not trained: what is timed once more must not change it."""
    write(folder / "train.json", {"beaten": names})


def read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty where there is none, or nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one step."""
    files.replace(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _another(folder: Path) -> str:
    """How a folder beside this one, which is not there yet, is typed."""
    number = 2
    while (folder.parent / f"{folder.name}{number}").exists():
        number += 1
    return text.command([f"out={folder.parent / f'{folder.name}{number}'}"])
