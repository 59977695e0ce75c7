# yolo-prune, AGPL-3.0 license
"""A model that a run keeps for itself: the yaml that it is built from, and its tensors, in a file of plain data.

A pickled model would run whatever classes it names, and the folder of a run may come from anywhere before it is
resumed. So no module is kept: the host builds one anew from the yaml, as it does for a training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_prune.errors import PruneError, first_line
from yolo_prune.surgery import widths
from yolo_prune.training import plain_data_file


def keep(path: Path, model: nn.Module, use: str) -> None:
    """Write a stock model into a file of plain data, in one step.

    Args:
        path: of the file. model: a stock model. use: what for, to end a message with.

    Raises:
        PruneError: it cannot be written.
    """
    plain_data_file.write(path, {**yamls(model), "tensors": model.state_dict()}, use)


Build = Callable[[dict[str, Any]], Any]
"""Makes a stock model of a yaml: `Run.built`."""


def read(path: Path, build: Build, use: str, like: nn.Module) -> nn.Module:
    """The model that `keep` wrote, on the CPU, in evaluation mode.

    Args:
        build: as of `Build`. use: as of `keep`. like: a stock model of the same run, of any widths.

    Raises:
        PruneError: the file is gone, damaged, of another model, or holds more than plain data.
    """
    state = plain_data_file.read(path, use)
    try:
        model: nn.Module = built(build, state, state["tensors"], like)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PruneError(f"{path} is not of this run, {use}: {first_line(error)}") from error
    return model.cpu().float().eval()


def yamls(model: nn.Module) -> dict[str, Any]:
    """What a model is built from: its yaml, and the same with every width that it has.

    The two differ before the first cut as well: of weights with 80 classes the host keeps the class towers as wide as
    they were, whatever its yaml would build for two classes (8.4.190, nn/tasks.py: `BaseModel.load`).
    """
    return {"yaml": model.yaml, "exact": widths.exact(model)}


def built(build: Build, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], like: Any) -> Any:
    """A model of kept yamls by the host's own way, with kept tensors; all else is as of `like`.

    The host calls what a yaml names, and evaluates its activation (8.4.190, nn/tasks.py: `parse_model`), so a kept yaml
    may say of widths what it will, and must name the very layers of `like`.

    Args:
        build: as of `Build`. state: holds what `yamls` gave. tensors: of that model.
        like: a stock model of the same run, whose device, type and attributes it gets.

    Raises:
        ValueError: it is another architecture. KeyError, RuntimeError and others: it does not fit.
    """
    if not all(widths.same_layers(state[key], like.yaml) for key in ("yaml", "exact")):
        raise ValueError("it names other layers than those of the model in training")
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and go
        new: Any = build(deepcopy(state["exact"]))
    new.yaml = deepcopy(state["yaml"])
    own = {"yaml", "save", "criterion", *vars(nn.Module())}
    vars(new).update({key: value for key, value in vars(like).items() if key not in own})
    example = next(like.parameters())
    new.to(example.device, example.dtype)
    if any(parameter.ndim == 4 and not parameter.is_contiguous() for parameter in like.parameters()):
        new.to(memory_format=torch.channels_last)  # what the host trains in on CUDA
    new.load_state_dict(tensors)
    return new
