# yolo-prune, AGPL-3.0 license
"""Virtual environments with and without the wheel, in which tests run commands as a user does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


class Environment(NamedTuple):
    """A virtual environment of its own that sees the packages of this one, but none of its start-up files."""

    folder: Path

    @property
    def bin(self) -> Path:
        """The folder of its commands."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin / ("python.exe" if os.name == "nt" else "python")

    @property
    def site(self) -> Path:
        """Its site-packages."""
        scheme = sysconfig.get_preferred_scheme("prefix")
        return Path(sysconfig.get_path("purelib", scheme, {"base": str(self.folder), "platbase": str(self.folder)}))

    def run(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        timeout: float = 300,
    ) -> Done:
        """Run one of its commands, "python" and "yolo" among them, in a fresh process with settings of its own.

        Args:
            words: The command's name, then its arguments.
            cwd: Where to run it; a fresh folder when None, so that nothing is imported from the checkout.
            env: Variables to set, or, with None as the value, to remove.
            timeout: In seconds.
        """
        with tempfile.TemporaryDirectory(prefix="yolo-prune-run-") as scratch:
            variables: dict[str, str | None] = {
                **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "YOLO", "COV"))},
                "YOLO_CONFIG_DIR": scratch,
                "YOLO_OFFLINE": "True",
                "OMP_NUM_THREADS": "1",
                "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}",
                **(env or {}),
            }
            _lend_settings(Path(scratch))
            done = subprocess.run(
                [str(self.bin / str(words[0])), *map(str, words[1:])],
                cwd=cwd or scratch,
                env={k: v for k, v in variables.items() if v is not None},
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        return Done(done.returncode, done.stdout, done.stderr)


def _lend_settings(folder: Path) -> None:
    """Put what these tests say of the machine's channel multiples (conftest) into another YOLO_CONFIG_DIR."""
    kept = Path(os.environ["YOLO_CONFIG_DIR"], "Ultralytics", "yolo-prune")
    if kept.is_dir():
        shutil.copytree(kept, folder / "Ultralytics" / "yolo-prune")


def make_environment(folder: Path, wheels: Sequence[Path] = ()) -> Environment:
    """Make a virtual environment and install wheels into it, all from this machine.

    A `.pth` file with this environment's site-packages as plain path lines lends it torch and ultralytics. Such a line
    does not run the start-up files of the folder it names, so an editable install of yolo-prune here is not live there.
    This environment may borrow from another one itself.
    """
    lent = [path for path in dict.fromkeys(sys.path) if Path(path).name in ("site-packages", "dist-packages")]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    environment = Environment(folder)
    (environment.site / "borrowed.pth").write_text("\n".join([*lent, ""]), encoding="utf-8")
    for wheel in wheels:
        pip = [str(environment.python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # --ignore-installed: the borrowed folder may hold an editable install, which must not count as this wheel.
        subprocess.run([*pip, "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True)
    script = environment.bin / "yolo"  # as pip writes it for the host's entry point
    script.write_text(
        f"#!{environment.python}\nimport sys\nfrom ultralytics.cfg import entrypoint\n"
        "if __name__ == '__main__':\n    sys.exit(entrypoint())\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return environment
