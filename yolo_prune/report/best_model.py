# yolo-prune, AGPL-3.0 license
"""Which model best.pt is of, as a record tells: an epoch since the latest step, or what was cut or put back there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model that best.pt is of; of equals the last, as the host saves them (8.4.190, trainer `save_model`).

    Returns:
        `epoch`: which, from 1. `right_after_cut`: whether it is the model before that epoch's training, as it was cut
        or put back. `fitness`: what it had. None where nothing since the latest step was validated.
    """
    step = _latest_step(record)
    first = max([step.get("epoch", 1), *(row.get("undone", 1) for row in record["steps"])])
    known = [(step.get("fitness_cut"), step.get("epoch"), True)] if step.get("epoch") == first else []
    back = record.get("max_drop") or {}
    known += [(back["fitness_back"], back["epoch"], True)] if "fitness_back" in back else []
    known += [(row["fitness"], row["epoch"], False) for row in record["history"] if row["epoch"] >= first]
    known = [row for row in known if row[0] is not None]
    if not known:
        return None
    fitness, epoch, cut = max(reversed(known), key=lambda row: row[0])
    return {"epoch": epoch, "right_after_cut": cut, "fitness": fitness}


def gained_nothing(record: Mapping[str, Any]) -> bool:
    """Whether epochs that followed the latest cut were validated, and none was better than the model right after it."""
    step = _latest_step(record)
    since = [row["fitness"] for row in record["history"] if row["epoch"] >= step.get("epoch", 0)]
    cut = step.get("fitness_cut")
    return cut is not None and bool(since) and all(fitness is not None and fitness <= cut for fitness in since)


def _latest_step(record: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the latest step that was not undone; empty where there is none."""
    return next((row for row in reversed(record["steps"]) if "undone" not in row), {})
