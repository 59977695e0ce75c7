# yolo-prune, AGPL-3.0 license
"""`deploy:` of a recipe: a run that ends with artifacts, each proven and timed beside the dense model.

The dense model is the average right before the first cut, kept as pruning/dense-trained.pt until then: it has learned
the data, and its widths are those that the speed is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.errors import HostError, NoisyError, PruneError
from yolo_prune.export import job, variants
from yolo_prune.host import checkpoint
from yolo_prune.host.run import Run
from yolo_prune.recipe import formats
from yolo_prune.recipe.settings import Recipe
from yolo_prune.training import ddp, kept_model

_DENSE = "dense-trained.pt"  # in the run's folder `pruning`
_USE = "the dense model, which the artifacts are to be compared with"
_left_out: list[bool] = []  # True where no run of this process deploys


def leave_out() -> None:
    """Let no run of this process end with artifacts, or with a second stage, whatever its recipe says."""
    _left_out[:] = [True]


def asked(recipe: Recipe | None) -> Recipe | None:
    """A recipe without `deploy:` and `qat:`, where these are left out."""
    return recipe.model_copy(update={"deploy": (), "qat": None}) if recipe and _left_out else recipe


def keep_dense(run: Run, recipe: Recipe) -> None:
    """Right before the first cut: keep the average of the dense model for the comparison at the end.

    Raises:
        PruneError: it cannot be written.
    """
    if recipe.deploy:
        ddp.by_first(lambda: kept_model.keep(_path(run), run.average_student, _USE))


def require(settings: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse artifacts at the end of a run on several devices, where the first process would validate them alone.

    The host gathers what a validation finds of all processes (8.4.190, engine/validator.py); the others have ended.

    Args:
        settings: the host's arguments.

    Raises:
        HostError: several devices.
    """
    devices = ddp.devices(settings)
    if recipe.deploy and len(devices) > 1:
        names = ",".join(recipe.deploy)
        raise HostError(
            f"prune_deploy={names} with device={settings['device']} is not supported by this version: leave it out, "
            f"then yolo-prune export model=best.pt format={names} data={settings.get('data') or 'my.yaml'}"
        )


def say_missing(recipe: Recipe, precision: str) -> None:
    """Before the first epoch: say what the end of the run will be without, while it can still be installed.

    Args:
        precision: that is deployed, one of the recipe or its profile.
    """
    for kind in recipe.deploy:
        entry = formats.FORMATS[kind]
        in_it = precision if precision in entry.precisions else "fp32"
        # An engine that is built on the device needs its ONNX file here.
        packages = formats.missing(kind, in_it) if variants.elsewhere(kind) is None else formats.missing("onnx")
        if packages:
            log.warn(
                f"prune_deploy={kind} in {in_it} needs {', '.join(packages)}, or is left out at the end of this run: "
                f"pip install {' '.join(packages)}"
            )


def at_end(run: Run, recipe: Recipe, precision: str, trained: Path | None = None) -> None:
    """Export best.pt to the recipe's formats and prove it. What goes wrong is said loudly; the run has ended well.

    Args:
        precision: as of `say_missing`; FP32 is made beside it.
        trained: the checkpoint of a second stage with quantize=8, which goes to the formats that can hold it.
    """
    if not recipe.deploy or not ddp.is_first():
        return
    dense = _dense_checkpoint(run)
    holding = [kind for kind in recipe.deploy if trained is not None and formats.FORMATS[kind].trained]
    bits = next((bits for bits, name in formats.QUANTIZE.items() if name == precision), None)
    try:
        _prove(run, run.final_weights, [kind for kind in recipe.deploy if kind not in holding], dense, bits)
        if trained is not None:
            _prove(run, trained, holding, dense, None)
    finally:
        _path(run).unlink(missing_ok=True)


def _prove(run: Run, weights: Path, kinds: list[str], dense: Path | None, quantize: int | None) -> None:
    """Export one checkpoint to these formats. dense: the checkpoint that it stands beside."""
    settings: dict[str, Any] = {
        "data": run.arguments.data,
        "dense": dense,
        "imgsz": run.image_size,
        "quantize": quantize,
        "safe": False,  # the one has just been written, and the host has just loaded the other
    }
    try:
        if kinds:
            job.export(weights, format=kinds, **settings)
    except NoisyError as error:
        log.warn(str(error))
    except PruneError as error:
        log.warn(f"DEPLOYMENT IS NOT PROVEN. {error}")


def _dense_checkpoint(run: Run) -> Path | None:
    """The dense model that was kept, in its place and as the checkpoint that an export reads; None, said, without one.

    What stands there is a model of plain data until then, and is read as that alone.
    """
    path = _path(run)
    try:
        dense = kept_model.read(path, run.built, _USE, run.average_student)
        checkpoint.write(path, dense, {"train_args": run.settings})
    except PruneError as error:
        log.warn(str(error))
        return None
    return path


def _path(run: Run) -> Path:
    return run.own_folder / _DENSE
