# yolo-prune, AGPL-3.0 license
"""The state of a training from before its latest step: kept, and put in place again. When that is so: max_drop.py.

It is kept in the run's folder, as pruning/good.pt: what the models are rebuilt from, and tensors. A run that was killed
finds it there too. Going back puts weights, average and optimizer in place; the learning rate goes on by epochs.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from yolo_prune.errors import PruneError, first_line
from yolo_prune.host.run import Run
from yolo_prune.training import ddp, kept_model, plain_data_file

_GOOD = "good.pt"  # in the run's folder `pruning`
_USE = "to which the run was to go back"


def keep(run: Run) -> None:
    """Keep the state of a training, by the first process, in one file that is replaced whole.

    Raises:
        PruneError: it cannot be written.
    """
    ddp.by_first(lambda: _write(run))


def _write(run: Run) -> None:
    model = run.model
    names = {parameter: name for name, parameter in model.named_parameters()}
    state = {
        **kept_model.yamls(model),
        "average": run.average.state_dict(),
        "average_updates": run.average_updates,
        "live": model.state_dict(),
        "groups": [[names[p] for p in group["params"]] for group in run.optimizer.param_groups],
        "optimizer": {names[p]: value for p, value in run.optimizer.state.items() if p in names},
    }
    plain_data_file.write(_path(run), state, _USE)


def go_back(run: Run) -> None:
    """Put the state that was kept in place, on every process.

    Raises:
        PruneError: the file is gone, damaged, or holds more than plain data.
    """
    old: Any = run.model
    new, average, updates, groups, kept = ddp.each(lambda: _read(run, old))
    trained = {name: parameter.requires_grad for name, parameter in old.named_parameters()}
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(trained.get(name, True))
    new.criterion = _criterion(old, new)
    new.train(old.training)
    for group, own in zip(run.optimizer.param_groups, groups, strict=True):
        group["params"] = own
    run.optimizer.state.clear()
    run.optimizer.state.update(kept)
    run.replace(new, average.eval().requires_grad_(False), updates)


def _read(run: Run, old: Any) -> tuple[Any, Any, int, list[list[Any]], dict[Any, Any]]:
    """Live model and average as they were kept, its updates, and of the live one the optimizer's groups and state."""
    path = _path(run)
    state = plain_data_file.read(path, _USE, run.device)
    try:
        new, average = (kept_model.built(run.built, state, state[key], old) for key in ("live", "average"))
        parameters = dict(new.named_parameters())
        groups = [[parameters[name] for name in names] for names in state["groups"]]
        kept = {parameters[name]: value for name, value in state["optimizer"].items()}
        updates = int(state["average_updates"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PruneError(f"{path} is not of this run, {_USE}: {first_line(error)}") from error
    return new, average, updates, groups, kept


def _criterion(old: Any, new: Any) -> Any:
    """The loss, as far as it has come, of the new model's modules and parameters where it holds the old one's.

    A pose loss of YOLO26 trains a flow that is a module of the head, and an end-to-end loss counts epochs (8.4.190,
    utils/loss.py: `PoseLoss26`, `E2ELoss`).

    Returns:
        None where the host is to make a new one, at the next batch.
    """
    loss = getattr(old, "criterion", None)
    memo: dict[int, Any] = {id(old): new}
    for now, before in ((new.named_modules(), old.named_modules()), (new.named_parameters(), old.named_parameters())):
        there = dict(now)
        memo |= {id(one): there[name] for name, one in before if name in there}
    memo[id(getattr(old, "args", None))] = getattr(old, "args", None)
    return deepcopy(loss, memo)


def forget(run: Run) -> None:
    """Remove what was kept: at the end of a run nobody goes back any more."""
    if ddp.is_first():
        _path(run).unlink(missing_ok=True)


def _path(run: Run) -> Path:
    return run.own_folder / _GOOD
