# yolo-prune, AGPL-3.0 license
"""How momentum and Adam's moments follow a cut: the optimizer's state, for the channels that stay.

State follows the channels that stay: momentum buffers and Adam moments are sliced, not dropped, and every
parameter keeps its place in its group, so that the next step is the step of a model that was always this small. This
holds for any optimizer whose per-parameter state has the parameter's shape: SGD, Adam and its kin, RMSprop and the
host's MuSGD (ultralytics 8.4.190, optim/muon.py). State of another shape (Adafactor's rows and columns) cannot follow:
it is dropped, and the optimizer makes it anew at its next step.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch

from yolo_prune.errors import PruneError
from yolo_prune.surgery.cut_channels import Replaced


def require_steppable(optimizer: torch.optim.Optimizer) -> None:
    """Raise where the host cannot step an optimizer that a trainer of the user's own brings.

    Raises:
        PruneError: it wants a closure (LBFGS) or sparse gradients (SparseAdam).
    """
    step = list(inspect.signature(type(optimizer).step).parameters.values())[1:]  # a scheduler wraps the object's own
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [one.name for one in step if one.default is inspect.Parameter.empty and one.kind in kinds]
    needs = f"a {wanted[0]} at each step" if wanted else ""
    if isinstance(optimizer, torch.optim.SparseAdam):
        needs = "sparse gradients"
    if needs:
        raise PruneError(
            f"{type(optimizer).__name__} needs {needs}, which no training of the host gives: build another optimizer "
            "in your trainer, such as torch.optim.AdamW"
        )


def carry_optimizer(optimizer: torch.optim.Optimizer, replaced: Sequence[Replaced]) -> int:
    """Put the new parameters where the old ones stood, and slice their state.

    Args:
        optimizer: the optimizer of the model that was cut.
        replaced: what the cut of that model replaced (`cut_models.cut_student`).

    Returns:
        Of how many parameters the state was dropped, for it has another shape than they and cannot be sliced.
    """
    new_of = {item.old: item for item in replaced}
    for group in optimizer.param_groups:
        now = [new_of[p].new if p in new_of else p for p in group["params"]]
        group["params"] = [p for p in now if p is not None]
    dropped = 0
    for old, item in new_of.items():
        state = optimizer.state.pop(old, None)
        if state is None or item.new is None:
            continue
        tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
        if any(value.numel() > 1 and value.shape != old.shape for value in tensors):
            dropped += 1
            continue
        optimizer.state[item.new] = {
            key: item.kept.of(value) if isinstance(value, torch.Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
    return dropped
