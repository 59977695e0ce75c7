# yolo-prune, AGPL-3.0 license
"""What a data set says of itself, as the host reads it (ultralytics 8.4.190, data/utils.py: `check_det_dataset`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics.data.utils import check_cls_dataset, check_det_dataset

from yolo_prune.errors import PruneError
from yolo_prune.host import error_text


def read(task: str, data: str | Path) -> dict[str, Any]:
    """Read the yaml of a data set, or the folders of one of the task classify.

    Returns:
        The host's dict, with `nc` (how many classes), `names` and a path for each split.

    Raises:
        PruneError: the host cannot read it.
    """
    try:
        content: dict[str, Any] = (check_cls_dataset if task == "classify" else check_det_dataset)(str(data))
    except Exception as error:  # the host has many for a data set that is not there or not whole
        raise PruneError(
            f"data={data}: not a data set that ultralytics can read. {error_text.quoted(error)}"
        ) from error
    return content
