# yolo-prune, AGPL-3.0 license
"""Scores of channels where no training has gathered gradients yet: from those of a few labelled batches (see
gradients.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_prune import log
from yolo_prune.errors import PruneError
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host import datasets, loss
from yolo_prune.host.memory import give_back, is_out_of_memory
from yolo_prune.importance import gradients

IMAGES = 64  # that are looked at, in batches of host/datasets.py


def gather(
    network: nn.Module, graph: ChannelGraph, kind: str, batches: Sequence[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Run labelled batches through a model and back; it is copied, and nothing is learned.

    Args:
        network: a stock model. graph: its groups. kind: one of gradients.GRADIENT_IMPORTANCES.
        batches: of host/datasets.py.

    Returns:
        group name -> (size,) what each channel is worth, see `gradients.Gates.scores`.

    Raises:
        PruneError: the loss of this model cannot be computed on these labels, or says nothing of any channel.
    """
    device = next(network.parameters()).device
    try:
        return _gather(deepcopy(network), graph, kind, batches)
    except (PruneError, RuntimeError) as error:
        if not is_out_of_memory(error) or device.type == "cpu":
            raise
        log.warn(f"no memory left on {device} to look at gradients; the CPU does it")
    give_back(device)
    network.cpu()  # a copy on a full device would be one too many
    try:
        copy = deepcopy(network)
    finally:
        network.to(device)
    return _gather(copy, graph, kind, batches)


def _gather(copy: Any, graph: ChannelGraph, kind: str, batches: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(".dfl." not in name)
    device = next(copy.parameters()).device
    seen = gradients.Gates(graph, copy, kind)
    progress = log.Progress("scoring channels, batches", len(batches))
    with loss.evaluating(copy), torch.enable_grad():
        if kind == "activation":
            seen.attach(None)
        copy.zero_grad()
        for number, batch in enumerate(batches, 1):
            here = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            loss.backward(copy, here)
            # What batches of large images say is added up: a look is at as many images whatever their size.
            if number % datasets.batches_together(max(here["img"].shape[-2:])) == 0 or number == len(batches):
                if kind != "activation":
                    seen.look()
                copy.zero_grad()
            progress.one()
        seen.detach()
    if not seen.seen:  # looks with inf or NaN in them are not counted
        raise PruneError(f"the gradients of this {type(copy).__name__} on this data are no finite numbers")
    scores = seen.scores()
    if not any(value.any() for value in scores.values()):
        raise PruneError(f"the gradients of this {type(copy).__name__} on this data are all 0")
    return scores
