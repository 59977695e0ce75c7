# yolo-prune, AGPL-3.0 license
"""What a run that prunes leaves on disk is whole at every moment: a kill finds the old file or the new, never a part.

The host writes its checkpoints in place (8.4.190, engine/trainer.py: `save_model` and `final_eval`). For a run that
prunes, and for no other, both write beside first: one trainer object is given its own `save_model` and `final_eval`.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, RANK

from yolo_prune import files, log
from yolo_prune.errors import PruneError
from yolo_prune.training import training_state

_BESIDE = ".saving-"  # begins the name of the folder that half-written checkpoints stand in


def protect(trainer: Any, state: Callable[[], dict[str, Any] | None] = lambda: None) -> None:
    """Let a trainer replace its checkpoints in one step from now on, and remove what a killed run left half-written.

    Args:
        trainer: the host's. state: gives what is to be kept beside last.pt (training_state.py), or None.
    """
    if RANK not in {-1, 0}:
        return
    for left in trainer.wdir.glob(f"{_BESIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    stock_save, stock_final = trainer.save_model, trainer.final_eval
    trainer.save_model = lambda: _save(trainer, stock_save, state())
    trainer.final_eval = lambda: _final(stock_final)


def _save(trainer: Any, stock: Callable[[], Any], state: dict[str, Any] | None) -> Any:
    """Run the host's `save_model` into a folder beside, then put its files in place, last.pt last.

    best.pt goes first: where a kill comes between the two, the resumed run does the epoch again, and no best.pt is
    wider than its last.pt. What is kept beside last.pt is there before it, and that of the one before is removed after.
    """
    real = trainer.wdir, trainer.last, trainer.best
    real[0].mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=_BESIDE, dir=real[0]))
    try:
        trainer.wdir, trainer.last, trainer.best = beside, beside / real[1].name, beside / real[2].name
        done = stock()
        kept = _keep(trainer, state, beside / real[1].name)
        for new in sorted(beside.iterdir(), key=lambda path: path.name == real[1].name):
            files.put(new, real[0] / new.name)
        training_state.forget(trainer, but=kept)
    finally:
        trainer.wdir, trainer.last, trainer.best = real
        shutil.rmtree(beside, ignore_errors=True)
    return done


def _keep(trainer: Any, state: dict[str, Any] | None, checkpoint: Path) -> Path | None:
    """Keep what a resumed run needs; without it the training is as good, so a full disk is said and ends nothing."""
    if state is None or not checkpoint.is_file():
        return None
    try:
        return training_state.write(trainer, state, checkpoint)
    except PruneError as error:
        log.warn(str(error))
        return None


def save_as_of_the_epoch_before(trainer: Any) -> None:
    """Write last.pt, and best.pt until a better one is validated, such that a resumed run begins at this epoch."""
    if RANK not in {-1, 0} or not trainer.args.save:
        return
    period = trainer.save_period
    trainer.epoch -= 1
    try:
        trainer.save_period = -1
        trainer.save_model()
    finally:
        trainer.epoch += 1
        trainer.save_period = period


def _final(stock: Callable[[], Any]) -> Any:
    """Run the host's `final_eval`, which strips last.pt and best.pt of their optimizer, with files replaced whole."""
    module: Any = sys.modules["ultralytics.engine.trainer"]
    strip = module.strip_optimizer

    def strip_optimizer(f: str | Path, s: str = "", updates: dict[str, Any] | None = None) -> Any:
        target = Path(s or f)
        with files.room(target) as folder:
            beside = folder / target.name
            with _unsaid(f" saved as {beside},"):
                found = strip(f, str(beside), **({} if updates is None else {"updates": updates}))
            if beside.exists():  # not where the host skipped a file that is no checkpoint
                files.put(beside, target)
        return found

    module.strip_optimizer = strip_optimizer
    try:
        return stock()
    finally:
        module.strip_optimizer = strip


@contextmanager
def _unsaid(words: str) -> Iterator[None]:
    """Leave words out of what the host logs: the name of a file that is about to be renamed helps nobody."""

    def without(entry: logging.LogRecord) -> bool:
        entry.msg = str(entry.msg).replace(words, "")
        return True

    LOGGER.addFilter(without)
    try:
        yield
    finally:
        LOGGER.removeFilter(without)


def trim_results(csv: Path, epochs: int) -> None:
    """Remove from results.csv what a killed run wrote of epochs that will be trained again.

    Args:
        csv: the host's file; nothing is done where there is none. epochs: how many are behind the checkpoint.
    """
    try:
        lines = csv.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    kept = lines[:1] + [line for line in lines[1:] if _epoch(line) <= epochs and line.count(",") == lines[0].count(",")]
    if kept != lines:
        files.replace(csv, "\n".join(kept) + "\n")


def _epoch(line: str) -> float:
    try:
        return float(line.partition(",")[0])
    except ValueError:
        return float("inf")
