# yolo-prune, AGPL-3.0 license
"""Dense models that train as a pruned one does after its cut, so that a comparison is one of models.

On a small set that alone is worth up to 0.06 mAP50-95 (docs/how-much.md): more steps of the optimizer, a longer average
of the weights, images in the frame of the validation (recovery.py). And best.pt is the model as it came until an epoch
is better, as that of a run that prunes is what was cut (step.py).
"""

from __future__ import annotations

from typing import Any

from yolo_prune.host import arguments, every_training
from yolo_prune.host.cadence import Cadence
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Recipe
from yolo_prune.training import recovery

_CADENCE = "yolo_prune_cadence"  # of a trainer: when its optimizer steps
_COUNTED = "yolo_prune_counted"  # of a trainer: the model as it came was counted as the best
_recipe: list[Recipe] = []


def train_all_as(recipe: Recipe) -> None:
    """From now on, in this process, train what does not prune as a run of this recipe trains after its cut."""
    _recipe[:] = [recipe]
    every_training.add("on_pretrain_routine_end", _begin)
    every_training.add("on_train_epoch_start", _follow)


def _begin(trainer: Any) -> None:
    if not arguments.plugin_arguments(vars(trainer.args)):
        setattr(trainer, _CADENCE, Cadence(Run(trainer)))


def _follow(trainer: Any) -> None:
    cadence: Cadence | None = getattr(trainer, _CADENCE, None)
    if cadence is None:
        return
    run = Run(trainer)
    recovery.follow_dense(run, _recipe[0], cadence)
    if run.epoch == 0 and run.chooses_best and not hasattr(trainer, _COUNTED):
        setattr(trainer, _COUNTED, True)
        if run.count_as_best() is not None:
            run.save_as_of_the_epoch_before()
