# yolo-prune, AGPL-3.0 license
"""What stands in a recipe file: YAML -> plain values with the line each was written in, or what is wrong with the file.

Pure: PyYAML's parser, and of its constructors those for plain scalars only, so that no tag in a file builds an
object. Whether the values are legal is recipe.py's question.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml

from yolo_prune.errors import RecipeError

LARGEST = 1 << 16  # bytes; a recipe is a page of text, and prune=weights/best.pt must not be read whole
_WANTED = "a recipe is lines such as flops: 50%"
_CORE = "tag:yaml.org,2002:"
_LONGEST = 240  # characters of a value that a message repeats; long enough for a path


@dataclass(frozen=True)
class Given:
    """One value as the user gave it.

    Attributes:
        value: what was read.
        label: the words that name it in an error, such as "prune_steps=2.5" or "my-recipe.yaml:3: steps: 2.5".
        items: the labels of a list's items.
        line: where it stands in its file, from 1; 0 for an argument.
    """

    value: object
    label: str
    items: tuple[str, ...] = ()
    line: int = 0


@dataclass
class RecipeFile:
    """A recipe file's name (its stem), its settings by key, and what is wrong with it as (line, words)."""

    name: str
    given: dict[str, Given] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)


def read(path: Path, shown: str, keys: Iterable[str]) -> RecipeFile:
    """Read a recipe file.

    Args:
        path: where it lies. shown: what errors call it. keys: those a recipe may have.

    Returns:
        Its settings; the faults of its content are in it too.

    Raises:
        RecipeError: it is no file, or cannot be opened. The message goes on from the argument that named it.
    """
    if not os.path.isfile(path):  # False, where Path.is_file raises, for a name the file system refuses
        if os.path.isdir(path):
            raise RecipeError(f"is a folder: name a recipe file, such as {os.path.join(shown, 'my-recipe.yaml')}")
        raise RecipeError("is no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}"))
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise RecipeError(f"cannot be read ({error.strerror}): name a readable recipe file") from error
    file = RecipeFile(path.stem)
    if len(raw) > LARGEST:
        file.faults.append((1, f"{shown}: larger than {LARGEST >> 10} KiB; {_WANTED}"))
        return file
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{raw[error.start]:02x}"
        file.faults.append((line, f"{shown}:{line}: {byte} is not UTF-8 text: save the recipe as UTF-8"))
        return file
    _parse(text, shown, list(keys), file)
    return file


def show(value: object) -> str:
    """A value as the user typed it, on one line and short."""
    try:
        text = str(value)
    except ValueError:  # an int of more digits than Python prints
        return f"a huge {type(value).__name__}"
    if not text.isprintable():
        text = ascii(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}…"


def near(key: str, known: Iterable[str]) -> str:
    """The names that an unknown one may have meant, in words: did you mean …? Else all there are."""
    names = list(known)
    plain = key.strip().lower().replace("-", "_")
    if "prune" not in names:  # the keys of a file, where prune_flops is flops
        plain = plain.removeprefix("prune_")
    close = get_close_matches(plain, names, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def _parse(text: str, shown: str, keys: list[str], file: RecipeFile) -> None:
    """Take the settings and the faults out of the YAML into `file`."""

    def fault(line: int, words: str) -> None:
        file.faults.append((line, f"{shown}:{line}: {words}"))

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return fault(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}; {_WANTED}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return fault(line, f"not YAML: character {chr(error.character)!a} is not allowed; {_WANTED}")
    except RecursionError:
        return fault(1, f"nested too deeply; {_WANTED}")
    if root is None:
        return fault(1, f"empty; {_WANTED}")
    if not isinstance(root, yaml.MappingNode) or root.tag != f"{_CORE}map":
        return fault(_line(root), f"{_what(root)}, not a mapping of keys to values; {_WANTED}")
    seen: dict[str, int] = {}
    for key_node, node in root.value:
        key, line = _words(key_node), _line(key_node)
        words = f"{key}: {_words(node)}".rstrip()
        if key in seen:
            fault(line, f"{words} is a duplicate of {key} in line {seen[key]}: keep one of them")
            continue
        seen[key] = line
        if key not in keys or not isinstance(key_node, yaml.ScalarNode):
            fault(line, f"{words} is unknown: {near(key, keys)}")
            continue
        try:
            value = _plain(loader, node)
        except _NotPlainError as error:
            fault(line, f"{words} {error}")
            continue
        nested = node.value if isinstance(node, yaml.SequenceNode) else []
        items = tuple(f"{shown}:{_line(item)}: {key}: {_words(item)}".rstrip() for item in nested)
        file.given[key] = Given(value, f"{shown}:{line}: {words}", items, line)
    return None


class _NotPlainError(Exception):
    """A YAML node that a recipe cannot hold; the message is the rest of the fault's line."""


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    """A scalar, or a list of scalars. What is nested deeper comes back as an empty () or {}, which no field takes."""
    kind = node.tag.removeprefix(_CORE)
    if kind not in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map"):
        raise _NotPlainError(f"has the tag {_tag(node)}: a recipe holds plain values only, remove the tag")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item) if isinstance(item, yaml.ScalarNode) else () for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        return {}
    if kind == "null" and not node.value:
        raise _NotPlainError("is empty: give it a value, or leave the line out")
    if kind == "timestamp":  # no field is a date; as text it can name a module
        return str(node.value)
    try:
        value: object = loader.construct_object(node)
    except (ValueError, LookupError, OverflowError) as error:  # `!!int abc`, or more digits than Python converts
        raise _NotPlainError(f"cannot be read as {_tag(node)}: write a plain value") from error
    return value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _tag(node: yaml.Node) -> str:
    tag = str(node.tag)
    return show(f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag)


def _what(node: yaml.Node) -> str:
    if node.tag not in (f"{_CORE}seq", f"{_CORE}map") and not isinstance(node, yaml.ScalarNode):
        return f"the tag {_tag(node)}"
    return "a list" if isinstance(node, yaml.SequenceNode) else f"the value {_words(node)}"


def _words(node: yaml.Node) -> str:
    """A node as it stands in the file, shortened."""
    if isinstance(node, yaml.ScalarNode):
        return show(node.value)
    if isinstance(node, yaml.SequenceNode):
        inner = ", ".join(show(item.value) if isinstance(item, yaml.ScalarNode) else "…" for item in node.value[:5])
        return f"[{inner}{', …' if len(node.value) > 5 else ''}]"
    return "{…}"
