# yolo-prune, AGPL-3.0 license
"""Measure a device: time the networks of a kit in their runtime, fit a model of latency, write a device profile.

A kit (probe_kit.py) is a folder of small networks and manifest.json. This file runs on the device, in the kit's .pyz
too, so it needs the standard library, numpy and the runtime, and it is written for Python 3.8.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolo_prune import files, log
from yolo_prune.cost import latency_model
from yolo_prune.cost.profile_format import KIND, VERSION
from yolo_prune.device import machine, runtimes, timing
from yolo_prune.errors import PruneError

_WARM_UP = 3  # calls that are not counted
_SECONDS, _LEAST, _MOST = 0.03, 7, 200  # a layer is called so long, at least and at most so often
_QUIET, _EXACT = 1.25, 6.0  # largest to least time of one network; percent that held-out networks may be off
_EXACT_LAYERS = 40.0  # percent that single held-out layers may be off; networks are weighed by themselves
# AMX multiplies tiles of 16 rows by 32 bfloat16 values (Intel, Architecture Instruction Set Extensions Reference). One
# layer's sweep does not show it on a machine with neighbours; plans do (docs/intel-cpu.md).
_TILE = {"bf16": 32}
_ROUNDS, _MOST_SECONDS = 8, 4.0  # of each network in turns with the dense one: at least, and at most
_SLOW_SECONDS = 60.0  # at most where so many rounds take longer
_AGAIN = 2  # how often those that are not known by then are timed again, at another time, for as long


def measure(folder: Path, threads: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Time all networks of a kit.

    Args:
        folder: where the kit's manifest.json lies. threads: CPU threads. say: what progress is told to.

    Returns:
        The profile: plain data, see docs/profiles.md.

    Raises:
        PruneError: the runtime is missing or cannot open the kit's networks.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    kind, precision = manifest["format"], manifest["precision"]
    runtimes.require(kind)
    if line := runtimes.other_than_fp32(kind, precision):
        say(line)
    began = time.time()
    first = folder / manifest["networks"][0]["file"]  # an engine is not built for it: no GPU is that slow
    seconds = _MOST_SECONDS if kind == "engine" else _seconds(runtimes.load(first, kind, threads, precision))
    progress = _Progress(say, manifest, seconds)

    def layer(file: str) -> float:
        call = runtimes.load(folder / file, kind, threads, precision)
        progress.layer()
        return _median(call)

    early = layer(manifest["empty"])
    sweeps = [
        {"kind": s["kind"], "side": s["side"], "channels": s["channels"], "ms": _twice(layer, s["files"])}
        for s in manifest["sweeps"]
    ]
    shapes = manifest["shapes"]
    layer_ms = _twice(layer, [shape["file"] for shape in shapes])
    keys = ("kind", "inp", "out", "held_out")
    rows = [{**{key: shape[key] for key in keys}, "ms": layer_ms[i]} for i, shape in enumerate(shapes)]
    networks, turns, unsteady = _networks(folder, manifest, threads, progress)
    call_ms = min(early, layer(manifest["empty"]))
    measured = {"call_ms": call_ms, "sweeps": sweeps, "shapes": rows, "networks": networks}
    computes_in = runtimes.computes_in(kind) if precision == "fp32" else precision
    fitted = latency_model.fit(measured, _TILE.get(computes_in, 1))
    return {
        "kind": KIND,
        "version": VERSION,
        **{key: manifest[key] for key in ("yolo_prune", "model", "format", "precision", "imgsz", "batch", "end2end")},
        "threads": threads,
        "computes_in": computes_in,
        "dense_ms": networks[0]["ms"],
        "dense_ms_between": [round(float(ms), 4) for ms in np.percentile(turns, (10, 90))],
        "unsteady": unsteady,
        **fitted,
        "machine": machine.this_machine(),
        "versions": runtimes.versions(kind),
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(began)) + " UTC",
        "seconds": round(time.time() - began, 1),
        "measured": measured,
    }


def noise(profile: dict[str, Any]) -> str:
    """In what the machine was too busy to be measured; empty where nothing speaks for that."""
    least, most = profile.get("dense_ms_between") or (1, 1)
    if most > _QUIET * least:
        return f"the same network took {least:.2f} to {most:.2f} ms"
    unsteady = profile.get("unsteady") or []
    if unsteady:
        return (
            f"{len(unsteady)} networks could not be told from the dense one to {timing.NARROW:.0%}, the worst to "
            f"{max(unsteady):.0%}"
        )
    return ""


def doubts(profile: dict[str, Any]) -> str:
    """Why a profile is not to be trusted; empty where nothing speaks against it."""
    error = profile["error"]
    words = noise(profile)
    if words:
        return words
    for what, most_error in (("networks", _EXACT), ("shapes", _EXACT_LAYERS)):
        if error[what]["mean"] > most_error:
            return f"what was held out is predicted {error[what]['mean']:.0f}% off ({what})"
    return ""


def summary(profile: dict[str, Any]) -> str:
    """What a profile says, in three lines; a fourth where it is not to be trusted."""
    steps, error = profile["steps"], profile["error"]
    words = doubts(profile)
    doubt = f"\nNOT TO BE TRUSTED: {words}; measure again on a machine that does nothing else" if words else ""
    return (
        f"{profile['model']} at {profile['imgsz']} in {profile['format']} {profile['precision']}, {profile['threads']} "
        f"thread(s) of {profile['machine']['name']}: {profile['dense_ms']:.2f} ms\n"
        f"channels work in steps of {steps['out']} outputs and {steps['inp']} inputs\n"
        f"held out, predicted and measured differ by {error['shapes']['mean']:.1f}% for {error['shapes']['count']} "
        f"single layers (largest {error['shapes']['largest']:.1f}%), by {error['networks']['mean']:.1f}% for "
        f"{error['networks']['count']} whole networks (largest {error['networks']['largest']:.1f}%)"
        f"{doubt}"
    )


def write(profile: dict[str, Any], out: Path) -> None:
    """Write a profile in one step.

    Raises:
        PruneError: the file cannot be written.
    """
    files.replace(out, json.dumps(profile, indent=1) + "\n")


class _Progress:
    """How far it is: a line for each tenth of the single layers, every few seconds of networks, one when all is done.

    Layers and networks have a pace each: of how long networks take, which is most of all, layers say nothing.
    """

    def __init__(self, say: Callable[[str], None], manifest: dict[str, Any], seconds: float) -> None:
        """seconds: of the turns of one network, at most."""
        self.seconds = seconds
        self.at_most = (  # one call may take longer
            f"each in turns with the model itself, about {1.25 * seconds:.0f} s at most"
        )
        self.total = 2 + 2 * (len(manifest["shapes"]) + sum(len(s["files"]) for s in manifest["sweeps"]))
        self.networks = len(manifest["networks"]) - 1  # beside the dense one
        self.done, self.last_tenth, self.say = 0, -1, say
        self.began = time.monotonic()

    def layer(self) -> None:
        self.done += 1
        tenth = 10 * self.done // self.total
        if self.done == self.total:  # the last comes behind the networks
            self.say("measuring: 100%")
        elif tenth > self.last_tenth:
            self.last_tenth = tenth
            left = log.to_go(self.began, self.done / self.total)
            self.say(f"measuring layers: {10 * tenth}%{left}; then {self.networks} networks, {self.at_most}")

    def of_networks(self, count: int, turn: int, pace: float = 0.0) -> log.Progress:
        """Say that networks are timed now; what is returned is told of each.

        Args:
            count: how many. turn: the first time is 1. pace: seconds that one took the last time.
        """
        if turn == 1:
            self.say(f"measuring networks: {count}, {self.at_most}")
        else:
            which = "1 network is" if count == 1 else f"{count} networks are"
            self.say(
                f"measuring: {which} not known to {timing.NARROW:.0%} yet: timed again (round {turn} of at most "
                f"{1 + _AGAIN}), about {count * pace:.0f} s"
            )
        return log.Progress("measuring networks" + " again" * (turn > 1), count, self.say)


def _seconds(dense: Callable[[], object]) -> float:
    """Seconds for the turns of one network with the dense one: enough for an interval, also on a slow device."""
    once = timing.in_turns({"dense": dense}, 1, 0.0).timing("dense").median / 1e3
    rounds = _ROUNDS * 4 * once * 1.25  # two calls of each, and some more
    return min(max(_MOST_SECONDS, rounds), _SLOW_SECONDS)


def _twice(layer: Callable[[str], float], files: list[str]) -> list[float]:
    """Milliseconds of each file: the lower of two medians that were taken at different times."""
    first = [layer(file) for file in files]
    return [min(ms, layer(file)) for ms, file in zip(first, files)]  # noqa: B905 (Python 3.8 has no strict)


def _median(call: Callable[[], object]) -> float:
    """Milliseconds a call, the median."""
    for _ in range(_WARM_UP):
        call()
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < _LEAST or (time.perf_counter() - began < _SECONDS and len(seconds) < _MOST):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def _networks(
    folder: Path, manifest: dict[str, Any], threads: int, progress: _Progress
) -> tuple[list[dict[str, Any]], list[float], list[float]]:
    """Time whole networks, each in turns with the dense one, until its share of the dense one's time is known.

    Those that are not known in time are timed again when the others are done: another program may have ended. A
    network's time is its share, times the median of the dense one's.

    Returns:
        `rows`, `held_out`, `ms` and `interval` of each (ms that hold the true one, None for an end that is not known);
        the dense one's milliseconds beside each of them; the half-widths of the shares that did not get narrow.
    """
    kind, precision, nets = manifest["format"], manifest["precision"], manifest["networks"]
    dense = runtimes.load(folder / nets[0]["file"], kind, threads, precision)

    def beside_dense(net: dict[str, Any]) -> timing.Turns:
        call = runtimes.load(folder / net["file"], kind, threads, precision)
        try:
            return timing.in_turns({"dense": dense, "net": call}, _ROUNDS, progress.seconds)
        finally:
            del call
            gc.collect()

    turns: list[timing.Turns] = []
    said = progress.of_networks(len(nets) - 1, 1)
    for net in nets[1:]:
        turns.append(beside_dense(net))
        said.one()
    for turn in range(2, 2 + _AGAIN):
        unknown = [number for number, one in enumerate(turns) if not one.ratio("dense", "net").steady]
        if not unknown:
            break
        said = progress.of_networks(len(unknown), turn, (time.monotonic() - said.began) / said.total)
        for number in unknown:
            later = beside_dense(nets[1 + number])
            turns[number] = later if later.ratio("dense", "net").steady else turns[number].joined(later)
            said.one()
    dense_ms = [one.timing("dense").median for one in turns]
    dense_ms = dense_ms or [timing.in_turns({"dense": dense}, _ROUNDS, progress.seconds).timing("dense").median]
    ratios = [timing.Ratio(1.0, 1.0, 1.0, 0), *(one.ratio("dense", "net") for one in turns)]
    return _rows(nets, ratios, float(np.median(dense_ms))), dense_ms, _wide(ratios)


def _rows(nets: list[dict[str, Any]], ratios: list[timing.Ratio], whole: float) -> list[dict[str, Any]]:
    """What a profile keeps of its networks; whole: ms of the dense one."""
    rows = []
    for net, ratio in zip(nets, ratios):  # noqa: B905 (Python 3.8 has no strict)
        ends = [whole / end if 0 < end < np.inf else None for end in (ratio.high, ratio.low)]
        rows.append(
            {
                "rows": net["rows"],
                "held_out": net["held_out"],
                "ms": round(whole / ratio.median, 5),
                "interval": [end and round(end, 5) for end in ends],
            }
        )
    return rows


def _wide(ratios: list[timing.Ratio]) -> list[float]:
    """The half-widths of those that are not known; too few rounds leave infinity, which JSON does not know."""
    wide = [(one.high - one.low) / 2 / one.median for one in ratios if not one.steady]
    return [round(min(width, 9.99), 4) for width in wide]


def main(words: list[str], folder: Path) -> int:
    """The kit's own command: `python3 profile.pyz [out=device.json] [threads=1]`.

    Returns:
        The exit code: 0; 1 with one line on stderr; 3 where the machine was too busy, which the profile says too.
    """
    import sys

    given = dict(word.partition("=")[::2] for word in words)
    unknown = [word for word in given if word not in ("out", "threads")]
    out, threads = Path(given.get("out") or "device.json"), given.get("threads") or "1"
    try:
        if unknown or not threads.isdigit() or int(threads) < 1:
            raise PruneError(f"{' '.join(words)}: write out=device.json threads=1, both may be left out")
        if out.suffix != ".json":
            raise PruneError(f"out={out}: a file that ends in .json is needed")
        files.require_place("out", out, "device.json")
        profile = measure(folder, int(threads))
        write(profile, out)
    except PruneError as error:
        sys.stderr.write(f"profile: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("profile: stopped; nothing was written. Give the same command again: it begins anew\n")
        return 130
    print(summary(profile))
    print(f"saved {out}; on the training machine: yolo train ... prune_profile={out.name} prune_latency=50%")
    return 3 if noise(profile) else 0
