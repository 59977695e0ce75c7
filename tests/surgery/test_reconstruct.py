# yolo-prune, AGPL-3.0 license
"""What a cut took, made up for: exact where it can be, better than nothing where not, and only where it may."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import nn
from ultralytics import RTDETR

import yolo_prune
from tests.helpers import small_models
from tests.helpers.oracle import lively
from tests.helpers.reconstruction import away, cut, halves, images, settled, small
from tests.helpers.runs import record_of, train
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import datasets
from yolo_prune.host.run import Run
from yolo_prune.recipe.settings import Settings
from yolo_prune.surgery import least_squares, norm_statistics, reconstruct
from yolo_prune.training import cut_models


def alike(model: nn.Module, names: set[str], noise: float) -> None:
    """Make every second channel of some groups its neighbour, up to some noise in its weights."""
    for name in names:
        block: Any = model.get_submodule(name.removesuffix(".conv"))
        weight = block.conv.weight.data
        weight[1::2] = weight[0::2] + noise * weight.std() * torch.randn_like(weight[0::2])
        for vector in (block.bn.weight, block.bn.bias, block.bn.running_mean, block.bn.running_var):
            vector.data[1::2] = vector.data[0::2]


def test_channels_that_others_can_stand_in_for_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    names = {"model.4.m.0.cv1.conv"}
    alike(model, names, 0.0)
    x, others = settled(model), images(4, seed=2)
    monkeypatch.setattr(least_squares, "RIDGES", (1e-4,))
    gone, mended = (away(cut(model, part, x, names), model, others) for part in ("none", "weights"))
    assert gone > 0.01
    assert mended < 0.01 * gone


def test_constant_channels_leave_their_mean() -> None:
    model = small()
    block: Any = model.get_submodule("model.9.cv1")  # read by pooling and a 1x1 convolution: no borders
    block.bn.weight.data[1::2] = 0
    x = images()
    none, mean = (away(cut(model, part, x, {"model.9.cv1.conv"}), model, x, at=10) for part in ("none", "bias"))
    assert none > 1e-3
    assert mean < 1e-5


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n", "yolov8n-cls"])
def test_it_is_better_than_nothing_on_images_that_it_has_not_seen(name: str) -> None:
    model = small(name)
    free = [
        group.name for group in channel_groups.build(model).groups if not group.tie and group.name.endswith(".cv1.conv")
    ]
    names = {found for found in free if found.startswith("model.4.m.")}
    assert names
    alike(model, names, 0.1)
    x, others = settled(model), images(8, seed=3)
    # Right behind the block: through the whole of a random network any difference grows to anything.
    methods = get_args(Settings.model_fields["reconstruct"].annotation)
    left = {part: away(cut(model, part, x, names), model, others, at=5) for part in methods}
    assert left["weights"] < 0.8 * left["none"], left
    assert left["weights"] < 0.8 * left["bn"], left


def test_the_model_is_only_looked_at_and_the_cut_one_has_its_form() -> None:
    model = small()
    model.train()
    model.model[3].eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = channel_groups.build(model)
    plan = halves(found)
    noted = reconstruct.observe(model, found, plan, images(), "weights")
    assert noted.outputs
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    plain, mended = cut(model, "none", images()), cut(model, "weights", images())
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in mended.state_dict().items()}
    assert [module.training for module in mended.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in mended.modules())
    counted = "model.0.bn.num_batches_tracked"
    assert torch.equal(mended.state_dict()[counted], before[counted])


class Perceptron(nn.Module):
    """Channels last in four dimensions, as ConvNeXt has them; SE without biases; padding by a word; a norm before."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 3, padding="same", bias=False)
        self.bn = nn.BatchNorm2d(c1)
        self.up, self.down = nn.Linear(c2, 2 * c2, bias=False), nn.Linear(2 * c2, c2, bias=False)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.act(self.bn(x)))
        y = self.down(self.act(self.up(x.permute(0, 2, 3, 1))))
        return x + y.permute(0, 3, 1, 2)


@pytest.mark.parametrize("part", ["bias", "bn", "weights"])
def test_a_block_of_ones_own_is_made_up_for_as_it_is_written(part: str) -> None:
    torch.manual_seed(0)
    model = small()
    own = Perceptron(64, 64)
    own.i, own.f, own.type, own.np = 4, -1, "Perceptron", 0
    nn.init.normal_(own.bn.running_mean, std=0.3)
    model.model[4] = nn.Sequential(own).eval()
    model.model[4].i, model.model[4].f, model.model[4].type, model.model[4].np = 4, -1, "Perceptron", 0
    x, others = settled(model), images(8, seed=3)
    found = channel_groups.build(model)
    assert "model.4.0.up" in {group.name for group in found.groups}
    names = {"model.3.conv", "model.4.0.up"}
    before = own.bn.running_mean[::2].clone()
    mended = cut(model, part, x, names)
    assert torch.allclose(mended.model[4][0].bn.running_mean, before, atol=1e-3), "it stands before the convolution"
    if part == "weights":
        left = [away(network, model, others, at=5) for network in (mended, cut(model, "none", x, names))]
        assert left[0] < 0.8 * left[1]


@pytest.mark.parametrize(
    ("padding", "stride", "dilation"), [("same", 1, 1), ("same", 1, 2), ("valid", 2, 1), ((2, 1), 2, 1)]
)
def test_what_a_convolution_reads_is_what_it_makes_its_output_of(padding: Any, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, (3, 4), stride, padding, dilation, bias=False)
    x = torch.rand(2, 3, 11, 13)
    expected = reconstruct._rows(conv, conv(x))
    places = torch.arange(expected.shape[1])
    read = reconstruct._read(conv, x, places) @ conv.weight.flatten(1).T
    assert torch.allclose(read.reshape(expected.shape), expected, atol=1e-5)


def test_without_a_bias_or_a_norm_behind_it_the_mean_is_fitted_as_well() -> None:
    torch.manual_seed(0)
    read = torch.rand(64 * 16, 6) + 1.0
    wanted = (read @ torch.rand(6, 4)).reshape(64, 16, 4) + 2.0
    misses = []
    for centred in (True, False):
        layer = nn.Linear(6, 4, bias=False)
        nn.init.zeros_(layer.weight)
        least_squares.fit(layer, read, wanted, centred=centred)
        misses.append(float((layer(read) - wanted.flatten(0, 1)).mean(0).norm()))
    assert misses[1] < 0.05 * misses[0]


def test_queries_are_not_fitted_for_another_choice_of_them_stands_there_after_a_cut(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = lively(RTDETR(small_models.rtdetr(tmp_path, "yolov8n-rtdetr.yaml")).model).eval()
    found = channel_groups.build(model)
    before = reconstruct.observe(model, found, halves(found), torch.rand(2, 3, 64, 64), "weights")
    decoder = f"model.{len(model.model) - 1}."
    inside = {name.removeprefix(decoder) for name in before.outputs if name.startswith(decoder)}
    assert inside
    assert {name.partition(".")[0] for name in inside} <= {"input_proj", "enc_output", "enc_score_head"}


def test_a_norm_that_runs_twice_keeps_its_statistics() -> None:
    model = small()
    block = model.get_submodule("model.15.cv2")
    block.register_forward_hook(lambda module, _, y: module.act(module.bn(y)))
    x = settled(model)
    mended = cut(model, "weights", x, {"model.4.m.0.cv1.conv"}).get_submodule("model.15.cv2.bn")
    assert torch.equal(mended.running_mean, block.bn.running_mean)
    assert torch.equal(mended.running_var, block.bn.running_var)


def test_what_is_frozen_stays_as_it_is() -> None:
    model = small()
    frozen = {name for name, _ in model.named_parameters() if name.startswith(("model.2.", "model.22.dfl"))}
    plain, mended = cut(model, "none", images()), cut(model, "weights", images(), frozen=frozen)
    moved = {n for n, value in plain.state_dict().items() if not torch.equal(value, mended.state_dict()[n])}
    assert not [name for name in moved if name.startswith(("model.2.", "model.22.dfl"))]
    assert {
        "model.1.conv.weight",
        "model.4.cv1.conv.weight",
        "model.22.cv3.2.2.bias",
        "model.4.cv1.bn.running_var",
    } <= moved
    assert not [name for name in moved if name.endswith(("bn.weight", "bn.bias", "num_batches_tracked"))]


def test_statistics_that_are_not_true_yet_are_not_aimed_at() -> None:
    model = small()
    x = settled(model)
    assert not norm_statistics.untrue(model, x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.weight.data *= 6  # by these statistics each layer multiplies
    assert norm_statistics.untrue(model, x)
    weights = [parameter.norm() for parameter in cut(model, "none", x).parameters()]
    mended = [parameter.norm() for parameter in cut(model, "weights", x).parameters()]
    assert max(new / old for new, old in zip(mended, weights, strict=True) if old > 0) < 3
    assert not norm_statistics.untrue(cut(model, "bn", x), x), "those of the images are taken in their place"


def test_a_norm_whose_statistics_are_far_is_named_for_all_take_others(caplog: Any) -> None:
    model: Any = small()
    x = settled(model)
    with caplog.at_level("INFO", logger="ultralytics"):
        cut(model, "weights", x)
        assert "running statistics" not in caplog.text
        model.model[4].cv1.bn.running_var.fill_(1e-6)
        cut(model, "weights", x)
    said = [line for line in caplog.messages if "running statistics of model.4.cv1.bn" in line]
    assert len(said) == 1
    assert "all norms take those of the images" in said[0]


def test_fewer_places_than_weights_is_the_same_fit() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 4, 3, padding=1)
    read, wanted = torch.randn(60, 72), torch.randn(6, 10, 4)
    one, other = deepcopy(layer), deepcopy(layer)
    least_squares.fit(one, read, wanted)
    # The same equations twice in each image: more rows than weights, and the same solution.
    tall = read.view(6, 10, 72).repeat(1, 2, 1).flatten(0, 1), wanted.repeat(1, 2, 1)
    least_squares.fit(other, *tall)
    assert torch.allclose(one.weight, other.weight, atol=1e-4)
    assert torch.allclose(one.bias, other.bias, atol=1e-4)


def test_where_a_device_has_no_room_the_cpu_does_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A training that fills a GPU must not die of a cut. There is none here: the first tries are made to fail."""
    model = small()
    x = settled(model)
    expected = cut(model, "weights", x)
    for name in ("observe", "_fit_weights"):
        real, tries = getattr(reconstruct, name), []

        def once(*args: Any, real: Any = real, tries: list[int] = tries) -> Any:
            tries.append(1)
            if len(tries) == 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return real(*args)

        monkeypatch.setattr(reconstruct, name, once)
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        found = cut(model, "weights", x)
    assert caplog.text.count("no memory left") == 2
    for value, other in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(value, other)


def test_a_run_makes_up_for_its_cuts_on_plain_training_images(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = reconstruct.observe

    def observe(model: nn.Module, found: Any, plan: Any, pixels: torch.Tensor, part: str) -> Any:
        seen.append(pixels)
        assert part == "weights"
        return real(model, found, plan, pixels, part)

    monkeypatch.setattr(reconstruct, "observe", observe)
    yolo = train(tiny_data, tmp_path, epochs=3, prune=0.5, prune_steps=2, prune_start=0.4, prune_end=0.7, mosaic=1.0)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])
    assert record_of(tmp_path / "run")["recipe"]["reconstruct"] == "weights"
    batches = datasets.read(yolo.model, tiny_data, 64, datasets.count(64))
    expected = datasets.pixels(batches)
    assert torch.allclose(seen[0], expected)


def test_a_data_set_without_plain_images_is_told_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    trainer = SimpleNamespace(train_loader=SimpleNamespace(dataset=[1, 2, 3]), args=SimpleNamespace(imgsz=64))
    with pytest.raises(PruneError, match="no images without augmentation"):
        datasets.of_run(Run(trainer), 4)
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        assert cut_models.images(Run(trainer)) is None
    assert "no images to make up for the cut on" in caplog.text


def test_without_data_one_cut_says_what_it_does_not_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ultralytics"):
        yolo_prune.prune(small(), flops="60%")
    assert "nothing makes up for what is cut" in caplog.text
    assert "channels are chosen and cut" in caplog.text
    assert "fitted" not in caplog.text


@pytest.mark.parametrize(
    ("images", "left"), [(64, [0, 1, 2, 3, 4, 5, 6, 7]), (24, [0, 4, 9]), (4, [0]), (999, range(10))]
)
def test_fewer_batches_are_spread_evenly(images: int, left: Any) -> None:
    batches = [{"number": number, "img": range(8)} for number in range(8 if images == 64 else 10)]
    assert [batch["number"] for batch in datasets.fewer(batches, images)] == list(left)
