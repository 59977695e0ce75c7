# yolo-prune, AGPL-3.0 license
"""The oracle where it counts: a pruned model read by a machine without yolo-prune, and in ONNX Runtime.

A model is made dead where a random plan will cut, in float32, and run; then it is cut, saved, loaded by stock code
under the restricted loading, and exported by stock code. All must agree to 1e-4 of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from tests.graph.test_families import COVER, model_of, outputs
from tests.helpers.environments import Environment
from tests.helpers.oracle import kill, random_plan
from yolo_prune.recipe import support
from yolo_prune.surgery import cut_channels, widths

# What the other machine does with each model: load, run, export, run the export.
STOCK = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
import torch
from ultralytics import RTDETR, YOLO


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    if isinstance(value, dict):
        return [item for key in sorted(value) if key != "feats" for item in flat(value[key])]
    return [item for part in value or () for item in flat(part)]


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
torch.set_num_threads(1)
for path in map(Path, sys.argv[1:]):
    yolo = (RTDETR if "rtdetr" in path.name else YOLO)(path)
    x = torch.from_numpy(np.load(path.with_suffix(".npy")))
    yolo.model.float().eval()
    raw = flat(yolo.model(x))
    file = yolo.export(format="onnx", imgsz=list(x.shape[-2:]), simplify=False)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    exported = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.savez(path.with_suffix(".npz"), *raw, **{f"onnx_{i}": value for i, value in enumerate(exported)})
"""


class Deployed(NamedTuple):
    """A pruned model, its outputs before it was cut, and what the other machine got: raw, and from ONNX Runtime."""

    model: nn.Module
    image: torch.Tensor
    before: list[np.ndarray]
    raw: list[np.ndarray]
    exported: list[np.ndarray]


@pytest.fixture(scope="module")
def deployed(stock_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Callable[[support.Row], Deployed]:
    """Return a function that prunes and deploys a row, with all others, in one process that imports torch once."""
    pytest.importorskip("onnxruntime")
    done: dict[str, Deployed] = {}
    rows = [row.values[0] for row in COVER if not any(mark.args[0] for mark in row.marks)]

    def deploy(row: support.Row) -> Deployed:
        if not done:
            folder = tmp_path_factory.mktemp("deployed")
            made = [_pruned(other, folder / f"pruned-{Path(other.file).stem}.pt") for other in rows]
            told = stock_env.run(
                *("python", "-c", STOCK, *(path for path, *_ in made)), env={"ULTRALYTICS_SAFE_LOAD": "1"}, timeout=600
            )
            assert told.code == 0, told.text[-3000:]
            for other, (path, model, image, before) in zip(rows, made, strict=True):
                with np.load(path.with_suffix(".npz")) as given:
                    raw = [given[f"arr_{i}"] for i in range(len(before))]
                    exported = [given[name] for name in sorted(given) if name.startswith("onnx_")]
                done[other.file] = Deployed(model, image, before, raw, exported)
        return done[row.file]

    return deploy


def _pruned(row: support.Row, path: Path) -> tuple[Path, nn.Module, torch.Tensor, list[np.ndarray]]:
    """Make a model dead by a random plan, run it, cut it, and save it as a checkpoint; its input goes beside it."""
    double, found = model_of(row.file)
    model = deepcopy(double).float().eval()
    plan = random_plan(found, seed=7, hardest=0.6, whole=0.4)
    kill(model, found, plan)
    side = 128 if row.family == "RT-DETR" else 64
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(7))
    before = [value.numpy() for value in outputs(model, image, False)]
    cut_channels.apply(model, found, plan)
    widths.stamp(model, found.native, removed=plan.blocks)
    torch.save({"model": model, "train_args": {}, "date": "", "version": ""}, path)
    np.save(path.with_suffix(".npy"), image.numpy())
    return path, model, image, before


def agree(one: np.ndarray, other: np.ndarray) -> None:
    """To 1e-4 of the largest value."""
    assert one.shape == other.shape
    assert np.abs(one - other).max() <= 1e-4 * max(np.abs(other).max(), 1e-3)


def agree_in_any_order(one: np.ndarray, other: np.ndarray) -> None:
    """Final boxes (1, n, ...): each row has a partner to 1e-4; one in a hundred may not, at the edge of the best n."""
    assert one.shape == other.shape
    apart = np.abs(one[0][:, None] - other[0][None]).max(-1)
    for nearest in (apart.min(0), apart.min(1)):
        assert (nearest <= 1e-4 * np.abs(other).max()).mean() >= 0.99


@pytest.mark.parametrize("row", COVER)
def test_dead_channels_do_not_count_without_yolo_prune_or_in_onnx_runtime(
    row: support.Row, deployed: Callable[[support.Row], Deployed]
) -> None:
    model, image, before, raw, exported = deployed(row)
    detr = row.family == "RT-DETR"  # 300 queries of 336 cells: which of nearly equal ones come first is chance
    assert raw
    assert exported
    for now, was in zip(raw[:1] if detr else raw, before[:1] if detr else before, strict=True):
        (agree_in_any_order if detr else agree)(now, was)
    end2end = detr or getattr(model.model[-1], "end2end", False)
    for one in exported:
        other = next(other for other in predictions(model, image) if other.shape == one.shape)
        (agree_in_any_order if end2end and one.ndim == 3 else agree)(one, other)


def predictions(model: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    """What the exported file of this model should give: its outputs with the head told that it is exported."""
    model = deepcopy(model)
    for module in model.modules():
        if hasattr(module, "export"):
            module.export, module.format = True, "onnx"
    return [value.numpy() for value in outputs(model, x, False)]
