# yolo-prune, AGPL-3.0 license
"""A mistake typed at `yolo` is one line and no traceback; the host's own errors stay as they are.

One command is typed in a process of its own, from the wheel; the others in this process, whose hooks are the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.helpers import typed
from tests.helpers.environments import Done, Environment
from yolo_prune import cli
from yolo_prune.errors import PruneError

cfg = pytest.importorskip("ultralytics.cfg")


def _one_line(done: Done) -> str:
    """Return the line of ours with which a command failed."""
    assert done.code == 1, done.text
    assert "Traceback" not in done.text
    assert "Starting training" not in done.text
    lines = [line for line in done.err.splitlines() if line.startswith("yolo-prune: ")]
    assert len(lines) == 1, done.text
    assert done.err.splitlines()[-1] == lines[0]
    return lines[0]


@pytest.mark.parametrize("mode", ["predict", "val", "export", "track", "benchmark"])
def test_yolo_refuses_other_modes_in_one_line(mode: str) -> None:
    line = _one_line(typed.yolo(mode, "model=yolov8n.yaml", "source=none.jpg", "data=none.yaml", "prune=0.5"))
    assert f"prune=0.5: pruning happens in `yolo train`, not in `yolo {mode}`" in line


def test_yolo_train_refuses_a_wrong_value_and_leaves_nothing(wheel_env: Environment, tmp_path: Path) -> None:
    words = ("train", "model=yolov8n.yaml", "data=none.yaml", "epochs=1", "prune=1.5")
    line = _one_line(wheel_env.run("yolo", *words, cwd=tmp_path))
    assert "prune=1.5" in line
    assert _one_line(typed.yolo(*words, cwd=tmp_path)) == line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no model at all\n", b"PK\x03\x04 cut off"])
def test_a_model_file_that_is_none(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(content)
    line = _one_line(typed.yolo("train", "model=broken.pt", "data=none.yaml", "epochs=1", "prune=0.5", cwd=tmp_path))
    assert "model=broken.pt: cannot be pruned" in line
    assert cli.main(["apply", f"model={broken}", "flops=50%"]) == 1
    assert "broken.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prune_stepz=3",), "prune_stepz=3 is unknown: did you mean prune_steps?"),
        (("prune=0.5", "project=/proc/none"), "project=/proc/none cannot be made: No such file or directory. Name a"),
        (("prun=0.5",), "prun=0.5 is unknown: did you mean prune?"),
        (("prune=0.5", "device=0,1"), "device=0,1: "),
        (("prune=0.5", "prune_steps=2", "device=cpu"), "data=none.yaml: "),
        (("prune=",), "prune= has no value: write prune=..."),
    ],
)
def test_what_the_host_cannot_read_is_one_line_too(
    tiny_data: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    if said.startswith("device") and torch.cuda.device_count() > 1:
        pytest.skip("this machine has the two GPUs that are asked for")
    data = tiny_data if said.startswith(("device", "project")) else "none.yaml"  # a missing data set is said first
    line = _one_line(typed.yolo("train", "model=yolov8n.yaml", f"data={data}", *words, cwd=tmp_path))
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prune=abc", "prune=abc"),
        ("prune=missing.yaml", "missing.yaml"),
        ("prune_flops=0%", "prune_flops=0%"),
        ("prune=0.5 prune_start=0.9 prune_end=0.1", "prune_start=0.9"),
        ("prune=0.5 prune_steps=50", "more steps than epochs"),
        ("prune=0.5 compile=True", "compile=True"),
        ("prune=0.5 quantize=8", "quantize=8"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(words: str, said: str, tiny_data: Path, tmp_path: Path) -> None:
    done = typed.yolo(
        *("train", "model=yolov8n.yaml", f"data={tiny_data}", f"project={tmp_path}", "epochs=6", "imgsz=64"),
        *("device=cpu", *words.split()),
    )
    assert said in _one_line(done)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("prune_stepz=3", "prune_stepz=3 is unknown: did you mean prune_steps?"),
        (
            "prune=0.5 prune_distill=6",
            "prune_distill=6 is unknown: it was removed; in its place prune_distill_outputs learns what the dense "
            "model puts out",
        ),
        ("prune=0.5 model=runs/best.pt", "model=runs/best.pt: there is no such file"),
    ],
)
def test_nothing_stands_before_the_line(words: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(YOLO, "__init__", None)  # a model that is nowhere is not looked for in the network
    done = typed.yolo("train", "data=none.yaml", *words.split())
    assert (done.out, done.err) == ("", f"yolo-prune: {line}\n")


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ("prune=0.5 model=yolo99n.pt", "yolo99n.pt"),
        ("prune=0.5 model=https://example.com/best.pt", "https://example.com/best.pt"),
        ("model=best.pt", "best.pt"),
    ],
)
def test_what_the_host_may_find_is_left_to_it(words: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(YOLO, "__init__", lambda self, model, **more: opened.append(model))
    typed.yolo("train", "data=none.yaml", *words.split())
    assert opened == [model]


def test_a_plain_command_keeps_the_usage_page() -> None:
    assert "yolo TASK MODE ARGS" in typed.yolo("train", "epocs=3").out


def test_all_faults_of_a_recipe_are_named_at_once(tiny_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("flosp: 50%\nsteps: many\ncolour: red\n")
    done = typed.yolo("train", f"data={tiny_data}", "model=yolov8n.yaml", "epochs=6", f"prune={recipe}")
    assert done.code == 1
    assert "Traceback" not in done.text
    for place, key in ((1, "flosp"), (2, "steps"), (3, "colour")):
        assert any(f"mine.yaml:{place}" in line and key in line for line in done.err.splitlines()), done.err


def test_the_hosts_errors_stay_as_they_are(wheel_env: Environment, stock_env: Environment, tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no model at all\n")
    words = ("yolo", "predict", "model=broken.pt", "source=none.jpg")
    with_plugin, without = (environment.run(*words, cwd=tmp_path) for environment in (wheel_env, stock_env))
    assert with_plugin.code == without.code == 1
    assert with_plugin.err.splitlines()[-1] == without.err.splitlines()[-1]
    assert re.search(r"^Traceback", with_plugin.err, re.MULTILINE)


def test_python_gets_an_exception_to_catch() -> None:
    with pytest.raises(PruneError):
        YOLO("yolov8n.yaml").train(data="none.yaml", epochs=1, prune="abc")
    with pytest.raises(ValueError, match="prune"):
        YOLO("yolov8n.yaml").train(data="none.yaml", epochs=1, prune=1.5)


def test_a_model_that_cannot_be_pruned_is_refused_before_the_run_touches_its_folder(
    tiny_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.csv").write_text("an earlier run's\n")
    torch.save({"model": YOLO("yolov8s-worldv2.yaml").model}, tmp_path / "world.pt")
    torch.save({"model": YOLO("yolov8n.yaml").model}, tmp_path / "eight.pt")
    words = (f"data={tiny_data}", f"project={tmp_path}", "name=run", "exist_ok=True", "imgsz=64", "device=cpu")
    for model, bound, reason in (("world.pt", "50%", "WorldModel"), ("eight.pt", "0.1%", "out of reach")):
        line = _one_line(typed.yolo("train", f"model={tmp_path / model}", f"prune_flops={bound}", *words, cwd=tmp_path))
        assert reason in line
        assert [path.name for path in run.iterdir()] == ["results.csv"]
        assert (run / "results.csv").read_text() == "an earlier run's\n"
