# yolo-prune, AGPL-3.0 license
"""Would a training keep a model? The host builds it anew from its yaml, and takes over the tensors that fit.

What another tool has narrowed, or `fuse()` has folded, does not fit: the host trains on with fresh weights in those
places, and says so in one number only (ultralytics 8.4.190, nn/tasks.py: `BaseModel.load`; issues 14856 and 8784).
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks

from yolo_prune.errors import HostError, PruneError
from yolo_prune.host import checkpoint


def require_unfused(network: nn.Module, name: str = "") -> None:
    """Raise where BatchNorms are folded into convolutions: neither a cut nor a training knows what they were.

    Args:
        network: any module. name: how the user named it, if they did.

    Raises:
        PruneError: it is fused.
    """
    if getattr(network, "is_fused", lambda: False)():
        raise PruneError(
            f"{f'model={name}: ' if name else ''}this model is fused (its BatchNorms are folded in); load the .pt "
            "again and prune it before predict. Of a .pt that was saved after fuse(), take the one before"
        )


def require(network: nn.Module, name: str) -> None:
    """Raise unless a training keeps all weights of a model.

    Args:
        network: a stock model; one without a yaml is left to the host, and so is a yaml that it cannot build.
        name: how the user named it.

    Raises:
        PruneError: it is fused, or its weights are of other widths than its yaml builds.
    """
    require_unfused(network, name)
    built = _built(network)
    layers = getattr(network, "model", None)
    if built is None or not isinstance(layers, nn.Module):
        return
    own = layers.state_dict()
    towers = _towers_that_load_takes_over(layers, built)
    changed = [
        key
        for key, tensor in built.items()
        if key in own and own[key].shape != tensor.shape and not key.startswith(towers)
    ]
    gone = [key for key, tensor in built.items() if key not in own and tensor.ndim > 1]
    if not changed and not gone:
        return
    first = (changed or gone)[0]
    is_now = f"is {list(own[first].shape)}" if changed else "is not there"
    raise PruneError(
        f"model={name}: {len(changed) + len(gone)} of {len(own)} tensors have other widths than this model's own yaml "
        f"builds (model.{first} {is_now}, the yaml builds {list(built[first].shape)}), so a training would make it "
        "full width again and lose them. Was it narrowed by another tool? Prune it as it is first, which writes its "
        f"widths down: yolo-prune apply model={name} flops=80%; then train what that writes"
    )


def _towers_that_load_takes_over(layers: Any, built: dict[str, Any]) -> tuple[str, ...]:
    """Prefixes of the class towers whose width the host takes from the weights and not from the yaml.

    The yaml gives them as many channels as there are classes, 80 of published weights; fine-tuned on few classes they
    keep these 80 (8.4.190, nn/tasks.py: `BaseModel.load` rebuilds them where what their last layer reads differs).
    """
    if "one2one_cv3" not in inspect.getsource(tasks.BaseModel.load):
        return ()  # an older host makes them anew, and they are lost
    last, prefixes = len(layers) - 1, []
    for name in ("cv3", "one2one_cv3"):
        tower = getattr(layers[-1], name, None)
        if isinstance(layers[-1], tasks.Detect) and tower is not None:
            made = built.get(f"{last}.{name}.0.{len(tower[0]) - 1}.weight")
            if made is not None and made.shape[1] != tower[0][-1].in_channels:
                prefixes.append(f"{last}.{name}.")
    return tuple(prefixes)


def require_file(path: str | Path) -> None:
    """The same for a .pt file at hand; what cannot be read safely is left to the host.

    Raises:
        PruneError: as of `require`.
    """
    if Path(path).suffix != ".pt" or not Path(path).is_file():
        return
    try:
        network, _ = checkpoint.load(path, safe=checkpoint.restricted())
    except PruneError:
        return
    require(network, str(path))


def _built(network: nn.Module) -> dict[str, Any] | None:
    """The tensors that the host builds from a model's yaml, without values; None where it builds none."""
    yaml = getattr(network, "yaml", None)
    if not isinstance(yaml, dict):
        return None
    for device in ("meta", "cpu"):  # a user's block may want values
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                layers, _ = tasks.parse_model(deepcopy(yaml), ch=int(yaml.get("channels", 3)), verbose=False)
            return dict(layers.state_dict())
        except HostError:
            raise
        except Exception:  # the host, or a block of the user's, has any; then the run itself will say it
            continue
    return None
