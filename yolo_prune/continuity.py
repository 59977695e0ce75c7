# yolo-prune, AGPL-3.0 license
"""The plan that cut the model, applied to what trains it: optimizer state follows the channels that stay.

Momentum buffers and Adam moments are sliced, not dropped, and every parameter keeps its place in its group, so that the
next step is the step of a model that was always this small. This holds for any optimizer whose per-parameter state has
the parameter's shape: SGD, Adam and its kin, RMSprop and the host's MuSGD (ultralytics 8.4.190, optim/muon.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from yolo_prune.surgery import Replaced


def carry_optimizer(optimizer: torch.optim.Optimizer, replaced: Sequence[Replaced]) -> None:
    """Put the new parameters where the old ones stood, and slice their state.

    Args:
        optimizer: the optimizer of the model that was cut.
        replaced: what surgery.apply returned for that model.
    """
    new_of = {item.old: item for item in replaced}
    for group in optimizer.param_groups:
        group["params"] = [new_of[p].new if p in new_of else p for p in group["params"]]
    for old, item in new_of.items():
        if old in optimizer.state:
            state = optimizer.state.pop(old)
            optimizer.state[item.new] = {
                key: item.kept.of(value) if isinstance(value, torch.Tensor) and value.shape == old.shape else value
                for key, value in state.items()
            }


def carry_ema(ema: Any) -> None:
    """After its module was cut, let the host's ModelEMA average the new tensors, from near at first.

    The host pairs the tensors of average and model once and keeps the pairs (8.4.190, utils/torch_utils.py:
    `ModelEMA._pairs`); without a new pairing it would go on averaging tensors that no model uses any more. The ramp of
    its decay starts anew because the average remembers a model that is gone.

    Args:
        ema: the trainer's ModelEMA, whose `.ema` has been cut.
    """
    ema._pairs = None  # older hosts do not have it and do not read it
    ema.updates = 0
