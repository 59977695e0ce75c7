# yolo-prune, AGPL-3.0 license
"""What each group is worth, measured: cut by itself without a trace, on every task, and fed to the allocation."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.nn.tasks import DetectionModel

from tests.helpers import custom_blocks, task_data
from tests.helpers.oracle import lively
from tests.helpers.small_models import rtdetr, small_with, untrained
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.allocation.scopes import SCOPES
from yolo_prune.commands.inspect import inspect
from yolo_prune.cost import model_size
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import datasets, loss
from yolo_prune.importance import scoring
from yolo_prune.planning import choice, sensitivity
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.surgery import cut_channels


def raw(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model.eval()(image)
    while isinstance(found, (list, tuple)):
        found = found[0]
    return found


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml", "NoScale"])
def test_a_group_without_its_channels_is_a_group_that_is_cut(name: str) -> None:
    torch.manual_seed(0)
    custom_blocks.register()
    network = YOLO(name, verbose=False).model if ".yaml" in name else DetectionModel(custom_blocks.yaml_with(name))
    model = lively(network).double()
    found = channel_groups.build(model)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    members = {group.name: group.members for group in found.groups}
    ties: dict[str, list[channel_groups.ChannelGroup]] = {}
    for group in found.groups:
        ties.setdefault(group.tie or group.name, []).append(group)
    few = ".yaml" not in name
    assert len(ties) > (10 if few else 30)
    for groups in list(ties.values())[:: 1 if few else 3]:
        gone = {group.name: np.arange(group.size // 2, group.size) for group in groups}
        cut = deepcopy(model)
        cut_channels.apply(cut, found, PrunePlan({group.name: np.arange(group.size // 2) for group in groups}))
        with sensitivity._silenced(model, members, gone):
            assert torch.allclose(raw(model, image), raw(cut, image), rtol=1e-9, atol=1e-9), groups[0].name


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("detect", "yolov8n"),
        ("segment", "yolo11n-seg"),
        ("pose", "yolo11n-pose"),
        ("obb", "yolo11n-obb"),
        ("classify", "yolov8n-cls"),
        ("detect", "yolo26n"),
    ],
)
def test_every_group_is_measured_and_the_model_comes_back(task: str, name: str, tmp_path: Path) -> None:
    data = task_data.make(tmp_path, task)
    torch.manual_seed(0)
    kind: Any = type(YOLO(f"{name}.yaml", verbose=False).model)
    points = {"data_kpt_shape": (2, 3)} if task == "pose" else {}
    model = lively(kind(f"{name}.yaml", nc=2, verbose=False, **points))
    model.task = task
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batches = datasets.read(model, data, 64, 4)
    assert sum(len(batch["img"]) for batch in batches) == 4
    found = channel_groups.build(model)
    few = found.groups[::12]
    wanted = {group.tie for group in few if group.tie} | {group.name for group in few}
    part = channel_groups.ChannelGraph(
        tuple(g for g in found.groups if g.name in wanted or g.tie in wanted),
        found.protected,
        found.native,
        found.layers,
    )
    result = sensitivity.measure(model, part, scoring.score(found, model, "l2"), batches)
    assert np.isfinite(result["loss"])
    assert {row["size"] > 0 for row in result["groups"].values()} == {True}
    assert any(abs(row["losses"][-1]) > 1e-4 for row in result["groups"].values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert getattr(model, "criterion", None) is None


class _Ones(torch.nn.Module):
    """A criterion that is a module, as RT-DETR's is."""

    def forward(self, preds: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(1), torch.ones(1)


def _few(found: channel_groups.ChannelGraph, every: int) -> channel_groups.ChannelGraph:
    free = tuple(group for group in found.groups if not group.tie)[::every]
    return channel_groups.ChannelGraph(free, found.protected, found.native, found.layers)


def test_modes_criterion_and_settings_come_back_and_no_folder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = task_data.make(tmp_path / "data", "detect")
    model: Any = lively(type(YOLO("yolov8n.yaml", verbose=False).model)("yolov8n.yaml", nc=2, verbose=False))
    found = channel_groups.build(model)
    scores = scoring.score(found, model, "l2")
    model.train().model[3].eval()  # such as a part that is frozen
    own = _Ones()
    model.criterion = own
    before = [(module, dict(vars(module))) for module in model.modules()]
    state = torch.get_rng_state()
    batches = datasets.read(model, data, 64, 4)
    assert torch.equal(torch.get_rng_state(), state)
    result = sensitivity.measure(model, _few(found, 30), scores, batches)
    assert result["loss"] != 1  # the host's loss, not the one that was there
    assert model.criterion is own
    for module, attributes in before:
        assert vars(module).keys() == attributes.keys()
        assert all(vars(module)[name] is value for name, value in attributes.items())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_rtdetr_is_measured_on_images_as_its_own_val_sees_them(tmp_path: Path) -> None:
    data = task_data.make(tmp_path, "detect")
    base = RTDETR(rtdetr(tmp_path, "yolov8n-rtdetr.yaml")).model
    model: Any = lively(type(base)(base.yaml, nc=2, verbose=False))
    found = channel_groups.build(model)
    batches = datasets.read(model, data, 64, 2)
    result = sensitivity.measure(model, _few(found, 25), scoring.score(found, model, "l2"), batches)
    assert any(abs(row["losses"][-1]) > 1e-4 for row in result["groups"].values())


def test_both_branches_of_an_end_to_end_head_count(tiny_data: Path, tmp_path: Path) -> None:
    """The host's loss items are of the one-to-one branch, while what it validates and exports is the other."""
    network: Any = lively(YOLO(small_with(tmp_path / "model.yaml", "v10Detect")).model)
    batches = datasets.read(network, str(tiny_data), 64, 4)
    with loss.evaluating(network), torch.no_grad():
        dense = loss.mean(network, batches)
        whole = [float(network.loss(dict(batch), network(batch["img"]))[0].sum()) for batch in batches]
        assert dense == pytest.approx(sum(whole) / len(whole) / len(batches[0]["img"]), rel=1e-5)
        for branch in ("cv3", "one2one_cv3"):
            bias = getattr(network.model[-1], branch)[0][-1].bias
            bias += 1
            assert loss.mean(network, batches) != pytest.approx(dense, rel=1e-5), branch
            bias -= 1


def test_the_arguments_of_the_training_that_made_a_model_are_not_asked_for_again(tiny_data: Path) -> None:
    """Its recipe may have gone since; of a run that was resumed nothing is to be said."""
    network = lively(untrained().model)
    own = network.args if isinstance(network.args, dict) else vars(network.args)
    network.args = {**own, "prune": "gone/mine.yaml", "prune_profile": "gone.json", "resume": True}
    with loss.evaluating(network), torch.no_grad():
        assert loss.mean(network, datasets.read(network, str(tiny_data), 64, 4)) > 0


def test_a_loss_that_is_not_a_number_is_one_line(tmp_path: Path) -> None:
    data = task_data.make(tmp_path, "detect")
    model: Any = YOLO("yolov8n.yaml", verbose=False).model
    found = channel_groups.build(model)
    model.model[0].conv.weight.data[0] = float("nan")
    scores = {group.name: np.ones(group.size) for group in found.groups}
    with pytest.raises(PruneError, match=r"^the loss of this DetectionModel on this data is not a finite number$"):
        sensitivity.measure(model, _few(found, 30), scores, datasets.read(model, data, 64, 2))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A checkpoint, its sensitivity file and what `inspect` returned."""
    folder = tmp_path_factory.mktemp("sensitivity")
    data = task_data.make(folder / "data", "detect")
    torch.manual_seed(0)
    yolo = YOLO("yolov8n.yaml", verbose=False)
    yolo.model = lively(type(yolo.model)("yolov8n.yaml", nc=2, verbose=False))
    dead = yolo.model.get_submodule("model.4.cv2")
    dead.bn.weight.data[:] = 0
    dead.bn.bias.data[:] = 0
    yolo.save(str(folder / "model.pt"))
    told = inspect(str(folder / "model.pt"), data=str(data), images=2, imgsz=64)
    return folder / "model.pt", folder / "model-sensitivity.json", told


def test_inspect_tells_shows_and_saves(measured: tuple[Path, Path, dict[str, Any]]) -> None:
    _, path, told = measured
    content = sensitivity.load(path)
    assert content == json.loads(json.dumps(told["sensitivity"]))
    assert path.with_suffix(".png").stat().st_size > 10_000
    rows = sensitivity.table(content)
    assert len(rows) == len(content["groups"])
    assert rows[0]["loss, 50% cut"] == f"{max(r['losses'][-1] for r in content['groups'].values()):+.4f}"
    weights = [row["weight"] for row in content["groups"].values()]
    assert min(weights) > 0
    assert content["groups"]["model.4.cv2.conv"]["losses"] == [0, 0]  # nothing is lost with what computes nothing
    assert content["groups"]["model.4.cv2.conv"]["weight"] == min(weights)


def test_what_is_not_sensitive_is_cut_more(measured: tuple[Path, Path, dict[str, Any]]) -> None:
    path, file, _ = measured
    model = YOLO(path).model.float()
    found = channel_groups.build(model)
    scores = {group.name: np.ones(group.size) for group in found.groups}
    kept = {}
    name = "model.4.cv2.conv"  # the others of this random model, on two images, are chance
    dead = {name: sensitivity.weights(sensitivity.load(file), found)[name]}
    for weights in ({}, dead):
        wanted = from_arguments({"prune_flops": "60%", "prune_scope": "global"})
        assert wanted is not None
        baseline = Baseline.of(model, found, None, weights)
        plan = choice.plan(model, found, wanted, baseline, choice.step_bounds(wanted, baseline), scores)
        kept[bool(weights)] = len(plan.keep.get(name, range(64)))
        small = deepcopy(model)
        cut_channels.apply(small, found, plan)
        assert model_size.size_of(small).flops <= 0.6 * baseline.size.flops
    assert kept[True] < kept[False]
    assert "global" in SCOPES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("{", "Expecting"),
        ('{"kind": "x"}', "it is no sensitivity file; yolo-prune inspect"),
        ('{"kind": "yolo-prune sensitivity", "groups": {"a": {"weight": -1}}}', "a weight is not above 0"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PruneError, match=r"prune_sensitivity=.*") as caught:
        sensitivity.load(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_models_file_is_refused(measured: tuple[Path, Path, dict[str, Any]]) -> None:
    found = channel_groups.build(YOLO("yolo11n.yaml", verbose=False).model)
    with pytest.raises(PruneError, match=r"was measured of another model: .* measure it again"):
        sensitivity.weights(sensitivity.load(measured[1]), found)


def test_another_scale_is_another_model_and_a_protected_group_is_not(
    measured: tuple[Path, Path, dict[str, Any]],
) -> None:
    content = sensitivity.load(measured[1])
    model = YOLO(measured[0]).model
    spared = channel_groups.build(model, ["model.4.*"])
    assert 0 < len(sensitivity.weights(content, spared)) < len(content["groups"])
    small = {**content, "groups": {n: r for n, r in content["groups"].items() if not n.startswith("model.4.")}}
    with pytest.raises(PruneError, match=r"model\.4\..* has no channels to cut there and 32 here"):
        sensitivity.weights(small, channel_groups.build(model))
    with pytest.raises(PruneError, match=r"model\.0\.conv has 16 channels to cut there and 32 here"):
        sensitivity.weights(content, channel_groups.build(YOLO("yolov8s.yaml", verbose=False).model))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"out": "s.json"}, "need data="),
        ({"data": "x.yaml", "out": "s.txt"}, "a file that ends in .json"),
        ({"data": "x.yaml", "out": __file__ + "/s.json"}, "s.json cannot be written: Not a directory"),
        ({"data": "x.yaml", "imgsz": "abc"}, "imgsz=abc: a whole number of 1 or more"),
        ({"data": "x.yaml", "safe": "no"}, "safe=no: True or False is needed"),
        ({"protect": {0}}, "protect={0}: names or patterns of modules are needed"),
        ({"data": "x.yaml", "images": 0}, "images=0: a whole number of 1 or more"),
        (
            {"data": "x.yaml", "importance": "obdc"},
            "importance=obdc is of gradients, which inspect does not take; known",
        ),
        ({"data": "x.yaml"}, "data=x.yaml: not a data set that ultralytics can read for detect"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: dict[str, Any], words: str, measured: tuple[Path, Path, dict[str, Any]]
) -> None:
    with pytest.raises(PruneError) as caught:
        inspect(str(measured[0]), **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
