# yolo-prune, AGPL-3.0 license
"""A user's mistake is one line and no traceback, in a `yolo train` that asked for pruning. Every other error stays."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any

from yolo_prune.errors import PruneError
from yolo_prune.host import error_text, wrapped
from yolo_prune.recipe.setting_names import near

# The host's functions that read what the user named, and the argument that names it (8.4.190: nn/tasks.py,
# engine/model.py, engine/trainer.py, data/base.py, data/dataset.py, utils/torch_utils.py, cfg/__init__.py).
_READERS = {
    "load_checkpoint": "model",
    "_check_is_pytorch_model": "model",
    "get_dataset": "data",
    "get_img_files": "data",
    "get_labels": "data",
    "verify_images": "data",
    "select_device": "device",
    "build_optimizer": "optimizer",
    "check_dict_alignment": "",
    "check_cfg": "",
    "check_imgsz": "imgsz",
    "parse_key_value_pair": "",
}

_PUBLISHED = ("yolo", "rtdetr")  # what the names of weights begin with that the host may download


def install(arguments: Collection[str]) -> None:
    """Have a mistake printed as its message alone where nobody catches it. Notebooks have a display of their own.

    Args:
        arguments: the plugin's arguments.
    """
    previous = sys.excepthook
    if hasattr(previous, "yolo_prune") or "ipykernel" in sys.modules:
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if getattr(error, "yolo_prune_said", False):
            return  # Ctrl-C in a training: how to go on stands there already
        message = str(error) if isinstance(error, PruneError) else host_fault(error, trace, arguments)
        if message is None:
            previous(kind, error, trace)
        else:
            sys.stderr.write(f"yolo-prune: {message}\n")

    excepthook.yolo_prune = True  # type: ignore[attr-defined]
    sys.excepthook = excepthook


def shorten(cfg: Any) -> None:
    """Have a command that asked for pruning be checked without the host's usage page before the one line, and a model
    that is not there be refused before the host looks for it in the network (8.4.190, cfg/__init__.py
    `check_dict_alignment`, which sees all arguments of a command before anything is opened).

    Args:
        cfg: the host's module.
    """
    stock = cfg.check_dict_alignment
    if wrapped.marked(stock):
        return

    @functools.wraps(stock)
    def check_dict_alignment(base: dict[str, Any], custom: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if not any(_meant_for_us(name.partition("=")[0]) for name in custom):
            stock(base, custom, *args, **kwargs)
            return

        def is_no_usage_page(record: Any) -> bool:
            return record.msg is not cfg.CLI_HELP_MSG

        cfg.LOGGER.addFilter(is_no_usage_page)
        try:
            stock(base, custom, *args, **kwargs)
        finally:
            cfg.LOGGER.removeFilter(is_no_usage_page)
        _require_model_file(str(custom.get("model", "")))

    cfg.check_dict_alignment = wrapped.mark(check_dict_alignment)


def _meant_for_us(name: str) -> bool:
    return name.startswith("prune_") or bool(get_close_matches(name, ["prune"], 1, 0.7))


def _require_model_file(model: str) -> None:
    """Refuse a checkpoint of this command that is nowhere; one that may be among the host's own is left to the host."""
    from ultralytics.utils import SETTINGS

    file = Path(model)
    if file.suffix != ".pt" or "://" in model or f"model={model}" not in sys.argv or file.name.startswith(_PUBLISHED):
        return
    if not any(os.path.exists(place) for place in (file, Path(SETTINGS["weights_dir"], file))):
        raise PruneError(_no_file(model))


def host_command() -> Callable[[], object]:
    """Return the function behind the host's `yolo` command; it reads `sys.argv`."""
    from ultralytics.cfg import entrypoint

    function: Callable[[], object] = entrypoint
    return function


def host_fault(error: BaseException, trace: TracebackType | None, arguments: Collection[str]) -> str | None:
    """Return one line for what the host could not read of a command that asked for pruning.

    The host's own words, without its traceback and the advice that follows them. None for every other error.
    """
    parts = [word.partition("=") for word in sys.argv[1:]]
    given = {name: value for name, equals, value in parts if equals}
    ours = [name for name, _, _ in parts if _meant_for_us(name)]
    if not ours:
        return None
    if isinstance(error, SyntaxError) and "missing an '=' sign" in str(error):  # of `entrypoint`, for a bare word
        bare = next((name for name in ours if name not in given), None)
        return f"{bare} has no value: write {bare}=..." if bare else _line("", given, str(error))
    if isinstance(error, SyntaxError) and (empty := [name for name in ours if given.get(name) == ""]):
        return f"{empty[0]}= has no value: write {empty[0]}=..."
    unknown = [name for name in ours if name not in arguments]
    while trace is not None:
        reader = trace.tb_frame.f_code.co_name
        if reader == "mkdir" and isinstance(error, OSError):  # the run's own: what else is made, is made in a training
            where = " ".join(f"{name}={given[name]}" for name in ("project", "name") if name in given)
            return f"{where or error.filename} cannot be made: {error.strerror}. Name a folder that you may write to"
        if reader == "check_dict_alignment" and unknown:
            return "; ".join(f"{name}={given.get(name, '')} is unknown: {near(name, arguments)}" for name in unknown)
        if reader == "load_checkpoint" and isinstance(error, ModuleNotFoundError):
            return f"model={given.get('model')}: {error_text.module_missing(error.name, 'yolo train')}"
        if reader in _READERS:
            return _line(_READERS[reader], given, str(error))
        trace = trace.tb_next
    return None


def _line(argument: str, given: Mapping[str, str], said: str) -> str:
    first = error_text.quoted(said) or "the host says nothing more"
    if argument == "model" and str(given.get("distill_model")) in said:
        return f"distill_model={given['distill_model']}: {first}"
    if argument == "model" and "model" in given:
        if not Path(given["model"]).exists():
            return _no_file(given["model"])
        return f"model={given['model']}: cannot be pruned, a YOLO .pt that ultralytics can load is needed. {first}"
    return f"{argument}={given[argument]}: {first}" if argument in given else first


def _no_file(model: str) -> str:
    return f"model={model}: there is no such file"
