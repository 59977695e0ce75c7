# yolo-prune, AGPL-3.0 license
"""Layers that a training leaves as they are (`freeze=`): nothing says what their channels are worth, and they stay.

The host freezes parameters whose name holds `model.N.` for each N of `freeze=` (a number: all below it; a list:
numbers, or names such as 22.cv3), and `.dfl` always; all others it makes trainable again (ultralytics 8.4.190,
engine/trainer.py, `_setup_train`). What a callback freezes later stays frozen.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from yolo_prune.graph.trace import LAYERS


def frozen_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that make channels and whose weights are not trained, but for what is so in every training.

    Args:
        model: the stock model in training.
    """
    return tuple(name for name, weight in _weights(model) if not weight.requires_grad)


def layers_to_freeze(model: nn.Module, freeze: object) -> tuple[str, ...]:
    """The same of a training that has not begun.

    Args:
        model: a stock model. freeze: the host's argument; None or something that the host ignores freezes nothing.
    """
    which = freeze if isinstance(freeze, list) else range(freeze) if isinstance(freeze, int) else ()
    words = [f"model.{one}." for one in which]
    return tuple(name for name, _ in _weights(model) if any(word in f"{name}.weight" for word in words))


def in_words(model: nn.Module, names: Collection[str]) -> str:
    """Name layers in few words: a block that is frozen whole by its own name.

    Args:
        model: the stock model that the layers are of. names: as of `frozen_layers`.
    """
    return ", ".join(_shortest([name for name, _ in _weights(model)], set(names)))


def _shortest(every: list[str], names: set[str]) -> list[str]:
    words: list[str] = []
    for name in [one for one in every if one in names]:
        if any(name == word or name.startswith(f"{word}.") for word in words):
            continue
        parts = name.split(".")
        above = [".".join(parts[:n]) for n in range(2, len(parts) + 1)]  # model.4, model.4.cv1, model.4.cv1.conv
        words.append(next(a for a in above if all(o in names for o in every if o == a or o.startswith(f"{a}."))))
    return words


def _weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """(name, weight) of each layer that makes channels."""
    return [
        (name, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and isinstance(module.weight, nn.Parameter) and ".dfl." not in f"{name}."
    ]
