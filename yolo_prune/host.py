# yolo-prune, AGPL-3.0 license
"""What is put into ultralytics, and the check that this ultralytics is one we know.

The host has no plugin system, so this is the one module that changes it. Everything below was read in ultralytics
8.4.190 and found in the same shape in 8.4.0, 8.4.30, 8.4.60, 8.4.100, 8.4.140 and 8.4.170. `install` is called by
`_startup` once for each host module, right after that module has run:

    ultralytics.cfg                    the plugin's arguments, default None; `check_cfg` checks ours after its own
    ultralytics.utils.callbacks.base   `default_callbacks`, which forward to yolo_prune.session
    ultralytics.nn.tasks               `parse_model` builds a pruned model's widths from its yaml
    ultralytics.engine.model           `benchmark`, `export` and `track` refuse the plugin's arguments at once
    ultralytics.engine.trainer         several GPUs are refused before workers start

Nothing heavier than `recipe` is imported until a run asks for pruning.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, TracebackType
from typing import Any

from yolo_prune import recipe
from yolo_prune.errors import HostError, PruneError

LOWEST = "8.4.0"  # the range is stated in pyproject.toml too; tests/test_host.py compares the two
BELOW = "8.5"

SPEC_KEY = "yolo_prune"  # as in architecture.py, which is too heavy to import for every plain model

installed: set[str] = set()
"""Names of the host's modules that were served in this process."""

faults: list[str] = []
"""What could not be installed, a sentence each. Empty for a host we know."""


def install(name: str, module: ModuleType) -> None:
    """Put what belongs there into one module of the host.

    Args:
        name: Full name of the module, one of `_startup.WAITED`.
        module: The imported module.

    Raises:
        HostError: The module lacks what we build on. The sentence is kept in `faults`, and `prune=` is refused with it.
    """
    try:
        _INSTALLERS[name](module)
    except Exception as error:
        fault = str(error) if isinstance(error, HostError) else f"ultralytics {version()} changed: {error}"
        faults.append(fault)
        raise HostError(fault) from error
    installed.add(name)


def version() -> str:
    """Return the version of the imported ultralytics."""
    import ultralytics

    return str(ultralytics.__version__)


def supported(given: str) -> bool:
    """Tell whether `given` (such as "8.4.190") lies in LOWEST <= version < BELOW."""
    return _numbers(LOWEST) <= _numbers(given) < _numbers(BELOW)


def _numbers(text: str) -> tuple[int, ...]:
    """Read the leading numbers of a version: "8.4.190rc1" -> (8, 4, 190)."""
    head = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in head[0].split(".")) if head else (0,)


def require_supported() -> None:
    """Raise unless everything could be installed into an ultralytics of the supported range.

    Raises:
        HostError: One line with our version, the host's, and what is wrong.
    """
    from yolo_prune import __version__

    ours = f"yolo-prune {__version__} works with ultralytics >={LOWEST},<{BELOW}"
    right = f'pip install "ultralytics>={LOWEST},<{BELOW}"'
    if not supported(version()):
        raise HostError(f"{ours}, and {version()} is installed: {right}")
    if faults:
        raise HostError(f"{ours}, and could not be installed into {version()} ({'; '.join(faults)}): {right}")


# The arguments --------------------------------------------------------------------------------------------------------


def asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the plugin's arguments that are set, None and False being unset."""
    found = ((name, settings.get(name)) for name in recipe.ARGUMENTS)
    return {name: value for name, value in found if value is not None and value is not False}


def refuse_outside_train(settings: Mapping[str, Any], mode: object) -> None:
    """Raise when one of the plugin's arguments is set in a mode that is not train.

    Args:
        settings: The host's arguments.
        mode: The mode they are for: "predict", "val", "export" and so on; None counts as train, the host's default.

    Raises:
        HostError: Names every such argument with its value, the mode, and what is right.
    """
    given = asked(settings)
    if given and mode not in (None, "train"):
        what = " ".join(f"{name}={value}" for name, value in given.items())
        raise HostError(
            f"{what}: pruning happens in `yolo train`, not in `yolo {mode}`. Leave it out here (a model that was "
            f"pruned needs no argument to {mode}), or train first: yolo train model=... data=... {what}"
        )


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Check the plugin's arguments where the host checks its own: in every `get_cfg`, before anything is made on disk.

    Args:
        settings: All arguments of one run.

    Raises:
        HostError: They are set outside train, or this ultralytics is not supported.
        RecipeError: They, or the recipe file they name, are wrong, or ask for more steps than there are epochs.
    """
    if not asked(settings):
        return
    refuse_outside_train(settings, settings.get("mode"))
    require_supported()
    # A run that has its save_dir is past its start: this is a validator inside it, or the checkpoint of a run that is
    # resumed, whose recipe file may have moved since. What such a run needs is checked by the session.
    if settings.get("save_dir") is None:
        wanted = recipe.from_arguments(settings)
        if wanted is not None and settings.get("time") is None:  # the session refuses `time=`
            recipe.check_epochs(wanted, settings["epochs"])


def _install_cfg(cfg: Any) -> None:
    """Add our arguments to the host's, in place: every module of the host shares these objects (8.4.190)."""
    defaults, namespace, keys = cfg.DEFAULT_CFG_DICT, cfg.DEFAULT_CFG, sys.modules["ultralytics.utils"].DEFAULT_CFG_KEYS
    stock = cfg.check_cfg
    taken = [name for name in recipe.ARGUMENTS if defaults.get(name) is not None]
    if taken:
        raise HostError(f"ultralytics {version()} has arguments of its own called {', '.join(taken)}")
    for name in recipe.ARGUMENTS:
        defaults.setdefault(name, None)
        if not hasattr(namespace, name):
            setattr(namespace, name, None)
    if not set(recipe.ARGUMENTS) <= set(keys):
        raise HostError(f"ultralytics {version()} changed: DEFAULT_CFG_KEYS is no view of DEFAULT_CFG_DICT any more")

    if not hasattr(stock, "yolo_prune"):

        @functools.wraps(stock)
        def check_cfg(settings: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            stock(settings, *args, **kwargs)
            check_arguments(settings)
            if settings is not defaults and settings is not vars(namespace):  # `get_cfg()` checks these very objects
                _drop_unset(settings)

        _mark(check_cfg)
        cfg.check_cfg = check_cfg  # `get_cfg` looks the name up in its own module at each call
    _install_excepthook()


def _drop_unset(settings: dict[str, Any]) -> None:
    """Take our unset arguments out of one run's arguments, so that a plain run leaves what it leaves without us.

    Its log and its args.yaml then name nothing that another machine does not know, and `Model.tune`, which hands every
    argument to new processes, works where start-up files do not run.
    """
    for name in recipe.ARGUMENTS:
        if settings.get(name, False) is None:
            del settings[name]


def _install_model(model: Any) -> None:
    """Refuse our arguments in the methods that do something else before any `get_cfg` (8.4.190).

    `Model.benchmark` drops what it does not know, `Model.export` answers every error with a line of its own on top, and
    `Model.track` installs a package first.
    """
    for mode in ("benchmark", "export", "track"):
        stock = getattr(model.Model, mode)
        if not hasattr(stock, "yolo_prune"):
            setattr(model.Model, mode, _refusing(stock, mode))


def _refusing(stock: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Wrap a method of the host's Model so that the plugin's arguments are refused in it."""

    @functools.wraps(stock)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_outside_train(kwargs, mode)
        return stock(self, *args, **kwargs)

    return _mark(method)


def _mark(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as ours, so that a second install leaves it alone."""
    function.yolo_prune = True  # type: ignore[attr-defined]
    return function


# The callbacks --------------------------------------------------------------------------------------------------------
# Module-level functions and no closures: the host deep-copies them for every model, compares the copies to tell whether
# a user added callbacks, and from 8.4.140 on cloudpickles them into the workers of a DDP run.


def _forward(event: str, trainer: Any) -> None:
    """Hand an event to the session, if this run prunes; else cost nothing."""
    if asked(vars(trainer.args)):
        from yolo_prune import session

        callback = session.CALLBACKS.get(event)
        if callback is not None:
            callback(trainer)


def on_pretrain_routine_start(trainer: Any) -> None:
    """Forward to the session (rank -1 and 0 only, and before the trainer has its model)."""
    _forward("on_pretrain_routine_start", trainer)


def on_pretrain_routine_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_pretrain_routine_end", trainer)


def on_train_start(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_start", trainer)


def on_train_epoch_start(trainer: Any) -> None:
    """Forward to the session (it may come twice for one epoch)."""
    _forward("on_train_epoch_start", trainer)


def on_train_epoch_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_epoch_end", trainer)


def on_fit_epoch_end(trainer: Any) -> None:
    """Forward to the session (it comes once more after training)."""
    _forward("on_fit_epoch_end", trainer)


def on_model_save(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_model_save", trainer)


def on_train_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_end", trainer)


def teardown(trainer: Any) -> None:
    """Forward to the session."""
    _forward("teardown", trainer)


CALLBACKS: tuple[Callable[[Any], None], ...] = (
    on_pretrain_routine_start,
    on_pretrain_routine_end,
    on_train_start,
    on_train_epoch_start,
    on_train_epoch_end,
    on_fit_epoch_end,
    on_model_save,
    on_train_end,
    teardown,
)


def _install_callbacks(base: ModuleType) -> None:
    """Append ours to the host's default callbacks, in place, so that they run after the host's own (8.4.190)."""
    known = base.default_callbacks
    missing = [callback.__name__ for callback in CALLBACKS if callback.__name__ not in known]
    if missing:
        raise HostError(f"ultralytics {version()} changed: it has no event {', '.join(missing)} any more")
    for callback in CALLBACKS:
        if callback not in known[callback.__name__]:
            known[callback.__name__].append(callback)


# The model and the workers --------------------------------------------------------------------------------------------


def _install_tasks(tasks: Any) -> None:
    """Let `parse_model` build a pruned model's widths.

    Every task's model is built there, and `Model.train` builds it anew at full width from the yaml before it copies
    the weights of equal shape: without this a pruned checkpoint would lose its widths (8.4.190, nn/tasks.py;
    ultralytics issue 14856).
    """
    stock = tasks.parse_model
    if hasattr(stock, "yolo_prune"):
        return
    found = list(inspect.signature(stock).parameters)
    if found[:3] != ["d", "ch", "verbose"]:
        raise HostError(
            f"ultralytics {version()} changed: parse_model takes ({', '.join(found)}), not (d, ch, verbose)"
        )

    @functools.wraps(stock)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True, *args: Any, **kwargs: Any) -> Any:
        if SPEC_KEY not in d:
            return stock(d, ch, verbose, *args, **kwargs)
        from yolo_prune import architecture

        return architecture.build(stock, d, ch, verbose)

    tasks.parse_model = _mark(parse_model)


def _install_trainer(trainer: Any) -> None:
    """Refuse several GPUs in the parent of a DDP run, which runs no callback (8.4.190, engine/trainer.py)."""
    stock = trainer.generate_ddp_command
    if hasattr(stock, "yolo_prune"):
        return

    @functools.wraps(stock)
    def generate_ddp_command(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        given = asked(vars(trainer.args))
        if given:
            what = " ".join(f"{name}={value}" for name, value in given.items())
            recipe.from_arguments(vars(trainer.args))
            raise HostError(
                f"{what} with device={trainer.args.device}: this version prunes on one device only. "
                f"Give one: device={str(trainer.args.device).split(',')[0] or 0}"
            )
        return stock(trainer, *args, **kwargs)

    trainer.generate_ddp_command = _mark(generate_ddp_command)


_INSTALLERS: dict[str, Callable[[ModuleType], None]] = {
    "ultralytics.cfg": _install_cfg,
    "ultralytics.utils.callbacks.base": _install_callbacks,
    "ultralytics.nn.tasks": _install_tasks,
    "ultralytics.engine.model": _install_model,
    "ultralytics.engine.trainer": _install_trainer,
}


# A user's mistake is one line, no traceback ---------------------------------------------------------------------------


def _install_excepthook() -> None:
    """Have `PruneError` printed as its message alone where nobody catches it. Notebooks have a display of their own."""
    previous = sys.excepthook
    if hasattr(previous, "yolo_prune") or "ipykernel" in sys.modules:
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = str(error) if isinstance(error, PruneError) else _model_fault(error, trace)
        if message is None:
            previous(kind, error, trace)
        else:
            sys.stderr.write(f"yolo-prune: {message}\n")

    sys.excepthook = _mark(excepthook)


def _model_fault(error: BaseException, trace: TracebackType | None) -> str | None:
    """Return one line for a model file that the host could not read in a `yolo train` that asked for pruning.

    The host's own words, without its traceback and the advice that follows them. None for every other error.
    """
    words = [word.partition("=") for word in sys.argv[1:]]
    if not any(name in recipe.ARGUMENTS for name, _, _ in words):
        return None
    model = next((value for name, _, value in reversed(words) if name == "model"), None)
    while model and trace is not None:
        if trace.tb_frame.f_code.co_name in ("load_checkpoint", "_check_is_pytorch_model"):
            first = str(error).strip().partition("\n")[0]
            return f"model={model}: cannot be pruned, a YOLO .pt that ultralytics can load is needed. {first}"
        trace = trace.tb_next
    return None
