# yolo-prune, AGPL-3.0 license
"""What a sweep is asked for, read and checked; and whether a folder holds the results of the same request. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yolo_prune.errors import PruneError
from yolo_prune.recipe import formats, value_checks
from yolo_prune.recipe.arguments import ARGUMENTS
from yolo_prune.recipe.bounds import BOUNDS, faults_of, is_figure

ENGINES = ("local", "ray")
_DEVICE = re.compile(r"cpu|mps|(cuda:)?\d+|[xn]pu(:\d+)?")  # what the host takes for one training
# Arguments of `yolo train` that are the same for every point. What a point differs in, and where it goes, is ours.
TRAIN_ARGUMENTS = (
    *("batch", "nbs", "workers", "optimizer", "lr0", "lrf", "momentum", "weight_decay", "cos_lr", "patience", "freeze"),
    *("warmup_epochs", "warmup_momentum", "warmup_bias_lr", "seed", "deterministic", "amp", "cache", "fraction"),
    *("single_cls", "rect", "multi_scale", "close_mosaic", "dropout", "box", "cls", "dfl", "pose", "kobj"),
    *("overlap_mask", "mask_ratio", "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear"),
    *("perspective", "flipud", "fliplr", "bgr", "mosaic", "mixup", "cutmix", "copy_paste", "auto_augment", "erasing"),
    *("plots", "channels_last"),
)
# Settings of the plugin that hold for every cut; what a sweep varies, or fills in itself, is no such.
_VARIED = {
    "prune",
    "prune_importance",
    "prune_profile",
    "prune_format",
    "prune_deploy",
    "prune_qat",
    *(f"prune_{b}" for b in BOUNDS),
}
PRUNE_ARGUMENTS = tuple(name for name in ARGUMENTS if name not in _VARIED)
_OF_TRAINING = {"freeze", "prune_max_drop"}  # by these a training cuts other channels than one cut does
# What may change while a sweep goes on in its folder: how it is run and told, not what its points are.
_FREE = {
    *("out", "epochs", "seconds", "max_drop", "safe", "profile_at", "base"),
    *("engine", "jobs", "devices", "cpus", "gpus"),
}


@dataclass(frozen=True)
class Request:
    """What is asked for; see `commands.sweep.sweep` for what each means.

    Lists are tuples of texts as they were given; `imgsz` has the size of the model itself first, once it is known.
    `bounds` are pairs of a cost and a text, such as ("flops", "50%"). `settings` go to every training.
    `profile_at` are the device profiles by the image size that they were measured at, and `base` the precision that
    they are of, once they have been read; `format` is then known as well.
    """

    model: str
    data: str
    epochs: int
    bounds: tuple[tuple[str, str], ...] = ()
    recipe: tuple[str, ...] = ()
    importance: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    teacher: bool = False
    imgsz: tuple[int, ...] = ()
    quantize: int | None = None
    format: str | None = None
    profile: tuple[str, ...] = ()
    threads: int = 1
    seconds: int = 5
    train: str = "promising"
    max_drop: float = 0.01
    jobs: int | None = None
    devices: tuple[str, ...] = ()
    engine: str = "local"
    cpus: float | None = None
    gpus: float | None = None
    out: str = "runs/sweep"
    safe: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    profile_at: Mapping[int, str] = field(default_factory=dict)
    base: str = "fp32"

    @property
    def precisions(self) -> tuple[str, ...]:
        """What each model is exported in at the end."""
        added = () if self.quantize is None else (formats.QUANTIZE[self.quantize],)
        return tuple(dict.fromkeys((self.base, *added)))

    def is_last(self, stage: str) -> bool:
        """Whether a stage of folder.STAGES ends the sweep: its models are proven and INT8 is validated as it is."""
        return stage == "trained" or not self.epochs

    def precisions_of(self, stage: str) -> tuple[str, ...]:
        """What the models of a stage are exported in."""
        return self.precisions if self.is_last(stage) else self.precisions[:1]

    @property
    def kind(self) -> str:
        """The runtime that all are deployed with."""
        return self.format or "onnx"

    @property
    def latency(self) -> str | None:
        """The first bound on latency: within it the most accurate model is looked for."""
        return next((text for cost, text in self.bounds if cost == "latency"), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as sweep.json holds it."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def read(given: Mapping[str, Any], more: Mapping[str, Any]) -> Request:
    """Check a request.

    Args:
        given: the arguments of `commands.sweep.sweep` by name. more: arguments of `yolo train`.

    Raises:
        PruneError: the first that is wrong, with what would be right.
    """
    own = [*given, "engine"]
    value_checks.known(more, [*TRAIN_ARGUMENTS, *PRUNE_ARGUMENTS], "argument", own)
    counts = {name: given[name] for name in ("epochs", "threads", "seconds")}
    if type(counts["epochs"]) is int and counts["epochs"] == 0:  # cuts alone
        del counts["epochs"]
    elif not isinstance(counts["epochs"], int):
        raise PruneError(
            f"epochs={value_checks.shown(given['epochs'])}: a whole number is needed, 0 for the cuts alone"
        )
    value_checks.whole(**{name: "None" if value is None else value for name, value in counts.items()})
    value_checks.whole(jobs=given["jobs"])
    devices = _engine(given)
    value_checks.switch(teacher=given["teacher"], safe=given["safe"])
    if given["train"] not in ("promising", "all"):
        raise PruneError(f"train={value_checks.shown(given['train'])}: promising or all is needed")
    max_drop = given["max_drop"]
    if not is_figure(max_drop) or not 0 <= max_drop < 1:
        raise PruneError(f"max_drop={value_checks.shown(max_drop)}: a drop of mAP from 0 to below 1, such as 0.01")
    _require_something(given, more)
    bounds = tuple((cost, text) for cost in BOUNDS for text in texts(cost, given[cost], "70%,50%"))
    if faults := faults_of(bounds):  # before the data set is read; their reach is known later
        raise PruneError("; ".join(faults))
    return Request(
        model=str(value_checks.path("model", given["model"], "best.pt")),
        data=value_checks.data_set(given["data"]),
        epochs=int(given["epochs"]),
        bounds=bounds,
        recipe=texts("recipe", given["recipe"], "balanced"),
        importance=texts("importance", given["importance"], "obdc,l2"),
        baselines=texts("baselines", given["baselines"], "yolo11n.pt"),
        teacher=given["teacher"],
        imgsz=_sizes(given["imgsz"]),
        quantize=_quantize(given["quantize"]),
        format=_format(given["format"]),
        profile=texts("profile", given["profile"], "device.json"),
        threads=int(given["threads"]),
        seconds=int(given["seconds"]),
        train=given["train"],
        max_drop=float(max_drop),
        jobs=None if given["jobs"] is None else int(given["jobs"]),
        devices=devices,
        engine=given["engine"],
        cpus=None if given["cpus"] is None else float(given["cpus"]),
        gpus=None if given["gpus"] is None else float(given["gpus"]),
        out=str(value_checks.path("out", given["out"], "runs/sweep")),
        safe=given["safe"],
        settings=dict(more),
    )


def _require_something(given: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    """Raise where there is nothing to compare, or a setting of cuts and no cut."""
    cut = any(given[name] is not None for name in (*BOUNDS, "recipe"))
    idle = [name for name in ("importance",) if given[name] is not None]
    idle += [name for name in more if name.startswith("prune_")]
    if idle and not cut:
        raise PruneError(f"{', '.join(f'{name}=' for name in idle)}: nothing is pruned; add a bound, such as flops=50%")
    if given["epochs"] == 0:
        idle = [name for name in more if name in _OF_TRAINING]
        if idle:
            raise PruneError(f"{', '.join(f'{name}=' for name in idle)}: of a training, and epochs=0 has none")
    if given["teacher"] and given["baselines"] is None:
        raise PruneError("teacher=True is for baselines=, which learn from the model: name one, baselines=yolo11n.pt")
    if not cut and all(given[name] is None for name in ("baselines", "imgsz", "quantize")):
        raise PruneError(
            "nothing to compare the model with: add flops=70%,50% (pruned models), baselines=yolo11n.pt (other models) "
            "or imgsz=640,512 (smaller images)"
        )


def _engine(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The devices of the local engine. Raise where an engine is unknown or absent, or an argument is of the other."""
    engine, devices = given["engine"], texts("devices", given["devices"], "0,1")
    if engine not in ENGINES:
        raise PruneError(f"engine={value_checks.shown(engine)}: there is {' and '.join(ENGINES)}")
    shares = {name: given[name] for name in ("cpus", "gpus") if given[name] is not None}
    words = ", ".join(f"{name}={value_checks.shown(value)}" for name, value in shares.items())
    if engine == "local":
        if shares:
            raise PruneError(f"{words}: these are of engine=ray; on this machine devices=0,1 and jobs=2 say it")
        wrong = [name for name in devices if not _DEVICE.fullmatch(name)]
        if wrong:
            raise PruneError(f"devices={','.join(wrong)}: numbers of GPUs are needed, one a training, or cpu or mps")
        return devices
    if devices:
        raise PruneError(f"devices={','.join(devices)}: Ray chooses them; gpus=1 says how much of one a training gets")
    # Ray takes fractions below 1, and whole CPUs above; a training over several GPUs is none of a sweep's.
    cpus, gpus = given["cpus"], given["gpus"]
    if cpus is not None and not (is_figure(cpus) and (0 < cpus < 1 or cpus in range(1, 1025))):
        raise PruneError(f"cpus={value_checks.shown(cpus)}: a whole number, or a part of one CPU, is needed")
    if gpus is not None and not (is_figure(gpus) and 0 <= gpus <= 1):
        raise PruneError(
            f"gpus={value_checks.shown(gpus)}: 0 to 1 is needed, such as 0.5 for two trainings on each GPU"
        )
    if find_spec("ray") is None:
        raise PruneError('engine=ray: Ray is not installed here: pip install "yolo-prune[ray]"')
    return ()


def texts(name: str, given: object, example: str) -> tuple[str, ...]:
    """A list: text with commas between, a list or tuple, or one value; None is empty. Each stands once.

    Raises:
        PruneError: something in it is no text and no number.
    """
    if given is None:
        return ()
    items = given.split(",") if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]
    words = [str(item).strip() for item in items if isinstance(item, (str, Path)) or is_figure(item)]
    if len(words) < len(items) or not all(words):
        raise PruneError(
            f"{name}={value_checks.shown(given)}: values with commas between them are needed, such as {name}={example}"
        )
    return tuple(dict.fromkeys(words))


def _sizes(given: object) -> tuple[int, ...]:
    """imgsz=: one size or several."""
    words = texts("imgsz", given, "640,512")
    for word in words:
        value_checks.whole(imgsz=int(word) if word.isdecimal() else word)
    return tuple(int(word) for word in words)


def _quantize(given: object) -> int | None:
    if given is None or given == 32:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or given not in formats.QUANTIZE:
        raise PruneError(f"quantize={value_checks.shown(given)}: 8 (INT8) or 16 (FP16) is needed")
    return given


def _format(given: object) -> str | None:
    if given is None:
        return None
    name = formats.name_of(str(given))
    if name not in formats.FORMATS:
        near = value_checks.nearest(name, formats.FORMATS)
        raise PruneError(
            f"format={value_checks.shown(given)}{near}: one of {', '.join(formats.FORMATS)} is needed; all models are "
            "timed in it"
        )
    return name


# The folder of a sweep ------------------------------------------------------------------------------------------------


def identity(request: Request) -> dict[str, Any]:
    """What makes a sweep the one that it is; files by their content, so that a model trained anew is another one."""
    plain = {key: value for key, value in request.as_dict().items() if key not in _FREE}
    contents = {name: digest(Path(name)) for name in files(request)}
    return {**plain, "files": {name: content for name, content in contents.items() if content is not None}}


def files(request: Request) -> list[str]:
    """The files that a request names; a name may be of no file, as that of a shipped recipe."""
    measured = request.settings.get("prune_sensitivity")
    named = [request.model, request.data, *request.baselines, *request.recipe, *request.profile]
    return [*named, *([] if measured is None else [str(measured)])]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], epochs: tuple[int, int]) -> list[str]:
    """How a request differs from the one whose results lie in a folder, in words; empty where it goes on with them.

    Args:
        old, new: of `identity`. epochs: of the old one and the new one: trainings may follow a sweep of cuts alone.
    """
    old, new = ({**each, **each.get("settings", {})} for each in (old, new))  # as they are typed
    words = [
        f"{key}= was {_words(old.get(key))} and is {_words(new.get(key))}"
        for key in dict.fromkeys([*old, *new])
        if key not in ("files", "settings") and _comparable(key, old.get(key)) != _comparable(key, new.get(key))
    ]
    before, after = old.get("files", {}), new.get("files", {})
    words += [f"{name} is another file now" for name in before if name in after and before[name] != after[name]]
    if epochs[0] != epochs[1] and epochs[0]:
        words.append(f"epochs= was {epochs[0]} and is {epochs[1]}")
    return words


def _comparable(key: str, value: Any) -> Any:
    """A value of an identity; in another order image sizes are the same points."""
    return sorted(value) if key == "imgsz" and value else value


def _words(value: object) -> str:
    if value in (None, [], {}):
        return "not given"
    if isinstance(value, list):
        return ",".join("=".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
    return value_checks.shown(value)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def digest(path: Path) -> str | None:
    """A digest of a file; None of what is no file."""
    try:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()[:16]
    except OSError:
        return None
