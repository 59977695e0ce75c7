# yolo-prune, AGPL-3.0 license
"""`deploy:` of a recipe: a run that ends with artifacts, each proven and timed beside the dense model.

The dense model is the average right before the first cut, kept as pruning/dense-trained.pt until then: it has learned
the data, and its widths are those that the speed is compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.errors import NoisyError, PruneError
from yolo_prune.export import job
from yolo_prune.graph.model_state import copy_of
from yolo_prune.host import checkpoint
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Recipe
from yolo_prune.training import ddp

_DENSE = "dense-trained.pt"  # in the run's folder `pruning`


def keep_dense(run: Run, wanted: Recipe) -> None:
    """Right before the first cut: keep the average of the dense model for the comparison at the end.

    Raises:
        PruneError: it cannot be written.
    """
    if not wanted.deploy or not ddp.is_first():
        return
    network = copy_of(run.average_student)
    try:
        checkpoint.write(_path(run), network, {"train_args": run.settings})
    except PruneError as error:
        raise PruneError(f"{error} (the dense model, which the artifacts are to be compared with)") from None


def at_end(run: Run, wanted: Recipe) -> dict[str, Any] | None:
    """Export best.pt to the recipe's formats and prove it. What goes wrong is said loudly; the run has ended well.

    Returns:
        For the record: what export.json says, or None where nothing was exported.
    """
    if not wanted.deploy or not ddp.is_first():
        return None
    dense = _path(run)
    settings: dict[str, Any] = {
        "format": list(wanted.deploy),
        "data": run.arguments.data,
        "dense": dense if dense.is_file() else None,
        "imgsz": run.image_size,
        "quantize": 16 if wanted.precision == "fp16" else None,
        "safe": False,  # this run wrote both
    }
    try:
        return job.export(run.final_weights, **settings)
    except NoisyError as error:
        log.warn(str(error))
        return error.record
    except PruneError as error:
        log.warn(f"DEPLOYMENT IS NOT PROVEN. {error}")
        return None
    finally:
        dense.unlink(missing_ok=True)


def _path(run: Run) -> Path:
    return run.own_folder / _DENSE
