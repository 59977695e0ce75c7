# yolo-prune, AGPL-3.0 license
"""After a cut the optimizer goes on as if the model had always been this small."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from tests.helpers.small_models import SMALL_MODEL
from yolo_prune.graph import channel_groups
from yolo_prune.host import averaging
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.surgery import cut_channels, widths
from yolo_prune.training import cut_models, optimizer_state, resume_state

OPTIMIZERS = ["SGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "MuSGD"]
WANTED = from_arguments({"prune_flops": "50%"})
assert WANTED is not None


def host_optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    trainer = SimpleNamespace(args=SimpleNamespace(lr0=0.01, warmup_bias_lr=0.1), data={"nc": 3})
    return BaseTrainer.build_optimizer(trainer, model, name=name, lr=0.01, momentum=0.9, decay=5e-4)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """A training step on a loss that reaches every parameter."""
    torch.manual_seed(seed)
    raw = model(torch.rand(2, 3, 64, 64))
    loss = sum(value.float().pow(2).mean() for value in (raw["boxes"], raw["scores"]))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(name: str) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = DetectionModel(str(SMALL_MODEL), nc=3, verbose=False).train()
    model.model[-1].dfl.requires_grad_(False)
    optimizer = host_optimizer(model, name)
    for seed in range(2):
        one_step(model, optimizer, seed)
    return model, ModelEMA(model).ema, optimizer


def cut(model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> channel_groups.ChannelGraph:
    baseline = Baseline.of(ema, channel_groups.build(ema))
    return cut_models.cut_training(
        model, ema, optimizer, StepRequest(WANTED, baseline, choice.step_bounds(WANTED, baseline))
    )[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_is_the_step_of_a_model_built_small(name: str) -> None:
    model, ema, optimizer = trained(name)
    layout = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    lengths = [len(group["params"]) for group in optimizer.param_groups]
    found = cut(model, ema, optimizer)
    assert layout == [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    assert lengths == [len(group["params"]) for group in optimizer.param_groups]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    assert set(optimizer.state) <= set(model.parameters())

    widths.stamp(model, found.native)
    small = DetectionModel(str(SMALL_MODEL), nc=3, verbose=False).train()
    stock = getattr(tasks.parse_model, "__wrapped__", tasks.parse_model)
    small.model, _ = widths.build(stock, deepcopy(model.yaml), 3, False)
    for block in small.modules():
        if isinstance(block, nn.BatchNorm2d):
            block.eps, block.momentum = 1e-3, 0.03  # the host's initialize_weights
    small.load_state_dict(model.state_dict())
    small.model[-1].dfl.requires_grad_(False)
    twin = host_optimizer(small, name)
    twin.load_state_dict(deepcopy(optimizer.state_dict()))

    one_step(model, optimizer, 7)
    one_step(small, twin, 7)
    for (key, value), (_, other) in zip(model.named_parameters(), small.named_parameters(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("name", ["SGD", "AdamW", "MuSGD"])
def test_state_follows_its_own_weights(name: str) -> None:
    model, ema, optimizer = trained(name)
    tagged = 0
    for p, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == p.shape:
                state[key] = p.detach().clone()  # each entry is marked with the weight it belongs to
    cut(model, ema, optimizer)
    for p, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                assert torch.equal(value, p.detach()), key
                tagged += 1
    assert tagged >= 80


def test_the_ema_is_cut_by_the_same_plan_and_keeps_its_own_values() -> None:
    model, ema, optimizer = trained("SGD")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    cut(model, ema, optimizer)
    for (name, live), (_, averaged) in zip(model.named_parameters(), ema.named_parameters(), strict=True):
        if "dfl" not in name:
            assert torch.equal(live, 2 * averaged), name
    assert all(not p.requires_grad for p in ema.parameters())


def test_the_ema_follows_the_live_model_after_a_cut() -> None:
    model, _, optimizer = trained("SGD")
    averaged = ModelEMA(model)
    averaged.update(model)  # the host pairs the tensors of both models at the first update and keeps the pairs
    cut(model, averaged.ema, optimizer)
    averaging.restart(averaged)
    one_step(model, optimizer, 3)
    before = {name: value.clone() for name, value in averaged.ema.state_dict().items()}
    averaged.update(model)
    decay = averaged.decay(1)
    assert 0 < decay < 1
    assert any(not torch.equal(value, before[name]) for name, value in averaged.ema.state_dict().items())
    for name, value in averaged.ema.state_dict().items():
        if value.is_floating_point():
            live = model.state_dict()[name]
            torch.testing.assert_close(value, decay * before[name] + (1 - decay) * live, rtol=1e-4, atol=1e-6)


def test_frozen_layers_dtype_and_memory_format_stay() -> None:
    model, ema, optimizer = trained("SGD")
    model.to(memory_format=torch.channels_last)
    frozen = {name for name, p in model.named_parameters() if name.startswith(("model.0.", "model.1."))}
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen and ".dfl" not in name)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    cut(model, ema, optimizer)
    assert any(p.shape != shapes[name] for name, p in model.named_parameters())
    for name, p in model.named_parameters():
        assert p.requires_grad == (name not in frozen and ".dfl" not in name)
        if p.ndim == 4:
            assert p.is_contiguous(memory_format=torch.channels_last), name
    assert all(m.c == m.cv1.conv.out_channels // 2 for m in model.modules() if type(m).__name__ == "C2f")


def test_pending_gradients_are_cut_with_their_weights() -> None:
    model, ema, optimizer = trained("SGD")
    for p in model.parameters():
        p.grad = p.detach().clone()
    cut(model, ema, optimizer)
    assert all(torch.equal(p.grad, p.detach()) for p in model.parameters())


def test_a_projector_keeps_the_columns_of_the_channels_that_stay() -> None:
    distill_model = pytest.importorskip("ultralytics.nn.distill_model", reason="this ultralytics does not distil")
    student, teacher = (DetectionModel(f"yolov8{scale}.yaml", nc=3, verbose=False) for scale in "ns")
    student.args = SimpleNamespace(imgsz=64, dis=1.0)
    wrapper = distill_model.DistillationModel(teacher_model=teacher, student_model=student)
    for projector in wrapper.projector:  # each column is marked with the channel that it reads
        projector[0].weight.data[:] = torch.arange(projector[0].in_channels).view(1, -1, 1, 1)
    found, chosen = choice.choose(
        student, StepRequest(WANTED, Baseline.of(student, channel_groups.build(student)), {"flops": 4e9})
    )
    kept = cut_channels.kept_positions(found, chosen)
    replaced = cut_models.cut_student(wrapper, found, chosen)
    for index, projector in zip((15, 18, 21), wrapper.projector, strict=True):
        rows, _ = kept[f"model.{index}.cv2.conv"]
        assert projector[0].weight[0].flatten().tolist() == rows.tolist()
        assert projector[0].in_channels == student.model[index].cv2.conv.out_channels == len(rows)
    assert {id(item.new) for item in replaced} >= {id(projector[0].weight) for projector in wrapper.projector}
    images = torch.rand(2, 3, 64, 64)
    student.eval()(images)
    for level, projector in enumerate(wrapper.projector):
        assert projector(wrapper._student_feats[level]).shape[1] == projector[2].out_channels


def test_an_optimizer_without_state_is_carried() -> None:
    model = DetectionModel(str(SMALL_MODEL), nc=3, verbose=False).train()
    optimizer = host_optimizer(model, "AdamW")
    cut(model, ModelEMA(model).ema, optimizer)
    one_step(model, optimizer, 0)
    assert optimizer_state.carry_optimizer(optimizer, []) == 0


def test_a_resumed_optimizer_keeps_the_kernel_of_its_device() -> None:
    """On CUDA the host builds it fused, and takes this over as well (8.4.190); a run may have begun on a CPU."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    state = {"live": tensors, "average": tensors, "optimizer": deepcopy(optimizer.state_dict())}
    optimizer.param_groups[0]["fused"] = True
    resume_state.restore(SimpleNamespace(model=model, average=deepcopy(model), optimizer=optimizer), state)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["fused"] is True
