# yolo-prune, AGPL-3.0 license
"""Models and artifacts that several files of tests export, made once in a session."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from tests.helpers.bundles import BLOCK, PACKAGES, TINY, Case, script_module, tiny
from tests.helpers.environments import Done
from tests.helpers.untrained import save
from yolo_prune.export.bundle import bundle
from yolo_prune.host import exporter, silence


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of the small model, untrained."""
    return save(tmp_path_factory.mktemp("checkpoint") / "best.pt", 0)


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    """Return a copy in a folder of its own."""
    folder = tmp_path / "weights"
    folder.mkdir()
    return Path(shutil.copy(checkpoint, folder / "best.pt"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is logged, in order."""
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("ultralytics"), "info", lambda message, *_, **__: lines.append(str(message)))
    return lines


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Path]
) -> Callable[[Case], tuple[Path, int]]:
    """Return a function: case -> the artifact that the host writes, and its side in pixels. Each is made once."""
    done: dict[Case, Path] = {}

    def export(case: Case) -> tuple[Path, int]:
        for package in PACKAGES[case.kind]:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        side = 320 if case.model.endswith(".pt") else 64
        if case not in done:
            folder = tmp_path_factory.mktemp("exported")
            checkpoint = folder / "best.pt"
            if case.model.endswith(".pt"):
                shutil.copyfile(weights(case.model), checkpoint)
            else:
                torch.save(tiny(case.model), checkpoint)
            options: dict[str, Any] = {"nms": False} if case.end2end else {}
            with exporter.restrained(), silence.quiet():
                done[case] = Path(YOLO(str(checkpoint)).export(format=case.kind, imgsz=side, **options))
        return done[case], side

    return export


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures: upright, wide, and smaller than any network's input."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("bus", "zidane"):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.imread(str(ASSETS / f"{name}.jpg")))
    cv2.imwrite(str(folder / "small.png"), cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (53, 39)))
    return folder


@pytest.fixture
def best(exported: Callable[[Case], tuple[Path, int]], tmp_path: Path) -> Path:
    """Return a copy of the tiny best.onnx in a folder of its own."""
    return Path(shutil.copy(exported(TINY)[0], tmp_path))


@pytest.fixture
def device(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Return a function that runs a script where torch, the host and we cannot be imported."""
    blocked = tmp_path_factory.mktemp("blocked")
    (blocked / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")

    def run(script: Path, *words: str, path: str | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, str(script), *words],
            env={**os.environ, "PYTHONPATH": str(blocked), **({"PATH": path} if path else {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def detect() -> Iterator[ModuleType]:
    """Return detect.py as the module that it is in a bundle."""
    yield from script_module("detect")


@pytest.fixture
def placed(detect: ModuleType, best: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return detect.py as if it lay in the bundle of the tiny network."""
    monkeypatch.setattr(detect, "__file__", str(bundle(best) / "detect.py"))
    return detect
