# yolo-prune, AGPL-3.0 license
"""What takes long says how long it will take, and what is quick says nothing."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from yolo_prune import cli, log


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [
        (0.1, []),
        (2.0, ["fitting: 3 of 8, about 10 s to go", "fitting: 6 of 8, about 4 s to go"]),
    ],
)
def test_progress_is_a_line_every_few_seconds_with_the_time_that_is_left(
    seconds: float, lines: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: clock[0])
    with caplog.at_level("INFO", logger="ultralytics"):
        progress = log.Progress("fitting", 8)
        for _ in range(8):
            clock[0] += seconds
            progress.one()
    assert [message.partition(" ")[2] for message in caplog.messages] == lines


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_a_command_answers_where_the_host_is_silent(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """YOLO_VERBOSE=False makes the level of the host's log, and of its handler, ERROR."""
    logger, seen = logging.getLogger("ultralytics"), []
    handler = logging.Handler(level)
    handler.emit = lambda entry: seen.append(entry.getMessage().rpartition(" ")[2])  # type: ignore[method-assign]
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", level)

    def apply(model: str) -> None:
        for tell in (log.show, log.say, log.warn, logger.info, logger.error):
            tell(tell.__name__)

    monkeypatch.setitem(sys.modules, "stand_in", SimpleNamespace(apply=apply))  # type: ignore[arg-type]
    monkeypatch.setitem(cli._COMMANDS, "apply", ("stand_in", "apply"))
    assert cli.main(["apply", "model=a.pt"]) == 0
    assert seen == ["show", "say", "warn", *(["info"] if level == logging.INFO else []), "error"]
    assert (logger.level, handler.level, logger.filters) == (level, level, [])
