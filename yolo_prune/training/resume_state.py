# yolo-prune, AGPL-3.0 license
"""What last.pt does not carry: without it a run that is killed and resumed would take other steps than it had taken.

The host saves the average alone, in half precision, and most of the optimizer's state so; a resumed run trains on from
that, with random numbers, an order of images and sums of gradients that begin anew (ultralytics 8.4.190,
engine/trainer.py: `save_model`, `resume_training`). As long as steps are to come, all of it is kept beside each last.pt
as pruning/resume-ID.pt, where ID is of the very bytes of that last.pt: the two belong together whatever is killed when.

    live, average, optimizer   in full precision     gradients, waiting   of batches that wait for a step
    actions                    gates, pressure, warm-up of the learning rate
    avoid                      blocks that a dry cut has failed in
    random, loader             of the first process; of images that worker processes load, only the order

With worker processes (`workers=`, which the host sets to 0 on a CPU), and on several GPUs, how images are augmented
after a resume is another draw than without one: there widths may differ a little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_prune.errors import PruneError, first_line
from yolo_prune.host import random_state
from yolo_prune.host.run import Run
from yolo_prune.training import ddp, max_drop, plain_data_file
from yolo_prune.training.session_data import Session

_NAME = "resume-{}.pt"
_USE = "without which the run does not go on as it would have without the interruption"


def of(run: Run, waiting: int, actions: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a training between two epochs.

    Args:
        waiting: as of `Cadence`. actions: as of `OptimizerActions.state`.
    """
    model = run.model
    return {
        "live": _tensors(model),
        "average": _tensors(run.average),
        "optimizer": run.optimizer.state_dict(),
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        "waiting": waiting,
        "actions": actions,
        "random": random_state.now(),
        "loader": _loader(run.loader),
    }


def is_kept_after(session: Session, epoch: int, epochs: int) -> bool:
    """Whether there is a state beside the last.pt of an epoch: widths are to be decided, or `prune_warmup` goes on.

    Args:
        session: of the run. epoch: 0-based. epochs: of the run.
    """
    warms_up = session.done > 0 and epoch + 1 < session.epochs[session.done - 1] + session.recipe.warmup
    return warms_up or max_drop.undecided_after(session, epoch, epochs)


def state_to_keep(run: Run, session: Session) -> dict[str, Any] | None:
    """What is to be kept beside the last.pt of this epoch; None where it says all."""
    if not is_kept_after(session, run.epoch, run.epochs):
        return None
    assert session.cadence is not None  # since begin.start
    kept = of(run, session.cadence.waiting, session.actions.state())
    return {**kept, "avoid": session.avoid}


class ResumeFile:
    """A state that is kept beside the last.pt of its epoch (host/atomic_saving.py).

    Args:
        run: the training. state: as of `of`, or None where none is to be kept.
    """

    def __init__(self, run: Run, state: Mapping[str, Any] | None) -> None:
        self._run, self._state = run, state

    def write(self, checkpoint: Path) -> Path | None:
        """Keep the state beside a checkpoint that is about to be put in place as last.pt.

        Returns:
            The file, if there is one. Those of earlier ones are for `forget`, once the checkpoint is in place.

        Raises:
            PruneError: it cannot be written.
        """
        if self._state is None:
            return None
        path = self._run.own_folder / _NAME.format(_identity(checkpoint))
        plain_data_file.write(path, self._state, _USE)
        return path

    def forget(self, but: Path | None) -> None:
        """Remove the states that were kept, all but one."""
        for path in self._run.own_folder.glob(_NAME.format("*")):
            if path != but:
                path.unlink(missing_ok=True)


def read(run: Run) -> dict[str, Any] | None:
    """What was kept beside the checkpoint that a run is resumed from; None where nothing was.

    Raises:
        PruneError: it is damaged, or holds more than plain data.
    """
    path = run.own_folder / _NAME.format(_identity(run.resumed_from))
    return plain_data_file.read(path, _USE) if path.is_file() else None


def restore(run: Run, state: Mapping[str, Any]) -> None:
    """Put models and optimizer in place, all or nothing; `restore_moment` follows when the first epoch begins.

    Raises:
        PruneError: the state is of another model.
    """
    try:
        pairs = [(run.model, state["live"]), (run.average, state["average"])]
        for module, tensors in pairs:
            own = {name: value.shape for name, value in _tensors(module).items()}
            if {name: value.shape for name, value in tensors.items()} != own:
                raise ValueError("its tensors are of another model")
        for saved, live in zip(state["optimizer"]["param_groups"], run.optimizer.param_groups, strict=True):
            saved["fused"] = live.get("fused")  # as the host does (8.4.190): it is of the device, which may be another
        run.optimizer.load_state_dict(state["optimizer"])
        for module, tensors in pairs:
            module.load_state_dict(tensors, strict=False)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PruneError(f"the state beside {run.resumed_from} does not fit it, {_USE}: {first_line(error)}") from error


def restore_moment(run: Run, state: Mapping[str, Any]) -> None:
    """Right before the first epoch: gradients that wait, and, in the first process, random numbers and images."""
    for name, parameter in run.model.named_parameters():
        if name in state["gradients"]:
            parameter.grad = state["gradients"][name].to(parameter.device, parameter.dtype)
    if not ddp.is_first():
        return
    loader, kept = run.loader, state["loader"]
    if kept.get("generator") is not None and getattr(loader, "generator", None) is not None:
        loader.generator.set_state(kept["generator"])
    dataset = loader.dataset
    if loader.num_workers == 0 and kept.get("buffer") and hasattr(dataset, "buffer"):
        for index in (index for index in kept["buffer"] if index < len(dataset.ims)):  # the data may be others now
            dataset.load_image(index)  # which puts it into the buffer that mosaics are drawn from
    random_state.put(state["random"])


def begin_epoch(loader: Any) -> None:
    """Let an epoch's order of images follow from the loader's generator as it is now, not from an iterator's past.

    Only where images are loaded in this process: workers would be started anew in each epoch.
    """
    if getattr(loader, "num_workers", 1) == 0 and hasattr(loader, "reset"):
        loader.reset()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state without the teacher of the host's DistillationModel, which has a file of its own."""
    return {name: value for name, value in module.state_dict().items() if not name.startswith("teacher_model.")}


def _loader(loader: Any) -> dict[str, Any]:
    generator = getattr(loader, "generator", None)
    buffer = getattr(loader.dataset, "buffer", None) if getattr(loader, "num_workers", 1) == 0 else None
    return {
        "generator": None if generator is None else generator.get_state(),
        "buffer": [int(index) for index in buffer or []],
    }


def _identity(checkpoint: Path) -> str:
    digest = hashlib.blake2b(digest_size=12)
    with checkpoint.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 22), b""):
            digest.update(part)
    return digest.hexdigest()
