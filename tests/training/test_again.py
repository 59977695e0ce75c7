# yolo-prune, AGPL-3.0 license
"""A pruned checkpoint is trained again, in every way that the host has, and stays as narrow as it was."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.engine import trainer
from ultralytics.nn.tasks import PoseModel, load_checkpoint
from ultralytics.utils.torch_utils import get_flops

import yolo_prune
from tests.helpers.environments import Environment
from tests.helpers.runs import SMALL, record_of, train, widths
from tests.helpers.small_models import SMALL_MODEL, untrained
from yolo_prune import api
from yolo_prune.commands.write_yaml import write_yaml
from yolo_prune.errors import PruneError, RecipeError
from yolo_prune.host import checkpoint, known_classes
from yolo_prune.host.run import Run
from yolo_prune.surgery import widths as architecture
from yolo_prune.training import session

many = pytest.mark.skipif(not hasattr(trainer, "MultiTrainer"), reason="this ultralytics trains on one data set")
safe = pytest.mark.skipif(not checkpoint.restricted(), reason="this ultralytics has no restricted loading")


@pytest.fixture(scope="module")
def pruned(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A best.pt at half the FLOPs, on two classes."""
    folder = tmp_path_factory.mktemp("pruned")
    train(tiny_data, folder, epochs=1, prune=0.5, prune_schedule="oneshot", prune_start=0)
    return folder / "run" / "weights" / "best.pt"


@pytest.fixture(scope="module")
def three_classes(tiny_data: Path) -> Path:
    """The tiny data set with a third class that no image has."""
    data = yaml.safe_load(tiny_data.read_text())
    data["names"][2] = "neither"
    path = tiny_data.with_name("three.yaml")
    path.write_text(yaml.safe_dump(data))
    return path


def network(path: Path) -> nn.Module:
    return load_checkpoint(path)[0]


def best(folder: Path) -> nn.Module:
    return network(folder / "run" / "weights" / "best.pt")


def test_on_the_same_classes_every_tensor_is_transferred(
    pruned: Path, tiny_data: Path, tmp_path: Path, caplog: Any
) -> None:
    items = len(network(pruned).state_dict())
    with caplog.at_level("INFO", logger="ultralytics"):
        train(tiny_data, tmp_path, YOLO(pruned), epochs=1)
    assert f"Transferred {items}/{items} items" in caplog.text
    assert widths(best(tmp_path)) == widths(network(pruned))
    assert architecture.is_pruned(best(tmp_path))


def test_on_other_classes_the_towers_keep_their_widths(pruned: Path, three_classes: Path, tmp_path: Path) -> None:
    train(three_classes, tmp_path, YOLO(pruned), epochs=1)
    before, after = widths(network(pruned)), widths(best(tmp_path))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"model.10.cv3.{level}.2" for level in range(2)}
    assert all(after[name] == (3, before[name][1]) for name in changed)


def test_a_second_prune_goes_on_from_there_on_other_classes(pruned: Path, three_classes: Path, tmp_path: Path) -> None:
    train(three_classes, tmp_path, YOLO(pruned), epochs=4, prune=0.3)
    record = record_of(tmp_path / "run")
    assert [row["epoch"] for row in record["steps"]] == [2]  # it learns the classes first
    before = record["baseline"]["gflops"]
    assert before == pytest.approx(get_flops(network(pruned), 640), rel=0.01)
    assert 0.68 <= get_flops(best(tmp_path), 640) / before <= 0.7


def test_a_model_that_knows_the_classes_is_cut_before_the_first_epoch(
    pruned: Path, tiny_data: Path, tmp_path: Path, caplog: Any
) -> None:
    yolo = YOLO(pruned)

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise InterruptedError

    yolo.add_callback("on_train_epoch_start", stop)
    with caplog.at_level("INFO"), pytest.raises(InterruptedError):
        train(tiny_data, tmp_path, yolo, epochs=4, prune=0.3)
    assert "it is cut before the first epoch, for it was trained on these classes" in caplog.text
    assert [row["epoch"] for row in record_of(tmp_path / "run")["steps"]] == [1]
    resumed = YOLO(tmp_path / "run" / "weights" / "last.pt")
    resumed.train(resume=True)
    assert session.of(resumed.trainer).epochs == [0]
    assert [row["epoch"] for row in record_of(tmp_path / "run")["steps"]] == [1]


def test_a_penalty_has_epochs_before_the_cut(pruned: Path, tiny_data: Path, tmp_path: Path) -> None:
    """The model knows its classes, and is not cut at once: the penalty would act in no epoch."""
    train(tiny_data, tmp_path, YOLO(pruned), epochs=4, prune=0.3, prune_regularize="bn")
    assert [row["epoch"] for row in record_of(tmp_path / "run")["steps"]] == [2]


@pytest.mark.parametrize(
    ("single", "task", "same", "knows"),
    [
        (False, "detect", False, True),
        (True, "detect", True, True),
        (True, "detect", False, False),
        (False, "depth", True, True),
        (False, "depth", False, False),
    ],
)
def test_one_class_for_all_is_known_of_the_data_it_was_trained_on_alone(
    single: bool, task: str, same: bool, knows: bool, pruned: Path, tiny_data: Path
) -> None:
    """With single_cls, and in task depth, the host gives the class of any data one name."""
    data = str(tiny_data) if same else "other.yaml"
    arguments = SimpleNamespace(model=str(pruned), pretrained=True, single_cls=single, task=task, data=data)
    run = Run(SimpleNamespace(args=arguments, model=network(pruned)))
    assert known_classes.knows_its_classes(run) is knows


@pytest.mark.parametrize("model", [str(SMALL_MODEL), "dense.pt"], ids=["yaml", "dense.pt"])
def test_pretrained_gives_its_widths(model: str, pruned: Path, tiny_data: Path, tmp_path: Path, caplog: Any) -> None:
    if model == "dense.pt":
        train(tiny_data, tmp_path / "dense", epochs=1)
        model = str(tmp_path / "dense" / "run" / "weights" / "best.pt")
    items = len(network(pruned).state_dict())
    with caplog.at_level("INFO", logger="ultralytics"):
        train(tiny_data, tmp_path, YOLO(model), epochs=1, pretrained=str(pruned))
    # the lowest host loads them into the yaml's 80 classes first, and the four tensors of the classes stay behind
    assert re.search(rf"Transferred ({items}|{items - 4})/{items} items", caplog.text)
    assert widths(best(tmp_path)) == widths(network(pruned))


def test_load_gives_its_widths_and_weights(pruned: Path, tiny_data: Path, tmp_path: Path) -> None:
    yolo, source = untrained(), network(pruned)
    yolo.load(pruned)
    given = {name: value for name, value in source.state_dict().items() if ".cv3." not in name}
    found = yolo.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in given.items())
    assert found["model.10.cv3.0.2.weight"].shape[0] == 80, "the class count stays the model's own"
    train(tiny_data, tmp_path, yolo, epochs=1)
    assert widths(best(tmp_path)) == widths(source)


def test_a_pose_model_adopts_widths_and_keeps_the_keypoints_of_its_data() -> None:
    weights = PoseModel("yolov8n-pose.yaml", nc=1, verbose=False)
    yolo_prune.prune(weights, flops="60%")
    model = PoseModel("yolov8n-pose.yaml", nc=1, data_kpt_shape=(21, 3), verbose=False)
    assert architecture.adopt(model, weights)
    head: Any = model.model[-1]
    assert tuple(head.kpt_shape) == (21, 3)
    assert head.cv4[0][-1].out_channels == 63
    assert widths(model)["model.2.cv1.conv"] == widths(weights)["model.2.cv1.conv"]


def test_weights_of_another_scale_are_not_adopted_in_silence(pruned: Path, caplog: Any) -> None:
    yolo = YOLO("yolov8n.yaml")
    before = widths(yolo.model)
    with caplog.at_level("WARNING", logger="ultralytics"):
        yolo.load(pruned)
    assert widths(yolo.model) == before
    assert "the pretrained weights are a pruned small.yaml and this model is yolov8n.yaml" in caplog.text


def test_a_pruned_model_keeps_its_own_widths_when_it_loads_dense_weights(pruned: Path) -> None:
    yolo = YOLO(pruned)
    before = widths(yolo.model)
    yolo.load(untrained().model)
    assert widths(yolo.model) == before


@many
def test_a_list_of_data_sets_trains_each_from_the_pruned_model(
    pruned: Path, tiny_data: Path, three_classes: Path, tmp_path: Path
) -> None:
    yolo = YOLO(pruned)
    yolo.add_callback("on_train_start", lambda trainer: None)  # a callback makes the host train in this process
    yolo.train(data=[str(tiny_data), str(three_classes)], project=str(tmp_path), epochs=1, **SMALL)
    runs = sorted(tmp_path.rglob("best.pt"))
    assert len(runs) == 2
    for path in runs:
        assert {n: w for n, w in widths(network(path)).items() if ".cv3." not in n} == {
            n: w for n, w in widths(network(pruned)).items() if ".cv3." not in n
        }


def test_a_bad_argument_ends_a_list_of_data_sets_before_the_first(pruned: Path, tiny_data: Path) -> None:
    with pytest.raises(RecipeError, match=r"prune=1\.5"):
        YOLO(pruned).train(data=[str(tiny_data)], epochs=1, prune=1.5)


@many
def test_a_list_of_data_sets_is_trained_in_processes_that_keep_the_widths(
    wheel_env: Environment, pruned: Path, three_classes: Path, tmp_path: Path
) -> None:
    """One process a data set, and one stands for all; those of `tune` are in test_kept_callbacks.py."""
    code = (
        "import sys\nfrom ultralytics import YOLO\n"
        "model, data, folder = sys.argv[1:]\n"
        f"YOLO(model).train(data=[data], project=folder, **{ ({**SMALL, 'epochs': 1})!r})\n"
    )
    done = wheel_env.run("python", "-c", code, pruned, three_classes, tmp_path)
    assert done.code == 0, done.text[-3000:]
    (path,) = tmp_path.rglob("best.pt")
    assert widths(network(path))["model.0.conv"] == widths(network(pruned))["model.0.conv"]
    assert architecture.is_pruned(network(path))


def test_folds_in_one_process_do_not_know_of_each_other(pruned: Path, tiny_data: Path, tmp_path: Path) -> None:
    found = []
    for fold in ("a", "b"):
        train(tiny_data, tmp_path / fold, YOLO(pruned), epochs=1, prune=0.3, prune_schedule="oneshot", prune_start=0)
        found.append(widths(best(tmp_path / fold)))
    train(tiny_data, tmp_path / "plain", YOLO(pruned), epochs=1)
    assert found[0] == found[1]
    assert widths(best(tmp_path / "plain")) == widths(network(pruned))


# The architecture as a file -------------------------------------------------------------------------------------------


@safe
def test_the_yaml_builds_the_same_widths(pruned: Path, three_classes: Path, tmp_path: Path) -> None:
    file = write_yaml(str(pruned), str(tmp_path / "mine.yaml"))
    assert "run" not in yaml.safe_load(file.read_text())["yolo_prune"]
    assert widths(YOLO(file).model) == widths(network(pruned))
    train(three_classes, tmp_path, YOLO(file), epochs=1, pretrained=str(pruned))
    assert {n: w for n, w in widths(best(tmp_path)).items() if ".cv3." not in n} == {
        n: w for n, w in widths(network(pruned)).items() if ".cv3." not in n
    }


@safe
def test_the_yaml_of_another_scale_keeps_its_depth(tmp_path: Path) -> None:
    yolo = YOLO("yolov8m.yaml")
    api.prune(yolo, flops="60%")
    path = tmp_path / "m.pt"
    torch.save({"model": yolo.model}, path)
    data = path.with_suffix(".yaml")
    data.write_text("names: [a]\n")
    with pytest.raises(PruneError, match=r"m\.yaml is there already, and is no model that this command wrote"):
        write_yaml(str(path))
    assert data.read_text() == "names: [a]\n"
    data.unlink()
    for _ in range(2):  # its own file is written anew
        assert widths(YOLO(write_yaml(str(path))).model) == widths(yolo.model)


def test_yolo_train_builds_it_and_stock_train_refuses_it(
    wheel_env: Environment, stock_env: Environment, pruned: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = wheel_env.run("yolo-prune", "yaml", f"model={pruned}", f"out={tmp_path / 'mine.yaml'}")
    assert done.code == 0, done.text[-2000:]
    words = (f"data={tiny_data}", f"project={tmp_path}", "name=run", *(f"{k}={v}" for k, v in SMALL.items()))
    for environment, code in ((stock_env, 1), (wheel_env, 0)):
        done = environment.run("yolo", "train", f"model={tmp_path / 'mine.yaml'}", "epochs=1", *words, cwd=tmp_path)
        assert done.code == code, done.text[-2000:]
        assert ("pip install yolo-prune" in done.text) is bool(code)
    assert widths(best(tmp_path)) == widths(network(pruned))


@safe
def test_the_yaml_of_a_dense_model_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "dense.pt"
    torch.save({"model": YOLO("yolov8n.yaml").model}, path)
    with pytest.raises(PruneError, match=r"dense\.pt: the model is not pruned.*yolov8n\.yaml"):
        write_yaml(str(path))
    with pytest.raises(PruneError, match=r"out=mine\.txt"):
        write_yaml(str(path), "mine.txt")
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".yaml"] == []
