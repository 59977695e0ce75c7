# yolo-prune, AGPL-3.0 license
"""A training that would rebuild a model without its weights is refused before it starts; every other one starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_num_params

import yolo_prune
from tests.helpers.oracle import random_plan
from tests.helpers.runs import record_of, train, widths
from tests.helpers.small_models import SMALL_MODEL, small_with, untrained
from yolo_prune import install
from yolo_prune.commands.apply import apply
from yolo_prune.errors import PruneError
from yolo_prune.graph import channel_groups
from yolo_prune.host import trainable_check, yolo_methods
from yolo_prune.surgery import cut_channels


def narrowed(yolo: YOLO) -> YOLO:
    """As another tool leaves a model: narrow, with the stock yaml."""
    found = channel_groups.build(yolo.model)
    cut_channels.apply(yolo.model, found, random_plan(found, 0, 0.3))
    return yolo


def saved(yolo: YOLO, path: Path, **more: Any) -> Path:
    torch.save({"model": yolo.model, "ema": None, "epoch": -1, "train_args": {}, **more}, path)
    return path


def test_a_model_narrowed_by_another_tool_is_refused_before_the_training(tiny_data: Path, tmp_path: Path) -> None:
    path = saved(narrowed(YOLO("yolov8n.yaml")), tmp_path / "narrow.pt")
    with pytest.raises(PruneError, match=r"narrow\.pt: \d+ of 355 tensors .*yaml builds.*yolo-prune apply model="):
        train(tiny_data, tmp_path, YOLO(path), epochs=1, prune=0.2, prune_schedule="oneshot")
    assert not (tmp_path / "run").exists()


def test_the_command_that_the_refusal_names_works(tiny_data: Path, tmp_path: Path) -> None:
    path = saved(narrowed(untrained()), tmp_path / "narrow.pt")
    before = get_num_params(YOLO(path).model)
    apply(str(path), flops="80%")
    train(tiny_data, tmp_path, YOLO(tmp_path / "narrow-pruned.pt"), epochs=1, prune=0.2, prune_schedule="oneshot")
    record = record_of(tmp_path / "run")
    assert record["baseline"]["params"] < before
    assert record["final"]["gflops"] <= 0.8 * record["baseline"]["gflops"]


def test_in_memory_and_attached_too(tiny_data: Path, tmp_path: Path) -> None:
    yolo = narrowed(YOLO(saved(untrained(), tmp_path / "whole.pt")))
    yolo_prune.attach(yolo, 0.2)
    with pytest.raises(PruneError, match="other widths than"):
        train(tiny_data, tmp_path, yolo, epochs=1)
    assert not (tmp_path / "run").exists()


def test_a_resume_of_a_narrowed_file_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path, epochs=2, prune=0.2, prune_schedule="oneshot", prune_start=0.6, save_period=1)
    path = tmp_path / "run" / "weights" / "epoch0.pt"
    content = torch.load(path, weights_only=False)
    assert content["epoch"] == 0
    found = channel_groups.build(content["ema"].float())
    cut_channels.apply(content["ema"], found, random_plan(found, 0, 0.3))
    torch.save(content, path)
    with pytest.raises(PruneError, match="other widths than"):
        YOLO(path).train(resume=True)


@pytest.mark.parametrize("how", ["in memory", "saved"])
def test_a_fused_model_is_refused(how: str, tiny_data: Path, tmp_path: Path) -> None:
    yolo = YOLO(saved(untrained(), tmp_path / "whole.pt"))
    yolo.fuse()
    if how == "saved":
        yolo = YOLO(saved(yolo, tmp_path / "fused.pt"))
    with pytest.raises(PruneError, match=r"this model is fused \(its BatchNorms are folded in\); load the .pt again"):
        train(tiny_data, tmp_path, yolo, epochs=1, prune=0.3, prune_schedule="oneshot")
    assert not (tmp_path / "run").exists()
    with pytest.raises(PruneError, match=r"this model is fused"):
        yolo_prune.prune(yolo, flops="50%")


def test_a_training_after_predict_works_or_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    yolo = YOLO(saved(untrained(), tmp_path / "whole.pt"))
    yolo.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)
    yolo.val(data=str(tiny_data), imgsz=64, plots=False, device="cpu")
    if yolo.model.is_fused():  # older hosts fuse the model itself
        with pytest.raises(PruneError, match="this model is fused"):
            train(tiny_data, tmp_path, yolo, epochs=1, prune=0.3, prune_schedule="oneshot")
        return
    train(tiny_data, tmp_path, yolo, epochs=1, prune=0.3, prune_schedule="oneshot")
    assert record_of(tmp_path / "run")["steps"]


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolov9t", "yolov10n", "yolo11n-obb", "yolo26n"])
def test_stock_models_and_pruned_ones_are_kept(name: str) -> None:
    yolo = YOLO(f"{name}.yaml")
    random = torch.get_rng_state()
    trainable_check.require(yolo.model, name)
    assert torch.equal(random, torch.get_rng_state())
    yolo_prune.prune(yolo, flops="70%", depth=0.3, heads=0.5)
    assert widths(yolo.model) != widths(YOLO(f"{name}.yaml").model)
    trainable_check.require(yolo.model, name)


def test_trained_weights_are_kept(weights: Callable[[str], Path]) -> None:
    for name in ("yolov8n.pt", "yolo11n.pt", "yolo26n.pt", "yolov8n-seg.pt"):
        trainable_check.require_file(weights(name))
        network: nn.Module = YOLO(weights(name)).model
        assert trainable_check._built(network)


@pytest.mark.parametrize("head", [{}, {"end2end": True, "reg_max": 1}], ids=["as yolov8", "as yolo26"])
def test_published_weights_that_were_fine_tuned_on_few_classes_are_whole(
    head: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    """The host leaves the class towers at the width that 80 classes gave them, which the yaml of 2 does not build."""
    name = str(small_with(tmp_path / "small.yaml", "Detect", **head))
    tuned = DetectionModel(name, nc=2, verbose=False)
    tuned.load(DetectionModel(name, nc=80, verbose=False), verbose=False)
    wide = tuned.model[-1].cv3[0][-1].in_channels
    assert wide in (64, 80)  # 64 of a host that makes the towers anew
    yolo = YOLO(name)
    yolo.model = tuned
    path = saved(yolo, tmp_path / "tuned.pt")
    trainable_check.require_file(path)
    if wide == 80:
        tuned.model[-1].cv2[0][0] = nn.Conv2d(3, 3, 1)  # what is narrow elsewhere is still refused
        with pytest.raises(PruneError, match=r"tensors have other widths"):
            trainable_check.require(tuned, "tuned.pt")
    train(tiny_data, tmp_path, YOLO(path), epochs=1, prune=0.3, prune_schedule="oneshot", prune_start=0)
    record = record_of(tmp_path / "run")
    assert record["final"]["gflops"] <= 0.7 * record["baseline"]["gflops"]


@pytest.fixture(scope="module", params=["narrow", "fused", "scale", "masked"])
def lost(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, YOLO, Path]:
    """A kind of weights that would be lost, a model of it, and the model's file."""
    kind = request.param
    source = YOLO("yolov8s.yaml") if kind == "scale" else untrained()
    if kind == "narrow":
        narrowed(source)
    elif kind == "fused":
        source.model.fuse()
    elif kind == "masked":
        l1_mask(source.model.model[2].cv1.conv)  # restricted loading knows no masks; the host loads without it
    return kind, source, saved(source, tmp_path_factory.mktemp(kind) / "given.pt")


@pytest.mark.parametrize("how", ["pretrained", "load", "load a module", "load a dict"])
def test_weights_that_would_be_lost_are_refused_however_they_are_given(
    lost: tuple[str, YOLO, Path], how: str, tiny_data: Path, tmp_path: Path
) -> None:
    (kind, source, path), more = lost, {}
    yolo = YOLO("yolov8n.yaml" if kind == "scale" else SMALL_MODEL)
    if how == "pretrained":
        more = {"pretrained": str(path)}
    else:
        yolo.load({"load": path, "load a module": source.model, "load a dict": {"model": source.model}}[how])
    words = {
        "narrow": "have other widths than",
        "masked": "the weight of .* is masked",
        "fused": "is fused",
        "scale": "fit the model that is to be pruned",
    }
    label = r"pretrained=.*given\.pt" if how == "pretrained" else "load="
    with pytest.raises(PruneError, match=f"^{label}.*{words[kind]}") as refused:
        train(tiny_data, tmp_path, yolo, epochs=1, prune=0.2, prune_schedule="oneshot", **more)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_trainer_alone_refuses_pretrained_too(tmp_path: Path) -> None:
    path = saved(narrowed(YOLO("yolov8n.yaml")), tmp_path / "narrow.pt")
    with pytest.raises(PruneError, match=r"^pretrained=.*narrow\.pt: \d+ of 355 tensors"):
        get_cfg(overrides={"mode": "train", "model": "yolov8n.yaml", "pretrained": str(path), "prune": 0.2})
    source = YOLO("yolov8n.yaml")
    l1_mask(source.model.model[2].cv1.conv)
    path = saved(source, tmp_path / "masked.pt")
    for settings in ({"model": str(path)}, {"model": "yolov8n.yaml", "pretrained": str(path)}):
        with pytest.raises(PruneError, match=r"masked\.pt: the weight of model\.2\.cv1\.conv is masked"):
            get_cfg(overrides={"mode": "train", "prune": 0.2, **settings})


def test_weights_that_fit_for_the_most_part_are_taken(tmp_path: Path) -> None:
    network = YOLO("yolov8n.yaml").model
    few = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    for given, own in ((network, few), (few, network), (YOLO("yolov8n-cls.yaml").model, network)):
        trainable_check.require_fitting(given, own, "given")
    for name in ("yolov8n-seg.yaml", "yolov8n-p2.yaml"):
        trainable_check.require_fitting(network, YOLO(name).model, "given")
    for value in (True, False, None, "absent.pt"):
        trainable_check.require_pretrained(str(value), network)
    pruned = YOLO("yolov8n.yaml")
    yolo_prune.prune(pruned, flops="50%")
    trainable_check.require_pretrained(saved(pruned, tmp_path / "pruned.pt"), network)
    yolo = YOLO("yolov8n.yaml").load(tmp_path / "pruned.pt")
    yolo_methods.require_loaded(yolo)


def test_weights_loaded_after_those_that_do_not_fit_count() -> None:
    yolo = YOLO("yolov8n.yaml").load(YOLO("yolov8s.yaml").model)
    with pytest.raises(PruneError, match=r"load=.* only \d+ of \d+ weight tensors fit"):
        yolo_methods.require_loaded(yolo)
    install._require_weights(yolo, False)
    yolo.load(YOLO("yolov8n.yaml").model)
    yolo_methods.require_loaded(yolo)


def l1_mask(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.3)


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (l1_mask, r'masked.* torch\.nn\.utils\.prune\.remove\(module, "weight"\)'),
        (parametrizations.spectral_norm, r'parametrized.*parametrize\.remove_parametrizations\(module, "weight"\)'),
        (parametrizations.weight_norm, r'parametrized.*parametrize\.remove_parametrizations\(module, "weight"\)'),
        (nn.utils.spectral_norm, r'parametrized.*remove_spectral_norm\(module, "weight"\)'),
    ],
)
def test_computed_weights_are_named_with_the_call_that_makes_them_plain(
    compute: Callable[[nn.Module], Any], words: str
) -> None:
    yolo = untrained()
    layer = yolo.model.model[2].cv1.conv
    compute(layer)
    with pytest.raises(PruneError, match=rf"^model=given\.pt: the weight of model\.2\.cv1\.conv is {words}"):
        trainable_check.require(yolo.model, "given.pt")
    if compute is l1_mask:
        prune.remove(layer, "weight")
        trainable_check.require(yolo.model, "given.pt")


def test_a_masked_model_that_apply_has_pruned_is_told_the_same() -> None:
    yolo = untrained()
    l1_mask(yolo.model.model[2].cv1.conv)
    yolo_prune.prune(yolo, flops="80%")
    with pytest.raises(PruneError, match=r"the weight of model\.2\.cv1\.conv is masked"):
        trainable_check.require(yolo.model, "masked-p.pt")


class _Parametrized(DetectionTrainer):
    """Of a model whose yaml builds a block with weight_norm."""

    def get_model(self, *args: Any, **kwargs: Any) -> Any:
        model = super().get_model(*args, **kwargs)
        parametrizations.weight_norm(model.model[0].conv)
        return model


def test_what_the_host_could_not_save_is_refused_before_an_epoch(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(PruneError, match=r"model\.0\.conv is parametrized, .* would fail at its first save"):
        train(tiny_data, tmp_path, trainer=_Parametrized, prune=0.4, epochs=1)
    assert not list(tmp_path.rglob("*.pt"))


def test_torch_refuses_to_save_what_is_parametrized(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"erialization of parametrized modules"):
        torch.save(parametrizations.weight_norm(nn.Conv2d(1, 1, 1)), tmp_path / "a.pt")
