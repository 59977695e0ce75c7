# yolo-prune, AGPL-3.0 license
"""What is put into ultralytics, and the check that this ultralytics is one we know.

The host has no plugin system, so this is the one module that changes it. Everything below was read in ultralytics
8.4.190 and found in the same shape in 8.4.0, 8.4.30, 8.4.60, 8.4.100, 8.4.140 and 8.4.170. `install` is called by
`_startup` once for each host module, right after that module has run:

    ultralytics.cfg                    the plugin's arguments, default None; `check_cfg` checks ours after its own
    ultralytics.utils.callbacks.base   `default_callbacks`, which forward to yolo_prune.training.session
    ultralytics.nn.tasks               `parse_model` builds a pruned model's widths from its yaml; `BaseModel.load`
                                       gives them to a full-width model that loads pruned weights
    ultralytics.engine.model           `benchmark`, `export` and `track` refuse the plugin's arguments at once, and
                                       `train` wrong ones before it starts a run for each of several data sets
    ultralytics.engine.trainer         `run_callbacks` puts back our callbacks that were taken away (Ray Tune);
                                       a DDP run is checked in the parent, and its workers are given the plugin
    ultralytics.utils.callbacks.platform   what is sent to Ultralytics Platform after a step has the pruned size

Nothing heavier than `recipe` is imported until a run asks for pruning.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from yolo_prune import log
from yolo_prune.errors import HostError
from yolo_prune.host import console, platform_report
from yolo_prune.recipe.arguments import ARGUMENTS, check_epochs, from_arguments
from yolo_prune.recipe.file import RENAMED
from yolo_prune.surgery.spec_key import SPEC_KEY

LOWEST = "8.4.0"  # the range is stated in pyproject.toml too; tests/test_install.py compares the two
BELOW = "8.5"

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
    found = ((name, settings.get(name)) for name in ARGUMENTS)
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
    if settings.get("save_dir") is None and settings.get("resume"):
        given = " ".join(f"{name}={value}" for name, value in asked(settings).items())
        log.warn(
            f"{given} is ignored beside resume: the run goes on with the arguments that it began with. To prune its "
            "model further, train it anew: yolo train model=... prune=..."
        )
    elif settings.get("save_dir") is None:
        wanted = from_arguments(settings)
        if wanted is not None:
            from yolo_prune.training import preflight

            preflight.modes(settings)
            check_epochs(wanted, settings["epochs"])
            preflight.measurements(wanted)
            preflight.model_file(settings, wanted)


def _install_cfg(cfg: Any) -> None:
    """Add our arguments to the host's, in place: every module of the host shares these objects (8.4.190)."""
    defaults, namespace, keys = cfg.DEFAULT_CFG_DICT, cfg.DEFAULT_CFG, sys.modules["ultralytics.utils"].DEFAULT_CFG_KEYS
    stock = cfg.check_cfg
    taken = [name for name in ARGUMENTS if defaults.get(name) is not None]
    if taken:
        raise HostError(f"ultralytics {version()} has arguments of its own called {', '.join(taken)}")
    for name in ARGUMENTS:
        defaults.setdefault(name, None)
        if not hasattr(namespace, name):
            setattr(namespace, name, None)
    if not set(ARGUMENTS) <= set(keys):
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
    console.install(ARGUMENTS)


def _drop_unset(settings: dict[str, Any]) -> None:
    """Take our unset arguments out of one run's arguments, so that a plain run leaves what it leaves without us.

    Its log and its args.yaml then name nothing that another machine does not know, and `Model.tune`, which hands every
    argument to new processes, works where start-up files do not run.
    """
    for name in ARGUMENTS:
        if settings.get(name, False) is None:
            del settings[name]


def _install_model(model: Any) -> None:
    """Refuse our arguments in the methods that do something else before any `get_cfg` (8.4.190).

    `Model.benchmark` drops what it does not know, `Model.export` answers every error with a line of its own on top, and
    `Model.track` installs a package first. `Model.tune` trains in other processes or on copies whose callbacks it
    resets, so what `attach` put on the model would be lost there.
    """
    _install_keeping_attached(model.Model)
    for mode in ("benchmark", "export", "track"):
        stock = getattr(model.Model, mode)
        if not hasattr(stock, "yolo_prune"):
            setattr(model.Model, mode, _refusing(stock, mode))
    stock_train = model.Model.train
    if hasattr(stock_train, "yolo_prune"):
        return

    @functools.wraps(stock_train)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        if asked(kwargs) or _still_attached(self) or kwargs.keys() & {f"prune_{old}" for old in RENAMED}:
            _refuse_early(self, kwargs)
        return stock_train(self, *args, **kwargs)

    model.Model.train = _mark(train)


def _install_keeping_attached(model: Any) -> None:
    """Say it, or refuse, where the callbacks of `attach` are about to be lost (8.4.190, engine/model.py)."""
    stock_tune, stock_reset = model.tune, model.reset_callbacks
    if hasattr(stock_tune, "yolo_prune"):
        return

    @functools.wraps(stock_tune)
    def tune(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _still_attached(self):
            raise HostError(
                "tune() after attach(): its trials run without this model's callbacks, so nothing would be pruned. "
                "Give tune() the arguments instead, such as prune=0.5"
            )
        return stock_tune(self, *args, **kwargs)

    @functools.wraps(stock_reset)
    def reset_callbacks(self: Any) -> None:
        if _still_attached(self):
            log.warn("reset_callbacks() takes away what attach() put on this model: attach again before train()")
        stock_reset(self)

    model.tune, model.reset_callbacks = _mark(tune), _mark(reset_callbacks)


def _refuse_early(yolo: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse what the host would let pass until it has read the data, or would take for one of several runs' troubles.

    Args:
        yolo: a YOLO object. arguments: of its `train`; with a list of data sets each is a run, and the host goes on to
            the next one whatever the error (MultiTrainer).
    """
    from yolo_prune.host import checkpoint, datasets, rebuild
    from yolo_prune.training import preflight

    require_supported()
    if not arguments.get("resume"):  # what was asked for comes before what it is to be done with
        wanted = from_arguments(arguments)
        preflight.modes(arguments)
        if wanted is not None and isinstance(arguments.get("epochs"), int):
            check_epochs(wanted, arguments["epochs"])
    if hasattr(yolo.model, "modules"):  # a network, and not the name of a served one
        checkpoint.require_supported(yolo.model, str(yolo.model_name))
        rebuild.require(yolo.model, str(yolo.ckpt_path or yolo.model_name))
        data = arguments.get("data")
        if isinstance(data, (str, Path)) and not arguments.get("resume") and arguments.get("trainer") is None:
            datasets.opened(yolo.model, data)  # a trainer of the user's own may read data of its own kind


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


def _concerns(event: str, trainer: Any) -> bool:
    """Whether an event is for the session: this run prunes, or its model has zeros to keep."""
    return bool(asked(vars(trainer.args))) or (event in _OF_ZEROS and _has_zeros(trainer))


def _forward(event: str, trainer: Any) -> None:
    """Hand an event to the session, if it is for it; else cost nothing."""
    if _concerns(event, trainer):
        from yolo_prune.training import session

        session.CALLBACKS[event](trainer)


_OF_ZEROS = ("on_pretrain_routine_end", "on_train_epoch_start")


def _has_zeros(trainer: Any) -> bool:
    """Whether the model in training came with single weights that are to stay zero (architecture.sparsity)."""
    model = getattr(trainer, "model", None)
    yaml = getattr(getattr(model, "module", model), "yaml", None)
    return isinstance(yaml, dict) and "sparsity" in (yaml.get("yolo_prune") or {})


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


def on_train_end(trainer: Any) -> None:
    """Forward to the session."""
    _forward("on_train_end", trainer)


CALLBACKS: tuple[Callable[[Any], None], ...] = (
    on_pretrain_routine_start,
    on_pretrain_routine_end,
    on_train_start,
    on_train_epoch_start,
    on_train_epoch_end,
    on_fit_epoch_end,
    on_train_end,
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


def _install_run_callbacks(trainer: Any) -> None:
    """Let no run that asks for pruning train without our callbacks, whoever took them away (8.4.190, `run_callbacks`).

    `Model.reset_callbacks` keeps the first of the defaults alone, and Ray Tune calls it in every trial;
    `Model.clear_callback` and `BaseTrainer.set_callback` take ours away as well.
    """
    stock = trainer.BaseTrainer.run_callbacks
    if hasattr(stock, "yolo_prune"):
        return

    @functools.wraps(stock)
    def run_callbacks(self: Any, event: str) -> Any:
        _put_back(self, event)
        return stock(self, event)

    trainer.BaseTrainer.run_callbacks = _mark(run_callbacks)


def _install_train(trainer: Any) -> None:
    """Say how to go on where a run that prunes is stopped by Ctrl-C or by a disk (8.4.190, `BaseTrainer.train`)."""
    stock = trainer.BaseTrainer.train
    if hasattr(stock, "yolo_prune"):
        return

    @functools.wraps(stock)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not asked(vars(self.args)):
            return stock(self, *args, **kwargs)
        from yolo_prune.training import interruption

        with interruption.said(self):
            return stock(self, *args, **kwargs)

    trainer.BaseTrainer.train = _mark(train)


def _put_back(trainer: Any, event: str) -> None:
    """Where ours are missing of a run that they are for: behind the host's own, before loggers and what users added."""
    ours = next((callback for callback in CALLBACKS if callback.__name__ == event), None)
    known = trainer.callbacks.get(event, [])
    if ours is None or ours in known or not _concerns(event, trainer):
        return
    first = sys.modules["ultralytics.utils.callbacks.base"].default_callbacks[event][:1]
    place = 1 if known[:1] == first else 0
    trainer.callbacks[event] = [*known[:place], ours, *known[place:]]


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
        from yolo_prune.surgery import widths

        return widths.build(stock, d, ch, verbose)

    stock_load = tasks.BaseModel.load

    @functools.wraps(stock_load)
    def load(self: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        yaml = getattr(source, "yaml", None)
        if isinstance(yaml, dict) and SPEC_KEY in yaml:
            from yolo_prune.surgery import widths

            widths.adopt(self, source)
        return stock_load(self, weights, *args, **kwargs)

    tasks.parse_model = _mark(parse_model)
    tasks.BaseModel.load = _mark(load)


def _install_trainer(trainer: Any) -> None:
    """Check a DDP run in its parent, which runs no callback, and give its workers the plugin (8.4.190, utils/dist.py).

    Workers are new interpreters. Start-up files run there as they do here; the line that is added to the host's script
    makes them work where such files do not run (`yolo-prune train`, `import yolo_prune` in a script).
    """
    stock = trainer.generate_ddp_command
    _install_run_callbacks(trainer)
    _install_train(trainer)
    if hasattr(stock, "yolo_prune"):
        return

    @functools.wraps(stock)
    def generate_ddp_command(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        attached = next((f.yolo_prune_recipe for f in _attached(trainer)), None)
        if attached is None and not asked(vars(trainer.args)):
            return stock(trainer, *args, **kwargs)
        from yolo_prune.training import session

        session.check_in_parent(trainer, attached)
        if attached is not None and "callbacks" not in inspect.getsource(inspect.getmodule(stock).generate_ddp_file):  # type: ignore[union-attr]
            raise HostError(
                f"attach() with device={trainer.args.device}: ultralytics {version()} gives its workers no callbacks; "
                "give train() the arguments instead, such as prune=0.5"
            )
        command, file = stock(trainer, *args, **kwargs)
        script = Path(file)
        first = f"import sys; sys.path[:] = {sys.path!r}; import yolo_prune\n"
        script.write_text(first + script.read_text(encoding="utf-8"), encoding="utf-8")
        return command, file

    trainer.generate_ddp_command = _mark(generate_ddp_command)


def _attached(trainer: Any) -> list[Any]:
    """The callbacks that `attach` put on this trainer."""
    return [f for f in trainer.callbacks.get("on_pretrain_routine_start", []) if hasattr(f, "yolo_prune_recipe")]


def _still_attached(yolo: Any) -> bool:
    """Whether `attach` was called on this YOLO object and no training has taken its recipe yet."""
    return any(not function.yolo_prune_started for function in _attached(yolo))


# Ultralytics Platform -------------------------------------------------------------------------------------------------


def _install_platform(platform: Any) -> None:
    """Let the report of an epoch carry the model's size after a step too; the host sends it at epoch 0 alone (8.4.190).

    The host's callback builds the report, and a thread of its own sends it through `_send`, looked up at that moment.
    """
    stock = platform._send
    if hasattr(stock, "yolo_prune"):
        return
    found = list(inspect.signature(stock).parameters)
    if found[:2] != ["event", "data"] or "model_id" not in found:
        raise HostError(f"ultralytics {version()} changed: platform._send takes ({', '.join(found)})")

    @functools.wraps(stock)
    def _send(event: str, data: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        model_id = inspect.signature(stock).bind(event, data, *args, **kwargs).arguments.get("model_id")
        return stock(event, platform_report.completed(event, data, model_id), *args, **kwargs)

    platform._send = _mark(_send)


_INSTALLERS: dict[str, Callable[[ModuleType], None]] = {
    "ultralytics.cfg": _install_cfg,
    "ultralytics.utils.callbacks.base": _install_callbacks,
    "ultralytics.nn.tasks": _install_tasks,
    "ultralytics.engine.model": _install_model,
    "ultralytics.engine.trainer": _install_trainer,
    "ultralytics.utils.callbacks.platform": _install_platform,
}
