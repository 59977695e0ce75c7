# yolo-prune, AGPL-3.0 license
"""Wait for the host's modules and hand each to `install.install` once it has run.

`yolo_prune.pth` (and `yolo_prune.start` from Python 3.15 on, PEP 829) imports this at every interpreter start, whatever
that interpreter is for. So it imports `sys` and `os` alone, touches nothing but `sys.meta_path`, and lets no fault of
ours reach a plain `python` or a plain `yolo`: one warning line, then the host goes on without the plugin.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing is not imported here: it would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# The host's modules that install.py puts something into (read in ultralytics 8.4.190).
WAITED = (
    "ultralytics.cfg",
    "ultralytics.utils.callbacks.base",
    "ultralytics.nn.tasks",
    "ultralytics.engine.model",
    "ultralytics.engine.trainer",
    "ultralytics.utils.callbacks.platform",
)


def require_on(right: str) -> None:
    """Raise HostError where `YOLO_PRUNE=0` turns the plugin off. right: what follows "unset it, " in the line."""
    if os.environ.get("YOLO_PRUNE") == "0":
        from yolo_prune.errors import HostError

        raise HostError(f"YOLO_PRUNE=0 turns the plugin off: unset it, {right}")


def install() -> None:
    """Put the finder on `sys.meta_path`, and serve the host's modules that are imported already.

    Does nothing when `YOLO_PRUNE=0`, and nothing new when it has run before in this process.
    """
    if os.environ.get("YOLO_PRUNE") == "0" or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    missing = [name for name in WAITED if name not in sys.modules]
    if missing:
        sys.meta_path.insert(0, _Finder(missing))
    for name in WAITED:
        if name not in missing:
            _serve(name)


def _serve(name: str) -> None:
    """Let install.py work on the imported module `name`; a fault becomes one warning line."""
    try:
        from yolo_prune import install as installer

        installer.install(name, sys.modules[name])
    except Exception as error:
        sys.stderr.write(f"WARNING yolo-prune is off: {type(error).__name__}: {error}\n")
        _remove()  # one line is enough, and half a plugin is worse than none


def _remove() -> None:
    """Take the finder off `sys.meta_path`."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


class _Finder:
    """Finds the waited-for modules through the other finders, and has their loader report when it is done."""

    def __init__(self, names: list[str]) -> None:
        self.names = set(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the next finder gives, with a reporting loader; None for every other module."""
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            find = None if isinstance(finder, _Finder) else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):  # a namespace package has no loader, and is not the host
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None


class _Loader:
    """Stands before a module's own loader until the module has run; answers everything else as that loader does."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def __getattr__(self, name: str) -> object:
        # Dunder names are refused, so that copy and pickle, which ask before __init__ has run, do not recurse.
        if name.startswith("__") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader would."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own loader back, run it, then serve it."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finder.names.discard(module.__name__)
        if not self.finder.names:
            _remove()
        _serve(module.__name__)
