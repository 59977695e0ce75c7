# yolo-prune, AGPL-3.0 license
"""Residual blocks and attention heads that go whole: exact costs, limits, one budget with channels, and real runs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO

import yolo_prune
from tests.graph.test_families import model_of, outputs
from tests.helpers.runs import SMALL, record_of
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.cost import model_size
from yolo_prune.graph import blocks, channel_groups
from yolo_prune.importance import scoring
from yolo_prune.planning import candidates, choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.settings import Recipe
from yolo_prune.surgery import cut_channels, widths

MODELS = ["yolov8n.yaml", "yolo11s.yaml", "yolo12n.yaml", "yolo26n.yaml", "yolov10n.yaml", "yolov9e.yaml"]


# A small model that can lose blocks and heads, with the head of a YOLO26.
WITH_PARTS: dict[str, Any] = {
    "nc": 80,
    "end2end": True,
    "reg_max": 1,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 2, "C2f", [32, True]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 2, "C2f", [64, True]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "C2PSA", [256]],  # of two heads
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C2f", [64]],
        [[9, 6], 1, "Detect", ["nc"]],
    ],
}


def asked(**settings: Any) -> Recipe:
    found = from_arguments({f"prune_{key}": value for key, value in settings.items()})
    assert found is not None
    return found


def prepared(
    name: str, **settings: Any
) -> tuple[nn.Module, channel_groups.ChannelGraph, list[Any], list[Any], Baseline]:
    """A model in float32, its groups, units, and all parts that may go."""
    model = deepcopy(model_of(name)[0]).float()
    found = channel_groups.build(model)
    baseline = Baseline.of(model, found)
    scores = scoring.score(found, model, "l2")
    lowest = dict.fromkeys(baseline.channels, 1)
    units = candidates.units(found, scores, baseline.channels, lowest)
    parts = [*candidates.heads(units, found.heads, baseline.heads, 1.0), *candidates.blocks(found, 1.0)]
    return model, found, units, parts, baseline


def plan_of(units: list[Any], gone: list[Any]) -> PrunePlan:
    from yolo_prune.allocation.allocate import _plan

    return _plan(units, np.array([unit.size for unit in units]), gone)


@pytest.mark.parametrize("name", MODELS)
def test_the_cost_without_a_part_is_the_hosts_own_count(name: str) -> None:
    model, found, units, parts, baseline = prepared(name)
    flops = model_size.flops_cost(found, units, baseline.size, 1.0, parts)
    params = model_size.params_cost(found, units, baseline.size, 1.0, parts)
    n = np.array([unit.size for unit in units], dtype=float)
    gone = []
    assert parts
    samples = 3 if name == "yolov9e.yaml" else 6  # of a quarter of its widths, and still the largest
    for part in parts[:: max(len(parts) // samples, 1)]:
        if part.heads and part.left < 1 - 1 / 4 - 1e-9:
            continue  # a second head goes after the first
        gone.append(part)
        flops, params = flops.without(part.name), params.without(part.name)
        small = deepcopy(model)
        cut_channels.apply(small, found, plan_of(units, gone))
        size = model_size.size_of(small)
        assert flops(n) == pytest.approx(size.flops, rel=1e-6)
        assert params(n) == pytest.approx(size.params, rel=1e-9)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("name", MODELS[:4])
def test_what_goes_whole_keeps_bound_and_limits_and_is_rebuilt(name: str, scope: str) -> None:
    model, _, _, _, baseline = prepared(name)
    wanted = asked(flops="40%", scope=scope, depth=0.5, heads=0.5)
    found, plan = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    assert len(plan.blocks) <= baseline.blocks // 2
    assert all(len(gone) <= baseline.heads[attention] // 2 for attention, gone in plan.heads.items())
    cut_channels.apply(model, found, plan)
    assert 0.96 <= model_size.size_of(model).flops / (0.4 * baseline.size.flops) <= 1 + 1e-9
    widths.stamp(model, found.native, removed=plan.blocks)
    rebuilt = type(model)(deepcopy(model.yaml), verbose=False)
    rebuilt.load_state_dict(model.state_dict())
    assert blocks.heads(rebuilt) == blocks.heads(model)
    x = torch.rand(1, 3, 64, 64)
    for was, now in zip(outputs(model, x, False), outputs(rebuilt, x, False), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-4, atol=1e-4)


def test_several_steps_together_keep_the_limits() -> None:
    model, _, _, _, baseline = prepared("yolov8n.yaml")
    wanted = asked(flops="40%", depth=0.5)
    gone: list[str] = []
    for share in (0.5, 0.8, 1.0):
        found, plan = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline, share)))
        cut_channels.apply(model, found, plan)
        gone += plan.blocks
    assert 1 <= len(gone) <= 3
    assert len(set(gone)) == len(gone)


def test_what_was_before_the_first_cut_is_known_when_heads_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found, _, _, baseline = prepared("yolo11n.yaml")
    attention = "model.10.m.0.attn"
    of_heads = [group for group in found.groups if group.tie and group.tie.startswith("model.10")]
    keep = {group.name: np.arange(group.size // (4 if group.head is None else 2)) for group in of_heads}
    keep |= {group.name: np.arange(0) for group in of_heads if group.head is not None and group.head.number == 0}
    cut_channels.apply(model, found, PrunePlan(keep, (), {attention: (0,)}))
    baseline = replace(baseline, weights={f"{attention}.qkv.conv[1/4]": 3.0})
    seen: list[Any] = []
    stock = candidates.units
    monkeypatch.setattr(candidates, "units", lambda *given: seen.extend(stock(*given)) or seen)
    wanted = asked(flops="50%", heads=0.5)
    choice.plan(model, channel_groups.build(model), wanted, baseline, choice.step_bounds(wanted, baseline))
    keys, values = ([one for one in seen if f"{attention}.qkv.conv[{n}/2]" in one.groups] for n in (1, 2))
    assert [(one.size, one.original, one.lowest, one.weight) for one in keys] == [(16, 32, 8, 3.0)]
    assert [(one.size, one.original) for one in values] == [(32, 64)]


def test_a_block_that_adds_nothing_goes_first_and_one_that_adds_all_stays() -> None:
    model = YOLO("yolov8n.yaml").model
    dead, loud = model.get_submodule("model.6.m.1.cv2.bn"), model.get_submodule("model.6.m.0.cv2.bn")
    nn.init.zeros_(dead.weight)
    nn.init.zeros_(dead.bias)
    nn.init.constant_(loud.weight, 100.0)
    baseline = Baseline.of(model, channel_groups.build(model))
    wanted = asked(flops="80%", depth=0.17)  # one of six
    _, plan = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    assert plan.blocks == ("model.6.m.1",)
    wanted = asked(flops="50%", depth=1)
    _, plan = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    assert "model.6.m.1" in plan.blocks
    assert "model.6.m.0" not in plan.blocks


def test_the_least_important_head_goes() -> None:
    model = YOLO("yolo11s.yaml").model
    attention = model.get_submodule("model.10.m.0.attn")
    rows = attention.qkv.conv.weight.data.view(attention.num_heads, -1, *attention.qkv.conv.weight.shape[1:])
    rows[2] *= 1e-3
    attention.proj.conv.weight.data.view(attention.proj.conv.out_channels, attention.num_heads, -1)[:, 2] *= 1e-3
    found = channel_groups.build(model)
    baseline = Baseline.of(model, found)
    units = candidates.units(
        found, scoring.score(found, model, "l2"), baseline.channels, dict.fromkeys(baseline.channels, 1)
    )
    parts = candidates.heads(units, found.heads, baseline.heads, 0.75)
    assert parts[0].heads == (("model.10.m.0.attn", 2),)
    assert len(parts) == 3


def test_without_depth_and_heads_nothing_goes_whole() -> None:
    model, _, _, _, baseline = prepared("yolo26n.yaml")
    wanted = asked(flops="40%")
    _, plan = choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline)))
    assert plan.blocks == ()
    assert plan.heads == {}


def test_a_run_removes_blocks_and_resumes_trains_and_prunes_again(tiny_data: Path, tmp_path: Path) -> None:
    run = {**SMALL, "data": str(tiny_data), "project": str(tmp_path), "name": "run", "exist_ok": True}
    words = {
        "prune": 0.7,
        "prune_steps": 2,
        "prune_start": 0.3,
        "prune_end": 0.6,
        "prune_depth": 1.0,
        "prune_heads": 0.5,
    }
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(WITH_PARTS), encoding="utf-8")
    YOLO(own).train(**run, epochs=4, save_period=1, **words)
    record = record_of(tmp_path / "run")
    removed = record["removed"]["blocks"]
    assert removed
    after = {row["name"]: row["after"] for row in record["layers"]}
    assert all(count == 0 for name, count in after.items() if name.startswith(tuple(f"{block}." for block in removed)))
    weights = tmp_path / "run" / "weights"
    last = YOLO(weights / "last.pt").model
    assert widths.removed(last) == removed
    assert not set(removed) & {name for name, _ in last.named_modules()}

    YOLO(weights / "epoch2.pt").train(resume=True, epochs=4)
    resumed = YOLO(weights / "last.pt").model
    assert widths.removed(resumed) == removed
    assert {k: v.shape for k, v in resumed.state_dict().items()} == {k: v.shape for k, v in last.state_dict().items()}

    YOLO(weights / "last.pt").train(**{**run, "name": "again"}, epochs=1)
    again = YOLO(tmp_path / "again" / "weights" / "last.pt")
    assert widths.removed(again.model) == removed
    told = yolo_prune.prune(again, flops="70%", depth=1.0, min_channels=4)
    assert told["final"]["gflops"] <= 0.7 * told["baseline"]["gflops"]
    assert set(removed) <= set(told["removed"]["blocks"])
