# yolo-prune, AGPL-3.0 license
"""Files that a run keeps for itself, in its folder `pruning`: plain data and tensors, and nothing that could run code.

A folder of a run may have come from anywhere before it is resumed, so what is read from it is read by PyTorch's
restricted loader (`torch.load`, `weights_only=True`) alone.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_prune import files
from yolo_prune.errors import PruneError, first_line


def write(path: Path, state: Mapping[str, Any], use: str) -> None:
    """Write a file whole, in one step.

    Args:
        path: of the file. state: of dicts, lists, strings, numbers and tensors. use: what for, to end a message with.

    Raises:
        PruneError: it cannot be written (a full disk, a folder that is read-only), or holds something else.
    """
    buffer = io.BytesIO()
    torch.save(_plain(state), buffer)
    try:
        files.replace(path, buffer.getvalue())
    except PruneError as error:
        raise PruneError(f"{error} ({use})") from error


def read(path: Path, use: str, device: Any = "cpu") -> dict[str, Any]:
    """Read what `write` wrote.

    Args:
        path: of the file. use: what for, to end a message with. device: where its tensors go.

    Raises:
        PruneError: the file is gone, damaged, or holds more than plain data and tensors.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words go on to say how to load it all the same
        raise PruneError(
            f"{path} is not loaded, {use}: it is damaged, or holds more than plain data and tensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise PruneError(f"{path} cannot be read, {use}: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise PruneError(f"{path} cannot be read, {use}: it holds no table")
    return state


def _plain(value: Any) -> Any:
    """The same of types that the restricted loader knows.

    Raises:
        PruneError: of anything else, with its type: such a file could be written and never be read.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):  # first, for a np.float64 is a float as well
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    raise PruneError(f"a {type(value).__name__} cannot be kept in a file of plain data")
