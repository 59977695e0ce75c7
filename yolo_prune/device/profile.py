# yolo-prune, AGPL-3.0 license
"""`yolo-prune profile`: measure this device with a model, or pack what another device is to run. And on the spot:
measure this machine where a run is asked for a latency and given no profile, and time a model beside its dense parent.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from yolo_prune import files, log, scratch
from yolo_prune.cost import profile_file
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import machine, measurement, probe_kit, runtimes, timing
from yolo_prune.device.timing import Ratio
from yolo_prune.errors import NoisyError, PruneError
from yolo_prune.graph import image_shape
from yolo_prune.host import checkpoint, exporter
from yolo_prune.recipe import value_checks
from yolo_prune.recipe.settings import Recipe
from yolo_prune.shell import command

_ROUNDS = 20  # of two models, at least


def profile(
    model: str,
    format: str = "onnx",  # noqa: A002 (the host's name for it)
    imgsz: int | None = None,
    out: str | None = None,
    kit: str | None = None,
    threads: int = 1,
    precision: str = "fp32",
    safe: bool = True,
) -> dict[str, Any] | None:
    """`yolo-prune profile`: measure what each layer shape of a model costs on this machine, and write it to a file.

    Args:
        model: the checkpoint. format: the runtime, one of onnx, openvino, ncnn, engine (TensorRT).
        imgsz: side of the input in pixels; default: the one the model was trained with.
        out: the file to write; default device.json. kit: write a .pyz file instead, which measures another device:
            `python3 profile.pyz out=device.json` there, with Python 3.8 or newer, numpy and the runtime.
        threads: CPU threads. precision: fp32, fp16 or int8. safe: as in `apply`.

    Returns:
        The profile; None where a kit was written.

    Raises:
        PruneError: an argument is wrong, a package is missing, or the model cannot be exported. NoisyError: the machine
            was too busy; the profile is written, and says so itself.
    """
    kind = runtimes.known(format, precision)
    value_checks.whole(imgsz=imgsz, threads=threads)
    value_checks.switch(safe=safe)
    source = value_checks.path("model", model, "best.pt")
    target, name, example = _target(out, kit)
    if kit is None:
        runtimes.require(kind)
    network, ckpt = checkpoint.load(source, safe=safe)
    checkpoint.require_supported(network, str(source))
    files.require_place(name, target, example)
    side = image_shape.said(network, imgsz or checkpoint.image_size(ckpt) or 640)
    with scratch.folder() as folder, exporter.restrained(safe):
        _make(network, source.name, folder, kind, precision, side)
        if kit is not None:
            probe_kit.pack(folder, target)
            log.show(
                f"saved {target} ({target.stat().st_size / 1e6:.1f} MB); on the device: "
                f"{_on_device(runtimes.PACKAGES[kind][1], target.name, threads)}"
            )
            return None
        measured = measurement.measure(folder, threads, log.show)
    _save(measured, target, model)
    return measured


def _target(out: str | None, kit: str | None) -> tuple[Path, str, str]:
    """The file that is written, the argument that names it, and an example of it; arguments as of `profile`."""
    if kit is not None and out is not None:
        raise PruneError(
            f"out={out} kit={kit}: a kit is measured on another device, which writes the profile; give one"
        )
    name, example = ("out", "device.json") if kit is None else ("kit", "profile.pyz")
    given = out if kit is None else kit
    target = Path(example) if given is None else value_checks.path(name, given, example, (Path(example).suffix,))
    return target, name, example


def _on_device(package: str, kit: str, threads: int) -> str:
    """What is typed on a board, whose shell is no cmd.exe."""
    words = ["python3", kit, "out=device.json", *[f"threads={threads}"] * (threads > 1)]
    return f"pip install numpy {package} && {shlex.join(words)}"


def _save(measured: dict[str, Any], target: Path, model: str) -> None:
    """Write a profile, and say what it says; NoisyError where the machine was too busy."""
    measurement.write(measured, target)
    log.show(measurement.summary(measured))
    aim = command(["yolo", "train", f"model={model}", "...", f"prune_profile={target}", "prune_latency=50%"])
    log.show(f"saved {target}; aim at it: {aim}")
    noise = measurement.noise(measured)
    if noise:
        raise NoisyError(
            f"{target} was measured on a machine that was too busy: {noise}. More: yolo-prune help profiles", measured
        )


def _require_exporter(kind: str, precision: str) -> None:
    exporter.require(probe_kit.form_of(kind), "fp32" if kind == "engine" else precision)


def _make(network: nn.Module, name: str, folder: Path, kind: str, precision: str, imgsz: int) -> None:
    _require_exporter(kind, precision)
    probe_kit.make(network, name, folder, kind=kind, precision=precision, imgsz=imgsz, say=log.show)


def profile_of_recipe(recipe: Recipe) -> Profile | None:
    """The profile that a recipe names, or None.

    Raises:
        PruneError: it cannot be read, or is of another runtime or precision than the recipe says.
    """
    if recipe.profile is None:
        return None
    chosen = profile_file.read(recipe.profile)
    for key in ("format", "precision"):
        wanted = getattr(recipe, key)
        if wanted is not None and wanted != getattr(chosen, key):
            raise PruneError(
                f"prune_{key}={wanted}, but prune_profile={recipe.profile} was measured with {getattr(chosen, key)}: "
                "leave one of them out"
            )
    return chosen


def require_here(recipe: Recipe) -> tuple[str, str]:
    """The format and precision that a recipe without a profile is measured in on this machine.

    Raises:
        PruneError: the runtime or the exporter is missing here, or they do not go together.
    """
    kind, precision = recipe.format or "onnx", recipe.precision or "fp32"
    runtimes.known(kind, precision)
    runtimes.require(kind)
    _require_exporter(kind, precision)
    return kind, precision


def of_this_machine(network: nn.Module, name: str, recipe: Recipe, imgsz: int, say: Callable[[str], None]) -> Profile:
    """Measure this machine with a model that is about to be pruned.

    Args:
        network: a stock model. name: how the user named it. recipe: its format and precision are measured.
        imgsz: pixels. say: what is told to the user.

    Raises:
        PruneError: the runtime or the exporter is missing here.
    """
    kind, precision = require_here(recipe)
    say(
        f"no prune_profile= is given: measuring this machine through {runtimes.PACKAGES[kind][1]}, one thread, at "
        f"{image_shape.rounded(network, imgsz)} pixels, which takes a minute or two where it is quiet; for "
        "another device: yolo-prune profile"
    )
    with scratch.folder() as folder, exporter.restrained(False):  # the model is in this process already
        _make(network, name, folder, kind, precision, image_shape.rounded(network, imgsz))
        content = measurement.measure(folder, 1, say)
    for line in measurement.summary(content).splitlines():
        say(line)
    return profile_file.of(content, "this machine")


def is_of_this_machine(device: Profile) -> bool:
    """Whether what was measured elsewhere can be timed here: system, name and cores of the machine agree.

    Many virtual machines share a name ("Intel(R) Xeon(R) Processor"), and more so where none is told ("aarch64").
    """
    measured: Mapping[str, Any] = device.content["machine"]
    return all(measured.get(key) == value for key, value in machine.this_machine().items())


SideBySide = tuple[float, float, Ratio]  # ms a call of the dense and of the pruned model; how many times as fast it is


@contextlib.contextmanager
def beside(
    dense: Callable[[], nn.Module], device: Profile, what: str = "the pruned model"
) -> Iterator[Callable[[nn.Module], SideBySide]]:
    """What times models in turns with a dense one, on this machine, until the block ends.

    The dense model is asked for, exported and opened once, for the first of them: an export takes seconds.

    Args:
        dense: gives a stock model. device: models are exported and run in its format, precision, size and threads.
        what: is timed, for the line that says so: an export and a timing take a minute on a busy machine.

    Yields:
        A stock model -> the medians, and their ratio. It raises PruneError where one cannot be exported or run here.
    """
    opened: list[Callable[[], object]] = []
    with contextlib.ExitStack() as until_the_end:

        def timed(pruned: nn.Module) -> SideBySide:
            runtimes.require(device.format)
            log.say(
                f"{what} is exported to {device.format} and timed in turns with the dense one on this machine, "
                f"about {1.25 * timing.SECONDS:.0f} s at most once both are exported"
            )
            with exporter.restrained(False):  # the models are in this process already
                if not opened:
                    opened.append(_opened(dense(), until_the_end.enter_context(scratch.folder()), device))
                    until_the_end.callback(opened.clear)  # first: Windows removes no file that a runtime holds
                with scratch.folder() as folder:
                    turns = timing.in_turns({"dense": opened[0], "pruned": _opened(pruned, folder, device)}, _ROUNDS)
            return turns.timing("dense").median, turns.timing("pruned").median, turns.ratio("dense", "pruned")

        yield timed


def _opened(network: nn.Module, folder: Path, device: Profile) -> Callable[[], object]:
    return runtimes.load(export(network, folder, device), device.format, device.threads, device.precision)


def time_side_by_side(dense: nn.Module, pruned: nn.Module, device: Profile) -> SideBySide:
    """Time one model beside a dense one; see `beside`.

    Raises:
        PruneError: they cannot be exported or run here.
    """
    with beside(lambda: dense, device) as timed:
        return timed(pruned)


def export(network: nn.Module, folder: Path, device: Profile) -> Path:
    """Export a model as a profile's device runs it; see probe_kit.export. An engine is built from the ONNX file."""
    return probe_kit.export(network, folder, device.format, device.precision, device.imgsz)
