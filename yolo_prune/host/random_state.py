# yolo-prune, AGPL-3.0 license
"""The random numbers that a training draws from: Python's, NumPy's and PyTorch's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def now() -> dict[str, Any]:
    """The state of the generators, of plain data and tensors on the CPU."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "python": random.getstate(),
        "numpy": [kind, [int(key) for key in keys], position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def put(state: Mapping[str, Any]) -> None:
    """Let the generators go on from what `now` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def drawing_apart() -> Iterator[None]:
    """Random numbers of a fixed seed, and after it those that would have come without.

    The host draws for an image even where it augments nothing (8.4.190, data/augment.py: `Format`); a resumed run reads
    the images again that a run which was not interrupted still has.
    """
    before = now()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        yield
    finally:
        put(before)
