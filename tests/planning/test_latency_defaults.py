# yolo-prune, AGPL-3.0 license
"""What the latency scope may do: narrow layers where a recipe leaves it open, and whole blocks where asked."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from torch import nn

from tests.helpers.made_up_device import by_channels
from tests.helpers.small_models import untrained
from tests.planning.test_choice import asked
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost import profile_file
from yolo_prune.graph import channel_groups
from yolo_prune.importance import scoring
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline


@pytest.fixture(scope="module")
def model() -> Any:
    """The small model; its second block adds nothing."""
    built = untrained().model
    last = built.get_submodule("model.4.m.0.cv2.bn")
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return built


def plan(model: Any, step: int = 1, bound: str = "50%", **settings: Any) -> PrunePlan:
    """What is chosen on a device where a channel of the two largest maps is as dear as ten others."""
    content = deepcopy(dict(by_channels(model).content))
    for kind, figures in content["kinds"].items():
        if " 32x32" in kind or " 16x16" in kind:
            content["kinds"][kind] = [10 * ms for ms in figures]
    content["steps"] = {"out": step, "inp": step, "tail": 0.0}
    graph = channel_groups.build(model)
    baseline = Baseline.of(model, graph, profile_file.of(content, "made up"))
    wanted = asked(latency=bound, **settings)
    scores = scoring.score(graph, model, "l2")
    return choice.plan(model, graph, wanted, baseline, choice.step_bounds(wanted, baseline), scores)


def least(chosen: PrunePlan) -> int:
    return min(map(len, chosen.keep.values()))


@pytest.mark.parametrize("scope", ["latency", "global"])
def test_layers_go_below_16_where_that_loses_less(scope: str, model: Any) -> None:
    free = plan(model, scope=scope)
    held = plan(model, scope=scope, min_channels=16)
    assert (least(free), least(held)) == (8, 16)
    assert free.lost < 0.9 * held.lost
    assert least(plan(model, step=16, scope="latency")) == 16  # 8 take as long as 16 there


def test_blocks_go_where_a_recipe_lets_them(model: Any) -> None:
    """Of two blocks half may go, and it is the one that adds nothing."""
    assert plan(model, scope="latency").blocks == ()
    assert plan(model, scope="latency", depth=0.5).blocks == ("model.4.m.0",)
    assert plan(model, scope="global", depth=0.5).blocks == ("model.4.m.0",)


@pytest.mark.parametrize("bound", ["70%", "50%", "40%"])
@pytest.mark.parametrize("step", [1, 8, 16])
def test_no_default_loses_more_than_what_it_replaced(bound: str, step: int, model: Any) -> None:
    before = plan(model, step, bound, scope="latency", min_channels=16)
    now = plan(model, step, bound, scope="latency")
    assert 0 < now.lost <= before.lost
