# yolo-prune, AGPL-3.0 license
"""Reading a .pt file that a user names, saying in one line why it cannot be used, and writing one.

Files are read through the host's restricted loading (ultralytics 8.4.190, nn/tasks.py: `torch_safe_load` with
`safe_only=True`), which rebuilds classes of torch and ultralytics alone: a pickle that would run code is refused,
unless the user says safe=False of a file that they trust.

What a run writes into last.pt: training/last_checkpoint.py.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, ConvTranspose

from yolo_prune import files
from yolo_prune.errors import HostError, PruneError, first_line
from yolo_prune.host import error_text, foreign_code
from yolo_prune.host.model_facts import train_arguments
from yolo_prune.recipe.support import TASKS
from yolo_prune.recipe.value_checks import shown

_LONGEST = 300  # characters of the host's own words that a message repeats


def restricted() -> bool:
    """Whether this host has restricted loading.

    Before it had `_SafeLoad` (8.4.60 has not, 8.4.140 has) its `safe_only` put stand-ins for unknown classes, those
    of the model among them, and let builtins through; with a torch older than 2.6 it loads without restriction.
    """
    return bool(getattr(getattr(tasks, "_SafeLoad", None), "SUPPORTED", False))


def is_host_restricted() -> bool:
    """Whether the host itself loads with restriction, which `ULTRALYTICS_SAFE_LOAD=1` asks of it."""
    return restricted() and bool(getattr(tasks, "SAFE_LOAD", False))


def load(path: str | Path, argument: str = "model", safe: bool = True) -> tuple[nn.Module, dict[str, Any]]:
    """Load the model of a checkpoint.

    Args:
        path: a .pt file that ultralytics wrote. argument: what the user's argument is called, for the message.
        safe: refuse a file that holds more than classes of torch and ultralytics.

    Returns:
        The stock model in float32, in eval mode, on the CPU (its EMA where there is one), with its `task`, and the
        checkpoint's dict.

    Raises:
        PruneError: no such file, not a .pt, damaged, or not a YOLO model.
    """
    file = require_file(path, argument)
    if safe and not restricted():
        raise HostError(
            f"{argument}={path}: this ultralytics, or a torch older than 2.6, has no restricted loading; update them, "
            "or say safe=False of a file that you trust"
        )
    try:
        with foreign_code.not_installed():
            ckpt, _ = tasks.torch_safe_load(str(file), safe_only=safe)
    except ModuleNotFoundError as error:
        raise PruneError(f"{argument}={path}: {error_text.module_missing(error.name, 'yolo-prune')}") from None
    except Exception as error:  # the host has one exception for each way in which a file can be wrong
        if not zipfile.is_zipfile(file):
            raise PruneError(
                f"{argument}={path}: no PyTorch checkpoint, or a damaged one; copy it anew, or name another"
            ) from None
        if isinstance(error, AttributeError):  # the host takes a dict, or an object with the attributes of a network
            raise PruneError(f"{argument}={path}: the file holds no YOLO model. {_host_words(error)}") from None
        right = ". If you trust where it comes from: safe=False" if safe and _unsafe(file, error) else ""
        raise PruneError(
            f"{argument}={path}: not a checkpoint that ultralytics can load safely. {_host_words(error)}{right}"
        ) from None
    held = [ckpt.get(key) for key in ("ema", "model")] if isinstance(ckpt, dict) else []
    model = next((one for one in held if isinstance(one, nn.Module)), None)
    if model is None:
        what = f"a {type(ckpt).__name__}" + (f" with {', '.join(map(shown, list(ckpt)[:5]))}" if held and ckpt else "")
        raise PruneError(f"{argument}={path}: the file holds no YOLO model, but {what}")
    network: Any = model.float().eval()
    if not hasattr(network, "task"):  # of a model that a trainer has built; the host's load_checkpoint does the same
        network.task = tasks.guess_model_task(network) or "detect"  # the name of RT-DETR's head says nothing
    return network, ckpt


def of_this_run(path: Path) -> nn.Module:
    """The model of the run's best.pt or last.pt, in float32, as the host itself has loaded it right before."""
    model: nn.Module = tasks.load_checkpoint(str(path))[0].float()
    return model


def image_size(ckpt: Mapping[str, Any]) -> int | None:
    """The image size in pixels that a checkpoint says it was trained with; of a list the largest."""
    given = train_arguments(ckpt).get("imgsz")
    return int(max(given) if isinstance(given, (list, tuple)) else given) if given else None


def require_file(path: str | Path, argument: str = "model") -> Path:
    """The file of a checkpoint, before it is read.

    Raises:
        PruneError: a folder, of another suffix, not there, or empty.
    """
    file = Path(path)
    if os.path.isdir(file):
        raise PruneError(
            f"{argument}={path}: this is a folder; name a .pt file, such as {file / 'weights' / 'best.pt'}"
        )
    if file.suffix != ".pt":
        raise PruneError(f"{argument}={path}: a PyTorch checkpoint of ultralytics is needed, a file that ends in .pt")
    if not os.path.isfile(file):  # False, where Path.is_file raises, for a name the file system refuses
        raise PruneError(f"{argument}={shown(path)}: there is no such file")
    if not file.stat().st_size:
        raise PruneError(f"{argument}={path}: the file is empty")
    return file


def write(path: Path, model: nn.Module, content: Mapping[str, Any]) -> None:
    """Write a checkpoint that holds a model and no state of a training, in one step.

    As the host's `Model.save` does (8.4.190, engine/model.py).

    Args:
        path: the .pt file; its folders are made. model: a stock model of the caller's own: it becomes half precision,
            on the CPU. content: what else the file holds, such as "train_args".

    Raises:
        PruneError: it cannot be written; the old content stands.
    """
    buffer = io.BytesIO()
    torch.save({**content, "model": model.cpu().half(), **_NO_TRAINING}, buffer)
    files.replace(path, buffer.getvalue())


_NO_TRAINING = {"ema": None, "optimizer": None, "epoch": -1, "updates": None}


def requantize(model: nn.Module, ckpt: dict[str, Any], path: str | Path) -> bool:
    """Put the INT8 quantizers of a training with quantize=8 (QAT) back into its model, as the host does when it loads.

    The host keeps them beside the model, as data (ultralytics 8.4.190, nn/tasks.py, `load_checkpoint`).

    Args:
        model, ckpt: of `load`; the model is changed. path: how the user named it.

    Returns:
        Whether there are any.

    Raises:
        PruneError: there are, and the package or the host that knows them is missing.
    """
    state = ckpt.get("modelopt")
    if not state:
        return False
    if not hasattr(tasks, "restore_qat"):
        raise PruneError(f"{path} was trained with quantize=8, which this ultralytics does not know; update it")
    missing = [name for name in ("modelopt", "huggingface_hub") if find_spec(name) is None]
    if missing:
        raise PruneError(
            f"{path} was trained with quantize=8 and cannot be read without {', '.join(missing)}: "
            "pip install nvidia-modelopt huggingface_hub"
        )
    tasks.restore_qat(model, state)
    model.eval()
    return True


def has_quantizers(model: nn.Module) -> bool:
    """Whether a model carries the quantizers of quantize=8, by the name of their class, as the host asks (`is_qat`)."""
    return any(type(module).__name__ == "TensorQuantizer" for module in model.modules())


_MODELS = {
    *("DetectionModel", "SegmentationModel", "PoseModel", "OBBModel", "ClassificationModel"),
    *("RTDETRDetectionModel", "SemanticModel", "SemanticSegmentationModel", "DepthModel"),
}


def require_supported(model: nn.Module, path: str) -> None:
    """Raise unless this version can prune the model.

    Args:
        model: a stock model. path: how the user named it.

    Raises:
        PruneError: its class is not one of the host's supported ones (open vocabulary, for example, is not), or the
            host cannot fold one of its norms.
    """
    kind = type(model)
    if kind.__name__ not in _MODELS or not kind.__module__.startswith("ultralytics."):
        raise PruneError(
            f"model={path} is a {kind.__name__}, which this version does not prune; it prunes the stock YOLO models of "
            f"the tasks {', '.join(TASKS)}, and RT-DETR"
        )
    _require_foldable(model, path)


def _require_foldable(model: nn.Module, path: str) -> None:
    """Raise where the host fails to fold a norm into a convolution, as it does to validate and to export.

    It takes what its own blocks call `bn` for a BatchNorm with running statistics (8.4.190, nn/tasks.py: `fuse`).
    """
    for name, block in model.named_modules():
        norm = getattr(block, "bn", None)
        if isinstance(block, (Conv, ConvTranspose)) and norm is not None and _statistics(norm) is None:
            raise PruneError(
                f"model={path}: {name} is a {type(block).__name__} whose bn, a {type(norm).__name__}, has no running "
                "statistics: ultralytics cannot fold it into the convolution, and so neither validate nor export the "
                "model; give it a BatchNorm2d with track_running_stats=True, or make the block an nn.Module of your own"
            )


def _statistics(norm: object) -> object:
    return getattr(norm, "running_mean", None)


def family(model: nn.Module) -> Any:
    """The host's class that trains, validates and exports a stock model: YOLO, or RTDETR."""
    return RTDETR if type(model).__name__.startswith("RTDETR") else YOLO


def _host_words(error: BaseException) -> str:
    """What the host says of a file, in one short line, without its mark."""
    line = first_line(error)
    line = line if len(line) > 8 else f"{type(error).__name__} {line}"
    line = line.removeprefix("ERROR").strip(" ❌️")
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def _unsafe(file: Path, error: BaseException) -> bool:
    """Whether a load failed because of what the file holds, and not because the file is damaged."""
    return zipfile.is_zipfile(file) and isinstance(error.__cause__, pickle.UnpicklingError)
