# yolo-prune, AGPL-3.0 license
"""What stands in a recipe file: YAML -> plain values with the line each was written in, or what is wrong with the file.

Scalars are read as YAML 1.2's core schema does (https://yaml.org/spec/1.2.2/#103-core-schema), without its hexadecimal,
octal, infinite and missing numbers: numbers are numbers, true and false are booleans, and the rest is text. PyYAML by
itself reads YAML 1.1, where 2:4 is 124 (base 60), 010 is 8, 1_000 is 1000, `on` is True and 2024-01-01 is a date.

Pure: PyYAML's parser alone; no tag in a file builds an object. Whether the values are legal is settings.py's question.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from yolo_prune.errors import RecipeError
from yolo_prune.recipe.setting_names import near
from yolo_prune.recipe.value_checks import shown

LARGEST = 1 << 16  # bytes; a recipe is a page of text, and prune=weights/best.pt must not be read whole
_WANTED = "a recipe is lines such as flops: 50%"
_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}


class _Loader(yaml.SafeLoader):
    """PyYAML's parser, with the core schema's idea of what a plain scalar means in place of YAML 1.1's."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none of its own (PyYAML 6.0, resolver.py)."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _CORE + _kind(str(value))
        tag: str = super().resolve(kind, value, implicit)
        return tag


def _kind(text: str) -> str:
    """What a plain scalar is: null, bool, int, float or str."""
    if text in _NULLS:
        return "null"
    if text in _WORDS:
        return "bool"
    if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):  # 1e999, and a 1 with 400 zeros
        return "str"
    return "int" if _INT.fullmatch(text) else "float"


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


def read(path: Path, called: str, keys: Iterable[str]) -> RecipeFile:
    """Read a recipe file.

    Args:
        path: where it lies. called: what errors call it. keys: those a recipe may have.

    Returns:
        Its settings; the faults of its content are in it too.

    Raises:
        RecipeError: it is no file, or cannot be opened. The message goes on from the argument that named it.
    """
    if not os.path.isfile(path):  # False, where Path.is_file raises, for a name the file system refuses
        if os.path.isdir(path):
            raise RecipeError(f"is a folder: name a recipe file, such as {os.path.join(called, 'my-recipe.yaml')}")
        raise RecipeError("is no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}"))
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise RecipeError(f"cannot be read ({error.strerror}): name a readable recipe file") from error
    file = RecipeFile(path.stem)
    if len(raw) > LARGEST:
        file.faults.append((1, f"{called}: larger than {LARGEST >> 10} KiB; {_WANTED}"))
        return file
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{raw[error.start]:02x}"
        file.faults.append((line, f"{called}:{line}: {byte} is not UTF-8 text: save the recipe as UTF-8"))
        return file
    _parse(text, called, list(keys), file)
    return file


def _parse(text: str, called: str, keys: list[str], file: RecipeFile) -> None:
    """Take the settings and the faults out of the YAML into `file`."""

    def fault(line: int, words: str) -> None:
        file.faults.append((line, f"{called}:{line}: {words}"))

    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return fault(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}; {_WANTED}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return fault(line, f"not YAML: character {chr(error.character)!a} is not allowed; {_WANTED}")
    except RecursionError:
        return fault(1, f"nested too deeply; {_WANTED}")
    except (ValueError, OverflowError):  # of chr(): an escape such as "\\UFFFFFFFF", in PyYAML 6.0 without a mark
        line = next((n for n, row in enumerate(text.splitlines(), 1) if "\\U" in row), 1)
        return fault(line, f"not YAML: an escape that is no character; {_WANTED}")
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
            value = _plain(node)
        except _NotPlainError as error:
            fault(line, f"{words} {error}")
            continue
        nested = node.value if isinstance(node, yaml.SequenceNode) else []
        items = tuple(f"{called}:{_line(item)}: {key}: {_words(item)}".rstrip() for item in nested)
        file.given[key] = Given(value, f"{called}:{line}: {words}", items, line)
    return None


class _NotPlainError(Exception):
    """A YAML node that a recipe cannot hold; the message is the rest of the fault's line."""


def _plain(node: yaml.Node) -> object:
    """A scalar, or a list of scalars. What is nested deeper comes back as an empty () or {}, which no field takes."""
    kind = node.tag.removeprefix(_CORE)
    if kind not in ("str", "int", "float", "bool", "null", "seq", "map"):
        raise _NotPlainError(f"has the tag {_tag(node)}: a recipe holds plain values only, remove the tag")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) if isinstance(item, yaml.ScalarNode) else () for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        return {}
    text = str(node.value)
    if kind == "null" and not text:
        raise _NotPlainError("is empty: give it a value, or leave the line out")
    if kind != "str" and kind != _kind(text) and (kind, _kind(text)) != ("float", "int"):  # `!!int abc`
        raise _NotPlainError(f"cannot be read as {_tag(node)}: write a plain value")
    kinds: dict[str, Callable[[str], object]] = {"str": str, "int": int, "float": float, "bool": _WORDS.get}
    return None if kind == "null" else kinds[kind](text)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _tag(node: yaml.Node) -> str:
    tag = str(node.tag)
    return shown(f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag)


def _what(node: yaml.Node) -> str:
    if node.tag not in (f"{_CORE}seq", f"{_CORE}map") and not isinstance(node, yaml.ScalarNode):
        return f"the tag {_tag(node)}"
    return "a list" if isinstance(node, yaml.SequenceNode) else f"the value {_words(node)}"


def _words(node: yaml.Node) -> str:
    """A node as it stands in the file, shortened."""
    if isinstance(node, yaml.ScalarNode):
        return shown(node.value)
    if isinstance(node, yaml.SequenceNode):
        inner = ", ".join(shown(item.value) if isinstance(item, yaml.ScalarNode) else "…" for item in node.value[:5])
        return f"[{inner}{', …' if len(node.value) > 5 else ''}]"
    return "{…}"
