# yolo-prune, AGPL-3.0 license
"""Methods of a YOLO object that are wrapped: those that would drop the plugin's arguments, or what `attach` put there.

Read in ultralytics 8.4.190, engine/model.py (`Model`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yolo_prune import log
from yolo_prune.errors import HostError, PruneError
from yolo_prune.host import arguments, wrapped
from yolo_prune.host.model_facts import train_arguments
from yolo_prune.host.spec_key import noted
from yolo_prune.recipe.setting_names import REMOVED, RENAMED


def install(model: Any, refuse_early: Callable[[Any, Mapping[str, Any]], None]) -> None:
    """Refuse our arguments in the methods that do something else before any `get_cfg` (8.4.190).

    `Model.benchmark` drops what it does not know, `Model.export` answers every error with a line of its own on top, and
    `Model.track` installs a package first. `Model.tune` trains in other processes or on copies whose callbacks it
    resets, so what `attach` put on the model would be lost there.

    Args:
        model: the host's module. refuse_early: is given a YOLO object and the arguments of its `train`, where these or
            `attach` ask for pruning.
    """
    _install_keeping_attached(model.Model)
    _install_load(model.Model)
    for mode in ("benchmark", "export", "track"):
        stock = getattr(model.Model, mode)
        if not wrapped.marked(stock):
            setattr(model.Model, mode, _refusing(stock, mode))
    stock_train = model.Model.train
    if wrapped.marked(stock_train):
        return

    @functools.wraps(stock_train)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        was_attached = still_attached(self)
        asks = bool(arguments.plugin_arguments(kwargs)) or was_attached
        if asks and not kwargs.get("resume"):
            _take_back_cut(self)
        if asks or kwargs.keys() & {f"prune_{old}" for old in (*RENAMED, *REMOVED)}:
            refuse_early(self, {**dict(zip(("trainer",), args, strict=False)), **kwargs})
        if kwargs.get("resume"):
            _require_unfinished(self)
        network = self.model
        try:
            result = stock_train(self, *args, **kwargs)
        except BaseException:
            if asks:
                _remember_cut(self, network)
            if was_attached:
                _give_recipe_back(self)
            raise
        _take_recipe(self)
        return result

    model.Model.train = wrapped.mark(train)


def _remember_cut(yolo: Any, network: Any) -> None:
    """Of a training that was stopped past its cut: the host has put the model in training into the YOLO object.

    Args:
        yolo: a YOLO object. network: its model before that training, which the training has copied and left alone.
    """
    if _widths(yolo.model) != _widths(network):
        yolo.yolo_prune_stopped = (yolo.model, network)


def _take_back_cut(yolo: Any) -> None:
    """Let the next training that prunes begin where the stopped one had begun, and not cut its model once more."""
    cut, network = vars(yolo).get("yolo_prune_stopped", (None, None))
    if cut is not None and cut is yolo.model:
        yolo.model = network
        log.warn(
            f"the training before was stopped past a cut: this one begins anew, with {yolo.ckpt_path or 'the model'} "
            "as it was before. To go on in place of that: train(resume=True) of its last.pt"
        )


def _widths(network: Any) -> dict[str, Any]:
    """What the yaml of a model says of its pruning, but of the run that did it."""
    return {key: value for key, value in noted(network).items() if key != "run"}


def _require_unfinished(yolo: Any) -> None:
    """Raise where a run that pruned is to be resumed and has ended: the host would look for its example data first.

    A run that ends marks its checkpoints with epoch -1, which a best.pt of before the first epoch has as well (8.4.190,
    utils/torch_utils.py: `strip_optimizer`).

    Raises:
        PruneError: in one line.
    """
    checkpoint = yolo.ckpt if isinstance(yolo.ckpt, dict) else {}
    if noted(yolo.model) and checkpoint.get("epoch") == -1:
        data = train_arguments(checkpoint).get("data") or "my.yaml"
        raise PruneError(
            f"resume: nothing is left to resume of {yolo.ckpt_path}: its run has ended, or was stopped before it had "
            f"saved an epoch. To train its model further: yolo train model={yolo.ckpt_path} data={data} epochs=..."
        )


def _install_keeping_attached(model: Any) -> None:
    """Say it, or refuse, where the callbacks of `attach` are about to be lost (8.4.190, engine/model.py)."""
    stock_tune, stock_reset = model.tune, model.reset_callbacks
    if wrapped.marked(stock_tune):
        return

    @functools.wraps(stock_tune)
    def tune(self: Any, *args: Any, **kwargs: Any) -> Any:
        if still_attached(self):
            raise HostError(
                "tune() after attach(): its trials run without this model's callbacks, so nothing would be pruned. "
                "Give tune() the arguments instead, such as prune=0.5"
            )
        return stock_tune(self, *args, **kwargs)

    @functools.wraps(stock_reset)
    def reset_callbacks(self: Any) -> None:
        if still_attached(self):
            log.warn("reset_callbacks() takes away what attach() put on this model: attach again before train()")
        stock_reset(self)

    model.tune, model.reset_callbacks = wrapped.mark(tune), wrapped.mark(reset_callbacks)


def _install_load(model: Any) -> None:
    """Remember of `load` whether the model has taken the weights over: a training that prunes asks (8.4.190)."""
    stock = model.load
    if wrapped.marked(stock):
        return

    @functools.wraps(stock)
    def load(self: Any, weights: Any = _STOCK, *args: Any, **kwargs: Any) -> Any:
        given = () if weights is _STOCK else (weights,)
        result = stock(self, *given, *args, **kwargs)
        self.yolo_prune_unfit = (self.model, _unfit(self, weights))
        self.yolo_prune_stopped = (None, None)
        return result

    model.load = wrapped.mark(load)


_STOCK = object()  # stands for the default of the host


def _unfit(yolo: Any, weights: Any) -> str | None:
    """Why the weights that a YOLO object has just loaded do not fit its model; None where they do."""
    from yolo_prune.host import trainable_check

    source: Any = weights if isinstance(weights, dict) or hasattr(weights, "state_dict") else yolo.ckpt
    source = (source.get("ema") or source.get("model")) if isinstance(source, dict) else source
    if not hasattr(source, "state_dict"):
        return None
    named = weights if isinstance(weights, (str, Path)) else getattr(source, "pt_path", None)
    try:
        trainable_check.require_fitting(source, yolo.model, str(named or type(source).__name__), "load")
    except PruneError as error:
        return str(error)
    return None


def require_loaded(yolo: Any) -> None:
    """Raise where the last `load` of a YOLO object left most of its model as it was.

    Raises:
        PruneError: in the words of `trainable_check.require_fitting`.
    """
    network, fault = vars(yolo).get("yolo_prune_unfit", (None, None))
    if fault is not None and network is yolo.model:
        raise PruneError(fault)


def _refusing(stock: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Wrap a method of the host's Model so that the plugin's arguments are refused in it."""

    @functools.wraps(stock)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments.refuse_outside_train(kwargs, mode)
        return stock(self, *args, **kwargs)

    return wrapped.mark(method)


def attached(trainer: Any) -> list[Any]:
    """The callbacks that `attach` put on this trainer, or on this YOLO object."""
    return [f for f in trainer.callbacks.get("on_pretrain_routine_start", []) if hasattr(f, "yolo_prune_recipe")]


def still_attached(yolo: Any) -> bool:
    """Whether `attach` was called on this YOLO object and no training has taken its recipe yet."""
    return any(not function.yolo_prune_taken for function in attached(yolo))


def _take_recipe(yolo: Any) -> None:
    """A training has ended: the recipe of `attach` was for it, which the parent of a DDP run has not noticed."""
    for function in attached(yolo):
        function.yolo_prune_taken[:] = [True]


def _give_recipe_back(yolo: Any) -> None:
    """A training has failed: the recipe of `attach` is for the next one."""
    for function in attached(yolo):
        function.yolo_prune_taken.clear()
