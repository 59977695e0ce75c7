# yolo-prune, AGPL-3.0 license
"""The checks of .ci/release: they pass for this checkout's wheel and sdist, and name what is wrong with others."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.checkout import ROOT


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """.ci/release_check.py."""
    spec = importlib.util.spec_from_file_location("release_check", ROOT / ".ci" / "release_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dist(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and an sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    shutil.copy(wheel, folder)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_wheel_and_sdist_hold_what_they_should(check: ModuleType, dist: Path) -> None:
    assert check.contents(dist, ROOT) == []


def test_what_is_wrong_with_a_wheel_is_named(check: ModuleType, wheel: Path, tmp_path: Path) -> None:
    broken = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(broken, "w") as copy:
        for name in source.namelist():
            if name not in ("yolo_prune.pth", "yolo_prune/recipes/gentle.yaml"):
                copy.writestr(name, source.read(name))
        copy.writestr("tests/conftest.py", "")
    with zipfile.ZipFile(wheel) as archive:  # the pages, which errors name, and no pictures
        beside = [name for name in archive.namelist() if "/docs/" in name]
    assert "yolo_prune/docs/faq.md" in beside
    assert {Path(name).suffix for name in beside} == {".md"}
    assert check.wheel(broken, ROOT) == [
        f"{wheel.name} has no yolo_prune.pth",
        f"{wheel.name} has no yolo_prune/recipes/gentle.yaml",
        f"{wheel.name} has tests/conftest.py, which is not part of it",
    ]
    assert check.contents(tmp_path, ROOT) == [f"{tmp_path} has 1 wheels and 0 sdists, and should have one of each"]


def test_what_is_wrong_with_an_sdist_is_named(check: ModuleType, tmp_path: Path) -> None:
    names = [name for name in check.IN_SDIST if name != "LICENSE"]
    path = tmp_path / "yolo_prune-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in [*names, "shared/weights/best.pt"]:
            (tmp_path / "one").write_bytes(bytes(1_000_001 if name == "README.md" else 1))
            archive.add(tmp_path / "one", f"yolo_prune-0.1.0/{name}")
    assert check.sdist(path) == [
        f"{path.name} has no LICENSE",
        f"{path.name} has shared/weights/best.pt, a left-over",
        f"{path.name} has a folder shared, which is no part of the project",
        f"{path.name} has README.md, 1,000,001 bytes",
    ]


def test_versions_that_do_not_agree_are_named(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "yolo_prune").mkdir()
    (tmp_path / "yolo_prune" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.1.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0, unreleased\n\n## 0.1.0\n")
    first, second = check.versions(tmp_path)
    assert first == "CITATION.cff is of 0.1.0, the package of 0.2.0"
    assert second.startswith("CHANGELOG.md begins with '0.2.0, unreleased'")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0\n\n## 0.1.0\n")
    assert check.versions(tmp_path) == []


def test_the_extras_that_are_tried_are_those_for_users(check: ModuleType, dist: Path) -> None:
    assert check.extras(dist) == ["litert", "mnn", "ncnn", "openvino", "qat", "ray", "sweep", "tensorrt"]
