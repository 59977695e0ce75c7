# yolo-prune, AGPL-3.0 license
"""The points of a sweep: each is one model at one image size, trained by one command. No torch.

A worked example: model=best.pt flops=50% baselines=yolo11n.pt imgsz=640,512 has six points,

    dense-640  flops50-640  yolo11n-640  dense-512  flops50-512  yolo11n-512
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from yolo_prune.errors import RecipeError
from yolo_prune.recipe.arguments import load
from yolo_prune.recipe.formats import PROFILED
from yolo_prune.recipe.settings import OF_TRAINING
from yolo_prune.report import text
from yolo_prune.sweeps.request import Request, digest

_HOST_PATIENCE = 100  # epochs without a better one after which the host stops (8.4.190, cfg/default.yaml)
KINDS = {"dense": "the model itself", "pruned": "pruned", "baseline": "another model"}


@dataclass(frozen=True)
class Point:
    """One model at one image size.

    Attributes:
        name: of its folder. kind: a key of `KINDS`. label: what tables call it. model: what it is trained from.
        imgsz: pixels. small: whether that is a smaller image than the model's own. cut: the arguments of `yolo train`
            that cut it, None for a model that is not. teacher: the model that it learns from as well.
    """

    name: str
    kind: str
    label: str
    model: str
    imgsz: int
    small: bool = False
    cut: Mapping[str, Any] | None = None
    teacher: str | None = None

    @property
    def family(self) -> tuple[str, str, int]:
        """Points of one family differ in how they are cut alone, so that their figures before a training compare."""
        return self.kind, f"{self.model} {self.teacher}" if self.kind == "baseline" else "", self.imgsz


@dataclass
class _Names:
    """Names of folders, each once."""

    taken: set[str] = field(default_factory=set)

    def of(self, *parts: str) -> str:
        name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(part for part in parts if part)).strip("-.")[:80]
        new, number = name, 2
        while new.lower() in self.taken:  # of file systems that know no case
            new, number = f"{name}-{number}", number + 1
        self.taken.add(new.lower())
        return new


def of(request: Request) -> list[Point]:
    """The points of a request whose `imgsz` is known, the model's own size first."""
    names = _Names()
    points = []
    for number, imgsz in enumerate(request.imgsz):
        size, small = str(imgsz), number > 0 and imgsz < request.imgsz[0]
        at = f" at {imgsz}" if len(request.imgsz) > 1 else ""
        points.append(Point(names.of("dense", size), "dense", f"dense{at}", request.model, imgsz, small))
        for short, words, cut in cuts(request, imgsz):
            name = names.of(short, size)
            points.append(Point(name, "pruned", f"pruned {words}{at}", request.model, imgsz, small, cut))
        for baseline, stem in _told_apart(request.baselines).items():
            points.append(Point(names.of(stem, size), "baseline", f"{stem}{at}", baseline, imgsz, small))
            if request.teacher:
                name = names.of(stem, "taught", size)
                label = f"{stem} taught by the model{at}"
                points.append(Point(name, "baseline", label, baseline, imgsz, small, None, request.model))
    return points


def _told_apart(paths: Sequence[str]) -> dict[str, str]:
    """A name for each file: its stem, with as many folders before it as tell it from the others."""
    parts = {path: Path(path).with_suffix("").parts for path in paths}
    names = {}
    for path, own in parts.items():
        others = [other for one, other in parts.items() if one != path]
        depth = next((n for n in range(1, len(own)) if all(o[-n:] != own[-n:] for o in others)), len(own))
        names[path] = "/".join(own[-depth:])
    return names


def first_cut(request: Request, imgsz: int) -> dict[str, Any] | None:
    """The arguments of the first of the cuts, as which what is not cut is trained; None where nothing is cut."""
    return next((arguments for _, _, arguments in cuts(request, imgsz)), None)


def cuts(request: Request, imgsz: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Every way in which the model is cut: a short name, words for a table, and the arguments of `yolo train`."""
    ways = []
    shared = {key: value for key, value in request.settings.items() if key.startswith("prune_")}
    stems = _told_apart(request.recipe)
    for recipe in request.recipe or ("",):
        for cost, bound in request.bounds or ((("", ""),) if request.recipe else ()):
            for importance in request.importance or ("",):
                arguments = {"prune": recipe, f"prune_{cost}": bound if cost else "", "prune_importance": importance}
                arguments = {key: value for key, value in arguments.items() if value} | shared
                stem = stems.get(recipe, "")
                short = "-".join(part for part in (stem, f"{cost}{bound.rstrip('%')}", importance) if part)
                words = " ".join(part for part in (stem, f"{cost}={bound}" if cost else "", importance) if part)
                if cost == "latency" or (imgsz in request.profile_at and _goes_with_the_profile(recipe, request)):
                    arguments["prune_profile"] = profile_of(request, imgsz)
                elif (cost == "size" or (request.format and not recipe)) and request.kind in PROFILED:
                    arguments["prune_format"] = request.kind
                ways.append((short, words, arguments))
    return ways


def _goes_with_the_profile(recipe: str, request: Request) -> bool:
    """Whether a recipe leaves open what it is deployed as, or says what the profile is of."""
    if not recipe:
        return True
    try:
        own = load(recipe)
    except RecipeError:
        return True  # the checks of the point say what is wrong
    return own.format in (None, request.format) and own.precision in (None, request.base)


def profile_of(request: Request, imgsz: int) -> str:
    """The device profile of one image size: of the request, or the one that the sweep measures itself, of its model."""
    if imgsz in request.profile_at:
        return request.profile_at[imgsz]
    parts = (request.kind, str(request.threads), str(imgsz), _digest(request.model))
    return str(Path(request.out, f"device-{'-'.join(filter(None, parts))}.json"))


def _digest(model: str) -> str | None:
    """Of the content of a model, so that what was measured of another one is not taken for its own."""
    try:
        state = Path(model).stat()
    except OSError:
        return None
    return _digest_of(model, state.st_size, state.st_mtime_ns)


@cache
def _digest_of(model: str, size: int, changed: int) -> str | None:
    content = digest(Path(model))  # some hundred MB, and asked for by every cut
    return content and content[:8]


def words(point: Point, request: Request, folder: Path | None = None) -> list[str]:
    """The words after `yolo train` that make a point.

    Args:
        folder: of the sweep, into which the run goes; None for the command that a user is shown.
    """
    arguments: dict[str, Any] = {"model": point.model, "data": request.data, "epochs": request.epochs}
    arguments |= {"imgsz": point.imgsz, **(point.cut or {})}
    if point.teacher:
        arguments["distill_model"] = point.teacher
    own = {key: value for key, value in request.settings.items() if not key.startswith("prune_")}
    if request.epochs > _HOST_PATIENCE:  # equal epochs for all: none stops early
        arguments["patience"] = request.epochs
    arguments |= own
    if folder is not None:
        arguments |= {"project": str(folder), "name": point.name, "exist_ok": True}
    return [f"{key}={_typed(key, value)}" for key, value in arguments.items()]


def _typed(key: str, value: object) -> str:
    """A value as one types it: a list of ours with commas, one of the host's in brackets, for freeze=2 is 0 and 1."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    if key.startswith("prune_"):
        return ",".join(map(str, value))
    return f"[{','.join(map(repr, value))}]"


def command(point: Point, request: Request) -> str:
    """What a user types to make a point alone; without training, the cut."""
    if request.epochs:
        return text.command(["yolo", "train", *words(point, request)])
    if point.cut is None:
        return text.command(["yolo", "val", f"model={point.model}", f"data={request.data}", f"imgsz={point.imgsz}"])
    cut = {"recipe" if key == "prune" else key.removeprefix("prune_"): value for key, value in point.cut.items()}
    cut = {key: value for key, value in cut.items() if key not in OF_TRAINING}
    own = [f"{key}={_typed(f'prune_{key}', value)}" for key, value in cut.items()]
    arguments = [f"model={point.model}", f"data={request.data}", f"imgsz={point.imgsz}", *own]
    return text.command(["yolo-prune", "apply", *arguments])
