# yolo-prune, AGPL-3.0 license
"""How the command `yolo-prune sweep` ends once all is written: its exit codes mean what those of an export do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yolo_prune.errors import NoisyError, PruneError, VerifyError
from yolo_prune.sweeps import front


def require(record: Mapping[str, Any], seconds: int) -> None:
    """Raise for what a script that goes on would have to know.

    Args:
        record: as in front.json. seconds: of timing that each model had, at most.

    Raises:
        VerifyError: a file that would be on the front is not proven. PruneError: the model itself has no figures.
        NoisyError: milliseconds are not known to 3%.
    """
    rows, kept = record["rows"], f"all that was found is in {record['folder']}"
    best = front.pareto([row for row in rows if not row["failed"] or row["unproven"]])
    unproven = [f"{row['label']}: {row['failed']}" for row in best if row["unproven"]]
    if unproven:
        raise VerifyError(
            f"not proven, do not deploy it: {' | '.join(unproven)}; {kept}. More: yolo-prune help export.md"
        )
    own = next((row for row in rows if front.is_reference(row)), None)
    if own is None or own["failed"] or own["metric"] is None or own["ms"] is None:
        why = own and (own["failed"] or own["note"])
        words = f"no figures to compare with{f' ({why})' if why else ''}"
        raise PruneError(f"no recommendation, for the model itself has {words}; {kept}")
    if not record["steady"]:
        unsteady = [row["label"] for row in rows if not row["failed"] and not row["steady"]]
        raise NoisyError(
            f"the machine was too busy to time {', '.join(unsteady)}; {kept}. Close what else runs, or give more time "
            f"than seconds={seconds}, and the same command times anew and trains nothing twice",
            dict(record),
        )
