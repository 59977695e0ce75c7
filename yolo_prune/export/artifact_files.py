# yolo-prune, AGPL-3.0 license
"""An exported artifact on disk, a file or a folder: put in its place whole, measured, and known by its content."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from yolo_prune.errors import PruneError
from yolo_prune.files import put, room


def place(source: Path, target: Path) -> None:
    """Put a copy of an artifact at `target`: whoever looks sees the old one or the new, never a part.

    Raises:
        PruneError: it cannot be written, or something else is in the way.
    """
    require_free(target, source.is_dir())
    with room(target) as folder:
        copied = folder / target.name
        if source.is_dir():
            shutil.copytree(source, copied)
        else:
            shutil.copyfile(source, copied)
        put(copied, target)


def require_free(target: Path, folder: bool) -> None:
    """Raise PruneError where a file stands in the place of an artifact that is a folder, or the other way round."""
    if target.exists() and target.is_dir() != folder:
        kind = "folder" if target.is_dir() else "file"
        raise PruneError(f"{target}: a {kind} of that name is in the way of the export; move it")


def files(artifact: Path) -> list[Path]:
    """All files of an artifact, in the order of their names."""
    return sorted(path for path in artifact.rglob("*") if path.is_file()) if artifact.is_dir() else [artifact]


def megabytes(artifact: Path) -> float:
    """Its size in millions of bytes, as `prune_size=` counts; the host's own lines say MB of 1,048,576."""
    return sum(path.stat().st_size for path in files(artifact)) / 1e6


def sha256(artifact: Path) -> str:
    """Of a file its content, of a folder all names and contents."""
    if not artifact.is_dir():
        return hashlib.sha256(artifact.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for path in files(artifact):
        digest.update(f"{path.relative_to(artifact).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
