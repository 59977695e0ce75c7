# yolo-prune, AGPL-3.0 license
"""What is put into ultralytics, and the check that this ultralytics is one we know.

The host has no plugin system, so this is what changes it. Everything below was read in ultralytics 8.4.190 and found in
the same shape in 8.4.0, 8.4.30, 8.4.60, 8.4.100, 8.4.140 and 8.4.170. `install` is called by `_startup` once for each
host module, right after that module has run (what needs nothing but the host stands in host/, by name beside it):

    ultralytics.cfg                    the plugin's arguments, default None; `check_cfg` checks ours after its own
                                       (host/arguments.py)
    ultralytics.utils.callbacks.base   `default_callbacks`, ours behind the host's own (callbacks.py)
    ultralytics.nn.tasks               `parse_model` builds a pruned model's widths from its yaml; `BaseModel.load`
                                       gives them to a full-width model that loads pruned weights
    ultralytics.engine.model           `benchmark`, `export` and `track` refuse the plugin's arguments at once, and
                                       `train` wrong ones before it starts a run for each of several data sets;
                                       `load` remembers weights that do not fit (host/yolo_methods.py)
    ultralytics.engine.trainer         `run_callbacks` puts back our callbacks that were taken away (Ray Tune);
                                       a DDP run is checked in the parent, and its workers are given the plugin
    ultralytics.utils.callbacks.platform   what is sent to Ultralytics Platform after a step has the pruned size
                                       (host/platform_report.py)

Nothing heavier than `recipe` is imported until a run asks for pruning.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from yolo_prune import callbacks, log
from yolo_prune.errors import HostError
from yolo_prune.host import arguments, platform_report, releases, wrapped, yolo_methods
from yolo_prune.host.spec_key import SPEC_KEY, noted
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.schedule import step_epochs

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
        fault = str(error) if isinstance(error, HostError) else f"ultralytics {releases.version()} changed: {error}"
        faults.append(fault)
        raise HostError(fault) from error
    installed.add(name)


def require_supported() -> None:
    """Raise unless everything could be installed into an ultralytics of the supported range.

    Raises:
        HostError: One line with our version, the host's, and what is wrong.
    """
    from yolo_prune import __version__

    wanted = f"yolo-prune {__version__} works with ultralytics >={releases.LOWEST},<{releases.BELOW}"
    right = f'pip install "ultralytics>={releases.LOWEST},<{releases.BELOW}"'
    if not releases.supported(releases.version()):
        raise HostError(f"{wanted}, and {releases.version()} is installed: {right}")
    if faults:
        raise HostError(
            f"{wanted}, and could not be installed into {releases.version()} ({'; '.join(faults)}): {right}"
        )


# The arguments --------------------------------------------------------------------------------------------------------


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Check the plugin's arguments where the host checks its own: in every `get_cfg`, before anything is made on disk.

    Args:
        settings: All arguments of one run.

    Raises:
        HostError: They are set outside train, or this ultralytics is not supported.
        RecipeError: They, or the recipe file they name, are wrong, or ask for more steps than there are epochs.
    """
    if not arguments.plugin_arguments(settings):
        return
    arguments.refuse_outside_train(settings, settings.get("mode"))
    require_supported()
    # A run that has its save_dir is past its start: this is a validator inside it, or the checkpoint of a run that is
    # resumed, whose recipe file may have moved since. What such a run needs is checked by the session.
    if settings.get("save_dir") is None and settings.get("resume"):
        given = " ".join(f"{name}={value}" for name, value in arguments.plugin_arguments(settings).items())
        log.warn(
            f"{given} is ignored beside resume: the run goes on with the arguments that it began with. To prune its "
            "model further, train it anew: yolo train model=... prune=..."
        )
    elif settings.get("save_dir") is None:
        wanted = from_arguments(settings)
        if wanted is not None:
            from yolo_prune.training import deployment, preflight, qat

            preflight.modes(settings)
            qat.require(settings, wanted)
            deployment.require(settings, wanted)
            step_epochs(wanted, settings["epochs"])
            preflight.measurements(wanted)
            preflight.model_file(settings, wanted)


def _refuse_early(yolo: Any, settings: Mapping[str, Any]) -> None:
    """Refuse what the host would let pass until it has read the data, or would take for one of several runs' troubles.

    Args:
        yolo: a YOLO object. settings: of its `train`; with a list of data sets each is a run, and the host goes on to
            the next one whatever the error (MultiTrainer).
    """
    from yolo_prune.host import checkpoint, datasets, trainable_check
    from yolo_prune.host.run import student_of
    from yolo_prune.training import preflight

    require_supported()
    if yolo_methods.still_attached(yolo) and isinstance(settings.get("data"), (list, tuple)):
        raise HostError(
            f"attach() with data=[...] of {len(settings['data'])} data sets: its recipe is for one training, so the "
            "others would not be pruned. Give train() the arguments instead, such as prune=0.5"
        )
    if not settings.get("resume"):  # what was asked for comes before what it is to be done with
        wanted = from_arguments(settings)
        preflight.modes(settings)
        if wanted is not None and isinstance(settings.get("epochs"), int):
            step_epochs(wanted, settings["epochs"])
        plugin_arguments = arguments.plugin_arguments(settings)
        own = {name: value for name, value in settings.items() if name not in plugin_arguments}
        sys.modules["ultralytics.cfg"].check_cfg(own)  # the host's own types (epochs=abc), before its data are read
    if hasattr(yolo.model, "modules"):  # a network, and not the name of a served one
        checkpoint.require_supported(student_of(yolo.model), str(yolo.model_name))
        own_trainer = settings.get("trainer") is not None  # it may build its model of anything
        # The host builds what it loaded anew from the yaml in it; anything else from what the user named (8.4.190).
        rebuilt = bool(yolo.ckpt) and not own_trainer
        trainable_check.require(yolo.model, str(yolo.ckpt_path or yolo.model_name), rebuilt=rebuilt)
        if not settings.get("resume"):
            _require_weights(yolo, settings.get("pretrained", yolo.overrides.get("pretrained", True)))
        data = settings.get("data")
        checked = not settings.get("resume") and not own_trainer
        if checked and isinstance(data, (str, Path)) and not datasets.is_converted(data):
            datasets.opened(yolo.model, data)  # a trainer of the user's own may read data of its own kind


def _require_weights(yolo: Any, pretrained: Any) -> None:
    """Refuse weights that the model in training would not take over: of a file, or of the `load` before."""
    from yolo_prune.host import trainable_check

    if isinstance(pretrained, (str, Path)):
        trainable_check.require_pretrained(pretrained, yolo.model)
    elif pretrained is not False:
        yolo_methods.require_loaded(yolo)


# The trainer ----------------------------------------------------------------------------------------------------------


def _install_run_callbacks(trainer: Any) -> None:
    """Let no run that asks for pruning train without our callbacks, whoever took them away (8.4.190, `run_callbacks`).

    `Model.reset_callbacks` keeps the first of the defaults alone, and Ray Tune calls it in every trial;
    `Model.clear_callback` and `BaseTrainer.set_callback` take ours away as well.
    """
    stock = trainer.BaseTrainer.run_callbacks
    if wrapped.marked(stock):
        return

    @functools.wraps(stock)
    def run_callbacks(self: Any, event: str) -> Any:
        callbacks.put_back(self, event)
        return stock(self, event)

    trainer.BaseTrainer.run_callbacks = wrapped.mark(run_callbacks)


def _install_train(trainer: Any) -> None:
    """Say how to go on where a run that prunes is stopped by Ctrl-C or by a disk (8.4.190, `BaseTrainer.train`)."""
    stock = trainer.BaseTrainer.train
    if wrapped.marked(stock):
        return

    @functools.wraps(stock)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        attached = yolo_methods.still_attached(self)
        if not attached and not arguments.plugin_arguments(vars(self.args)):
            return stock(self, *args, **kwargs)
        from yolo_prune.host.run import Run
        from yolo_prune.training import interruption, session

        with interruption.said(Run(self), attached):
            result = stock(self, *args, **kwargs)
            session.after_training(self)
            return result

    trainer.BaseTrainer.train = wrapped.mark(train)


# The model and the workers --------------------------------------------------------------------------------------------


def _install_tasks(tasks: Any) -> None:
    """Let `parse_model` build a pruned model's widths.

    Every task's model is built there, and `Model.train` builds it anew at full width from the yaml before it copies
    the weights of equal shape: without this a pruned checkpoint would lose its widths (8.4.190, nn/tasks.py;
    ultralytics issue 14856).
    """
    stock = tasks.parse_model
    if wrapped.marked(stock):
        return
    names = list(inspect.signature(stock).parameters)
    if names[:3] != ["d", "ch", "verbose"]:
        raise HostError(
            f"ultralytics {releases.version()} changed: parse_model takes ({', '.join(names)}), not (d, ch, verbose)"
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
        if noted(source):
            from yolo_prune.surgery import widths

            widths.adopt(self, source)
        return stock_load(self, weights, *args, **kwargs)

    tasks.parse_model = wrapped.mark(parse_model)
    tasks.BaseModel.load = wrapped.mark(load)


def _install_trainer(trainer: Any) -> None:
    """Check a DDP run in its parent, which runs no callback, and give its workers the plugin (8.4.190, utils/dist.py).

    Workers are new interpreters. Start-up files run there as they do here; the line that is added to the host's script
    makes them work where such files do not run (`yolo-prune train`, `import yolo_prune` in a script).
    """
    stock = trainer.generate_ddp_command
    _install_run_callbacks(trainer)
    _install_train(trainer)
    if wrapped.marked(stock):
        return

    @functools.wraps(stock)
    def generate_ddp_command(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        attached = next((f.yolo_prune_recipe for f in yolo_methods.attached(trainer) if not f.yolo_prune_taken), None)
        if attached is None and not arguments.plugin_arguments(vars(trainer.args)):
            return stock(trainer, *args, **kwargs)
        from yolo_prune.training import session

        session.check_in_parent(trainer, attached)
        if attached is not None and "callbacks" not in inspect.getsource(inspect.getmodule(stock).generate_ddp_file):  # type: ignore[union-attr]
            raise HostError(
                f"attach() with device={trainer.args.device}: ultralytics {releases.version()} gives its workers no "
                "callbacks; give train() the arguments instead, such as prune=0.5"
            )
        command, file = stock(trainer, *args, **kwargs)
        script = Path(file)
        first = f"import sys; sys.path[:] = {sys.path!r}; import yolo_prune\n"
        script.write_text(first + script.read_text(encoding="utf-8"), encoding="utf-8")
        return command, file

    trainer.generate_ddp_command = wrapped.mark(generate_ddp_command)


_INSTALLERS: dict[str, Callable[[ModuleType], None]] = {
    "ultralytics.cfg": lambda cfg: arguments.install(cfg, check_arguments),
    "ultralytics.utils.callbacks.base": callbacks.install,
    "ultralytics.nn.tasks": _install_tasks,
    "ultralytics.engine.model": lambda model: yolo_methods.install(model, _refuse_early),
    "ultralytics.engine.trainer": _install_trainer,
    "ultralytics.utils.callbacks.platform": platform_report.install,
}
