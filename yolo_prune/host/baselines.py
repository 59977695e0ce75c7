# yolo-prune, AGPL-3.0 license
"""Models that a user names beside their own: a .pt file at hand, weights that the host fetches, or a yaml of the host.

Read in ultralytics 8.4.190: utils/downloads.py (`GITHUB_ASSETS_NAMES`, `attempt_download_asset`), nn/tasks.py
(`yaml_model_load`), cfg/__init__.py (`get_cfg`).
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import ultralytics
from torch import nn
from ultralytics import cfg
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

from yolo_prune.errors import PruneError, first_line
from yolo_prune.host import checkpoint, error_text, silence


def find(name: str, argument: str, safe: bool) -> tuple[str, nn.Module]:
    """The file of a model, or the name of a yaml, and the model.

    Args:
        name: as the user gave it. argument: what their argument is called. safe: as of `checkpoint.load`.

    Raises:
        PruneError: there is no such model, or it cannot be had or read.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            with silence.quiet():
                return name, ultralytics.YOLO(name).model
        except KeyError as error:
            raise PruneError(f"{argument}={name} is no model: there is no {error} in it") from None
        except Exception as error:  # the host has many
            raise PruneError(f"{argument}={name}: {error_text.quoted(error)}") from None
    if path.suffix == ".pt" and not path.exists():
        path = _fetched(name, argument)
    return str(path), checkpoint.load(path, argument, safe)[0]


def _fetched(name: str, argument: str) -> Path:
    """Weights that the host publishes, fetched to where it puts them."""
    if Path(name).name not in GITHUB_ASSETS_NAMES:
        near = get_close_matches(Path(name).name, sorted(GITHUB_ASSETS_NAMES), 1)
        raise PruneError(
            f"{argument}={name}: there is no such file, and ultralytics publishes no such weights"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    try:
        found = Path(str(attempt_download_asset(name)))
    except Exception as error:  # of the network
        raise PruneError(
            f"{argument}={name}: there is no such file here, and it cannot be fetched ({first_line(error)}); put the "
            f"file there, or train the architecture from random weights: {argument}={Path(name).stem}.yaml"
        ) from None
    if not found.exists():
        raise PruneError(
            f"{argument}={name}: there is no such file here, and it cannot be fetched; put the file there, or train "
            f"the architecture from random weights: {argument}={Path(name).stem}.yaml"
        )
    return found


def require_settings(settings: dict[str, Any]) -> None:
    """Raise unless these are arguments of a training that the host, and the plugin, would begin with.

    Raises:
        PruneError: the first that is wrong, in the host's words or ours.
    """
    unknown = [name for name in settings if name not in DEFAULT_CFG_DICT]
    if unknown:
        raise PruneError(f"{', '.join(unknown)}: this ultralytics has no such argument of a training")
    try:
        cfg.get_cfg(overrides={**settings, "mode": "train"})
    except PruneError:
        raise
    except Exception as error:  # TypeError and ValueError, each with advice
        raise PruneError(error_text.quoted(error)) from None
