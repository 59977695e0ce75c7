# yolo-prune, AGPL-3.0 license
"""What the host exports for a bundle, and the scripts of a bundle as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import torch
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.checkout import ROOT
from tests.helpers.oracle import lively

PACKAGES = {"onnx": ("onnxruntime",), "openvino": ("openvino",), "ncnn": ("ncnn", "pnnx")}
NAMES = {0: "red cell", 1: "white cell", 2: "platelet"}
SCRIPTS = ROOT / "yolo_prune" / "export" / "on_device"
BLOCK = """\
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "ultralytics", "yolo_prune", "yaml"}:
            raise ImportError(name + " is not on the device")

sys.meta_path.insert(0, Block())
"""


class Case(NamedTuple):
    """What is exported: a model, a format, and whether its end-to-end head is."""

    model: str
    kind: str
    end2end: bool = False

    def __str__(self) -> str:
        return f"{self.model}-{self.kind}{'-end2end' * self.end2end}"


TINY = Case("yolov8n.yaml", "onnx")
CASES = (
    TINY,
    Case("yolov8n.yaml", "openvino"),
    Case("yolov8n.yaml", "ncnn"),
    Case("yolo26n.yaml", "onnx", True),
    Case("yolov8n.pt", "onnx"),
    Case("yolo26n.pt", "onnx", True),
)


def tiny(name: str) -> dict[str, Any]:
    """Make a checkpoint of three classes that finds boxes of many scores and sizes in every picture."""
    torch.manual_seed(0)
    network = lively(DetectionModel(name, nc=3, verbose=False)).eval()
    head = network.model[-1]
    for branch in ("cv3", "one2one_cv3"):
        for tower in getattr(head, branch, None) or ():
            tower[-1].register_forward_hook(partial(_set, 0.0, 2.0))
    for branch in ("cv2", "one2one_cv2"):
        for tower in (getattr(head, branch, None) or ()) if head.reg_max == 1 else ():
            tower[-1].register_forward_hook(partial(_set, 1.5, 0.5))  # distances to the sides, in strides
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    for module in network.modules():
        module._forward_hooks.clear()
    network.names = NAMES
    return {"model": network.half(), "ema": None, "train_args": {"imgsz": 64}, "epoch": -1}


def _set(mean: float, spread: float, module: Any, _: Any, output: torch.Tensor) -> None:
    """Give a convolution's outputs this mean and spread, from the next call on."""
    factor = spread / output.std()
    module.weight.data *= factor
    module.bias.data = mean - (output - module.bias[:, None, None]).mean((0, 2, 3)) * factor


def script_module(name: str) -> Iterator[ModuleType]:
    """A script of a bundle, under its own name while it is in use; the body of a fixture."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    threads = cv2.getNumThreads()
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        cv2.setNumThreads(threads)
        del sys.modules[name]
