# yolo-prune, AGPL-3.0 license
"""What the tests share: small data, real weights where they are at hand, and environments with and without the wheel.

Nothing here reaches for the network. Tests on real weights or real data skip, with the reason, where there are none.
"""

from __future__ import annotations

import gc
import itertools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests share few cores
os.environ["YOLO_OFFLINE"] = "True"

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT, shared
from tests.helpers.environments import Environment, make_environment

# The host reads its settings when it is imported, so the user's own must be out of reach before the first import.
_SETTINGS = tempfile.TemporaryDirectory(prefix="yolo-prune-settings-")
os.environ["YOLO_CONFIG_DIR"] = _SETTINGS.name


PURE = ("allocation", "recipe")  # wings that know neither torch nor the host, so that their tests run in seconds

# A worker is handed whole files. The longest come first, or one worker ends with a long one while the others wait; and
# those of seconds last.
LONGEST = (
    "training/test_tasks.py",
    "test_lowest_host.py",
    "graph/test_families.py",
    "cost/test_exported.py",
    "sweeps/test_sweep.py",
    "surgery/test_whole_parts.py",
    "training/test_roll_back.py",
    "training/test_ddp.py",
    "training/test_session.py",
    "test_wheel.py",
    "host/test_trainable_check.py",
    "device/test_latency.py",
    "export/test_formats.py",
    "training/test_again.py",
    "training/test_turns.py",
    "export/test_export.py",
    "host/test_platform.py",
    "planning/test_dry_cut.py",
    "export/test_deployed.py",
    "test_startup.py",
    "export/test_trusted.py",
    "export/test_trained_int8.py",
    "training/test_kill.py",
    "graph/test_custom_blocks.py",
    "training/test_latency_run.py",
    "cost/test_file_size.py",
    "training/test_resumed_widths.py",
    "training/test_regularize.py",
    "training/test_cuda.py",
    "training/test_optimizers.py",
    "training/test_recovery.py",
    "training/test_kept_callbacks.py",
    "graph/test_image_channels.py",
    "graph/test_oracle.py",
    "test_mistakes.py",
    "training/test_teacher.py",
    "device/test_this_machine.py",
    "test_signals.py",
    "surgery/test_masks.py",
    "training/test_ddp_decisions.py",
    "surgery/test_undo.py",
)
SHORTEST = (*PURE, "report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and the folders of the shortest last; all others stay in their order."""
    rank = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank) + (item.path.parent.name in SHORTEST)))


def _is_pure(path: Path) -> bool:
    return path.parent.name in PURE


@pytest.fixture(autouse=True, scope="session")
def _host(request: pytest.FixtureRequest) -> None:
    """Use one thread, so that results do not depend on the machine, and let the host write where we say.

    Under pytest the host (8.4.190, cfg `get_save_dir`) would put its runs beside itself, into site-packages.
    """
    if all(_is_pure(item.path) for item in request.session.items):
        return
    import torch
    import ultralytics.cfg

    torch.set_num_threads(1)
    ultralytics.cfg.TESTS_RUNNING = False
    from yolo_prune.device import quick_look

    for kind in quick_look.LOOKED_AT:  # as if every machine that runs the tests had been looked at, with this result
        if quick_look.runtimes.missing(kind) is None:
            quick_look.keep(kind, 8)
    gc.set_threshold(50_000, 20, 50)  # rarely


@pytest.fixture(autouse=True, scope="session")
def _in_haste(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave out what takes time in every training of this process and changes nothing that is tested.

    Files are not flushed to the disk; the host looks for garbage where a training begins and after each of its epochs
    (8.4.190, trainer `_clear_memory`), and counts the FLOPs of a model for the line that it prints of it (nn/tasks.py
    `info`).
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        if not all(_is_pure(item.path) for item in request.session.items):
            from ultralytics.engine.trainer import BaseTrainer
            from ultralytics.nn import tasks

            patch.setattr(BaseTrainer, "_clear_memory", lambda self, threshold=None: None)
            patch.setattr(tasks, "model_info", lambda *given, **more: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def _less_garbage(_host: None) -> None:
    """What was imported, and made by the files before, is no garbage: the host looks through all that is not frozen."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test writes, the host's `runs/` among it, out of the working tree."""
    monkeypatch.chdir(tmp_path)
    if not _is_pure(request.path):
        from ultralytics.utils import SETTINGS

        monkeypatch.setitem(SETTINGS, "runs_dir", str(tmp_path / "runs"))


@pytest.fixture(autouse=True, scope="session")
def _own_clock() -> Iterator[None]:
    """Let every call of a timing take the same made-up time: tests run beside others, and what they time is noise."""
    from yolo_prune.device import timing

    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_clock", lambda: next(ticks) * 1e-3)
        yield


DRAWN = ("test_pictures.py", "test_picture.py", "test_docs.py")  # what is tested there are the pictures


@pytest.fixture(autouse=True, scope="module")
def _no_picture(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave pruning.png and export.png empty: to draw one takes as long as an epoch.

    They are drawn in subprocesses, in DRAWN, and where a fixture says so for a test of what a run leaves.
    """
    if _is_pure(request.path) or request.path.name in DRAWN:
        yield
        return
    from tests.helpers import drawing

    with drawing.left_out():
        yield


@pytest.fixture(autouse=True, scope="session")
def _exported_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the host export a checkpoint to ONNX once, however many tests ask for it."""
    if all(_is_pure(item.path) for item in request.session.items):
        yield
        return
    from tests.helpers import exports
    from yolo_prune.host import exporter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "by_host", exports.kept(exporter.by_host, tmp_path_factory.mktemp("kept")))
        yield


# Data and weights -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def weights() -> Callable[[str], Path]:
    """Return a function: name of a weights file, such as "yolov8n.pt" -> its path. It skips where there is none."""

    def find(name: str) -> Path:
        found = shared(f"weights/{name}")
        if found is None:
            pytest.skip(f"no shared/weights/{name} at or above {ROOT.name}/")
        return found

    return find


@pytest.fixture(scope="session")
def bccd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a `data=` file of the BCCD blood cell set, with absolute paths. Skips the test when there is none."""
    import yaml

    found = shared("datasets/bccd")
    if found is None:
        pytest.skip(f"no shared/datasets/bccd at or above {ROOT.name}/")
    source = next(iter(sorted(found.glob("*.yaml"))))
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("bccd")
    for image in found.glob("images/*/*"):  # a link each: the host keeps a cache beside the labels, and follows folders
        link = folder / image.relative_to(found)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image)
    shutil.copytree(found / "labels", folder / "labels", ignore=shutil.ignore_patterns("*.cache"))
    data["path"] = str(folder)
    data.pop("download", None)
    copied = folder / "bccd.yaml"
    copied.write_text(yaml.safe_dump(data), encoding="utf-8")
    return copied


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a `data=` file of 8 train and 4 val images of 64 x 64 pixels: bright and dark rectangles, two classes."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image = random.integers(90, 130, (64, 64, 3), dtype=np.uint8)
            lines = []
            for kind, shade in enumerate((230, 20)):
                left, top = (int(v) for v in random.integers(2, 30, 2) + np.array([kind * 2, kind * 2]))
                wide, high = (int(v) for v in random.integers(16, 30, 2))
                cv2.rectangle(image, (left, top), (left + wide, top + high), (shade, shade, shade), -1)
                box = ((left + wide / 2) / 64, (top + high / 2) / 64, wide / 64, high / 64)
                lines.append(" ".join((str(kind), *(f"{v:.6f}" for v in box))))
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), image)
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = folder / "tiny.yaml"
    data.write_text(
        f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n  0: bright\n  1: dark\n", encoding="utf-8"
    )
    return data


# Environments ---------------------------------------------------------------------------------------------------------


def _made_once(request: pytest.FixtureRequest, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of this session that the first worker to want it makes, for all workers.

    Args:
        name: of the folder. make: fills it; one that failed is called again by the next worker, on an empty one.
    """
    from filelock import FileLock  # torch needs it

    base = request.getfixturevalue("tmp_path_factory").getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / name
    made = folder / "made"
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def wheel(request: pytest.FixtureRequest) -> Path:
    """Build the wheel of this checkout, without isolation."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    (built,) = _made_once(request, "wheel", make).glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_env(request: pytest.FixtureRequest) -> Environment:
    """Return an environment in which the wheel is installed."""
    if os.environ.get("YOLO_PRUNE_TESTS") == "lowest":
        return Environment(Path(sys.prefix))  # as this one is, and with the lowest host
    folder = _made_once(
        request, "with", lambda folder: make_environment(folder / "venv", [request.getfixturevalue("wheel")])
    )
    return Environment(folder / "venv")


@pytest.fixture(scope="session")
def stock_env(request: pytest.FixtureRequest) -> Environment:
    """Return an environment that has ultralytics and not yolo-prune."""
    if os.environ.get("YOLO_PRUNE_TESTS") == "lowest":
        pytest.skip("the environment of the lowest host lends yolo-prune too")
    environment = Environment(_made_once(request, "without", lambda folder: make_environment(folder / "venv")) / "venv")
    probe = environment.run("python", "-c", "import importlib.util as u; print(u.find_spec('yolo_prune'))")
    assert probe.out.strip() == "None", f"yolo_prune can be imported in the stock environment: {probe.text}"
    return environment
