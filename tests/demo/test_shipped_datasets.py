# yolo-prune, AGPL-3.0 license
"""The shipped `data=` files: the host reads them, they hold its own facts, and the demo set comes from nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolo_prune.demo.shapes import CLASSES
from yolo_prune.recipe.resources import folder

FILES = sorted(folder("datasets").glob("*.yaml"))
ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def test_the_files_are_there() -> None:
    assert [path.stem for path in FILES] == ["coco", "coco128", "coco8", "demo"]


@pytest.mark.parametrize("name", ["coco", "coco128", "coco8"])
def test_coco_files_hold_the_hosts_facts(name: str) -> None:
    from ultralytics.utils import ROOT as HOST

    ours, theirs = read(folder("datasets") / f"{name}.yaml"), read(HOST / "cfg" / "datasets" / f"{name}.yaml")
    assert ours["names"] == theirs["names"]
    assert len(ours["names"]) == 80
    for key in ("path", "train", "val", "test"):
        assert ours.get(key) == theirs.get(key), key
    addresses = re.findall(r"https?://\S+?\.zip", ours["download"])
    if name == "coco":  # theirs puts the labels' address together from a constant
        compile(ours["download"], "coco.yaml", "exec")
        assert addresses[1:] == re.findall(r"https?://\S+?\.zip", theirs["download"])
    else:
        assert addresses == [ours["download"]] == [theirs["download"]]


def test_labels_of_coco_come_from_where_the_host_keeps_them() -> None:
    from ultralytics.utils import ASSETS_URL

    assert f'"{ASSETS_URL}/coco2017labels.zip"' in read(folder("datasets") / "coco.yaml")["download"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_host_reads_the_file(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no images and no download allowed, the host complains of the images and of nothing else."""
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "DATASETS_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match="images not found") as caught:
        utils.check_det_dataset(str(path), autodownload=False)
    assert str(tmp_path / read(path)["path"]) in str(caught.value)


def test_demo_comes_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "DATASETS_DIR", tmp_path / "datasets")
    for _ in range(2):  # the second time it is there already
        data = utils.check_det_dataset(str(folder("datasets") / "demo.yaml"))
        assert data["names"] == dict(enumerate(CLASSES))
        made = tmp_path / "datasets" / "yolo-prune-demo-set"
        assert [data["train"], data["val"]] == [str(made / "images" / split) for split in ("train", "val")]
        written = {split: len(list((made / "images" / split).iterdir())) for split in ("train", "val")}
    text = (folder("datasets") / "demo.yaml").read_text(encoding="utf-8")
    assert f"{written['train']} + {written['val']} images" in text
    assert f"| {written['train']} + {written['val']} |" in (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")


def test_script_makes_a_set_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, str(folder("datasets") / "make_demo.py")]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    done = run("out=my-demo", "images=3", "val=2", "imgsz=64", "seed=1")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'my-demo' / 'data.yaml'}\n"), done.stderr
    assert len(json.loads((tmp_path / "my-demo/annotations/train.json").read_text(encoding="utf-8"))["images"]) == 3
    for words, match in (((), "out= is missing"), (("out=my-demo", "images=0"), "images=0 is not a whole number")):
        done = run(*words)
        assert done.returncode == 1
        assert match in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_readme_converts_coco_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README tells to do with one's own COCO JSON, word for word, gives a set that the host accepts."""
    from ultralytics.data.utils import check_det_dataset

    from yolo_prune.demo.dataset import make

    text = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (described,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    made = make("my-demo", images=6, val=3, imgsz=64).parent
    exec(program, {})
    for split in ("train", "val"):
        (made / "images" / split).rename(tmp_path / "converted" / "images" / split)
        labels = list((tmp_path / "converted" / "labels" / split).iterdir())
        assert labels
        for label in labels:
            assert label.read_bytes() == (made / "labels" / split / label.name).read_bytes()
    data = tmp_path / "own.yaml"
    data.write_text(described.replace("/absolute/path/of/converted", str(tmp_path / "converted")), encoding="utf-8")
    assert check_det_dataset(str(data))["names"] == dict(enumerate(CLASSES))
