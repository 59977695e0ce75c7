# yolo-prune, AGPL-3.0 license
"""`yolo-prune sweep`: what should be deployed, of pruned models, stock smaller models and smaller images?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

from yolo_prune.sweeps import job, request, verdict

Texts = str | Sequence[str] | None


def sweep(
    model: str,
    data: str,
    epochs: int = 100,
    flops: Texts = None,
    params: Texts = None,
    latency: Texts = None,
    size: Texts = None,
    recipe: Texts = None,
    importance: Texts = None,
    baselines: Texts = None,
    teacher: bool = False,
    imgsz: int | Sequence[int] | str | None = None,
    quantize: int | None = None,
    format: str | None = None,  # noqa: A002 (the host's name for it)
    profile: Texts = None,
    threads: int = 1,
    seconds: int = 5,
    max_drop: float = 0.01,
    train: str = "promising",
    jobs: int | None = None,
    devices: Texts = None,
    engine: str = "local",
    cpus: float | None = None,
    gpus: float | None = None,
    out: str = "runs/sweep",
    safe: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """`yolo-prune sweep`: cut, train, export and time all of these models, and say which one to deploy.

    Values with commas between them are lists. Every model is tried at every image size. The folder `out` gets one run
    folder for each, sweep.csv, front.json, front.png and report.html. Stopped or killed, the same command goes on.

    Args:
        model: the trained model. data: the data set that it was trained on.
        epochs: of every training; 0 shows what each cut leaves before any training, in minutes.
        flops, params, latency, size: bounds of pruned models, "70%" or absolute; each value is a model of its own.
            Within the first latency= the most accurate model is recommended.
        recipe, importance: recipes and importances that the cuts are made by, each with each bound.
        baselines: other models, trained for as long: a .pt, weights that Ultralytics publishes, or a yaml.
        teacher: train each of these a second time, with the model as teacher (the host's distill_model).
        imgsz: sizes in pixels; all is compared with the model's own. quantize: 8 adds INT8 of everything, 16 FP16.
        format: the runtime in which all are timed; default: the profile's, or onnx. threads: of it.
        profile: of another device, one for each image size: milliseconds are then predicted, and marked so.
        seconds: of timing for each model, at most. max_drop: what the fastest recommended model may lose of the metric.
        train: "promising" leaves out a cut that another of its size beats clearly before training; "all" trains all.
        jobs: trainings at a time; default one, or one a device. devices: such as 0,1; each training gets one of them.
        engine: "local", processes on this machine, or "ray", trials on a Ray cluster, each with so many cpus and gpus.
        out: the folder. safe: refuse a checkpoint that holds more than classes of torch and ultralytics.
        more: arguments of `yolo train` for all trainings, such as batch=8 or prune_scope=global.

    Returns:
        The content of front.json: `front`, `rows`, `recommendation` and what they were measured on.

    Raises:
        PruneError: the request is wrong, before any training; a training that fails is a row that says so.
    """
    given = {key: value for key, value in locals().items() if key != "more"}
    return job.run(request.read(given, more))


@functools.wraps(sweep)
def command(**arguments: Any) -> None:
    """As one types it: the exit code says what came of it, where a caller of `sweep` reads what it returns."""
    verdict.require(
        sweep(**arguments), arguments.get("seconds", inspect.signature(sweep).parameters["seconds"].default)
    )
