# yolo-prune, AGPL-3.0 license
"""What the rows of the accuracy matrix are made from: data sets, weights, and the state of the code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from matrix_rows import Row

from yolo_prune import files
from yolo_prune.device import machine

ROOT = Path(__file__).resolve().parents[1]
_SCAN = """
import sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1])
for split in ("train", "val"):
    YOLODataset(img_path=data[split], data=data, task="detect")
"""


class Places:
    """The folders of one matrix.

    Attributes:
        shared: data sets and weights, never written to. runs: trainings, and what is made for them.
        results: the JSON files.
    """

    def __init__(self, shared: Path, runs: Path, results: Path) -> None:
        self.shared, self.runs, self.results = shared.resolve(), runs.resolve(), results.resolve()

    def said(self, word: str) -> str:
        """A word of a command without the places of this machine."""
        return word.replace(str(self.runs), "RUNS").replace(str(self.shared), "SHARED")


def near(root: Path = ROOT) -> Path:
    """The folder `shared` that lies at the checkout or above it; `../shared` where there is none."""
    found = (folder / "shared" for folder in (root, *root.parents))
    return next((folder for folder in found if folder.is_dir()), root.parent / "shared")


def start(spec: Mapping[str, Any], places: Places, row: Row) -> tuple[Path, Row | None]:
    """The weights that a row starts from, and the row whose best.pt they are, or None."""
    if row.protocol == "p1":
        return places.shared / "weights" / f"{row.model}.pt", None
    if own := spec["trained"].get(row.set, {}).get(row.model):
        return places.shared / own, None
    earlier = row.dense._replace(protocol="p1")
    return places.runs / earlier.name / "weights" / "best.pt", earlier


def missing(spec: Mapping[str, Any], places: Places, row: Row) -> str:
    """What a row needs and nobody can make here, in words; empty where it is all there."""
    weights, earlier = start(spec, places, row)
    needed = [] if earlier else [weights]
    if folder := spec["sets"][row.set].get("folder"):
        needed.append(places.shared / folder)
    return ", ".join(f"no {places.said(str(path))}" for path in needed if not path.exists())


def data(spec: Mapping[str, Any], places: Places, name: str) -> Path:
    """The `data=` file of a set. It is made on the first call: drawn, or as links to what lies in shared.

    The host writes caches of the labels beside the images. With links they lie in `runs`, not in shared.
    """
    entry, folder = spec["sets"][name], places.runs / "data" / name
    if (folder / "data.yaml").is_file():
        if next((folder / "images" / "train").iterdir()).exists():
            return folder / "data.yaml"
        shutil.rmtree(folder)  # links to a `shared` that is no longer there
    if "make" in entry:
        from yolo_prune.demo.dataset import make

        return make(folder, **entry["make"])
    source = places.shared / entry["folder"]
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
            for file in (source / kind / split).iterdir():
                link = folder / kind / split / file.name
                if not link.is_symlink():
                    link.symlink_to(file)
    content = yaml.safe_load((source / "data.yaml").read_text(encoding="utf-8"))
    content = {key: value for key, value in content.items() if key not in ("test", "download")}
    beside = folder / "scan.yaml"
    beside.write_text(yaml.safe_dump({**content, "path": str(folder)}), encoding="utf-8")
    # Two trainings that scan the labels at once would write one cache over the other.
    subprocess.run([sys.executable, "-c", _SCAN, str(beside)], check=True, capture_output=True, env=environment())
    os.replace(beside, folder / "data.yaml")
    return folder / "data.yaml"


def environment() -> dict[str, str]:
    """Of a training: this checkout, one thread, no network."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "True"}


def code() -> str:
    """A digest of the package: two results of one digest are of one code, whatever else was committed between them."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "yolo_prune").rglob("*.py")):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def digest(path: Path) -> str:
    """Of the weights that a row starts from."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """What a row is measured with. `commit` is missing outside of git, and ends in "+" where the package differs."""
    packages = {name: metadata.version(name) for name in ("yolo-prune", "ultralytics", "torch")}
    commit, changed = _git("rev-parse", "--short=10", "HEAD"), _git("status", "--porcelain", "--", "yolo_prune")
    return {**packages, **({"commit": commit + "+" * bool(changed)} if commit else {}), "code": code()}


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def processor(device: str = "cpu") -> str:
    """The name of this machine's processor, or of the card where `device` is one: "0" and so on."""
    if device == "cpu":
        return str(machine.this_machine()["name"])
    import torch

    return torch.cuda.get_device_name(int(device))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of results; none where there is no file yet."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def keep(path: Path, rows: list[dict[str, Any]]) -> None:
    """A file of results, a row a line, whole or not at all."""
    files.replace(path, "[\n" + ",\n".join(f" {json.dumps(row)}" for row in rows) + "\n]\n")


def others(path: Path, row: Mapping[str, Any], same: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a file of results that stay where `row` comes.

    Args:
        same: the keys in which two measurements of one thing are alike.
    """
    return [one for one in read(path) if any(one[key] != row[key] for key in same)]


def weights_of(given: str) -> Path:
    """The checkpoint of a run folder, or the file itself."""
    path = Path(given)
    return path if path.suffix == ".pt" else path / "weights" / "best.pt"


def write(path: Path, content: dict[str, Any]) -> None:
    """A small JSON file, whole or not at all; see `text`."""
    files.replace(path, text(content) + "\n")


def text(content: dict[str, Any]) -> str:
    """A small JSON object, a key a line; of lists those of objects have one a line, all others stay on one line."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            lines.append(f" {json.dumps(key)}: [\n{rows}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}"
