# yolo-prune, AGPL-3.0 license
"""The oracle where it counts: a pruned model read by a machine without yolo-prune, and in ONNX Runtime.

A model is made dead where a random plan will cut, in float32, and run; then it is cut, saved, loaded by stock code
under the restricted loading, and exported by stock code. All must agree to 1e-4 of the largest value.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import Environment
from tests.oracle import kill, random_plan
from tests.test_families import available, model_of, outputs
from yolo_prune import architecture, support, surgery

ROWS = [available(row) for row in support.ROWS]

# What the other machine does: load, run, export, run the export.
STOCK = """
import sys
import numpy as np
import onnxruntime
import torch
from ultralytics import RTDETR, YOLO

path, image, out = sys.argv[1:]
yolo = (RTDETR if "rtdetr" in path else YOLO)(path)
x = torch.from_numpy(np.load(image))


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    if isinstance(value, dict):
        return [item for key in sorted(value) if key != "feats" for item in flat(value[key])]
    return [item for part in value or () for item in flat(part)]


yolo.model.float().eval()
raw = flat(yolo.model(x))
file = yolo.export(format="onnx", imgsz=list(x.shape[-2:]), simplify=False)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
exported = session.run(None, {session.get_inputs()[0].name: x.numpy()})
np.savez(out, *raw, **{f"onnx_{i}": value for i, value in enumerate(exported)})
"""


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


@pytest.mark.parametrize("row", ROWS)
def test_dead_channels_do_not_count_without_yolo_prune_or_in_onnx_runtime(
    row: support.Row, stock_env: Environment, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    double, found = model_of(row.file)
    model = deepcopy(double).float().eval()
    plan = random_plan(found, seed=7, hardest=0.6, whole=0.4)
    kill(model, found, plan)
    detr = row.family == "RT-DETR"  # 300 queries of 336 cells: which of nearly equal ones come first is chance
    side = 128 if detr else 64
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(7))
    before = [value.numpy() for value in outputs(model, x, False)]
    surgery.apply(model, found, plan)
    architecture.stamp(model, found.native, removed=plan.blocks)
    path, image, out = tmp_path / f"{Path(row.file).stem}.pt", tmp_path / "x.npy", tmp_path / "out.npz"
    torch.save({"model": model, "train_args": {}, "date": "", "version": ""}, path)
    np.save(image, x.numpy())
    done = stock_env.run("python", "-c", STOCK, path, image, out, env={"ULTRALYTICS_SAFE_LOAD": "1"})
    assert done.code == 0, done.text[-3000:]
    with np.load(out) as given:
        raw = [given[f"arr_{i}"] for i in range(len(before))]
        exported = [given[name] for name in sorted(given) if name.startswith("onnx_")]
    end2end = detr or getattr(model.model[-1], "end2end", False)
    for now, was in zip(raw[:1] if detr else raw, before[:1] if detr else before, strict=True):
        (agree_in_any_order if detr else agree)(now, was)
    for one in exported:
        other = next(other for other in predictions(model, x) if other.shape == one.shape)
        (agree_in_any_order if end2end and one.ndim == 3 else agree)(one, other)


def predictions(model: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    """What the exported file of this model should give: its outputs with the head told that it is exported."""
    model = deepcopy(model)
    for module in model.modules():
        if hasattr(module, "export"):
            module.export, module.format = True, "onnx"
    return [value.numpy() for value in outputs(model, x, False)]
