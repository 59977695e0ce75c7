# yolo-prune, AGPL-3.0 license
"""What takes long says how long it will take, and what is quick says nothing."""

from __future__ import annotations

import pytest

from yolo_prune import log


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
