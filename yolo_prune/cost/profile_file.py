# yolo-prune, AGPL-3.0 license
"""Device profiles: what a device.json holds, checked, and the latency that it predicts. Pure.

A profile is measured by `yolo-prune profile` (device/measurement.py) and holds for one model, input size, runtime and
thread count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_prune.cost import latency_model, measured_file, profile_format
from yolo_prune.cost.channel_steps import FINEST
from yolo_prune.cost.latency_model import ChannelGrain, Row
from yolo_prune.cost.measured_file import ProfileFile
from yolo_prune.errors import PruneError
from yolo_prune.recipe.formats import PROFILED
from yolo_prune.recipe.value_checks import shown

_LEAST = 1e-6  # ms; a call of the smallest network takes more


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
    steps: ChannelGrain
    kinds: Mapping[str, Sequence[float]]
    network: np.ndarray
    content: Mapping[str, Any]
    end2end: bool = False

    @property
    def multiple(self) -> int:
        """The channel multiple that fits the device."""
        return max(self.steps.out, self.steps.inp, FINEST)

    def __str__(self) -> str:
        return (
            f"{self.format} {self.precision} at {self.imgsz}, {self.threads} thread{'s' * (self.threads > 1)} of "
            f"{self.machine}"
        )

    def predict(self, rows: Sequence[Row]) -> float:
        """Milliseconds of a network of these layers.

        Raises:
            PruneError: next to none, so the profile was not measured: shares of nothing are no bounds.
        """
        milliseconds = float(latency_model.sums(rows, self.kinds, self.steps) @ self.network)
        if not _LEAST < milliseconds < float("inf"):
            raise PruneError(
                f"the device profile of {self.model} says {milliseconds:g} ms for this model, which cannot be; measure "
                "the device again: yolo-prune profile model=... out=device.json"
            )
        return milliseconds

    def of_layers(self, rows: Sequence[Row]) -> float:
        """Milliseconds that these layers add to a network."""
        return float(latency_model.sums(rows, self.kinds, self.steps) @ self.network) - self.fixed

    def figures(self, kind: str, area: int) -> np.ndarray:
        """(4,) ms a layer costs for outputs * inputs, outputs, inputs and a call, in a network."""
        own = np.array(self.kinds.get(kind, (0.0,) * 4), dtype=float)
        both = self.network[0 if latency_model.is_single(kind) else 1]
        costs: np.ndarray = own * np.array([both, *self.network[2:5]])
        costs[1] += self.network[5] * area / 1e6
        return costs

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
                f"model=... format={self.format} imgsz={self.imgsz}. More: yolo-prune help profiles"
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
    missing = f"there is no such file; measure this device, yolo-prune profile model=... out={path}, or "
    missing += "make what measures another one: kit=profile.pyz in place of out="
    return of(measured_file.load(path, "prune_profile", missing), str(path))


def of(content: Any, name: str) -> Profile:
    """A profile from its content. name: what errors call it."""
    if not isinstance(content, dict) or content.get("kind") != profile_format.KIND:
        raise PruneError(f"prune_profile={name} is no device profile; yolo-prune profile model=... writes one")
    if content.get("version") != profile_format.VERSION:
        raise PruneError(
            f"prune_profile={name} is of version {shown(content.get('version'))}, this one reads "
            f"{profile_format.VERSION}, which counts the layers that are deployed; measure the device again: "
            "yolo-prune profile model=... out=device.json"
        )
    words, again = f"prune_profile={name}", "measure the device again"
    checked = measured_file.check(ProfileFile, content, words, again)
    if checked.format not in PROFILED or checked.precision not in profile_format.PRECISIONS:
        raise PruneError(
            f"{words} is damaged (its format {shown(checked.format)} {shown(checked.precision)} is unknown); {again}"
        )
    return Profile(
        checked.model,
        checked.format,
        checked.precision,
        checked.imgsz,
        checked.threads,
        checked.machine.name,
        ChannelGrain(checked.steps.out, checked.steps.inp, checked.steps.tail),
        checked.kinds,
        np.array(checked.network, dtype=float),
        content,
        checked.end2end,
    )
