# yolo-prune, AGPL-3.0 license
"""`yolo-prune check`: what is installed, and whether `yolo train prune=...` works in this environment."""

from __future__ import annotations

import os
import platform
import shutil
import site
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from yolo_prune import __version__, install
from yolo_prune.host import releases

# Packages that are looked for, and what brings each.
_PACKAGES = (
    ("torch", "torch"),
    ("torch-pruning", "torch-pruning"),
    ("onnx", "onnx"),
    ("onnxruntime", "onnxruntime"),
    ("openvino", "openvino"),
    ("ncnn", "ncnn pnnx"),
    ("tensorrt", "tensorrt"),
)


def check() -> int:
    """Print what is installed and whether the hook is live.

    Returns:
        0 when `yolo train prune=...` will work in this environment, else 1.
    """
    print(f"{'yolo-prune':16}{__version__}  ({Path(install.__file__).resolve().parent})")
    print(f"{'python':16}{platform.python_version()}  ({sys.executable})")
    good = _check_host()
    for name, source in _PACKAGES:
        installed = _distribution(name)
        print(f"{name:16}{installed or f'not installed: pip install {source}'}")
    switch = os.environ.get("YOLO_PRUNE", "not set")
    print(f"{'YOLO_PRUNE':16}{switch}: the plugin is {'off' if switch == '0' else 'on'}")
    live, words = _hook()
    print(f"{'hook':16}{words}")
    yolo = shutil.which("yolo")
    print(f"{'yolo command':16}{yolo or 'not on PATH: use `yolo-prune train ...`'}")
    if yolo and not _is_of_this_environment(Path(yolo)):
        print(f"{'':16}of another environment than this one: activate this one, or use `yolo-prune train ...`")
    return 0 if good and live else 1


def _is_of_this_environment(script: Path) -> bool:
    """Whether a script lies where this Python installs them, for all users or, with pip's --user, for one.

    A virtual environment has none of a user's own.
    """
    folders: list[str | Path] = [sysconfig.get_path("scripts"), Path(sys.executable).parent]
    if site.ENABLE_USER_SITE:
        folders.append(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    return script.parent.resolve() in [Path(folder).resolve() for folder in folders]


def _check_host() -> bool:
    """Print the line on ultralytics; tell whether it is supported."""
    wanted = f">={releases.LOWEST},<{releases.BELOW}"
    installed = _distribution("ultralytics")
    good = installed is not None and releases.supported(installed)
    verdict = f"supported: {wanted}" if good else f'not supported: pip install "ultralytics{wanted}"'
    print(f"{'ultralytics':16}{installed or 'not installed'}  ({verdict})")
    return good


def _distribution(name: str) -> str | None:
    """Return the version of an installed distribution, or of one of its GPU builds."""
    for candidate in (name, f"{name}-gpu"):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def _hook() -> tuple[bool, str]:
    """Import the host in a fresh interpreter that knows nothing of us, and see whether it knows `prune`."""
    code = "import ultralytics.cfg as cfg; print('prune' in cfg.DEFAULT_CFG_DICT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    answer = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode != 0:
        return False, f"a fresh python cannot import ultralytics: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    if answer == "True":
        return True, "live: `yolo train ... prune=0.5` works"
    if os.environ.get("YOLO_PRUNE") == "0":
        return False, "off, because of YOLO_PRUNE=0"
    warning = next((line for line in done.stderr.splitlines() if "yolo-prune" in line), "")
    return (
        False,
        warning or "start-up files do not run here: use `yolo-prune train ...`, or `import yolo_prune` in a script",
    )
