# yolo-prune, AGPL-3.0 license
"""Single values that a command or a function is given: read, checked, and refused in one line that says what is right.

The command line reads values as the host does, as Python literals, so a file called 2024 comes as a number; and what
comes from Python may be anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path

from yolo_prune.errors import PruneError
from yolo_prune.recipe.setting_names import meant

# The largest that makes sense; beyond it the host or the runtime ends in an error of its own, or in no memory.
_LARGEST = {"imgsz": 8192, "batch": 4096, "threads": 1024, "images": 100_000, "repeats": 1_000_000}
_LONGEST, _LONGEST_NUMBER = 240, 40  # characters of a value that a message repeats; long enough for a path


def path(name: str, given: object, example: str, suffixes: Sequence[str] = ()) -> Path:
    """A file or folder that the user names.

    Args:
        name: the argument. given: text, a path, or a whole number, whose digits are the name; a leading ~ is the home
            folder. example: what would be right. suffixes: of which it must have one; none: any will do.

    Raises:
        PruneError: it is none of these, or empty, or has another suffix.
    """
    if isinstance(given, int) and given is not True and given is not False:
        given = shown(given)
    if not isinstance(given, (str, os.PathLike)) or not str(given).strip():
        raise PruneError(f"{name}={shown(given)} is no name of a file or folder: write {name}={example}")
    place = Path(given)
    if place.parts[:1] == ("~",):  # a shell leaves model=~/best.pt as it is
        place = Path(os.path.expanduser(place))
    if suffixes and place.suffix not in suffixes:
        raise PruneError(
            f"{name}={shown(given)}: a file that ends in {' or '.join(suffixes)} is needed, such as {name}={example}"
        )
    return place


def data_set(given: object) -> str:
    """What the host's data= takes: the name of a file or folder, or an address, which stays as it is.

    Raises:
        PruneError: it is neither.
    """
    return given if isinstance(given, str) and "://" in given else str(path("data", given, "my.yaml"))


def whole(**given: object) -> None:
    """Raise PruneError unless all are whole numbers of 1 or more, and none absurd. None is not given."""
    given = {name: value for name, value in given.items() if value is not None}
    wrong = [
        f"{name}={shown(value)}"
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1
    ]
    if wrong:
        raise PruneError(f"{', '.join(wrong)}: a whole number of 1 or more is needed")
    large = [name for name, value in given.items() if name in _LARGEST and value > _LARGEST[name]]  # type: ignore[operator]
    if large:
        raise PruneError(
            "; ".join(f"{name}={shown(given[name])} is too large: {_LARGEST[name]} at most" for name in large)
        )


def switch(**given: object) -> None:
    """Raise PruneError unless all are True or False."""
    wrong = [f"{name}={shown(value)}" for name, value in given.items() if not isinstance(value, bool)]
    if wrong:
        raise PruneError(f"{', '.join(wrong)}: True or False is needed")


def patterns(name: str, given: object) -> list[str]:
    """Names or patterns of modules: text with commas between them, or a list of texts; None is none.

    Raises:
        PruneError: it is something else.
    """
    if given is None:
        return []
    items = given.split(",") if isinstance(given, str) else given
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise PruneError(f"{name}={shown(given)}: names or patterns of modules are needed, {name}=model.0,model.22.*")
    return [item.strip() for item in items if item.strip()]


def known(given: Iterable[str], names: Iterable[str], what: str, own: Iterable[str] = ()) -> None:
    """Raise PruneError where a keyword is unknown; the line names the nearest.

    Args:
        given: keywords. names: those that are taken. what: what the line calls one, such as "setting".
        own: further names that may have been meant: the function's own arguments.
    """
    listed = sorted(names)
    unknown = sorted(set(given) - set(listed))
    if unknown:
        every = [*listed, *own]
        words = {name: meant(name, every) for name in unknown}
        hints = [f"{shown(name)} ({words[name]})" if words[name] else shown(name) for name in unknown]
        raise PruneError(f"unknown {what} {', '.join(hints)}; known are {', '.join(listed)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """(did you mean …?) where a name is near, else nothing."""
    near = get_close_matches(name.lower(), list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def shown(value: object) -> str:
    """A value as the user typed it, on one line and short."""
    try:
        text = str(value)
    except Exception:  # of a user's own class, or an int of more digits than Python prints
        return "a huge int" if isinstance(value, int) else f"a {type(value).__name__}"
    if not text.isprintable():
        text = ascii(text)
    longest = _LONGEST_NUMBER if text.lstrip("+-").isdecimal() else _LONGEST
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
