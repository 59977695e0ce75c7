# yolo-prune, AGPL-3.0 license
"""A training of the host as a session sees it: what a session reads of the trainer, and changes in it.

Read in ultralytics 8.4.190, engine/trainer.py (`_setup_train`, `_do_train`, `save_model`, `validate`), where nothing
else is said; the lowest host, 8.4.0, has all of it. What else is put on a trainer stands, all of it, in
docs/decisions/0003-hooks-into-the-host.md.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG_DICT, RANK
from ultralytics.utils.torch_utils import model_info_for_loggers, unwrap_model

from yolo_prune.host import averaging, canvases, frames, platform_report


def student_of(model: nn.Module) -> nn.Module:
    """The model that is pruned: itself, or the student of a DistillationModel (8.4.190, nn/distill_model.py)."""
    student: nn.Module = getattr(model, "student_model", model)
    return student


class Run:
    """One training of the host.

    Attributes:
        trainer: the host's.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    # What was asked for ----------------------------------------------------------------------------------------------

    @property
    def arguments(self) -> Any:
        """The host's arguments, as attributes."""
        return self.trainer.args

    @property
    def settings(self) -> dict[str, Any]:
        """The host's arguments, by name; changes to it are changes to them."""
        return vars(self.trainer.args)

    @property
    def image_size(self) -> int:
        """Pixels, a multiple of the stride once the model is built."""
        return int(self.trainer.args.imgsz)

    @property
    def is_resumed(self) -> bool:
        """Whether the run goes on from a checkpoint of its own."""
        return bool(self.trainer.resume)

    @property
    def is_first(self) -> bool:
        """Whether this is the only process, or the first of several (8.4.190, utils/__init__.py: `RANK`)."""
        return RANK in {-1, 0}

    @property
    def is_further_worker(self) -> bool:
        """Whether this is a process of a DDP run, and not the first: it had no `on_pretrain_routine_start`."""
        return RANK > 0

    @property
    def starts_workers(self) -> bool:
        """Whether this process starts those of a DDP run, and trains nothing itself (8.4.0, trainer `ddp`)."""
        return bool(getattr(self.trainer, "ddp", False))

    # Where it stands -------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that is trained, from 0."""
        return int(self.trainer.epoch)

    @property
    def epochs(self) -> int:
        """How many epochs the run has."""
        return int(self.trainer.epochs)

    @property
    def start_epoch(self) -> int:
        """The epoch, from 0, that this process began with: later than 0 in a resumed run."""
        return int(self.trainer.start_epoch)

    @property
    def fitness(self) -> float | None:
        """Fitness of the latest epoch; None where it was not validated."""
        return None if self.trainer.fitness is None else float(self.trainer.fitness)

    @property
    def best_fitness(self) -> float | None:
        """The best fitness since `forget_the_best`."""
        return None if self.trainer.best_fitness is None else float(self.trainer.best_fitness)

    # What is trained -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The model in training, out of its DDP or compile wrapper; the host's DistillationModel where there is one."""
        return unwrap_model(self.trainer.model)

    @property
    def has_model(self) -> bool:
        """Whether the model is built; in the parent of a DDP run it is not, nor before the host's set-up."""
        return isinstance(getattr(self.trainer, "model", None), nn.Module)

    @property
    def student(self) -> nn.Module:
        """The stock model in training."""
        return student_of(unwrap_model(self.trainer.model))

    @property
    def average(self) -> Any:
        """The model of averaged weights (EMA), which is what is scored, validated and saved; wrapped as `model` is."""
        return self.trainer.ema.ema

    @property
    def average_student(self) -> nn.Module:
        """The stock model of averaged weights."""
        return student_of(self.trainer.ema.ema)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Another one after the host ran out of memory: ask again in each epoch."""
        return cast(torch.optim.Optimizer, self.trainer.optimizer)

    @property
    def device(self) -> torch.device:
        """The device that the model is trained on."""
        device: torch.device = self.trainer.device
        return device

    @property
    def loader(self) -> Any:
        """The data loader of the training images."""
        return self.trainer.train_loader

    @property
    def accumulate(self) -> int:
        """Batches to a step of the optimizer as of now; fewer in the host's warm-up."""
        return int(self.trainer.accumulate)

    @property
    def batch_size(self) -> int:
        """Images of a batch, of several processes together."""
        return int(self.trainer.batch_size)

    @property
    def batches_to_a_step(self) -> int:
        """Batches to a step of the optimizer after the host's warm-up, by its `nbs`."""
        return max(round(self.trainer.args.nbs / self.trainer.batch_size), 1)

    @property
    def has_own_nbs(self) -> bool:
        """Whether `nbs` was given, and not left at what the host has."""
        return bool(self.trainer.args.nbs != DEFAULT_CFG_DICT["nbs"])

    @property
    def optimizer_steps(self) -> int:
        """Steps of the optimizer in an epoch after the host's warm-up."""
        return int(len(self.trainer.train_loader) // self.batches_to_a_step)

    def built(self, yaml: Mapping[str, Any]) -> Any:
        """A new model of a yaml, of the trainer's task."""
        return self.trainer.get_model(cfg=yaml, weights=None, verbose=False)

    @property
    def average_updates(self) -> int:
        """How often the average has been updated."""
        return int(self.trainer.ema.updates)

    def replace(self, model: Any, average: nn.Module, updates: int) -> None:
        """Let another model and average, of so many updates, be trained; wrapped for DDP as the old ones were."""
        if isinstance(self.trainer.model, DistributedDataParallel):
            self.trainer.model.module = model
        else:
            self.trainer.model = model
        self.trainer.ema.ema = average
        self.rewire_after_cut()
        self.trainer.ema.updates = updates  # the more there are, the longer it remembers

    def rewire_after_cut(self) -> None:
        """The model and its average have new tensors: the host's average and DDP are to know these, on every rank."""
        averaging.restart(self.trainer.ema)
        if isinstance(self.trainer.model, DistributedDataParallel):
            self._wrap_anew()

    def average_over(self, decay: Callable[[int], float] | None) -> None:
        """Let the average be a longer one, see `averaging.keep_more`."""
        averaging.keep_more(self.trainer.ema, decay)

    def _wrap_anew(self) -> None:
        """Wrap a cut model anew, with the settings of its old DistributedDataParallel.

        The wrapper's reducer knows the parameters it was made with. The old one must be gone first: it hooks the
        gradients of the parameters that stayed, too.
        """
        old: Any = self.trainer.model
        buffers = "forward_sync_buffers" if hasattr(old, "forward_sync_buffers") else "broadcast_buffers"  # torch 2.13
        names = ("device_ids", "find_unused_parameters", "static_graph", buffers)
        settings = {name: getattr(old, name) for name in names}
        self.trainer.model = old.module
        del old
        gc.collect()
        self.trainer.model = DistributedDataParallel(self.trainer.model, **settings)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What a step of the pruning changes attributes of: trainer, arguments, average, early stopping."""
        return self.trainer, self.trainer.args, self.trainer.ema, self.trainer.stopper

    def schedule(self, epoch: float) -> float:
        """What the host's schedule multiplies the learning rate by at an epoch."""
        return float(self.trainer.lf(epoch))

    def log_with(self, rate: float, figures: Mapping[str, Any]) -> None:
        """Let the host's CSV and loggers have figures beside the learning rates, and these as they are: times `rate`.

        CSV, TensorBoard, W&B and MLflow all log `trainer.lr`, which is made anew before `on_train_epoch_end`.
        """
        rates = {key: value * rate for key, value in self.trainer.lr.items() if key.startswith("lr/")}
        self.trainer.lr = {**self.trainer.lr, **rates, **figures}

    # Early stopping and the best model -------------------------------------------------------------------------------

    def forget_the_best(self) -> None:
        """Best means best at the width the model has now; patience counts from now on."""
        self.trainer.best_fitness = None
        self.trainer.fitness = None
        self.trainer.stopper.best_fitness = 0.0
        self.trainer.stopper.best_epoch = self.trainer.epoch
        self.trainer.stopper.possible_stop = False

    def do_not_stop_early(self) -> None:
        """Let patience count from the next epoch on."""
        self.trainer.stopper.best_epoch = self.trainer.epoch + 1

    def validate_on_both_canvases(self) -> int | None:
        """Validate the host's way and as an exported file sees images, see `canvases.mix`."""
        return canvases.mix(self.trainer)

    def train_in_frames(self, on: bool) -> None:
        """Lay every second batch of training in the frame of the host's validation, see `frames.every_second`."""
        frames.every_second(self.trainer, self.student, on)

    def validate(self) -> float | None:
        """Fitness of the average on the validation set, outside the epoch loop; its training state is not touched."""
        return self._validated()[0]

    @property
    def saves(self) -> bool:
        """Whether the run keeps its best epoch: with the host's `save=False` it writes the last one alone."""
        return bool(self.trainer.args.save)

    @property
    def chooses_best(self) -> bool:
        """Whether the run validates each epoch and keeps the best one as best.pt: the host's `val` and `save`."""
        return bool(self.trainer.args.val and self.saves)

    def count_as_best(self) -> float | None:
        """Validate the average as it is now, and let it be the best until an epoch is better.

        Early stopping does not hear of it: its patience is for epochs.

        Returns:
            The fitness; None in all processes but the first, and where it is not finite.
        """
        fitness, metrics = self._validated()
        if fitness is None or not math.isfinite(fitness):
            return None
        fitness = round(fitness, 5)  # as that of an epoch is: of two that are equal the first one is the best
        self.trainer.best_fitness = self.trainer.fitness = fitness
        self.trainer.metrics = {**(self.trainer.metrics or {}), **metrics}
        return fitness

    def _validated(self) -> tuple[float | None, dict[str, Any]]:
        """Fitness and the other metrics of the average; None and nothing in all processes but the first.

        In the unit of an epoch's: outside a training the host takes COCO's own evaluation on COCO and LVIS, and looks
        several times with `augment` (8.4.190, models/yolo/detect/val.py: `init_metrics`, `coco_evaluate`). Running
        statistics are the first process's, as the host has it (`BaseTrainer.validate`).
        """
        if distributed.is_available() and distributed.is_initialized():
            for buffer in self.trainer.ema.ema.buffers():
                distributed.broadcast(buffer, src=0)
        validator = self.trainer.get_validator()
        for name in ("plots", "val", "save_json", "augment"):  # `val` lets the host turn `save_json` on
            setattr(validator.args, name, False)
        metrics = dict(validator(model=deepcopy(self.trainer.ema.ema)) or {})
        fitness = metrics.pop("fitness", None)
        return None if fitness is None else float(fitness), metrics

    # Files -----------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The folder of the run, the host's save_dir."""
        return Path(self.trainer.save_dir)

    @property
    def own_folder(self) -> Path:
        """In it, the folder of what yolo-prune keeps."""
        return self.folder / "pruning"

    @property
    def last(self) -> Path:
        """The checkpoint of the latest epoch."""
        return Path(self.trainer.last)

    @property
    def best(self) -> Path:
        """best.pt."""
        return Path(self.trainer.best)

    @property
    def final_weights(self) -> Path:
        """best.pt, or last.pt where no epoch was validated."""
        return self.best if self.best.is_file() else self.last

    @property
    def results(self) -> Path:
        """results.csv."""
        return Path(self.trainer.csv)

    @property
    def resumed_from(self) -> Path:
        """The checkpoint that a resumed run goes on from."""
        return Path(str(self.trainer.args.resume))

    def fitness_of_checkpoint(self) -> float | None:
        """Fitness of the epoch that a resumed run's checkpoint ends with, which the host keeps as `train_metrics`."""
        fitness = (load_checkpoint(self.trainer.args.resume)[1].get("train_metrics") or {}).get("fitness")
        return None if fitness is None else float(fitness)

    def save_as_of_the_epoch_before(self) -> None:
        """Write last.pt, and best.pt until a better one is validated, such that a resumed run begins at this epoch.

        Before the first epoch of a process best.pt alone is written: no epoch of its own is behind it
        (atomic_saving.py).
        """
        trainer = self.trainer
        if not self.is_first or not trainer.args.save:
            return
        period = trainer.save_period
        trainer.epoch -= 1
        try:
            trainer.save_period = -1
            trainer.save_model()
        finally:
            trainer.epoch += 1
            trainer.save_period = period

    # Who else is told ------------------------------------------------------------------------------------------------

    def picture(self, path: Path) -> None:
        """Hand a picture to the host's loggers."""
        self.trainer.on_plot(path)

    def tell_the_platform(self) -> None:
        """Have the host's report of this epoch, which its own callback sends after ours, carry the model's size."""
        trainer = self.trainer
        context = getattr(trainer, "platform", None) or {
            "model_id": getattr(trainer, "_platform_model_id", None)
        }  # 8.4.0
        if context.get("model_id"):
            # As the host counts at epoch 0: at 640 until 8.4.100, at imgsz from 8.4.140 on; never with profile=True.
            arguments = SimpleNamespace(profile=False, imgsz=trainer.args.imgsz)
            subject = SimpleNamespace(
                args=arguments, model=self.student, validator=trainer.validator, device=trainer.device
            )
            platform_report.tell(context["model_id"], trainer.epoch, model_info_for_loggers(subject))


def network_in_parent(trainer: Any) -> nn.Module:
    """The network of a DDP run's parent, whose `model` may be a file's name; as `setup_model` of the workers."""
    network: Any = trainer.model
    if not isinstance(network, nn.Module):
        weights = load_checkpoint(network)[0] if str(network).endswith(".pt") else None
        network = trainer.get_model(cfg=network if weights is None else weights.yaml, verbose=False)
    model: nn.Module = network
    return model
