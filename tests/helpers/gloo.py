# yolo-prune, AGPL-3.0 license
"""The host's real trainer in two processes on a CPU: the few lines of it that name a GPU, replaced.

The host trains in several processes on several GPUs only. Everything else is the host's: the parent's `train`, its
temporary script, `torch.distributed.run`, samplers, DDP, the loop, validation, saving.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import distributed
from torch.nn import parallel
from ultralytics.engine import trainer as engine
from ultralytics.engine import validator
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from yolo_prune.training import ddp


class CpuDdp(parallel.DistributedDataParallel):
    """DDP without the GPU's index, which the host always passes."""

    def __init__(self, module: torch.nn.Module, device_ids: Any = None, **settings: Any) -> None:
        super().__init__(module, **settings)


class CpuBackend(validator.AutoBackend):
    """What a model is validated in outside the epochs, on the CPU: the host names a CUDA device in each worker."""

    def __init__(self, *args: Any, device: Any = None, **settings: Any) -> None:
        super().__init__(*args, device=torch.device("cpu"), **settings)


class GlooTrainer(DetectionTrainer):
    """The detection trainer in two processes over gloo; each writes what it holds after every epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size = 2
        self.ddp = RANK == -1
        if RANK != -1:
            self.add_callback("on_train_start", decide)
            self.add_callback("on_train_epoch_start", note_start)
            self.add_callback("on_train_epoch_end", note_end)

    def _setup_ddp(self) -> None:
        distributed.init_process_group("gloo", rank=RANK, world_size=self.world_size)
        engine.nn.parallel.DistributedDataParallel = CpuDdp  # the name by which the host makes its wrapper
        validator.AutoBackend = CpuBackend
        validator.get_torch_device_backend = lambda kind: SimpleNamespace(current_device=lambda: 0)


def decide(trainer: Any) -> None:
    """Let the first process decide, and let it fail, and write what this one got of it."""

    def fail() -> None:
        raise ValueError(f"rank {RANK} fails")

    row = {"decided": ddp.from_first(lambda: f"by rank {RANK}"), "failed": ""}
    try:
        ddp.from_first(fail)
    except ValueError as error:
        row["failed"] = str(error)
    write(row)


def note_start(trainer: Any) -> None:
    note(trainer, "start")


def note_end(trainer: Any) -> None:
    note(trainer, "end")


def note(trainer: Any, when: str) -> None:
    """Append digests of this process's parameters, and of its optimizer's state, to a file of its own."""
    model = unwrap_model(trainer.model)
    row = {
        "epoch": trainer.epoch,
        "when": when,
        "wrapped": unwrap_model(trainer.model) is not trainer.model,
        "params": sum(p.numel() for p in model.parameters()),
        "weights": digest(model.parameters()),
        "ema": digest(trainer.ema.ema.parameters()),
        "optimizer": digest(
            value
            for group in trainer.optimizer.param_groups
            for p in group["params"]
            for value in trainer.optimizer.state[p].values()
            if isinstance(value, torch.Tensor)
        ),
    }
    write(row)


def write(row: dict[str, Any]) -> None:
    with Path(f"rank{RANK}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def digest(tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
