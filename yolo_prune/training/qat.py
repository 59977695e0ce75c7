# yolo-prune, AGPL-3.0 license
"""`qat:` of a recipe: a pruned run goes on with a second stage, the host's own training with quantize=8.

The pruned best.pt stays as it is; what the second stage leaves lies in the run's folder `qat`, an ordinary run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.errors import HostError, first_line
from yolo_prune.host import int8_training
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Recipe
from yolo_prune.report import record_files
from yolo_prune.training import ddp
from yolo_prune.training.session_data import Session

FOLDER = "qat"  # in the run's folder


def require(settings: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse a second stage that could not begin, before the first one has trained an epoch.

    Args:
        settings: the host's arguments.

    Raises:
        HostError: several devices, or a host without such a training. PruneError: a package is missing.
    """
    if recipe.qat is None:
        return
    asked = f"prune_qat={recipe.qat}"
    int8_training.require(asked)
    devices = ddp.devices(settings)
    if len(devices) > 1:
        raise HostError(
            f"{asked} with device={settings['device']} is not supported by this version: prune without it, then "
            f"yolo train model=best.pt epochs={recipe.qat} quantize=8 device={','.join(devices)}"
        )


def at_end(run: Run, session: Session) -> Path | None:
    """After the pruned run has ended: train its best.pt with quantize=8, and note what came of it in the record.

    Returns:
        The checkpoint of the second stage; None where there was none, or it failed, which is said loudly.
    """
    epochs = session.recipe.qat
    if epochs is None or session.unfinished:
        return None
    log.say(f"second stage: {epochs} epochs of {run.final_weights} with quantize=8 (QAT), into {run.folder / FOLDER}")
    try:
        weights = int8_training.train(run.student, run.final_weights, run.folder / FOLDER, epochs, run.settings)
    except Exception as error:  # of the host, of torch, of modelopt: any; the pruned model is there and whole
        log.warn(f"QUANTIZATION-AWARE TRAINING FAILED, {run.final_weights} IS IN FP32: {first_line(error)}")
        return None
    session.record["qat"] = {"epochs": epochs, "weights": weights.relative_to(run.folder.resolve()).as_posix()}
    record_files.write(session.record, run.folder)
    return weights
