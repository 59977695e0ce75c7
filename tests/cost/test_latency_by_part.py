# yolo-prune, AGPL-3.0 license
"""Predicted milliseconds part by part."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from tests.helpers.made_up_device import made_up_once
from tests.planning.test_choice import dense
from yolo_prune.allocation import allocate
from yolo_prune.cost import model_size
from yolo_prune.cost.latency_by_part import latency_by_part
from yolo_prune.surgery import cut_channels


def test_the_milliseconds_of_the_parts_are_those_of_the_model() -> None:
    fake = made_up_once()
    model, found, _ = dense("n")
    small = deepcopy(model)
    head = [group.name for group in found.groups if group.members[0].module.startswith("model.22.")]
    cut_channels.apply(small, found, allocate.PrunePlan({name: np.arange(8) for name in head}))
    before, after = latency_by_part(model, fake), latency_by_part(small, fake)
    assert list(before) == ["backbone", "neck", "head", "rest"]
    assert sum(before.values()) == pytest.approx(model_size.latency_of(model, fake), rel=1e-9)
    assert sum(after.values()) == pytest.approx(model_size.latency_of(small, fake), rel=1e-9)
    assert len(head) > 5
    assert after["head"] < 0.7 * before["head"]
    assert {part: after[part] for part in ("backbone", "neck", "rest")} == pytest.approx(
        {part: before[part] for part in ("backbone", "neck", "rest")}
    )
    assert before["rest"] == pytest.approx(fake.fixed)
