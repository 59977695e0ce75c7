# yolo-prune, AGPL-3.0 license
"""One's own importance, schedule or scope: a function under a name that recipes and arguments then take.

    import yolo_prune

    @yolo_prune.register("largest")
    def largest(group, model):
        conv = model.get_submodule(group.members[0].module)
        return conv.weight.detach().abs().amax(dim=(1, 2, 3))[group.members[0].positions]

    # YOLO("best.pt").train(..., prune=0.5, prune_importance="largest")

docs/research.md has one of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np

from yolo_prune.allocation.scopes import SCOPES
from yolo_prune.errors import PruneError
from yolo_prune.importance import scoring
from yolo_prune.recipe.schedule import SCHEDULES
from yolo_prune.recipe.settings import SCOPE_NAMES

Function = TypeVar("Function", bound=Callable[..., Any])
_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "importance": ("(group, model) -> (size,) scores", scoring.IMPORTANCES),
    "schedule": ("time (0 to 1) -> share of the way (0 to 1)", SCHEDULES),
    "scope": ("problem -> (units,) counts", SCOPES),
}


def register(
    name: str, kind: Literal["importance", "schedule", "scope"] = "importance"
) -> Callable[[Function], Function]:
    """Add a function under a name.

    Args:
        name: a new name: letters, digits and underscores.
        kind: "importance", for prune_importance=: (group, model) -> (size,) finite scores >= 0, larger is more
            important (graph.channel_groups.ChannelGroup, the stock model). "schedule", for prune_schedule=: the time
            passed from the first step to the last -> the share of the way to the bounds, growing from 0 to 1. "scope",
            for prune_scope=: a scopes.Problem -> (units,) how many channels of each unit stay.

    Returns:
        A decorator.

    Raises:
        PruneError: the name is no identifier or is taken, the kind is unknown, what is decorated is not callable, or a
            schedule does not grow from 0 or more to 1.
    """
    if kind not in _KINDS:
        raise PruneError(f"register({name!r}, kind={kind!r}): known kinds are {', '.join(_KINDS)}")
    takes, table = _KINDS[kind]
    known = scoring.names() if kind == "importance" else sorted(table)
    if not isinstance(name, str) or not name.isidentifier():
        raise PruneError(f"register({name!r}): a name is letters, digits and underscores")
    if name in known:
        raise PruneError(f"register({name!r}): this {kind} exists already; known are {', '.join(known)}")

    def add(function: Function) -> Function:
        if not callable(function):
            raise PruneError(f"register({name!r}) wants a function {takes}, given {function!r}")
        if kind == "schedule":
            _check_schedule(name, function)
        table[name] = function
        if kind == "scope":
            SCOPE_NAMES.add(name)
        return function

    return add


def _check_schedule(name: str, function: Callable[[float], float]) -> None:
    shares = [float(function(float(time))) for time in np.linspace(0, 1, 101)]
    grows = all(later >= earlier - 1e-9 for earlier, later in pairwise(shares))
    if not grows or shares[0] < 0 or abs(shares[-1] - 1) > 1e-9:
        raise PruneError(
            f"register({name!r}): a schedule grows from 0 or more to exactly 1; this one goes from {shares[0]:g} to "
            f"{shares[-1]:g}{'' if grows else ' and falls between'}"
        )
