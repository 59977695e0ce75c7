# yolo-prune, AGPL-3.0 license
"""A run's record -> record.json and record.csv in the folder of the run. Both are replaced whole (files.py)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from yolo_prune import files

CSV_COLUMNS = ("step", "epoch", "params", "gflops", "fitness_before", "fitness_cut", "fitness_after", "seconds")


def write(record: dict[str, Any], save_dir: Path) -> None:
    """Write pruning/record.json and pruning/record.csv under `save_dir`.

    Args:
        record: plain data with `steps`, each with the keys of `CSV_COLUMNS`.
        save_dir: the host's folder of the run.
    """
    folder = save_dir / "pruning"
    files.replace(folder / "record.json", json.dumps(record, indent=2) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(record["steps"])
    files.replace(folder / "record.csv", table.getvalue())
