# yolo-prune, AGPL-3.0 license
"""The host's own loss of a model on labelled batches, outside its trainer.

Read in ultralytics 8.4.190: nn/tasks.py (`loss`, `init_criterion`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ultralytics.cfg import get_cfg

from yolo_prune.errors import PruneError, first_line
from yolo_prune.graph.model_state import undisturbed
from yolo_prune.host import detection_head
from yolo_prune.host.arguments import ARGUMENTS


@contextlib.contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Eval mode, and what the host's loss needs: its settings as a namespace, and a loss of its own.

    Every attribute of every module comes back: modes, settings, the criterion, the anchors that heads remember.
    """
    arguments = getattr(network, "args", None)
    own = arguments if isinstance(arguments, dict) else vars(arguments) if arguments is not None else {}
    known = set(vars(get_cfg())) - {*ARGUMENTS, "resume"}  # those were of its training, whose files may be elsewhere
    with undisturbed(network):
        network.__dict__.pop("criterion", None)
        network._modules.pop("criterion", None)
        network.args = get_cfg(overrides={key: own[key] for key in own if key in known and own[key] is not None})
        if not hasattr(network, "nc"):  # RTDETRDetectionModel.init_criterion reads what only the host's trainer sets
            network.nc = len(getattr(network, "names", ()))
        network.eval()
        yield


def mean(network: Any, batches: Sequence[Mapping[str, Any]]) -> float:
    """The sum of the host's loss items, the mean over batches; of an end-to-end head its whole loss, per image.

    The items of such a head are of its one-to-one branch alone (8.4.190, utils/loss.py: `E2ELoss`), where validation,
    prediction and export go by the one-to-many branch unless `nms=False` is given.
    """
    losses, whole = [], detection_head.is_end_to_end(network)
    try:
        with torch.no_grad():
            for batch in batches:
                total, items = network.loss(dict(batch), network(batch["img"]))
                items = total / len(batch["img"]) if whole else items
                values = items.values() if isinstance(items, dict) else [items]
                losses.append(float(sum(torch.as_tensor(value).float().sum() for value in values)))
    except (ImportError, RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        words = first_line(error)
        raise PruneError(
            f"the loss of this {type(network).__name__} cannot be computed on this data: {words}"
        ) from error
    if not np.isfinite(losses).all():
        raise PruneError(f"the loss of this {type(network).__name__} on this data is not a finite number")
    return float(np.mean(losses))


def backward(network: Any, batch: Mapping[str, Any]) -> None:
    """Add the gradients of the loss on one batch to those of the parameters.

    Raises:
        PruneError: the loss of this model cannot be computed on these labels.
    """
    try:
        total, _ = network.loss(batch, network(batch["img"]))
        total.sum().backward()
    except (RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        words = first_line(error)
        raise PruneError(f"the loss of a {type(network).__name__} says nothing on this data: {words}") from error
