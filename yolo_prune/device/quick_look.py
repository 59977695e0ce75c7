# yolo-prune, AGPL-3.0 license
"""In how many channels at a time does the runtime work, where no profile says so? A look of seconds, kept for later.

A convolution of 48 channels beside one of 64 takes 3/4 of the time where a runtime works in 16 channels at a time, and
as long where it works in 32. So pairs of convolutions are timed in turns, and what share of the channels that are saved
is saved in time says whether a coarser step is needed. A machine that is too busy to tell is not believed: then the
table of known runtimes decides (cost/channel_steps.py), as it does for runtimes and precisions that are not timed here.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from yolo_prune import files, scratch
from yolo_prune.cost import channel_steps
from yolo_prune.cost.channel_steps import COARSEST, FINEST, OPEN, ChannelMultiple
from yolo_prune.cost.layer_shapes import LayerShape
from yolo_prune.device import machine, probes, runtimes, timing
from yolo_prune.errors import PruneError
from yolo_prune.host.user_folder import user_folder
from yolo_prune.recipe.bounds import BOUNDS
from yolo_prune.recipe.settings import Recipe

LOOKED_AT = ("onnx", "openvino")  # runtimes of machines such as this one; ncnn and TensorRT are of other devices
_SECONDS = 0.9  # of one pair; there are eight at most
_ROUNDS = 12  # of one pair, at least
_THREADS = 1  # that are timed with
_SIDES = {1: 40, 3: 20}  # kernel -> pixels of a side: a call takes some tenths of a millisecond, so few are interrupted
_FULL = 64  # channels of the side that does not shrink
_PAIRS = {16: (24, 32), 32: (48, 64)}  # step -> channels that differ in time only where the runtime works in fewer


class _Kept(NamedTuple):
    """What an earlier look found."""

    channels: int
    seconds: float


def of_deployment(recipe: Recipe, say: Callable[[str], None]) -> ChannelMultiple:
    """What counts that change become multiples of, where neither the recipe nor a profile says it.

    Args:
        recipe: its format and precision are those of the deployment; without them it is this machine.
        say: gets one line, unless the recipe has `round`.
    """
    cuts = any(getattr(recipe, key) for key in BOUNDS) or recipe.max_drop is not None
    if recipe.round or not cuts:
        return OPEN
    kind, precision = recipe.format or "onnx", recipe.precision or "fp32"
    found = None
    if kind in LOOKED_AT and precision == "fp32" and runtimes.missing(kind) is None:
        found = _of_this_machine(kind)
    found = found or _of_table(kind, precision)
    say(f"channel counts become multiples of {found.channels}: {found.why}; prune_round= says otherwise")
    return found


def processor() -> str:
    """The widest instructions that runtimes use here: "AVX-512", "AVX2", "NEON", or empty."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "NEON"
    names = {"AVX512": "AVX-512", "AVX2": "AVX2"}
    return names.get(str(torch.backends.cpu.get_cpu_capability()), "")


def _of_table(kind: str, precision: str, doubt: str = "") -> ChannelMultiple:
    """What is known of a runtime, on this processor where that matters. doubt: why nothing was measured."""
    here = processor()
    step = channel_steps.known(kind, precision, here)
    name = f"{runtimes.PACKAGES[kind][1]} {precision}"
    if step is None:
        return ChannelMultiple(FINEST, f"{doubt}{name} is not known on this processor")
    on = f" on {step.processor}" if step.processor else ""
    return ChannelMultiple(max(step.channels, FINEST), f"{doubt}{name}{on} works in {step.channels} ({step.source})")


def _of_this_machine(kind: str) -> ChannelMultiple | None:
    """What a look at this machine says, or said before; None where the runtime cannot be run here."""
    name = (
        f"{runtimes.PACKAGES[kind][1]} on this machine ({machine.this_machine()['name']}, {processor() or 'unknown'})"
    )
    kept = _read().get(key(kind))
    if kept is not None:
        return ChannelMultiple(kept.channels, f"{name}, as measured before")
    began = time.monotonic()
    try:
        step = look(kind)
    except PruneError:
        return None
    seconds = round(time.monotonic() - began, 1)
    if step is None:
        return _of_table(kind, "fp32", "the machine is too busy to be measured; ")
    keep(kind, step, seconds)
    return ChannelMultiple(step, f"{name}, measured in {seconds:.1f} s")


def look(kind: str) -> int | None:
    """Time a few convolutions in a runtime on this machine.

    Args:
        kind: one of `LOOKED_AT`.

    Returns:
        8, 16 or 32 channels; None where the machine is too busy to tell.

    Raises:
        PruneError: the runtime cannot run them.
    """
    step = FINEST
    with scratch.folder() as folder:
        for coarser in (16, COARSEST):
            needed = _needs(coarser, folder, kind)
            if needed is None:
                return None
            if not needed:
                break
            step = coarser
    return step


def _needs(step: int, folder: Path, kind: str) -> bool | None:
    """Whether one side of a layer, outputs or inputs, is worked on in so many channels; None where that is unknown."""
    few, many = _PAIRS[step]
    sides = []
    for side in ("out", "inp"):
        shares = []
        for kernel in _SIDES:
            calls = {
                str(count): runtimes.load(_probe(folder, kernel, side, count), kind, _THREADS) for count in (many, few)
            }
            shares.append(_saved(timing.in_turns(calls, _ROUNDS, _SECONDS).ratio(str(many), str(few)), few / many))
        sides.append(coarse(shares))
    return True if True in sides else None if None in sides else False


def _probe(folder: Path, kernel: int, side: str, count: int) -> Path:
    """A network of one convolution with so many channels on one side."""
    path = folder / f"{kernel}-{side}-{count}.onnx"
    pad, size = kernel // 2, (_SIDES[kernel], _SIDES[kernel])
    inp, out = (_FULL, count) if side == "out" else (count, _FULL)
    layer = LayerShape("look", "conv", (kernel, kernel), (1, 1), (pad, pad), size, size, inp, out)
    probes.write(layer, inp, out, path, "onnx")
    return path


def _saved(faster: timing.Ratio, share: float) -> tuple[float, float]:
    """What part of the channels that are saved is saved in time: an interval; 0 for none, 1 for all.

    Args:
        faster: how many times as fast the narrower convolution is. share: of the channels that it has.
    """
    low, high = (1 - 1 / max(end, 1e-9) for end in (faster.low, faster.high))
    return low / (1 - share), high / (1 - share)


def coarse(shares: list[tuple[float, float]]) -> bool | None:
    """Whether most of the time stays though channels go: by the mean of intervals as of `_saved`; None: unknown."""
    low, high = np.mean(np.array(shares), axis=0).tolist()
    return True if high < _HALF else False if low > _HALF else None


_HALF = 0.5  # between "all of it is saved" and "none of it is"


# What was found, kept -------------------------------------------------------------------------------------------------


def path() -> Path:
    """The file that looks are kept in."""
    return user_folder() / "channel-multiples.json"


def key(kind: str) -> str:
    """What a look holds for: a runtime, its version and what it computes in, a processor, a number of threads."""
    package = runtimes.PACKAGES[kind][1]
    versions = runtimes.versions(kind)
    runtime = f"{package} {versions[package]} in {runtimes.computes_in(kind)}"
    return f"{runtime}, {machine.this_machine()['name']}, {processor()}, threads {_THREADS}"


def keep(kind: str, channels: int, seconds: float = 0.0) -> None:
    """Keep what a look found; where the folder cannot be written, the next run looks again."""
    kept = {**_read(), key(kind): _Kept(channels, seconds)}
    with contextlib.suppress(PruneError):
        content = {name: one._asdict() for name, one in kept.items()}
        files.replace(path(), json.dumps(content, indent=1) + "\n")


def _read() -> dict[str, _Kept]:
    """What earlier looks found; what is damaged is left out."""
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
        kept = {name: _Kept(int(one["channels"]), float(one["seconds"])) for name, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: one for name, one in kept.items() if one.channels in (FINEST, *_PAIRS)}
