# yolo-prune, AGPL-3.0 license
"""Classes of a model that are neither of torch nor of ultralytics: a checkpoint that holds them needs their modules."""

from __future__ import annotations

import contextlib
import logging
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn import tasks


def modules_of(model: nn.Module) -> list[str]:
    """The top-level modules that define them, such as "my_blocks" or "torchvision"; empty for a stock model."""
    names = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return sorted(names - {"torch", "ultralytics"})


def folders_of(names: list[str]) -> list[str]:
    """The folders to name in PYTHONPATH for a new process to find modules; not those that it looks into anyway."""
    always = [Path(path).resolve() for path in sysconfig.get_paths().values()]
    folders = []
    for name in names:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name == "__main__" or file is None:
            continue  # what stands in a script can be loaded by that script alone
        place = Path(file).resolve()
        folder = place.parent.parent if place.name == "__init__.py" else place.parent
        if folder not in always:
            folders.append(str(folder))
    return list(dict.fromkeys(folders))


@contextlib.contextmanager
def not_installed() -> Iterator[None]:
    """Raise ModuleNotFoundError where a checkpoint needs a module that is not here.

    The host would ask PyPI for a package of the module's name, whose ever that is, install it and load again (8.4.190,
    nn/tasks.py, `torch_safe_load`).
    """

    def refuse(requirements: Any, *_: Any, **__: Any) -> bool:
        raise ModuleNotFoundError(f"No module named {str(requirements)!r}", name=str(requirements))

    def promises_nothing(record: logging.LogRecord) -> bool:
        return "AutoInstall" not in record.getMessage()

    stock = tasks.check_requirements
    tasks.check_requirements = refuse
    tasks.LOGGER.addFilter(promises_nothing)
    try:
        yield
    finally:
        tasks.check_requirements = stock
        tasks.LOGGER.removeFilter(promises_nothing)
