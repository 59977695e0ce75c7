# yolo-prune, AGPL-3.0 license
"""Device profiles: what a device.json holds, checked, and the latency that it predicts. Pure.

A profile is measured by `yolo-prune profile` (device.py) and holds for one model, input size, runtime and thread count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_prune import device, latency_model, runtime
from yolo_prune.errors import PruneError
from yolo_prune.latency_model import Row, Steps

_FINEST = 8  # chunks of fewer channels would make the search long and save little


@dataclass(frozen=True)
class Profile:
    """A measured device.

    Attributes:
        model, format, precision, imgsz, threads: what was measured. machine: its name.
        end2end: whether the one-to-one branch of an end-to-end head was measured, and not the one-to-many branch.
        steps: the channel steps that it works in. kinds: kind of a layer -> the four figures of its cost.
        network: (7,) weights of the sums over a network's layers; see latency_model.py.
        content: the whole file, for the record.
    """

    model: str
    format: str
    precision: str
    imgsz: int
    threads: int
    machine: str
    steps: Steps
    kinds: Mapping[str, Sequence[float]]
    network: np.ndarray
    content: Mapping[str, Any]
    end2end: bool = False

    @property
    def multiple(self) -> int:
        """The channel multiple that fits the device."""
        return max(self.steps.out, self.steps.inp, _FINEST)

    def __str__(self) -> str:
        return (
            f"{self.format} {self.precision} at {self.imgsz}, {self.threads} thread{'s' * (self.threads > 1)} of "
            f"{self.machine}"
        )

    def predict(self, rows: Sequence[Row]) -> float:
        """Milliseconds of a network of these layers."""
        return float(latency_model.sums(rows, self.kinds, self.steps) @ self.network)

    def figures(self, kind: str, area: int) -> np.ndarray:
        """(4,) ms a layer costs for outputs * inputs, outputs, inputs and a call, in a network."""
        own = np.array(self.kinds.get(kind, (0.0,) * 4), dtype=float)
        both = self.network[0 if latency_model.is_single(kind) else 1]
        found: np.ndarray = own * np.array([both, *self.network[2:5]])
        found[1] += self.network[5] * area / 1e6
        return found

    @property
    def fixed(self) -> float:
        """Milliseconds that no layer causes."""
        return float(self.network[6])

    def require(self, rows: Iterable[Row]) -> None:
        """Raise PruneError unless every layer is of a kind that was measured."""
        unknown = sorted({row.kind for row in rows} - set(self.kinds))
        if unknown:
            raise PruneError(
                f"the device profile was measured with {self.model} at {self.imgsz} and knows nothing of "
                f"{len(unknown)} kinds of layers in this model ({unknown[0]}); measure this one: yolo-prune profile "
                f"model=... format={self.format} imgsz={self.imgsz}"
            )

    def brief(self) -> dict[str, Any]:
        """What a record says of it."""
        keys = ("model", "format", "precision", "imgsz", "threads", "machine", "versions", "steps", "error", "when")
        return {key: self.content.get(key) for key in keys}


def read(path: str | Path) -> Profile:
    """Read a device profile.

    Raises:
        PruneError: no such file, or no profile; the message names prune_profile=.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PruneError(
            f"prune_profile={path}: there is no such file; measure the device: yolo-prune profile model=... out={path}"
        ) from None
    except (OSError, ValueError) as error:
        raise PruneError(f"prune_profile={path} cannot be read as JSON: {str(error).partition(chr(10))[0]}") from None
    return of(content, str(path))


def of(content: Any, name: str) -> Profile:
    """A profile from its content. name: what errors call it."""
    if not isinstance(content, dict) or content.get("kind") != device.KIND:
        raise PruneError(f"prune_profile={name} is no device profile; yolo-prune profile model=... writes one")
    if content.get("version") != device.VERSION:
        raise PruneError(
            f"prune_profile={name} is of version {content.get('version')}, this one reads {device.VERSION}, which "
            "counts the layers that are deployed; measure the device again: yolo-prune profile model=... "
            "out=device.json"
        )
    try:
        steps = Steps(int(content["steps"]["out"]), int(content["steps"]["inp"]), float(content["steps"]["tail"]))
        network = np.array([float(weight) for weight in content["network"]])
        kinds = {str(kind): [float(x) for x in figures] for kind, figures in content["kinds"].items()}
        if content["format"] not in runtime.FORMATS or content["precision"] not in runtime.PRECISIONS:
            raise ValueError(f"its format {content['format']} {content['precision']} is unknown")
        if not all(isinstance(content[key], int) and content[key] > 0 for key in ("imgsz", "threads")):
            raise ValueError("its imgsz or threads is no whole number above 0")
        good = network.shape == (len(latency_model.TERMS),) and all(len(figures) == 4 for figures in kinds.values())
        values = np.concatenate([network, *kinds.values()]) if good else np.array([-1.0])
        if steps.out < 1 or steps.inp < 1 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
            raise ValueError("its figures are no costs")
        return Profile(
            str(content["model"]),
            str(content["format"]),
            str(content["precision"]),
            int(content["imgsz"]),
            int(content["threads"]),
            str(content["machine"]["name"]),
            steps,
            kinds,
            network,
            content,
            bool(content["end2end"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PruneError(f"prune_profile={name} is damaged ({error}); measure the device again") from None
