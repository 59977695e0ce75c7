# yolo-prune, AGPL-3.0 license
"""At which batches the optimizer steps, in a resumed run as in the one that was not interrupted.

The host adds up the gradients of several batches (`nbs`), across the end of an epoch too, and counts them from the
latest step in a variable of its loop (8.4.190, engine/trainer.py: `last_opt_step`). A resumed run starts that variable
anew and steps at once, by the gradients of one batch. So the count is kept here as well, and goes into the state of the
run; in a resumed run it is this count that says when.
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

    def _begin(self, trainer: Any) -> None:
        self.waiting += 1

    def _asked(self) -> Any:
        """Called where the host would step its optimizer."""
        if self._decides and self.waiting < self._trainer.accumulate:
            return None
        self.waiting = 0
        return self._stock()

    def _end(self, trainer: Any) -> None:
        if self._decides and self.waiting >= trainer.accumulate:
            self.waiting = 0
            self._stock()
