# yolo-prune, AGPL-3.0 license
"""What is known of a sweep before any work: what all is compared with, and what INT8 and a profile need."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.made_up_device import by_channels
from tests.helpers.small_models import SMALL_MODEL
from tests.helpers.untrained import SIDE, save
from tests.sweeps.test_request import read
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint
from yolo_prune.recipe import formats
from yolo_prune.sweeps import checks, folder, job, points, results
from yolo_prune.sweeps.request import Request


@pytest.fixture(scope="module")
def asked(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Of a model that was trained at 64 pixels."""
    model = save(tmp_path_factory.mktemp("asked") / "best.pt", 0)
    assert torch.load(model, weights_only=False)["train_args"]["imgsz"] == SIDE == 64
    return read(model=str(model), data=str(tiny_data))


@pytest.mark.parametrize(
    ("given", "sizes", "line"),
    [
        ((), (64,), None),
        ((64, 32), (64, 32), None),
        ((64, 96), (64, 96), None),
        (
            (32, 60, 96),
            (64, 32, 96),
            "imgsz=32,64,96: all is compared with the model itself at 64 pixels, the",
        ),
        ((32, 96), (96, 32), "at 96 pixels, the largest of these (best.pt was trained at 64)"),
        ((96, 32), (96, 32), None),
    ],
)
def test_all_is_compared_with_the_model_at_its_own_size_whatever_the_order(
    given: tuple[int, ...], sizes: tuple[int, ...], line: str | None, asked: Request, caplog: pytest.LogCaptureFixture
) -> None:
    request = checks.check(replace(asked, imgsz=given)).request
    assert request.imgsz == sizes
    assert line in caplog.text if line else "compared" not in caplog.text
    own = next(one for one in points.of(request) if one.kind == "dense")
    assert (own.imgsz, own.small) == (sizes[0], False)


@pytest.mark.parametrize(
    ("base", "quantize", "kind", "line"),
    [
        (
            *("int8", None, "openvino"),
            "profile=board.json is of openvino in INT8, whose metric is measured on the exported file, for which "
            "nncf is missing here: pip install nncf, or give a profile of FP32 or FP16",
        ),
        ("fp32", 8, "openvino", "nncf is missing here: pip install nncf, or leave quantize=8 out"),
        (
            "int8",
            None,
            "engine",
            "an NVIDIA GPU, tensorrt is missing here: sweep on the device itself, or give a profile of",
        ),
        ("fp32", None, "openvino", None),
        ("fp16", None, "engine", None),
        ("int8", None, "onnx", None),
    ],
)
def test_int8_that_cannot_be_made_here_is_refused_though_a_profile_knows_its_milliseconds(
    base: str, quantize: int | None, kind: str, line: str | None, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would have no metric, which was seen after all trainings."""
    absent = {"openvino": ["nncf"], "engine": ["tensorrt"], "onnx": []}
    monkeypatch.setattr(formats, "missing", lambda kind, precision: absent[kind] if precision == "int8" else [])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    request = replace(asked, profile=("board.json",), base=base, quantize=quantize, format=kind)
    with contextlib.nullcontext() if line is None else pytest.raises(PruneError) as caught:
        checks._require_format(request)
    assert (caught is None) == (line is None)
    assert line is None or line in str(caught.value)


def profile_of(model: nn.Module, path: Path) -> str:
    """Write a device profile that was measured with a model at 64 pixels."""
    path.write_text(json.dumps(by_channels(model).content))
    return str(path)


def test_a_model_of_which_the_profile_knows_nothing_is_said_before_any_training(
    asked: Request, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, _ = checkpoint.load(asked.model)
    other = YOLO("yolo11n.yaml").model
    request = replace(asked, imgsz=(64,), baselines=("yolo11n.yaml", asked.model))
    checks.check(replace(request, profile=(profile_of(own, tmp_path / "own.json"),)))
    (line,) = [record.message for record in caplog.records if "no milliseconds" in record.message]
    assert "baselines=yolo11n.yaml will have no milliseconds, and is in no recommendation: profile=" in line
    assert "own.json: the device profile was measured with x.pt at 64 and knows nothing of " in line
    assert line.endswith("). To compare the two, sweep on the device itself, without profile=")
    with pytest.raises(PruneError, match=r"^profile=.*other\.json: the device profile was measured with x\.pt at 64"):
        checks.check(replace(request, profile=(profile_of(other, tmp_path / "other.json"),)))


def test_a_profile_that_is_not_to_be_trusted_is_said_before_the_trainings_and_beside_the_recommendation(
    asked: Request, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, _ = checkpoint.load(asked.model)
    path = Path(profile_of(own, tmp_path / "own.json"))
    line = f"profile={path}: the device profile is not to be trusted: what was held out is predicted 40% off (networks)"
    request = replace(asked, imgsz=(64,), profile=(str(path),))
    for off, lines in ((0, []), (40, [line])):
        content = json.loads(path.read_text())
        content["error"]["networks"]["mean"] = off
        path.write_text(json.dumps(content))
        caplog.clear()
        checked = checks.check(request)
        said = [one.message for one in caplog.records if "trusted" in one.message]
        assert [one.partition("profile=")[2] for one in said] == [one.removeprefix("profile=") for one in lines]
        dense = results.row(checked.request, points.of(checked.request)[0], "trained", "fp32", {}, {}, {"ms": 1.0})
        told = job._tell(checked, [{**dense, "metric": 0.5}], [], tmp_path)
        assert told["doubts"] == lines
        assert told["recommendation"][2:] == [f"Milliseconds are in doubt: {one}." for one in lines]
        assert json.loads((tmp_path / "front.json").read_text())["recommendation"] == told["recommendation"]


def test_what_a_refused_sweep_has_measured_is_of_its_model_alone(
    asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound was out of reach; the next sweep in that folder may be of another model."""
    measured: list[str] = []

    def measure(checked: checks.Checked, imgsz: int, target: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        measured.append(profile_of(checked.network, target))

    monkeypatch.setattr(checks, "_measure", measure)
    other = save(tmp_path / "other.pt", 1)
    out = tmp_path / "out"
    for model, bound, times in ((asked.model, "1%", 1), (str(other), "1%", 2), (asked.model, "2%", 2)):
        request = replace(asked, model=model, bounds=(("latency", bound),), imgsz=(64,), out=str(out))
        with pytest.raises(PruneError, match="out of reach"):
            checks.check_points(checks.check(request), out)
        assert len(set(measured)) == len(measured) == times
    assert not folder.take(request).samefile(tmp_path), "what is measured is no other file"
    folder.give_back(out)


def test_what_a_recipe_deploys_is_said_to_be_left_out(
    asked: Request, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ultralytics")
    (tmp_path / "mine.yaml").write_text("flops: 70%\ndeploy: [onnx]\nqat: 2\n")
    names = ("gentle", "intel-cpu", str(tmp_path / "mine.yaml"))
    end = "left out, for a sweep exports and times all models alike at its end"
    for epochs, lines in (
        (0, []),
        (9, [f"intel-cpu: its deploy: is {end}", f"{names[2]}: its deploy: and qat: are {end}"]),
    ):
        checked = checks.check(replace(asked, recipe=names, epochs=epochs, importance=("l2",)))
        caplog.clear()
        checks.check_points(checked, tmp_path)
        text = caplog.text
        assert [line.partition("recipe=")[2] for line in text.splitlines() if "left out" in line] == lines


def test_all_trainings_are_of_one_class_where_that_of_the_model_was(asked: Request, tmp_path: Path) -> None:
    assert "single_cls" not in checks.check(asked).request.settings
    content = torch.load(asked.model, weights_only=False)
    network = DetectionModel(str(SMALL_MODEL), nc=1, verbose=False).half()
    network.names, network.args = {0: "item"}, {"single_cls": True}
    torch.save({**content, "model": network}, tmp_path / "one.pt")
    one = replace(asked, model=str(tmp_path / "one.pt"), baselines=("yolov8n.yaml",))
    checked = checks.check(replace(one, settings={"batch": 4}))
    assert checked.request.settings == {"batch": 4, "single_cls": True}
    every = points.of(checked.request)
    assert [point.kind for point in every] == ["dense", "pruned", "baseline"]
    assert all("single_cls=True" in points.words(point, checked.request) for point in every)
    assert job._job(checked, every[2], tmp_path, "cut")["val"]["single_cls"] is True
    with pytest.raises(
        PruneError, match=r"single_cls=False: model=.*one\.pt was trained with single_cls=True, and all"
    ):
        checks.check(replace(one, settings={"single_cls": False}))


def test_what_is_not_cut_is_trained_as_the_first_of_the_cuts_is_after_it(tmp_path: Path, asked: Request) -> None:
    request = replace(asked, settings={"prune_ema": 0.2}, baselines=("yolov8n.yaml",))
    checked = checks.check(request)
    told = {point.kind: job._job(checked, point, tmp_path, "trained") for point in points.of(checked.request)}
    cut = told["pruned"]["cut"]
    assert cut["prune_ema"] == 0.2
    assert [told[kind]["trained_as"] for kind in ("dense", "baseline", "pruned")] == [cut, cut, None]
    none = replace(checked, request=replace(checked.request, bounds=()))
    (dense, *_) = points.of(none.request)
    assert job._job(none, dense, tmp_path, "trained")["trained_as"] is None, "it has nothing to be compared with"


def test_cuts_of_another_version_by_other_arguments_are_not_mixed_with_those_of_this_one(tmp_path: Path) -> None:
    request = replace(
        read(profile="board.json", flops="50%", out=str(tmp_path)), imgsz=(64,), profile_at={64: "b.json"}
    )
    (dense, cut) = every = points.of(request)
    assert cut.cut == {"prune_flops": "50%", "prune_profile": "b.json"}
    folder.require_same_cuts(tmp_path, request, every)
    moved = replace(cut, cut={**cut.cut, "prune_profile": "/elsewhere/b.json"})
    for stage, point in (("cut", dense), ("trained", dense), ("cut", moved)):
        folder.finish(tmp_path, point.name, stage, {"point": asdict(point)})
    folder.require_same_cuts(tmp_path, request, every)
    without = {"point": asdict(replace(cut, cut={"prune_flops": "50%"}))}
    folder.finish(tmp_path, cut.name, "trained", {**without, "failed": "no luck"})  # it is tried again
    folder.require_same_cuts(tmp_path, request, every)
    folder.finish(tmp_path, cut.name, "trained", without)
    with pytest.raises(PruneError) as caught:
        folder.require_same_cuts(tmp_path, request, every)
    assert str(caught.value) == (
        f"out={tmp_path}: another version of yolo-prune cut flops50-64 otherwise (prune_profile= was not given and is "
        f"b.json), and the two do not compare; name another folder, such as out={tmp_path}2"
    )


def test_the_order_of_the_image_sizes_makes_no_other_sweep(asked: Request, tmp_path: Path) -> None:
    """An earlier version noted them as they were given."""
    folder.note(tmp_path, replace(asked, imgsz=(32, 64)))
    folder.require_same(tmp_path, replace(asked, imgsz=(64, 32)))
    with pytest.raises(PruneError, match=r"imgsz= was 32,64 and is 96,32"):
        folder.require_same(tmp_path, replace(asked, imgsz=(96, 32)))
