# yolo-prune, AGPL-3.0 license
"""The plugin's arguments among the host's: known everywhere, unset unless given, refused outside train."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from yolo_prune import log
from yolo_prune.errors import HostError
from yolo_prune.host import console, releases, wrapped
from yolo_prune.recipe.arguments import ARGUMENTS, WITH_NONE


def plugin_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the plugin's arguments that are set, None and False being unset."""
    values = ((name, settings.get(name)) for name in ARGUMENTS)
    return {name: value for name, value in values if value is not None and value is not False}


_repeated: set[str] = set()  # arguments of which this has been said


def _say_what_is_given_twice() -> None:
    """Say, once, which of the plugin's arguments a command names twice: the host takes the last value of each."""
    words = [word.partition("=") for word in sys.argv[1:]]
    for name in ARGUMENTS:
        values = [value for key, equals, value in words if key == name and equals]
        if len(set(values)) > 1 and name not in _repeated:
            _repeated.add(name)
            log.warn(f"{name} is given {len(values)} times ({', '.join(values)}): the last one counts, {values[-1]}")


def refuse_outside_train(settings: Mapping[str, Any], mode: object) -> None:
    """Raise when one of the plugin's arguments is set in a mode that is not train.

    Args:
        settings: The host's arguments.
        mode: The mode they are for: "predict", "val", "export" and so on; None counts as train, the host's default.

    Raises:
        HostError: Names every such argument with its value, the mode, and what is right.
    """
    given = plugin_arguments(settings)
    if given and mode not in (None, "train"):
        what = " ".join(f"{name}={value}" for name, value in given.items())
        raise HostError(
            f"{what}: pruning happens in `yolo train`, not in `yolo {mode}`. Leave it out here (a model that was "
            f"pruned needs no argument to {mode}), or train first: yolo train model=... data=... {what}"
        )


def install(cfg: Any, check: Callable[[dict[str, Any]], None]) -> None:
    """Add our arguments to the host's, in place: every module of the host shares these objects (8.4.190).

    Args:
        cfg: the host's module. check: is given all arguments of a run, after the host has checked its own.
    """
    defaults, namespace, keys = cfg.DEFAULT_CFG_DICT, cfg.DEFAULT_CFG, sys.modules["ultralytics.utils"].DEFAULT_CFG_KEYS
    stock = cfg.check_cfg
    taken = [name for name in ARGUMENTS if defaults.get(name) is not None]
    if taken:
        raise HostError(f"ultralytics {releases.version()} has arguments of its own called {', '.join(taken)}")
    for name in ARGUMENTS:
        defaults.setdefault(name, None)
        if not hasattr(namespace, name):
            setattr(namespace, name, None)
    if not set(ARGUMENTS) <= set(keys):
        raise HostError(
            f"ultralytics {releases.version()} changed: DEFAULT_CFG_KEYS is no view of DEFAULT_CFG_DICT any more"
        )

    if not wrapped.marked(stock):

        @functools.wraps(stock)
        def check_cfg(settings: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            stock(settings, *args, **kwargs)
            check(settings)
            if settings is not defaults and settings is not vars(namespace):  # `get_cfg()` checks these very objects
                _drop_unset(settings)
                _say_what_is_given_twice()

        cfg.check_cfg = wrapped.mark(check_cfg)  # `get_cfg` looks the name up in its own module at each call
    _keep_none(cfg)
    console.shorten(cfg)
    console.install(ARGUMENTS)


def _keep_none(cfg: Any) -> None:
    """Have `yolo train prune_reconstruct=none` mean that. The host's command line (8.4.190, cfg/__init__.py,
    `smart_value`) reads the word as None, which is "not given": the default, or the recipe's own, would stay.
    """
    stock = cfg.parse_key_value_pair
    if wrapped.marked(stock):
        return

    @functools.wraps(stock)
    def parse_key_value_pair(*args: Any, **kwargs: Any) -> Any:
        key, value = stock(*args, **kwargs)
        if value is not None or key not in ARGUMENTS or key == "prune":
            return key, value
        if key in WITH_NONE:
            return key, "none"
        log.warn(f"{key}=none is read as not given: what stands in the recipe, or else the default, counts")
        return key, value

    cfg.parse_key_value_pair = wrapped.mark(parse_key_value_pair)


def _drop_unset(settings: dict[str, Any]) -> None:
    """Take our unset arguments out of one run's arguments, so that a plain run leaves what it leaves without us.

    Its log and its args.yaml then name nothing that another machine does not know, and `Model.tune`, which hands every
    argument to new processes, works where start-up files do not run.
    """
    for name in ARGUMENTS:
        if settings.get(name, False) is None:
            del settings[name]
