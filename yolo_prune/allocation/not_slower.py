# yolo-prune, AGPL-3.0 license
"""Which of several plans under the same bounds is taken, where it is predicted how long each takes. Pure.

Fewer FLOPs are not always less time: 24 channels may take longer than 32 where a device works in 32. So a plan that is
slower than the dense model is not taken, nor one that is slower than a plan which loses no more importance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Forecast(NamedTuple):
    """What is predicted of a plan: milliseconds, and the importance that it loses (units.loss)."""

    ms: float
    lost: float


def first(forecasts: Sequence[Forecast], dense: float) -> int | None:
    """The number of the plan that is taken; None where all are slower than the dense model.

    Args:
        forecasts: of plans that hold every bound, the most wanted first. dense: ms of the model before any cut, or of
            the model as it is where that is faster.
    """
    for number, one in enumerate(forecasts):
        slower = any(other.lost <= one.lost and _slower(one.ms, other.ms) for other in forecasts)
        if not slower and not _slower(one.ms, dense):
            return number
    return None


def _slower(ms: float, than: float) -> bool:
    return ms > than * (1 + 1e-9)
