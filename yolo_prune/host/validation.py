# yolo-prune, AGPL-3.0 license
"""How good is a .pt or an artifact? The host's own val, on the same square letterboxed images for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from yolo_prune import log
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint, error_text, exporter, silence
from yolo_prune.host.model_facts import task_of

# task -> keys of the host's results_dict (8.4.190, utils/metrics.py): the one that judges, and a second; their names.
_METRICS = {
    "detect": ("metrics/mAP50-95(B)", "metrics/mAP50(B)", "mAP50-95", "mAP50"),
    "obb": ("metrics/mAP50-95(B)", "metrics/mAP50(B)", "mAP50-95", "mAP50"),
    "segment": ("metrics/mAP50-95(M)", "metrics/mAP50(M)", "mask mAP50-95", "mask mAP50"),
    "pose": ("metrics/mAP50-95(P)", "metrics/mAP50(P)", "pose mAP50-95", "pose mAP50"),
    "classify": ("metrics/accuracy_top1", "metrics/accuracy_top5", "top-1", "top-5"),
    "semantic": ("metrics/mIoU", "metrics/pixel_acc", "mIoU", "pixel accuracy"),
    "depth": ("metrics/delta1", "metrics/abs_rel", "delta1", "abs_rel"),
}


def names(task: str) -> tuple[str, str]:
    """What the two figures of a task are called."""
    return _METRICS[task][2:]


# What the host's fitness is (8.4.190, utils/metrics.py, `fitness` of each class).
_FITNESS = {
    "segment": "mAP50-95 of boxes + masks",
    "pose": "mAP50-95 of boxes + keypoints",
    "classify": "mean of top-1 and top-5",
}


def fitness_name(task: str | None) -> str:
    """What the fitness of a training of a task is, in words."""
    task = str(task or "")
    return _FITNESS.get(task) or (_METRICS[task][2] if task in _METRICS else "fitness")


def figures(weights: Path, network: nn.Module, data: str, side: int, scratch: Path, **more: Any) -> tuple[float, float]:
    """Validate a .pt file or an artifact.

    Args:
        weights: the file or folder. network: the model that it is of. data: what the host's data= takes.
        side: pixels. scratch: a folder for what the host writes. more: arguments of the host's val.

    Returns:
        The two figures of the model's task; see `names`.

    Raises:
        PruneError: the host could not.
    """
    task = task_of(network)
    settings: dict[str, Any] = {
        "data": data,
        "imgsz": side,
        "batch": 1,
        "rect": False,  # the host's val of a fixed-size artifact does the same; its default for a .pt is True
        "device": "cpu",
        "plots": False,
        "verbose": False,
        "project": str(scratch / "runs"),  # the host makes a folder for each val
        "name": "val",
        "exist_ok": True,
        **more,
    }
    family = checkpoint.family(network)
    try:
        with exporter.restrained(), silence.quiet() as aloud:
            model = family(str(weights)) if family.__name__ == "RTDETR" else family(str(weights), task=task)
            _say_how_far(model, weights.name, aloud)
            results = model.val(**settings).results_dict
    except Exception as error:  # the host has many
        raise PruneError(
            f"ultralytics could not validate {weights.name} on {data}. {error_text.quoted(error)}"
        ) from error
    keys = _METRICS[task][:2]
    gone = [key for key in keys if key not in results]
    if gone:
        raise PruneError(f"this ultralytics has no {', '.join(gone)} among the results of its val of {task}")
    return float(results[keys[0]]), float(results[keys[1]])


def _say_how_far(model: Any, name: str, aloud: silence.Aloud) -> None:
    """Say now and then how far the host's val of a model is; its callbacks are given the validator (8.4.190,
    engine/validator.py)."""
    progress: list[log.Progress] = []

    def start(validator: Any) -> None:
        total = len(validator.dataloader)
        progress[:] = [log.Progress(f"validating {name}, images", total, lambda line: aloud(lambda: log.say(line)))]

    model.add_callback("on_val_start", start)
    model.add_callback("on_val_batch_end", lambda validator: progress[0].one())
