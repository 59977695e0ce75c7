# yolo-prune, AGPL-3.0 license
"""Prune YOLO models while they train.

This module runs at every interpreter start, so it imports nothing but `_startup` (which needs `sys` and `os` alone);
the public names load what they need on first use. Importing it by hand installs the hook as well, for environments in
which start-up files do not run (a folder on `PYTHONPATH`, a zip file).
"""

from __future__ import annotations

from yolo_prune import _startup

TYPE_CHECKING = False  # typing is not imported here: it would cost more than all the rest
if TYPE_CHECKING:
    from yolo_prune.api import attach, prune
    from yolo_prune.commands.sweep import sweep
    from yolo_prune.errors import PruneError
    from yolo_prune.registry import register

__version__ = "0.2.0"

_HOME = {
    "prune": "yolo_prune.api",
    "attach": "yolo_prune.api",
    "register": "yolo_prune.registry",
    "sweep": "yolo_prune.commands.sweep",
    "PruneError": "yolo_prune.errors",
}

__all__ = ["PruneError", "__version__", "attach", "prune", "register", "sweep"]

_startup.install()


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what is public; the modules of the package are no part of it."""
    return sorted(__all__)
