# yolo-prune, AGPL-3.0 license
"""At which batches the optimizer steps, in a resumed run as in the one that was not interrupted.

The host adds up the gradients of several batches (`nbs`), across the end of an epoch too, and counts them from the
latest step in a variable of its loop (8.4.190, engine/trainer.py: `last_opt_step`). A resumed run starts that variable
anew and steps at once, by the gradients of one batch. So the count is kept here as well, and goes into the state of the
run; in a resumed run it is this count that says when, and where the run has other images to a step than the host.
"""

from __future__ import annotations

from typing import Any

from yolo_prune.host.run import Run


class Cadence:
    """Counts the batches whose gradients wait for a step of the optimizer.

    Args:
        run: whose trainer's `optimizer_step` is taken over.

    Attributes:
        waiting: how many batches' gradients have been added up since the latest step.
    """

    def __init__(self, run: Run) -> None:
        trainer = run.trainer
        self.waiting = 0
        self._decides = False
        self._batches: int | None = None  # to a step, where that is not the host's
        self._trainer, self._stock = trainer, trainer.optimizer_step
        trainer.optimizer_step = self._asked
        trainer.add_callback("on_train_batch_start", self._begin)
        trainer.add_callback("on_train_batch_end", self._end)

    def resume(self, waiting: int) -> None:
        """Go on with this many batches waiting; from now on the steps come by this count."""
        self.waiting, self._decides = waiting, True

    def restart(self) -> None:
        """The host has dropped its gradients and begins an epoch again (out of memory, NaN): it counts anew itself."""
        self.waiting, self._decides = 0, False

    def step_every(self, images: int | None) -> None:
        """Step after so many images from now on, as the host would with nbs=images, and scale weight decay as it does.

        The host's argument stays as it is: a resumed run would choose another optimizer by it where that is `auto`
        (8.4.190, engine/trainer.py: `_build_train_pipeline`). Its warm-up, which steps more often, goes on below.

        Args:
            images: of several processes together; None for the host's own nbs.
        """
        trainer = self._trainer
        nbs = trainer.args.nbs if images is None else images
        batches = max(round(nbs / trainer.batch_size), 1)
        decay = trainer.args.weight_decay * trainer.batch_size * batches / nbs
        for group in trainer.optimizer.param_groups:
            if group["weight_decay"]:  # of biases and BatchNorm there is none
                group["weight_decay"] = decay
        trainer.accumulate = min(batches, len(trainer.train_loader) * trainer.epochs)
        self._batches = None if images is None else trainer.accumulate
        self._decides = self._decides or images is not None

    @property
    def is_own(self) -> bool:
        """Whether steps come after other batches than the host's `nbs` says."""
        return self._batches is not None

    def _begin(self, trainer: Any) -> None:
        if trainer is not self._trainer:
            return  # of a later training of the same YOLO object, which older hosts (8.4.0) hand the callbacks on to
        self.waiting += 1
        if self._batches is not None:  # the host's warm-up has left its own nbs behind
            trainer.accumulate = self._batches

    def _asked(self) -> Any:
        """Called where the host would step its optimizer."""
        if self._decides and self.waiting < self._needed():
            return None
        self.waiting = 0
        return self._stock()

    def _end(self, trainer: Any) -> None:
        if trainer is self._trainer and self._decides and self.waiting >= self._needed():
            self.waiting = 0
            self._stock()

    def _needed(self) -> int:
        """Batches to a step; in the host's warm-up it may say fewer."""
        host = int(self._trainer.accumulate)
        return host if self._batches is None else min(host, self._batches)
