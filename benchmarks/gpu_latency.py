# yolo-prune, AGPL-3.0 license
"""The parts of gpu.py that measure milliseconds of a dense and a pruned model on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_parts import Settings, SkipError, part


def pair(s: Settings) -> dict[str, Any]:
    """A dense yolov8n and the same at half of its FLOPs, fused, on the device."""
    import torch
    from ultralytics import YOLO

    import yolo_prune

    models = {}
    for name in ("dense", "pruned"):
        yolo = YOLO(s.dense or "yolov8n.yaml")
        if name == "pruned":
            yolo_prune.prune(yolo, flops="50%")
        models[name] = yolo.model.float().fuse(verbose=False).eval().to("cuda" if s.cuda else "cpu")
    torch.backends.cudnn.benchmark = True
    return models


@part(90)
def latency(s: Settings) -> dict[str, Any]:
    """Milliseconds of dense and pruned in torch, FP32 and FP16, one image and many."""
    import torch

    from yolo_prune.device.timing import in_turns

    models, side = pair(s), 64 if s.quick else 640
    rows = []
    for half in (False, True) if s.cuda else (False,):
        for batch in (1, 2) if s.quick else (1, 16):
            kind = torch.float16 if half else torch.float32
            x = torch.rand(batch, 3, side, side, device="cuda" if s.cuda else "cpu", dtype=kind)

            def call(name: str, x: Any = x, kind: Any = kind) -> Callable[[], None]:
                model = models[name].to(kind)

                def run() -> None:
                    with torch.inference_mode():
                        model(x)
                    if s.cuda:
                        torch.cuda.synchronize()

                return run

            turns = in_turns({name: call(name) for name in models}, 3 if s.quick else 50, seconds=1 if s.quick else 10)
            ms = {name: round(turns.timing(name).median, 3) for name in models}
            row = {"precision": "fp16" if half else "fp32", "batch": batch, "imgsz": side, **ms}
            rows.append({**row, "speedup": turns.ratio("dense", "pruned").as_dict()})
    return {"rows": rows, "faults": []}


@part(120)
def latency_onnxruntime(s: Settings) -> dict[str, Any]:
    """The same in ONNX Runtime, by CUDA where its build has that; outputs against torch."""
    import numpy as np
    import onnxruntime
    import torch

    from yolo_prune.device.timing import in_turns

    provider = "CUDAExecutionProvider" if s.cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        has = ", ".join(onnxruntime.get_available_providers())
        raise SkipError(f"this onnxruntime has no {provider} (pip install onnxruntime-gpu); it has {has}")
    models, side = pair(s), 64 if s.quick else 640
    x = torch.rand(1, 3, side, side)
    sessions, faults, far = {}, [], {}
    for name, model in models.items():
        model = model.cpu()
        model.model[-1].export, model.model[-1].format = True, "onnx"
        path = s.folder / f"{name}.onnx"
        torch.onnx.export(model, (x,), str(path), opset_version=17, input_names=["images"], dynamo=False)
        session = sessions[name] = onnxruntime.InferenceSession(str(path), providers=[provider])
        if session.get_providers()[0] != provider:
            faults.append(f"{name}: {provider} was asked for and {session.get_providers()[0]} runs")
        with torch.inference_mode():
            own = model(x)
        own = own[0] if isinstance(own, (list, tuple)) else own
        (given,) = session.run(None, {"images": x.numpy()})[:1]
        far[name] = float(np.abs(given - own.numpy()).max() / max(float(own.abs().max()), 1e-9))
        if far[name] > 0.01:
            faults.append(f"{name}: outputs are {far[name]:.2%} of their range away from torch's")
    calls = {name: (lambda one=one: one.run(None, {"images": x.numpy()})) for name, one in sessions.items()}
    turns = in_turns(calls, 3 if s.quick else 50, seconds=1 if s.quick else 10)
    ms = {name: round(turns.timing(name).median, 3) for name in sessions}
    speedup = turns.ratio("dense", "pruned").as_dict()
    return {"provider": provider, **ms, "speedup": speedup, "far": far, "faults": faults}
