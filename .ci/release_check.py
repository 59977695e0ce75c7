# yolo-prune, AGPL-3.0 license
"""What .ci/release looks at itself: versions that agree, and what is in the wheel and the sdist.

python .ci/release_check.py versions
python .ci/release_check.py contents dist
python .ci/release_check.py extras dist      names of what may be asked for beside it: yolo-prune[ncnn]
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {  # folder -> which of its files, and where they are in the wheel
    "yolo_prune": ("**/*", "yolo_prune"),
    "recipes": ("**/*", "yolo_prune/recipes"),
    "datasets": ("**/*", "yolo_prune/datasets"),
    "docs": ("*.md", "yolo_prune/docs"),
}
START_UP = ("yolo_prune.pth", "yolo_prune.start")
IN_SDIST = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "CONTRIBUTING.md", "tests/conftest.py", *START_UP)
FOLDERS = {".ci", "benchmarks", "datasets", "docs", "recipes", "tests", "yolo_prune"}
LEFT_OVERS = (".pt", ".onnx", ".engine", ".pyc")
LARGEST = 1_000_000  # bytes of a file in the sdist: data sets and weights are no part of it


def versions(root: Path) -> list[str]:
    """What does not agree about the version, or is not ready."""
    package = _find(r'^__version__ = "(.+)"$', root / "yolo_prune" / "__init__.py")
    faults = []
    cited = _find(r"^version: (.+)$", root / "CITATION.cff")
    if cited != package:
        faults.append(f"CITATION.cff is of {cited}, the package of {package}")
    heading = _find(r"^## (.+)$", root / "CHANGELOG.md")
    if heading != package:
        faults.append(f"CHANGELOG.md begins with '{heading}': a release of {package} begins with '## {package}'")
    return faults


def _find(pattern: str, path: Path) -> str:
    """The first match in a file."""
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def wheel(path: Path, root: Path) -> list[str]:
    """What a wheel lacks of the package, recipes, data sets, pages and start-up files here, and what else it has."""
    expected = set(START_UP)
    for folder, (which, place) in SHIPPED.items():
        files = (file for file in (root / folder).glob(which) if file.is_file() and "__pycache__" not in file.parts)
        expected |= {f"{place}/{file.relative_to(root / folder).as_posix()}" for file in files}
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    faults = [f"{path.name} has no {name}" for name in sorted(expected - names)]
    faults += [f"{path.name} has {name}, which is not part of it" for name in sorted(names - about - expected)]
    if not any(name.endswith("licenses/LICENSE") for name in about):
        faults.append(f"{path.name} has no LICENSE")
    return faults


def sdist(path: Path) -> list[str]:
    """What an sdist lacks, and what must not be in it."""
    with tarfile.open(path) as archive:
        sizes = {member.name.partition("/")[2]: member.size for member in archive if member.isfile()}
    faults = [f"{path.name} has no {name}" for name in IN_SDIST if name not in sizes]
    faults += [f"{path.name} has {name}, a left-over" for name in sorted(sizes) if name.endswith(LEFT_OVERS)]
    strange = {name.partition("/")[0] for name in sizes if "/" in name} - FOLDERS
    faults += [f"{path.name} has a folder {name}, which is no part of the project" for name in sorted(strange)]
    return faults + [f"{path.name} has {name}, {size:,} bytes" for name, size in sizes.items() if size > LARGEST]


def contents(folder: Path, root: Path) -> list[str]:
    """What is wrong with the one wheel and the one sdist in a folder."""
    wheels, archives = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if (len(wheels), len(archives)) != (1, 1):
        return [f"{folder} has {len(wheels)} wheels and {len(archives)} sdists, and should have one of each"]
    return [*wheel(wheels[0], root), *sdist(archives[0])]


def extras(folder: Path) -> list[str]:
    """The extras of the wheel in a folder that are for users."""
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        about = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(about).decode("utf-8")
    return [name for name in re.findall(r"^Provides-Extra: (.+)$", text, re.MULTILINE) if name not in {"docs", "test"}]


if __name__ == "__main__":
    if sys.argv[1] == "extras":
        print(*extras(Path(sys.argv[2])))
        sys.exit()
    found = versions(ROOT) if sys.argv[1] == "versions" else contents(Path(sys.argv[2]), ROOT)
    sys.exit("\n".join(found) if found else 0)
