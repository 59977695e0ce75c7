# yolo-prune, AGPL-3.0 license
"""What runs out or is missing on a device: every text of "out of memory", and no double precision on Apple's MPS."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.importance.test_gradients import loss_of
from tests.training.test_frozen import small
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import datasets
from yolo_prune.host.memory import is_out_of_memory, precise
from yolo_prune.host.run import Run
from yolo_prune.importance import calibration, gradients
from yolo_prune.planning import choice
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.step_request import StepRequest
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.settings import Recipe
from yolo_prune.recipe.sparsity_pattern import parse
from yolo_prune.surgery import least_squares, masks, reconstruct
from yolo_prune.training import cut_models

TEXTS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "HIP out of memory. Tried to allocate 20.00 MiB",
    "MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 8 MB, max allowed: 9.07 GB)",
    "XPU out of memory. Tried to allocate 1 GiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "GET was unable to find an engine to execute this computation",
    "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_of_no_memory_is_known(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    outer = PruneError("the loss says nothing")
    outer.__cause__ = RuntimeError(text)
    assert is_out_of_memory(outer)


def test_classes_say_it_too_and_other_errors_do_not() -> None:
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("anything"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what numpy raises, whatever its class
        np.empty(2**60, dtype=np.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(real.value)
    for other in (RuntimeError("CUDA error: device-side assert triggered"), PruneError("out of memory"), None):
        assert not is_out_of_memory(other)


class Apple(torch.Tensor):
    """A tensor that pretends to be on Apple's MPS: no double precision there and no Cholesky solver, until `.cpu()`."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        if name in ("cholesky_ex", "linalg_cholesky_ex", "cholesky_solve", "cholesky"):
            raise NotImplementedError(f"{name} is not implemented for the MPS device")
        if function == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("mps")
        if name == "cpu":
            return args[0].as_subclass(torch.Tensor)
        moved = [a for a in (*args[1:], *kwargs.values()) if a == "mps" or a == torch.device("mps")]
        if name in ("to", "zeros_like", "empty_like") and moved:
            args = tuple(a for a in args if a not in moved)
            kwargs = {key: value for key, value in kwargs.items() if value not in moved}
        found = super().__torch_function__(function, types, args, kwargs)
        if isinstance(found, Apple) and found.as_subclass(torch.Tensor).dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return found


def test_the_stand_in_is_as_strict_as_the_device() -> None:
    tensor = torch.ones(3).as_subclass(Apple)
    assert tensor.device.type == "mps"
    for wrong in (lambda: tensor.double(), lambda: tensor.to(torch.float64), lambda: torch.linalg.cholesky_ex(tensor)):
        with pytest.raises((TypeError, NotImplementedError)):
            wrong()
    assert tensor.cpu().double().dtype == torch.float64
    assert precise(tensor).dtype == torch.float64
    assert type(precise(tensor)) is torch.Tensor


def test_least_squares_are_solved_where_there_is_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    root, right = torch.rand(6, 6), torch.rand(6, 2)
    square = root @ root.T + torch.eye(6)
    expected = torch.linalg.solve(square, right)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)  # nobody goes back to a device that is not there
    solved = least_squares.solve(square.as_subclass(Apple), right.as_subclass(Apple))
    assert torch.allclose(solved.as_subclass(torch.Tensor), expected, atol=1e-5)


def test_lamp_and_gates_need_no_double_precision_on_the_device() -> None:
    model = small()
    expected = masks.choose(model, parse("0.5"))
    found = channel_groups.build(model)
    seen = gradients.Gates(found, model, "fisher")
    loss_of(model, 1).backward()
    seen.look()
    scores = seen.scores()
    seen._sums, seen._counts = seen._sums.as_subclass(Apple), seen._counts.as_subclass(Apple)
    assert all(np.array_equal(value, scores[name]) for name, value in seen.scores().items())
    layer: Any = nn.Conv2d(4, 8, 3)
    alone = masks._by_lamp({"one": layer}, 0.5)["one"]
    fake = SimpleNamespace(weight=layer.weight.detach().as_subclass(Apple))
    again = masks._by_lamp({"one": fake}, 0.5)["one"]  # type: ignore[dict-item]
    assert torch.equal(again.as_subclass(torch.Tensor), alone)
    assert 0 < float(alone.float().mean()) < 1
    assert len(expected) > 50


@pytest.mark.parametrize("error", [RuntimeError(TEXTS[3]), RuntimeError(TEXTS[5]), torch.cuda.OutOfMemoryError("")])
def test_what_makes_up_for_a_cut_goes_to_the_cpu_for_any_text_of_no_memory(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    moves: list[Any] = []
    device = SimpleNamespace(type="xpu")
    model: Any = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(device=device)]), cpu=lambda: moves.append("cpu"), to=moves.append
    )
    images: Any = SimpleNamespace(to=lambda device: "there", cpu=lambda: "here")

    def act(given: Any) -> int:
        if given == "there":
            raise error
        return 7

    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        assert reconstruct._on_device_or_cpu(act, model, images) == 7
    assert "the CPU does it" in caplog.text
    assert moves == ["cpu", device]
    error = RuntimeError("another fault")
    with pytest.raises(RuntimeError, match="another"):
        reconstruct._on_device_or_cpu(act, model, images)


def test_gradients_are_looked_at_on_the_cpu_where_the_device_is_full(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Any] = []
    device = SimpleNamespace(type="xpu")
    network: Any = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(device=device)]), cpu=lambda: moves.append("cpu"), to=moves.append
    )
    tries: list[Any] = []

    def gather(copy: Any, *given: Any) -> dict[str, np.ndarray]:
        tries.append(copy)
        if len(tries) == 1:
            raise PruneError("the loss says nothing") from RuntimeError("CUDA out of memory")
        return {"one": np.ones(1)}

    monkeypatch.setattr(calibration, "_gather", gather)
    nothing: Any = None
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        assert set(calibration.gather(network, nothing, "fisher", [])) == {"one"}
    assert moves == ["cpu", device]
    assert len(tries) == 2
    assert all(one is not network for one in tries)  # copies alone are asked
    assert "no memory left" in caplog.text
    monkeypatch.setattr(calibration, "_gather", lambda *given: (_ for _ in ()).throw(PruneError("all 0")))
    with pytest.raises(PruneError, match="all 0"):
        calibration.gather(network, nothing, "fisher", [])


def recipe(**settings: Any) -> Recipe:
    found = from_arguments({"prune": 0.5, **settings})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory ran out: CUDA out of memory"),
        (PruneError("the gradients of this DetectionModel on this data are all 0"), "are all 0"),
        (OSError("Dataset images not found"), "no images to look at: Dataset images not found"),
    ],
)
def test_a_step_without_gradients_says_what_happened_and_what_it_goes_by(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise error

    of_images = isinstance(error, OSError)
    monkeypatch.setattr(datasets, "of_run", fail if of_images else lambda *given: [])
    monkeypatch.setattr(calibration, "gather", fail)
    model = small()
    trainer = SimpleNamespace(ema=SimpleNamespace(ema=model), model=model)
    with caplog.at_level(logging.WARNING, logger="ultralytics"):
        assert cut_models.scores(Run(trainer), None, recipe(), channel_groups.build(model)) == {}
    assert words in caplog.text
    assert "importance=l2 and scope=uniform" in caplog.text
    assert "no gradients yet" not in caplog.text


def test_one_function_says_what_stands_in_for_gradients() -> None:
    assert choice.by_weights(recipe()).scope == "uniform"
    assert choice.by_weights(recipe()).importance == "l2"
    assert choice.by_weights(recipe(prune_scope="global")).scope == "global"
    assert choice.by_weights(recipe(prune="balanced")).scope == "global"  # its file says so
    assert choice.by_weights(Recipe(name="own", flops="50%", scope="global")).scope == "global"
    assert choice.by_weights(recipe(prune_importance="fpgm")).scope == recipe().scope == "global"
    model = small()
    baseline = Baseline.of(model, channel_groups.build(model))
    plans = [
        choice.choose(model, StepRequest(wanted, baseline, choice.step_bounds(wanted, baseline), worth))[1].keep
        for wanted, worth in (
            (recipe(), lambda groups: {}),
            (recipe(prune_importance="l2", prune_scope="uniform"), None),
            (recipe(prune_scope="global"), lambda groups: {}),
        )
    ]
    counts = [{name: len(kept) for name, kept in plan.items()} for plan in plans]
    assert counts[0] == counts[1]
    assert counts[0] != counts[2]
