# yolo-prune, AGPL-3.0 license
"""What is counted is what is deployed: the layers of latencies against those of the files that the host writes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from ultralytics import YOLO

import yolo_prune
from tests.helpers import onnx_memory
from tests.helpers.made_up_device import by_channels
from tests.helpers.oracle import random_plan
from yolo_prune.allocation import allocate
from yolo_prune.cost import exported_file, layer_shapes, model_size, profile_file
from yolo_prune.cost.file_size import Deployment
from yolo_prune.device import probe_kit, runtimes
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import exporter
from yolo_prune.importance import scoring
from yolo_prune.planning import candidates
from yolo_prune.planning.baseline import Baseline
from yolo_prune.surgery.cut_channels import apply

# The model, and its convolutions: (that are passed in training's eval forward, that are in the ONNX file).
FAMILIES = {
    "yolo26n": (126, 102),
    "yolov10n": (108, 83),
    "yolov9t": (228, 186),
    "yolov8n": (64, 64),
    "yolo11n": (88, 88),
    "yolo12n": (120, 120),
    "yolo26n-pose": (None, None),
    "yolo11n-cls": (None, None),
}


def network(name: str, narrow: bool = False) -> nn.Module:
    """A model of that yaml with a value of its own in each layer, so that no exporter finds two layers equal."""
    torch.manual_seed(0)
    model: nn.Module = YOLO(f"{name}.yaml", verbose=False).model
    if narrow:
        found = channel_groups.build(model)
        apply(model, found, random_plan(found, 1, 0.5))
    probe_kit._flatten(model)
    return model


def nodes(path: Path) -> Counter[tuple[Any, ...]]:
    """Weights' shapes and output sizes of the convolutions of an ONNX file, read by onnx's own shape inference."""
    content = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    weights = {item.name: tuple(item.dims) for item in content.graph.initializer}
    sizes = {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)[2:]
        for value in [*content.graph.value_info, *content.graph.output]
    }
    convolutions = [node for node in content.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    return Counter((weights[node.input[1]], sizes[node.output[0]]) for node in convolutions)


def rows(layers: list[layer_shapes.LayerShape]) -> Counter[tuple[Any, ...]]:
    """The same of the layers that are counted."""
    found: list[tuple[Any, ...]] = []
    for layer in layers:
        groups = layer.inp if layer.operation == "depthwise" else layer.groups
        sides = (layer.inp, layer.out) if layer.operation == "deconv" else (layer.out, layer.inp // groups)
        if layer.operation != "linear":
            found.append(((*sides, *layer.kernel), layer.made))
    return Counter(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_the_convolutions_of_the_onnx_file(name: str, tmp_path: Path) -> None:
    """Pruned, the two branches of a head have widths of their own: the wrong one would be told from the right one."""
    model = network(name, narrow=True)
    path = exporter.export(model, tmp_path, "onnx", imgsz=64)
    layers = layer_shapes.layers_of(model, 64, exported_file.end2end(path, "onnx"))
    assert rows(layers) == nodes(path)
    assert rows(layer_shapes.layers_of(model, 64)) == nodes(path)  # the same without a look at the file
    exported_file.require(layers, path, "onnx")
    assert exported_file.convolutions(path, "onnx").total() == nodes(path).total() > 25
    counted = model_size.deployed_size(model, Deployment("onnx", "fp32", 64))
    assert counted.bytes == pytest.approx(path.stat().st_size, rel=0.005)
    # The nodes of yolov9t's file stand in another order than its layers are called in.
    assert counted.activations == pytest.approx(onnx_memory.peak_bytes(path), rel=0.03 if name == "yolov9t" else 0)
    run, written = FAMILIES[name]
    if written is not None:
        assert nodes(path).total() == written
        passed: list[nn.Module] = []
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.register_forward_hook(lambda module, *_: passed.append(module))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, 64, 64))
        assert len(passed) == run


# One family a format: which layers are counted does not depend on the format, and how a file is read not on the family.
@pytest.mark.parametrize(("kind", "name"), [("openvino", "yolo26n"), ("ncnn", "yolov9t")])
def test_rows_are_the_convolutions_of_other_files(kind: str, name: str, tmp_path: Path) -> None:
    from yolo_prune.recipe import formats

    if formats.missing(kind):
        pytest.skip(f"{kind} needs {', '.join(formats.missing(kind))}")
    model = network(name, narrow=True)
    path = exporter.export(model, tmp_path, kind, imgsz=64)
    layers = layer_shapes.layers_of(model, 64, exported_file.end2end(path, kind))
    exported_file.require(layers, path, kind)
    assert exported_file.convolutions(path, kind).total() == FAMILIES[name][1]


def test_every_name_is_one_of_the_model() -> None:
    for name in ("yolov9t", "yolov10n", "yolo26n"):
        model = network(name)
        names = [layer.name for layer in layer_shapes.layers_of(model, 64)]
        assert set(names) <= {layer.name for layer in channel_groups.build(model).layers}
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["yolo26n", "yolov10n", "yolov9t"])
def test_the_predicted_latency_of_a_cut_is_that_of_the_cut_model(name: str) -> None:
    """Through layers that are fused of several, and past the branch that is not deployed."""
    model = network(name)
    found, profile = channel_groups.build(model), by_channels(model)
    baseline = Baseline.of(model, found, profile)
    scores, lowest = scoring.score(found, model, "random"), dict.fromkeys(baseline.channels, 1)
    units = candidates.units(found, scores, baseline.channels, lowest)
    cost = model_size.latency_cost(found, units, model, profile, 1.0)
    sizes = [float(unit.size) for unit in units]
    assert cost(torch.tensor(sizes).numpy()) == pytest.approx(baseline.latency, rel=1e-9)
    apply(model, found, allocate.plan_of(units, [max(int(size) // 2, 1) for size in sizes]))
    halves = torch.tensor([float(max(int(size) // 2, 1)) for size in sizes]).numpy()
    assert cost(halves) == pytest.approx(model_size.latency_of(model, profile), rel=1e-9)


def test_a_kit_that_counts_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = layer_shapes.layers_of
    monkeypatch.setattr(probe_kit, "_NETWORKS", ())
    monkeypatch.setattr(layer_shapes, "layers_of", lambda *given: [*stock(*given), stock(*given)[0]])
    with pytest.raises(PruneError, match=r"wrote 64 convolutions to model\.onnx where 65 are counted \(it has no conv"):
        probe_kit.make(
            network("yolov8n"), "x.pt", tmp_path, kind="onnx", precision="fp32", imgsz=64, say=lambda _: None
        )


def test_a_kit_says_which_branch_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a kit for TensorRT in INT8, whose networks are the host's ONNX files with integers put into them."""
    monkeypatch.setattr(probe_kit, "_NETWORKS", ())
    probe_kit.make(network("yolo26n"), "x.pt", tmp_path, kind="engine", precision="int8", imgsz=64, say=lambda _: None)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    path = tmp_path / manifest["networks"][0]["file"]
    assert manifest["end2end"] is exported_file.end2end(path, "onnx")
    assert len(manifest["networks"][0]["rows"]) == 102
    content = onnx.load(path)
    made = {name: node for node in content.graph.node for name in node.output}
    convolutions = [node for node in content.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 102
    assert {made[name].op_type for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}
    zeros = [item for item in content.graph.initializer if item.name.startswith("int8_") and item.name.endswith("zero")]
    assert not any(numpy_helper.to_array(item).any() for item in zeros)
    assert runtimes.load(path, "onnx", 1)()
    assert runtimes.load(tmp_path / manifest["shapes"][0]["file"], "onnx", 1)()


def test_a_profile_of_an_older_version_is_to_be_measured_again(tmp_path: Path) -> None:
    content = {**by_channels(network("yolov8n")).content, "version": 1}
    (tmp_path / "device.json").write_text(json.dumps(content))
    with pytest.raises(PruneError, match=r"is of version 1, .* measure the device again: yolo-prune profile") as caught:
        profile_file.read(tmp_path / "device.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["yolo26n", "yolov8n"])
def test_the_record_tells_the_flops_of_the_deployed_model(name: str) -> None:
    from ultralytics.utils.torch_utils import get_flops

    yolo = YOLO(f"{name}.yaml", verbose=False)
    fused = get_flops(YOLO(f"{name}.yaml", verbose=False).model.eval().fuse(verbose=False), 640)
    told = yolo_prune.prune(yolo, flops="60%")
    assert told["baseline"]["gflops_deployed"] == pytest.approx(fused, rel=1e-3)
    for entry in (told["baseline"], told["final"]):
        assert entry["gflops_deployed"] < (0.93 if name == "yolo26n" else 1.0) * entry["gflops"]
        assert entry["gflops_deployed"] > 0.5 * entry["gflops"]
    assert told["final"]["gflops_deployed"] < 0.7 * told["baseline"]["gflops_deployed"]


# ncnn's weights are read by their precision; OpenVINO's xml says where each begins and how long it is.
@pytest.mark.parametrize(("kind", "precision"), [("openvino", "fp16"), ("ncnn", "fp32"), ("ncnn", "fp16")])
def test_weights_that_are_cut_off_are_refused(kind: str, precision: str, tmp_path: Path) -> None:
    from yolo_prune.recipe import formats

    if formats.missing(kind):
        pytest.skip(f"{kind} needs {', '.join(formats.missing(kind))}")
    path = exporter.export(network("yolov8n"), tmp_path, kind, imgsz=64, precision=precision)
    weights = path.with_suffix(".bin")
    exported_file.require_whole(path, weights, kind)
    whole = weights.read_bytes()
    for share in (0.99, 0.5, 0):
        weights.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(PruneError, match=r"it is not whole; export it again$"):
            exported_file.require_whole(path, weights, kind)
