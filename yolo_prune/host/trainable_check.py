# yolo-prune, AGPL-3.0 license
"""Would a training keep a model? The host builds it anew from its yaml, and takes over the tensors that fit.

What another tool has narrowed, or `fuse()` has folded, does not fit: the host trains on with fresh weights in those
places, and says so in one number only (ultralytics 8.4.190, nn/tasks.py: `BaseModel.load`; issues 14856 and 8784).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from ultralytics.nn import tasks

from yolo_prune.errors import HostError, PruneError
from yolo_prune.graph import image_shape
from yolo_prune.host import checkpoint
from yolo_prune.host.spec_key import noted


def require_unfused(network: nn.Module, name: str = "", argument: str = "model") -> None:
    """Raise where BatchNorms are folded into convolutions: neither a cut nor a training knows what they were.

    Args:
        network: any module. name: how the user named it, if they did. argument: what the user's argument is called.

    Raises:
        PruneError: it is fused.
    """
    if getattr(network, "is_fused", lambda: False)():
        raise PruneError(
            f"{f'{argument}={name}: ' if name else ''}this model is fused (its BatchNorms are folded in); load the .pt "
            "again and prune it before predict. Of a .pt that was saved after fuse(), take the one before"
        )


def require(network: nn.Module, name: str, argument: str = "model", rebuilt: bool = False) -> None:
    """Raise unless a training keeps all weights of a model.

    Args:
        network: a stock model; one without a yaml is left to the host, and so is a yaml that it cannot build.
        name: how the user named it. argument: what the user's argument is called.
        rebuilt: whether the host is about to build it from its yaml, as its own trainers do.

    Raises:
        PruneError: it is fused, or its weights are masked, parametrized, or of other widths than its yaml builds.
        HostError: it is to be rebuilt, and the host does not know one of its blocks.
    """
    require_unfused(network, name, argument)
    built = _built(network, name if rebuilt else None)
    layers = getattr(network, "model", None)
    if built is None or not isinstance(layers, nn.Module):
        return
    own = layers.state_dict()
    _require_plain(layers, own.keys(), built.keys(), f"{argument}={name}")
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
        f"{argument}={name}: {len(changed) + len(gone)} of {len(own)} tensors have other widths than this model's own "
        f"yaml builds (model.{first} {is_now}, the yaml builds {list(built[first].shape)}), so a training would make "
        "it full width again and lose them. Was it narrowed by another tool? Prune it as it is first, which writes its "
        f"widths down: yolo-prune apply model={name} flops=80%; then train what that writes"
    )


def _require_plain(layers: nn.Module, own: Collection[str], built: Collection[str], label: str) -> None:
    """Raise where a tensor that the yaml builds as a parameter is computed from others, by a mask or a parametrization.

    Blocks of the user's that are built with such weights are kept: the yaml builds these too.
    """
    computed = [
        (name, tensor, remove)
        for name, module in layers.named_modules()
        for tensor, remove in _computed(module)
        if f"{name}.{tensor}" in built and f"{name}.{tensor}" not in own
    ]
    if not computed:
        return
    name, tensor, (how, remove) = computed[0]
    more = f" (and {len(computed) - 1} more)" if len(computed) > 1 else ""
    raise PruneError(
        f"{label}: the {tensor} of model.{name}{more} is {how}, which a training would not take over; make it plain "
        f'with {remove}(module, "{tensor}"), which keeps its values, save the model again and train that'
    )


def _computed(module: nn.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names of the tensors of a module that torch computes before each forward, and how, and what makes them plain."""
    for tensor in getattr(module, "parametrizations", {}) if parametrize.is_parametrized(module) else ():
        yield tensor, ("parametrized", "torch.nn.utils.parametrize.remove_parametrizations")
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            yield hook._tensor_name, ("masked", "torch.nn.utils.prune.remove")
        elif type(hook).__name__ in _NORMS and type(hook).__module__.startswith("torch.nn.utils."):
            yield (
                str(getattr(hook, "name", "weight")),
                ("parametrized", f"torch.nn.utils.{_NORMS[type(hook).__name__]}"),
            )


def require_savable(network: nn.Module) -> None:
    """Raise where torch cannot write a model into the checkpoints that the host saves.

    The host pickles whole modules (8.4.190, engine/trainer.py: `save_model`), and those with a parametrization refuse
    that (torch 2.2 to 2.14, nn/utils/parametrize.py: `__getstate__`).

    Raises:
        PruneError: so it is.
    """
    names = [name for name, module in network.named_modules() if parametrize.is_parametrized(module)]
    if names:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise PruneError(
            f"{names[0]}{more} is parametrized, and torch cannot write such a module into a checkpoint: the training, "
            "pruned or not, would fail at its first save. Make it plain with "
            "torch.nn.utils.parametrize.remove_parametrizations, or build its block without"
        )


_NORMS = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}


def require_fitting(weights: nn.Module, network: nn.Module, name: str, argument: str = "pretrained") -> None:
    """Raise unless a model that is to be pruned takes over most of the weights that it is given.

    The host takes the tensors of equal shape and says so in one number only. Another class count, another head or a
    backbone alone are left to it. So are weights that yolo-prune has pruned: the model is given their widths.

    Args:
        weights: the model whose weights are given. network: the model that is to take them.
        name: how the user named the weights. argument: what the user's argument is called.

    Raises:
        PruneError: as of `require`, of the weights; or fewer than half of them fit.
    """
    require(weights, name, argument)
    if noted(weights):
        return
    given, own = _kernels(weights), _kernels(network)
    fit, most = sum(own.get(key) == shape for key, shape in given.items()), min(len(given), len(own))
    if 2 * fit < most:
        raise PruneError(
            f"{argument}={name}: only {fit} of {len(given)} weight tensors fit the model that is to be pruned, which "
            "would keep random ones in the other places; give weights of the same architecture and scale, or "
            "pretrained=False to prune a random model"
        )


def _kernels(network: nn.Module) -> dict[str, torch.Size]:
    """Shapes of the tensors of more than one dimension: vectors and counters also fit by accident."""
    return {key: tensor.shape for key, tensor in network.state_dict().items() if tensor.ndim > 1}


def require_pretrained(path: str | Path, network: nn.Module | None = None) -> None:
    """`require_fitting` for a .pt file at hand; what cannot be read is left to the host.

    Args:
        path: the host's `pretrained`. network: the model that is to take its weights; without one the file alone is
            looked at.

    Raises:
        PruneError: as of `require_fitting`.
    """
    weights = at_hand(path)
    if weights is None:
        return
    if network is None:
        require(weights, str(path), "pretrained")
    else:
        require_fitting(weights, network, str(path))


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
    """The same for a .pt file at hand; what cannot be read is left to the host.

    Raises:
        PruneError: as of `require`.
    """
    network = at_hand(path)
    if network is not None:
        require(network, str(path))


def at_hand(path: str | Path) -> nn.Module | None:
    """The model of a .pt file that the host is about to load for a training; None where it cannot be read.

    What restricted loading refuses, such as the masks of torch.nn.utils.prune, is loaded as the host is about to.
    """
    if Path(path).suffix != ".pt" or not Path(path).is_file():
        return None
    for safe in dict.fromkeys((checkpoint.restricted(), checkpoint.is_host_restricted())):
        try:
            return checkpoint.load(path, safe=safe)[0]
        except PruneError:
            continue
    return None


def unknown_block(error: Exception, yaml: Mapping[str, Any], name: str) -> HostError | None:
    """What to say where the host looks up a block of a yaml and does not know it; None for any other error.

    It looks among the names of its own module (8.4.190, nn/tasks.py: `parse_model`, `globals()[m]`).
    """
    block = error.args[0] if isinstance(error, KeyError) and error.args else None
    if block is None or block not in {row[2] for part in ("backbone", "head") for row in yaml.get(part, ())}:
        return None
    return HostError(
        f"{name} has a block {block}, which ultralytics does not know here: train from a script that says so first: "
        f"ultralytics.nn.tasks.{block} = {block}. More: yolo-prune help adding-a-block"
    )


def _built(network: nn.Module, name: str | None = None) -> dict[str, Any] | None:
    """The tensors that the host builds from a model's yaml, without values; None where it builds none.

    Args:
        name: how the user named it, where a block that the host does not know is to be refused.
    """
    yaml = getattr(network, "yaml", None)
    if not isinstance(yaml, dict):
        return None
    for device in ("meta", "cpu"):  # a user's block may want values
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                layers, _ = tasks.parse_model(deepcopy(yaml), ch=image_shape.channels(network), verbose=False)
            return dict(layers.state_dict())
        except HostError:
            raise
        except Exception as error:  # the host, or a block of the user's, has any; then the run itself will say it
            fault = None if name is None else unknown_block(error, yaml, name)
            if fault is not None:
                raise fault from error
    return None
