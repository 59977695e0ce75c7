# yolo-prune, AGPL-3.0 license
"""How far a sweep is: the time left, and the row that is added to the table on the screen. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.report import text

_EVERY = 15.0  # seconds between lines while nothing is finished
_COLUMNS = (("point", 32), ("GFLOPs", 8), ("params", 11), ("ms", 8), ("metric", 9))


def time_left(
    costs: Mapping[str, float], done: Mapping[str, float], before: Mapping[str, float], seconds: float
) -> float:
    """Seconds that are left, if work goes on at the rate that it had so far; infinity while nothing is known.

    Args:
        costs: point -> how much work it is, in any unit. done: point -> the share of it that is done, 0 to 1.
        before: the same when this command began, for a sweep that goes on. seconds: since then.
    """
    total = sum(costs.values())
    finished = sum(costs[name] * share for name, share in done.items())
    gained = finished - sum(costs[name] * share for name, share in before.items())
    return seconds * (total - finished) / gained if gained > 0 else float("inf")


def words_of(seconds: float) -> str:
    """ "about 40 s left", "about 12 min left", "about 3.5 h left"."""
    if seconds == float("inf"):
        return "how long it takes is not known yet"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"


def share_of(run: Path, epochs: int) -> float:
    """The share of a training that is done, by the rows of its results.csv."""
    try:
        with (run / "results.csv").open("rb") as stream:
            rows = sum(1 for line in stream if line.strip()) - 1
    except OSError:
        return 0.0
    return min(max(rows, 0) / epochs, 1.0)


@dataclass
class Progress:
    """What is said while the jobs of a stage run.

    costs: point -> how much work. shares: tells the share that is done of a point that is not finished.
    """

    title: str
    costs: Mapping[str, float]
    finished: set[str]
    shares: Callable[[str], float] = lambda name: 0.0
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)
    before: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note what was done when the command began."""
        self.before = self._done()

    def finish(self, name: str) -> None:
        """A point is finished."""
        self.finished.add(name)
        self.said = 0.0

    def tick(self, running: Sequence[str] = ()) -> None:
        """Say how far it is, where a point was finished just now or nothing was said for a while."""
        now = time.monotonic()
        if now - self.said < _EVERY:
            return
        self.said = now
        left = len(self.costs) - len(self.finished)
        if not left:
            return
        done = self._done()
        seconds = time_left(self.costs, done, self.before, now - self.began)
        names = f", at work: {', '.join(f'{name} {done[name]:.0%}' for name in running)}" if running else ""
        log.show(f"{self.title}: {len(self.finished)} of {len(self.costs)} points, {words_of(seconds)}{names}")

    def _done(self) -> dict[str, float]:
        return {name: 1.0 if name in self.finished else self.shares(name) for name in self.costs}


def head(metric_name: str) -> str:
    """The head of the table that grows."""
    return _lay([metric_name if name == "metric" else name for name, _ in _COLUMNS])


def line(label: str, outcome: Mapping[str, Any]) -> str:
    """One row of it. outcome: of a point; one that failed says why."""
    if outcome.get("failed"):
        return f"{label:<{_COLUMNS[0][1]}}  failed: {outcome['failed']}"
    metrics, ms = outcome.get("metrics"), outcome.get("ms")
    return _lay(
        [
            label,
            f"{outcome['gflops']:.2f}",
            f"{outcome['params']:,}",
            text.figure(ms, ".2f"),
            text.figure(None if metrics is None else metrics[0], ".4f"),
        ]
    )


def _lay(cells: Sequence[str]) -> str:
    first, *rest = (
        cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, (_, w)) in enumerate(zip(cells, _COLUMNS, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()
