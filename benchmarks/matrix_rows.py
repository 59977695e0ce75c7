# yolo-prune, AGPL-3.0 license
"""The rows of the accuracy matrix: what benchmarks/matrix.yaml and the words of a command expand to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).resolve().parent
STEPS, FRAMES = "dense-steps", "dense-frames"


class Row(NamedTuple):
    """One training.

    Attributes:
        protocol, set, model, method: keys of matrix.yaml. seed: of the training.
        flops: the share of the FLOPs that is left, None where nothing is cut.
        label: of a variant; empty for the defaults. arguments: of the variant, as pairs of name and value.
    """

    protocol: str
    set: str
    model: str
    method: str
    seed: int
    flops: float | None = None
    label: str = ""
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Its file and folder, such as p1-bccd-yolov8n-50-s0, or p1-bccd-yolov8n-50-late-s0 of a variant."""
        words = [self.protocol, self.set, self.model, self.method, self.label, f"s{self.seed}"]
        return "-".join(word for word in words if word)

    @property
    def dense(self) -> Row:
        """The dense row of equal epochs that it is compared with."""
        return Row(self.protocol, self.set, self.model, "dense", self.seed)


def read(path: Path = HERE / "matrix.yaml", device: str = "cpu") -> dict[str, Any]:
    """The matrix, as a dict, with the device that it is trained on ("0" and so on is a GPU)."""
    spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {**spec, "device": device}


def expand(spec: Mapping[str, Any], seeds: list[int] | None = None) -> list[Row]:
    """All rows in the order of the work.

    Args:
        spec: the content of matrix.yaml. seeds: in place of its own.
    """
    seeds = spec["seeds"] if seeds is None else seeds
    rows = []
    cells = product(spec["protocols"], spec["sets"], spec["models"], spec["methods"].items(), seeds)
    for protocol, data, model, (method, flops), seed in cells:
        if method == FRAMES and not spec["sets"][data].get("square"):
            continue  # others are never framed, see yolo_prune/host/frames.py
        plain = Row(protocol, data, model, method, seed, flops)
        rows += [plain, *_variants(spec, plain)]
    return sorted(rows, key=lambda row: [_places(spec, seeds, row)[axis] for axis in spec["order"]])


def _variants(spec: Mapping[str, Any], row: Row) -> Iterator[Row]:
    for variant in spec["variants"]:
        axes = (("models", row.model), ("sets", row.set), ("protocols", row.protocol), ("methods", row.method))
        here = all(value in variant.get(axis, [value]) for axis, value in (*axes, ("seeds", row.seed)))
        if here and row.flops is not None:
            yield row._replace(label=variant["label"], arguments=tuple(variant["arguments"].items()))


def _places(spec: Mapping[str, Any], seeds: list[int], row: Row) -> dict[str, int]:
    labels = ["", *(variant["label"] for variant in spec["variants"])]
    lists = {"protocol": spec["protocols"], "set": spec["sets"], "model": spec["models"], "method": spec["methods"]}
    return {axis: list(values).index(getattr(row, axis)) for axis, values in lists.items()} | {
        "seed": seeds.index(row.seed),
        "label": labels.index(row.label),
    }


def select(rows: list[Row], only: str) -> list[Row]:
    """The rows that a list such as "yolo26n,bccd,p1" means: words of one axis are alternatives, axes add up.

    Raises:
        SystemExit: a word is of no axis.
    """
    words = [word for word in only.split(",") if word]
    known: dict[str, set[str]] = {axis: set() for axis in ("protocol", "set", "model", "method", "label", "seed")}
    for row in rows:
        for axis, values in known.items():
            values.add(_word(row, axis))
    for word in words:
        if not any(word in values for values in known.values()):
            listed = ", ".join(sorted(value for values in known.values() for value in values if value))
            raise SystemExit(f"only={only}: {word!r} is none of {listed}")
    asked = {axis: {word for word in words if word in values} for axis, values in known.items()}
    return [row for row in rows if all(not some or _word(row, axis) in some for axis, some in asked.items())]


def _word(row: Row, axis: str) -> str:
    return f"s{row.seed}" if axis == "seed" else str(getattr(row, axis))


def settings(spec: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """What is given to the training, and what a result must have been measured with to count as this row's."""
    device = spec["device"]
    on_gpu = {} if device == "cpu" else {"train_device": device, "train_amp": True, "train_cache": "ram"}
    return {
        "imgsz": spec["sets"][row.set]["imgsz"],
        "epochs": spec["epochs"],
        "batch": spec["batch"],
        "bf16": bool(spec["bf16"]),
        **on_gpu,
        **({"frames": 1} if row.method == FRAMES else {}),
        **dict(row.arguments),
    }


def result(folder: Path, row: Row) -> dict[str, Any] | None:
    """What was measured of a row, or None."""
    try:
        content: dict[str, Any] = json.loads((folder / f"{row.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def equal_steps(rows: list[Row], row: Row, folder: Path) -> tuple[bool, int | None]:
    """How a dense training is made that takes at least as many optimizer steps as the cuts beside it.

    It has the same epochs, and fewer images are gathered for a step (`nbs`), as in a recovery.

    Args:
        rows: all rows. row: of the method dense-steps. folder: of the results.

    Returns:
        Whether all that it hangs on is there, and the batches that make one step; None where the plain dense training
        is of equal steps already.
    """
    cuts = [each for each in rows if each.dense == row.dense and each.flops is not None and not each.label]
    known = [result(folder, each) for each in (row.dense, *cuts)]
    found = [each for each in known if each is not None]
    if len(found) < len(known) or not cuts:
        return False, None
    plain, most = found[0], max(each["optimizer_steps"] for each in found)
    if most <= 1.02 * plain["optimizer_steps"]:
        return True, None
    return True, max(1, plain["batches"] * plain["epochs"] // most)


def estimate(spec: Mapping[str, Any], row: Row, found: list[dict[str, Any]]) -> float:
    """Seconds of one thread that a row takes: as rows of its model and set took, else as matrix.yaml says.

    Args:
        found: all results.
    """
    alike = [each for each in found if (each["model"], each["set"]) == (row.model, row.set)]
    same = [each for each in alike if each["method"] == row.method] or alike
    if same:
        return float(spec["epochs"] * sum(each["cpu_seconds"] / each["epochs"] for each in same) / len(same))
    return float(spec["epochs"] * spec["seconds"].get(row.set, {}).get(row.model, 60))
