# yolo-prune, AGPL-3.0 license
"""The host's training with quantize=8 (quantization-aware training, QAT), on a checkpoint.

Read in ultralytics 8.4.190: engine/trainer.py (`quantize`), utils/torch_utils.py (`prepare_qat`). Older ones have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.utils import DEFAULT_CFG_DICT, torch_utils

from yolo_prune.errors import HostError, PruneError
from yolo_prune.host import canvases, checkpoint, releases

PACKAGES = {"modelopt": "nvidia-modelopt", "huggingface_hub": "huggingface_hub"}  # what it imports -> what pip installs
# What a training begins anew, or says for itself.
_OWN = (
    *("mode", "task", "model", "pretrained", "resume", "save_dir", "project", "name", "exist_ok", "epochs"),
    "quantize",
)
_LEFT = ("distill_model", "time", "compile")  # of a first training alone


def require(asked: str) -> None:
    """Refuse where the host has no such training, or a package of it is missing.

    Args:
        asked: how the user asked for it, such as "prune_qat=5".

    Raises:
        HostError: the host has none. PruneError: a package is missing.
    """
    if not hasattr(torch_utils, "prepare_qat"):
        raise HostError(
            f"{asked} needs a training with quantize=8, which ultralytics {releases.version()} has not: "
            "pip install -U ultralytics"
        )
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise PruneError(f"{asked} needs {', '.join(missing)}: pip install {' '.join(missing)}")


def train(network: nn.Module, weights: Path, folder: Path, epochs: int, settings: Mapping[str, Any]) -> Path:
    """Train a checkpoint with quantize=8.

    Args:
        network: of the checkpoint, to know its class. weights: the checkpoint. folder: of the run, made here.
        epochs: how many. settings: the host's arguments of the first training; all that are not its own go on.

    Returns:
        The best checkpoint of the run, or the last one where none was validated.
    """
    kept = {key: settings[key] for key in DEFAULT_CFG_DICT if key in settings and not _is_left(key)}
    place = {"project": str(folder.parent.resolve()), "name": folder.name, "exist_ok": True}
    yolo = checkpoint.family(network)(str(weights))
    for event in canvases.EVENTS:  # as the stage before: it is this one's best.pt that is deployed
        yolo.add_callback(event, canvases.mix)
    yolo.train(**kept, **place, epochs=epochs, quantize=8)
    best, last = Path(yolo.trainer.best), Path(yolo.trainer.last)
    return best if best.is_file() else last


def _is_left(key: str) -> bool:
    return key in _OWN or key in _LEFT or key == "prune" or key.startswith("prune_")
