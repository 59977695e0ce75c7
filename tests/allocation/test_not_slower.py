# yolo-prune, AGPL-3.0 license
"""A plan that is predicted slower than the dense model, or than one that loses no more, is not taken: known answers."""

from __future__ import annotations

import pytest

from yolo_prune.allocation.not_slower import Forecast, first


@pytest.mark.parametrize(
    ("forecasts", "dense", "taken"),
    [
        ([Forecast(5, 1)], 10, 0),
        ([Forecast(10, 1)], 10, 0),  # as fast as the dense model is not slower
        ([Forecast(11, 1)], 10, None),
        ([Forecast(11, 1), Forecast(9, 3)], 10, 1),
        ([Forecast(9, 2), Forecast(8, 1)], 10, 1),  # slower than a wider one
        ([Forecast(9, 2), Forecast(8, 2)], 10, 1),  # and than one that is as wide
        ([Forecast(9, 1), Forecast(8, 2)], 10, 0),  # a narrower one may be faster: that is what it costs
        ([Forecast(9, 2), Forecast(9, 1)], 10, 0),  # wider, but no faster
        ([Forecast(12, 3), Forecast(11, 1), Forecast(9, 2)], 10, 2),
        ([Forecast(12, 1), Forecast(11, 1)], 10, None),
    ],
)
def test_the_first_that_is_slower_than_nothing_wider_is_taken(
    forecasts: list[Forecast], dense: float, taken: int | None
) -> None:
    assert first(forecasts, dense) == taken
