# yolo-prune, AGPL-3.0 license
"""How last.pt and best.pt are written: a kill finds the old file or the new, never a part of one.

The host writes its checkpoints in place (8.4.190, engine/trainer.py: `save_model` and `final_eval`). For a run that
prunes, and for the others of a sweep (`protect_all`), both write beside first: one trainer object is given its own
`save_model` and `final_eval`. What is kept beside last.pt for a resume is there before it: see `Companion`.

What goes into them beside the host's own: training/last_checkpoint.py.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ultralytics.utils import RANK, torch_utils

from yolo_prune import files, log
from yolo_prune.errors import PruneError
from yolo_prune.host import every_training
from yolo_prune.host.run import Run

_TEMPORARY = ".saving-"  # begins the name of the folder that half-written checkpoints stand in


class Companion(Protocol):
    """What is kept beside each last.pt."""

    def write(self, checkpoint: Path) -> Path | None:
        """Keep it, for a checkpoint that is about to be put in place; the file, or None where nothing is kept."""

    def forget(self, but: Path | None) -> None:
        """Remove what was kept beside earlier checkpoints, all but one file."""


Fails = Callable[[Exception], None]
"""Is told what went wrong in a save; raises it, or sees to it that it is raised later."""


def protect(run: Run, companion: Callable[[], Companion], fails: Fails) -> None:
    """Let a trainer replace its checkpoints in one step from now on, and remove what a killed run left half-written.

    To be called in the first process alone, which is the one that saves.

    Args:
        companion: asked at each save, before the host's own; gives what is kept beside this last.pt.
        fails: as of `Fails`.
    """
    trainer = run.trainer
    for left in trainer.wdir.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
    stock_save, stock_final = trainer.save_model, trainer.final_eval
    trainer.save_model = lambda: _save(trainer, stock_save, companion, fails)
    trainer.final_eval = lambda: _final(stock_final, fails)


def _save(trainer: Any, stock: Callable[[], Any], companion: Callable[[], Companion], fails: Fails) -> Any:
    """Save, as of `_save_whole`; False, as the host has it, where that failed and is raised later."""
    try:
        return _save_whole(trainer, stock, companion())
    except Exception as error:
        fails(error)
        return False


def _save_whole(trainer: Any, stock: Callable[[], Any], companion: Companion) -> Any:
    """Run the host's `save_model` into a folder beside, then put its files in place, last.pt last.

    best.pt goes first: where a kill comes between the two, the resumed run does the epoch again, and no best.pt is
    wider than its last.pt. What is kept beside last.pt is there before it, and that of the one before is removed after.
    Before the first epoch of a process best.pt goes alone: a run is resumed from an epoch that has ended.
    """
    real = trainer.wdir, trainer.last, trainer.best
    real[0].mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=real[0]))
    try:
        trainer.wdir, trainer.last, trainer.best = folder, folder / real[1].name, folder / real[2].name
        done = stock()
        has_ended_one = trainer.epoch >= trainer.start_epoch
        if not has_ended_one:
            trainer.last.unlink(missing_ok=True)
        kept = _keep(companion, trainer.last)
        for new in sorted(folder.iterdir(), key=lambda path: path.name == real[1].name):
            files.put(new, real[0] / new.name)
        if has_ended_one:
            companion.forget(kept)
    finally:
        trainer.wdir, trainer.last, trainer.best = real
        shutil.rmtree(folder, ignore_errors=True)
    return done


def _keep(companion: Companion, checkpoint: Path) -> Path | None:
    """Keep what a resumed run needs; without it the training is as good, so a full disk is said and ends nothing."""
    if not checkpoint.is_file():
        return None
    try:
        return companion.write(checkpoint)
    except PruneError as error:
        log.warn(str(error))
        return None


def _final(stock: Callable[[], Any], fails: Fails) -> Any:
    """Run the host's `final_eval`, which strips last.pt and best.pt of their optimizer, with files replaced whole."""
    module: Any = sys.modules["ultralytics.engine.trainer"]
    strip = module.strip_optimizer

    def strip_optimizer(*args: Any, **kwargs: Any) -> Any:
        try:
            return _strip_whole(strip, *args, **kwargs)
        except Exception as error:
            fails(error)
            return {}

    module.strip_optimizer = strip_optimizer
    try:
        return stock()
    finally:
        module.strip_optimizer = strip


def _strip_whole(
    strip: Callable[..., Any], f: str | Path, s: str = "", updates: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The host's `strip_optimizer`, with its file replaced whole. strip: that. f, s, updates: its arguments."""
    target = Path(s or f)
    with files.room(target) as folder:
        stripped_file = folder / target.name
        with log.without(f" saved as {stripped_file},"):
            stripped: dict[str, Any] = strip(f, str(stripped_file), **({} if updates is None else {"updates": updates}))
        if stripped_file.exists():  # not where the host skipped a file that is no checkpoint
            files.put(stripped_file, target)
    return stripped


def strip_of_killed(last: Path, best: Path) -> None:
    """Strip the checkpoints of a run that was killed after its last epoch, as the host's `final_eval` would have.

    Raises:
        PruneError: one cannot be written; the old file stands.
    """
    ended = _strip_whole(torch_utils.strip_optimizer, last)
    _strip_whole(torch_utils.strip_optimizer, best, updates={"train_results": ended.get("train_results")})


class _Nothing:
    """The companion of a run that needs nothing beside its last.pt: one that does not prune."""

    def write(self, checkpoint: Path) -> Path | None:
        return None

    def forget(self, but: Path | None) -> None:
        pass


def protect_all() -> None:
    """Protect every training of this process, those that do not prune among them, which nobody else protects."""
    every_training.add("on_train_start", _protect_other)


def _protect_other(trainer: Any) -> None:
    """Protect a run that does not prune; one that does was protected before its training started."""
    if RANK not in {-1, 0} or "save_model" in vars(trainer):
        return
    protect(Run(trainer), _Nothing, _raise)
    if trainer.resume:
        trim_results(Path(trainer.csv), trainer.start_epoch)


def _raise(error: Exception) -> None:
    raise error


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
