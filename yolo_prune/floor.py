# yolo-prune, AGPL-3.0 license
"""How far a run may go: fitness, once recovered, stays within prune_floor of the dense model's; else it goes back.

Before each step the state of the training is kept in the run's folder, as pruning/good.pt; a run that was killed finds
it there too. Where the fitness that came back since the last step is not enough, the state from before that step is
put in place again (weights, average, optimizer; the learning rate goes on by epochs) and no step follows.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from ultralytics.utils.torch_utils import unwrap_model

from yolo_prune import continuity, files, ranks
from yolo_prune.errors import PruneError

_GOOD = "good.pt"  # in the run's folder `pruning`


def recovered(history: Sequence[Mapping[str, Any]], epoch: int) -> float | None:
    """The best fitness since a step.

    Args:
        history: of the record. epoch: of the step, counted from 1.
    """
    return max(
        (row["fitness"] for row in history if row["epoch"] >= epoch and row["fitness"] is not None), default=None
    )


def check_epoch(epochs: Sequence[int], last: int) -> int | None:
    """When the last step is judged: half of the way from it to the end, so that going back has epochs left.

    Args:
        epochs: 0-based epochs of the steps. last: how many epochs the run has.

    Returns:
        A 0-based epoch; None where no epoch is left after the last step.
    """
    if not epochs or epochs[-1] >= last - 1:
        return None
    return epochs[-1] + (last - epochs[-1] + 1) // 2


def keep(trainer: Any) -> None:
    """Keep the state of a training, on the first process, in one file that is replaced whole."""
    if not ranks.is_first():
        return
    model = unwrap_model(trainer.model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    state = {
        "average": trainer.ema.ema,
        "live": model.state_dict(),
        "groups": [[names[p] for p in group["params"]] for group in trainer.optimizer.param_groups],
        "optimizer": {names[p]: value for p, value in trainer.optimizer.state.items() if p in names},
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.replace(_path(trainer), buffer.getvalue())


def go_back(trainer: Any) -> None:
    """Put the state that was kept in place, on every process.

    Raises:
        PruneError: the file is gone or damaged.
    """
    path = _path(trainer)
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=False)  # this run wrote it
    except (OSError, RuntimeError, EOFError) as error:
        raise PruneError(f"{path} cannot be read, to which the run was to go back: {error}") from error
    old: Any = unwrap_model(trainer.model)
    average = state["average"].to(trainer.device)
    new: Any = deepcopy(average)
    new.load_state_dict(state["live"])
    trained = {name: parameter.requires_grad for name, parameter in old.named_parameters()}
    parameters = dict(new.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(trained.get(name, True))
    if hasattr(old, "criterion"):
        new.criterion = old.criterion  # it knows classes and strides, not widths
    new.train(old.training)
    for group, names in zip(trainer.optimizer.param_groups, state["groups"], strict=True):
        group["params"] = [parameters[name] for name in names]
    trainer.optimizer.state.clear()
    trainer.optimizer.state.update({parameters[name]: value for name, value in state["optimizer"].items()})
    trainer.ema.ema = average
    continuity.carry_ema(trainer.ema)
    if isinstance(trainer.model, DistributedDataParallel):
        trainer.model.module = new
        continuity.carry_ddp(trainer)
    else:
        trainer.model = new


def forget(trainer: Any) -> None:
    """Remove what was kept: at the end of a run nobody goes back any more."""
    if ranks.is_first():
        _path(trainer).unlink(missing_ok=True)


def _path(trainer: Any) -> Path:
    return Path(trainer.save_dir) / "pruning" / _GOOD
