# yolo-prune, AGPL-3.0 license
"""Single weights that are zero: chosen right, and zero through training, average, resume, a later run and export."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_prune
from tests.helpers.oracle import lively
from tests.helpers.runs import SMALL, record_of, train
from tests.helpers.small_models import untrained
from yolo_prune.errors import PruneError, RecipeError
from yolo_prune.recipe.sparsity_pattern import Pattern, parse
from yolo_prune.surgery import masks, widths
from yolo_prune.training.optimizer_hooks import StepHooks


def small() -> Any:
    torch.manual_seed(0)
    return lively(DetectionModel("yolov8n.yaml", nc=2, verbose=False)).train()


def one_layer(out: int, inp: int, kernel: int) -> nn.Module:
    holder = nn.Module()
    holder.conv = nn.Conv2d(inp, out, kernel, bias=False)
    return holder


def zeros(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: m.weight.detach() == 0 for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5", Pattern(0.5)), ("2:4", Pattern(0.5, 2, 4)), (" 1:4 ", Pattern(0.75, 1, 4)), ("4:8", Pattern(0.5, 4, 8))],
)
def test_what_is_written_is_read(text: str, expected: Pattern) -> None:
    assert parse(text) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["0", "1", "2", "4:4", "0:4", "4:2", "2:4:8", "half", "", "nan"])
def test_what_leaves_all_or_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse(text)


@settings(max_examples=40, deadline=None)
@given(
    out=st.integers(1, 6),
    blocks=st.integers(1, 5),
    kernel=st.sampled_from([1, 3]),
    pair=st.sampled_from([(2, 4), (1, 4), (1, 2), (4, 8)]),
    seed=st.integers(0, 99),
)
def test_of_every_m_inputs_the_largest_n_stay(
    out: int, blocks: int, kernel: int, pair: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = one_layer(out, blocks * pair[1], kernel)
    mask = masks.choose(model, Pattern(1 - pair[0] / pair[1], *pair))["conv"]
    assert mask.shape == (out, blocks * pair[1], kernel, kernel)
    weight = model.conv.weight.detach().abs()
    for o in range(out):
        for y in range(kernel):
            for x in range(kernel):
                for start in range(0, blocks * pair[1], pair[1]):  # along C of KCRS, which TensorRT wants
                    four, kept = weight[o, start : start + pair[1], y, x], mask[o, start : start + pair[1], y, x]
                    assert kept.sum() == pair[0]
                    assert four[kept].min() >= four[~kept].max()


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.05, 0.95), way=st.floats(0.1, 1.0), seed=st.integers(0, 99))
def test_a_share_of_all_weights_goes_and_no_layer_is_emptied(share: float, way: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3))
    model[1].weight.data *= 0.001  # by size alone this layer would go whole
    chosen = masks.choose(model, Pattern(share), way)
    total = sum(mask.numel() for mask in chosen.values())
    assert sum(int((~mask).sum()) for mask in chosen.values()) == int(share * way * total)
    for name, mask in chosen.items():
        weight = model.get_submodule(name).weight.detach().abs()
        assert mask.any()
        if not mask.all():
            assert weight[mask].min() >= weight[~mask].max()


def test_half_way_takes_the_smallest_of_those_that_will_go() -> None:
    model, pattern = small(), Pattern(0.5, 2, 4)
    half, whole = masks.choose(model, pattern, 0.5), masks.choose(model, pattern)
    assert set(half) == set(whole)
    assert len(half) > 50
    for name, mask in half.items():
        gone, will_go = ~mask, ~whole[name]
        assert not (gone & ~will_go).any()
        assert abs(int(gone.sum()) - int(will_go.sum()) / 2) <= 0.5
        weight = model.get_submodule(name).weight.detach().abs()
        assert weight[gone].max() <= weight[will_go & ~gone].min()


def test_layers_that_a_pattern_cannot_be_of_are_left_alone() -> None:
    model = small()
    chosen = masks.choose(model, Pattern(0.5, 2, 4))
    assert "model.0.conv" not in chosen  # three inputs
    assert not any("dfl" in name for name in chosen)
    assert len(chosen) == sum(isinstance(m, nn.Conv2d) for m in model.modules()) - 2


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_zeros_hold_through_momentum_and_weight_decay(kind: Any) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 1))
    settings_of = {"lr": 0.1, "weight_decay": 0.01, **({"momentum": 0.9} if kind is torch.optim.SGD else {})}
    optimizer = kind(model.parameters(), **settings_of)

    def learn() -> None:
        model(torch.rand(2, 4, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    learn()  # momentum of what is about to be masked
    chosen = masks.choose(model, Pattern(0.6))
    masks.apply(model, chosen)
    acting = StepHooks()
    acting.acting = [masks.Masks(model, chosen)]
    acting.follow(optimizer)
    before = deepcopy(model.state_dict())
    for _ in range(3):
        learn()
    for name, mask in chosen.items():
        now = model.get_submodule(name).weight.detach()
        assert (now[~mask] == 0).all()
        assert (now[mask] != before[f"{name}.weight"][mask]).any()
    acting.detach()
    learn()
    assert any((model.get_submodule(name).weight[~mask] != 0).any() for name, mask in chosen.items())


def test_what_is_counted_is_there() -> None:
    model, pattern = small(), Pattern(0.5, 2, 4)
    dense = masks.count(model, pattern)
    assert (dense.share, dense.fitting) == (pytest.approx(0, abs=1e-3), 0)
    masks.apply(model, masks.choose(model, pattern))
    sparse = masks.count(model, pattern)
    assert sparse.fitting == sparse.layers > 50
    assert sparse.share == pytest.approx(0.5, abs=0.01)
    assert sparse.bytes == dense.bytes
    assert sparse.compressed < 0.75 * dense.compressed


@pytest.fixture(scope="module")
def run_24(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2:4 alone: the first step goes half of the way, and the epochs after the last keep the zeros."""
    folder = tmp_path_factory.mktemp("sparse")
    train(tiny_data, folder, epochs=4, prune_sparsity="2:4", prune_steps=2, prune_start=0.25, prune_end=0.5)
    return folder / "run"


def fits(model: nn.Module) -> bool:
    found = masks.count(model, parse("2:4"))
    return found.fitting == found.layers > 0


def test_a_run_ends_with_two_of_four_in_live_model_and_average(run_24: Path) -> None:
    for name in ("best.pt", "last.pt"):
        model = YOLO(run_24 / "weights" / name).model
        assert fits(model)
        assert widths.sparsity(model) == "2:4"
    told = record_of(run_24)
    assert told["sparsity"]["pattern"] == "2:4"
    assert told["sparsity"]["share"] == pytest.approx(0.5, abs=0.01)
    assert told["sparsity"]["compressed"] < 0.75 * told["sparsity"]["bytes"]
    assert told["final"]["params"] == told["baseline"]["params"]
    assert len(told["steps"]) == 2


def test_a_later_run_without_a_word_keeps_the_zeros(run_24: Path, tiny_data: Path, tmp_path: Path) -> None:
    before = zeros(YOLO(run_24 / "weights" / "best.pt").model)
    yolo = train(tiny_data, tmp_path, YOLO(run_24 / "weights" / "best.pt"), epochs=1, optimizer="AdamW")
    after = zeros(yolo.trainer.ema.ema)
    assert all((after[name] | ~mask).all() for name, mask in before.items() if mask.shape == after[name].shape)
    assert fits(YOLO(tmp_path / "run" / "weights" / "last.pt").model)


def test_a_resumed_run_keeps_the_zeros(tiny_data: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        """The process is gone."""

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise StopError

    yolo = untrained()
    yolo.add_callback("on_train_epoch_start", stop)
    arguments = {"prune_sparsity": 0.5, "prune_steps": 1, "prune_start": 0.25, "prune_end": 0.25}
    with pytest.raises(StopError):
        train(tiny_data, tmp_path, yolo, epochs=4, **arguments)
    last = tmp_path / "run" / "weights" / "last.pt"
    before = zeros(YOLO(last).model)
    assert sum(int(mask.sum()) for mask in before.values()) / sum(m.numel() for m in before.values()) > 0.45
    resumed = YOLO(last)
    resumed.train(resume=True)
    assert resumed.trainer.epoch == 3
    for item in (resumed.trainer.model, resumed.trainer.ema.ema):
        after = zeros(item)
        assert all((after[name] == mask).all() for name, mask in before.items())


def test_channels_are_cut_and_single_weights_too(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path, epochs=3, prune=0.5, prune_sparsity="2:4", prune_steps=1, prune_start=0.4, prune_end=0.4)
    model = YOLO(tmp_path / "run" / "weights" / "best.pt").model
    told = record_of(tmp_path / "run")
    assert told["final"]["gflops"] <= 0.5 * told["baseline"]["gflops"] * 1.001
    assert fits(model)


def test_one_cut_without_training_and_onnx_keep_two_of_four(tmp_path: Path) -> None:
    yolo = YOLO("yolov8n.yaml")
    yolo_prune.prune(yolo, flops="50%", sparsity="2:4")
    assert fits(yolo.model)
    yolo.model.names = {number: str(number) for number in range(80)}
    yolo.save(tmp_path / "sparse.pt")
    path = YOLO(tmp_path / "sparse.pt").export(format="onnx", imgsz=64, **{k: SMALL[k] for k in ("device",)})
    kernels = [
        torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
        for item in onnx.load(path).graph.initializer
        if len(item.dims) == 4 and item.dims[1] % 4 == 0 and item.dims[1] > 4
    ]
    kernels = [kernel for kernel in kernels if kernel.shape[1] != 16 or kernel.shape[0] != 1]  # DFL's, which is fixed
    assert len(kernels) > 40
    for kernel in kernels:
        rows = (kernel != 0).permute(0, 2, 3, 1).reshape(-1, 4)
        assert rows.sum(1).max() <= 2


@pytest.mark.parametrize("value", ["3:2", 1.5, "many", True])
def test_a_pattern_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises((PruneError, RecipeError), match="sparsity"):
        yolo_prune.prune(small(), sparsity=value, flops="50%")
