# yolo-prune, AGPL-3.0 license
"""Writing files and folders: each takes its place whole, in one step, or not at all. The one place where that is done.

What is new is written beside its place under a name that nobody can guess (the file must not exist, so no link that was
planted there is followed), synced to the disk, renamed, and its folder synced. A kill or a full disk leaves the old
content. A link that stands at the place itself is replaced, never followed: what it points to, such as an entry of a
content-addressed store, is not ours to change. This module runs on devices too (see device/probe_kit.py): Python 3.8,
standard library.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from yolo_prune.errors import PruneError

_PREFIX = ".yolo-prune-"  # of what stands beside; short, because names may be as long as the file system allows
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_DAY = 24 * 3600  # seconds, after which nobody is still writing


def replace(path: Path, content: bytes | str) -> None:
    """Write a file in one step: whoever opens it sees the old content or the new, never a part. Folders are made.

    Args:
        path: the file. content: its bytes; text is written as UTF-8, with its line ends as they are.

    Raises:
        PruneError: it cannot be written; the old content stands.
    """
    with writing(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content becomes the file `path` when the block ends well; see `replace`.

    Raises:
        PruneError: it cannot be written. Whatever the block raises that is no OSError comes through.
    """
    path = Path(path)
    try:
        _require_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_own_prefix() + secrets.token_hex(8))
        try:
            with _new(temporary) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            _remove(temporary)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def room(target: Path) -> Iterator[Path]:
    """A new empty folder of nobody else's beside `target`, on its file system; it goes at the end, with what is in it.

    Raises:
        PruneError: it cannot be made, or the block raised an OSError: `target` cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_own_prefix(), dir=target.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise cannot_write(target, error) from error


def put(source: Path, target: Path) -> None:
    """Rename a file or folder that stands in a `room` beside `target` to its place; what lay there goes.

    A folder cannot be replaced in one step: the old one goes into the room first, and back if the second step fails.

    Raises:
        OSError: it cannot be renamed; what lay there stands.
    """
    for file in [source] if source.is_file() else [item for item in source.rglob("*") if item.is_file()]:
        _sync(file)
    old = None
    if source.is_dir() and os.path.lexists(target):
        old = source.with_name("old-" + secrets.token_hex(8))
        os.replace(target, old)
    try:
        os.replace(source, target)
    except BaseException:
        if old is not None:
            os.replace(old, target)
        raise
    _sync_folder(target.parent)


def require_place(argument: str, target: Path, example: str) -> None:
    """Make sure, before any work, that a file can be written; the folders on its way are made.

    Args:
        argument: what the user's words call it, such as "out". target: the file. example: a name that would be right.

    Raises:
        PruneError: a folder or a device is in the way, or nothing can be written there.
    """
    try:
        _require_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _require_writable(target.parent)
    except OSError as error:
        raise PruneError(
            f"{argument}={target} cannot be written: {reason(error)}; name a file in a folder of yours, "
            f"such as {argument}={example}"
        ) from error


def require_folder(argument: str, target: Path) -> None:
    """Make sure, before any work, that files can be put into a folder; it is made, with those on its way.

    Raises:
        PruneError: a file is in the way, or nothing can be written there.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        _require_writable(target)
    except OSError as error:
        words = "a file is in the way" if isinstance(error, FileExistsError) else reason(error)
        raise PruneError(
            f"{argument}={target}: nothing can be written there: {words}; name a folder, such as {argument}=runs/new"
        ) from error


def _require_writable(folder: Path) -> None:
    """Write an empty file into a folder and remove it; raise OSError where that cannot be."""
    temporary = folder / (_own_prefix() + secrets.token_hex(8))
    try:
        _new(temporary).close()
    finally:
        _remove(temporary)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder: those of this machine that are gone, or of a day ago.

    Nothing that another name begins is looked at, and what cannot be removed stays.
    """
    for left in folder.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            machine, _, rest = left.name[len(_PREFIX) :].partition("-")
            number = rest.partition("-")[0]
            gone = machine == _machine() and number.isdigit() and _is_gone(int(number))
            if gone or time.time() - left.lstat().st_mtime > _DAY:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _own_prefix() -> str:
    """Begins the names of what this process writes beside: whose it is, for `sweep`."""
    return f"{_PREFIX}{_machine()}-{os.getpid()}-"


def _machine() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _is_gone(process: int) -> bool:
    """Whether there is no such process here; False where it cannot be asked (Windows ends the one that is asked)."""
    if os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def cannot_write(path: Path, error: BaseException) -> PruneError:
    """The one line for a file that cannot be written."""
    return PruneError(f"{path} cannot be written: {reason(error)}")


def named_by(error: OSError) -> Path | None:
    """The file that an error is of, of a copy the one that is made; None where it names none, or a descriptor."""
    name = error.filename if error.filename2 is None else error.filename2
    return None if name is None or isinstance(name, int) else Path(os.fsdecode(name))


def is_of_writing(error: BaseException, *folders: Path) -> bool:
    """Whether an error is of a disk, or of a file in these folders; a disk that is full names no file in a write."""
    if not isinstance(error, OSError):
        return False
    name = named_by(error)
    place = None if name is None else Path(os.path.realpath(name))
    ours = place and any(Path(os.path.realpath(folder)) in (place, *place.parents) for folder in folders)
    return bool(ours) or error.errno in _OF_A_DISK


def is_of_a_disk(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is of a disk that is full or broken."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_A_DISK:
            return True
        error = error.__cause__
    return False


def reason(error: BaseException) -> str:
    """What the system says, without the number and the names, in one line."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).partition("\n")[0]


def _new(path: Path) -> BinaryIO:
    """Open a file that must not exist yet, not even as a link; its mode is what the umask says."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def _require_free(path: Path) -> None:
    """Raise OSError where something stands that a file must not replace: a folder, a device, a pipe."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except ValueError as error:  # a null byte, or half of a character
        raise OSError(0, "no name of a file") from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "a folder of that name is there")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OSError(0, "what is there is no ordinary file")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _sync(path: Path) -> None:
    """Have a file's content on the disk before its name says that it is there."""
    with path.open("r+b" if os.name == "nt" else "rb") as stream:  # Windows syncs only what may be written
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Have a rename on the disk, where the system can open a folder (Windows cannot) and its file system syncs one."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
