# yolo-prune, AGPL-3.0 license
"""`yolo-prune export`: export through the host, then prove that the artifact does what the torch model does.

The proof is a table and export.json: raw outputs and final boxes against torch (verify.py), mAP of both by the host's
val, and the latency of all of them in one run (latency.py). Everything runs on the CPU, in FP32.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from torch import Tensor
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn import tasks
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import LOGGER, checks
from ultralytics.utils.files import file_size

from yolo_prune import __version__, architecture, checkpoint, latency, measure, report, samples, text, verify
from yolo_prune.errors import PruneError, VerifyError, first_line
from yolo_prune.latency import Timing
from yolo_prune.measure import Size
from yolo_prune.samples import Samples
from yolo_prune.verify import Parity

FORMATS = ("onnx",)
HOST_ARGUMENTS = ("dynamic", "opset", "simplify")  # of the host's exporter: FP32 outputs stay comparable under them
MAP_TOLERANCE = 0.01  # largest difference of mAP50-95 between an artifact and its .pt, on the same letterboxed images

_RUNTIME = {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxslim": "onnxslim"}  # module -> what pip calls it


@dataclass
class _Subject:
    """One model on its way: `role` is "pruned" or "model", and "dense" for the one it is compared with."""

    role: str
    path: Path
    network: Any  # a stock DetectionModel
    ckpt: dict[str, Any]
    size: Size
    artifact: Path = Path()
    parity: Parity = field(default_factory=lambda: Parity(0))
    torch_map: tuple[float, float] | None = None  # mAP50-95, mAP50
    artifact_map: tuple[float, float] | None = None


def export(
    model: str | Path,
    *,
    format: str | Sequence[str] = "onnx",  # noqa: A002 (the host's name for it)
    data: str | Path | None = None,
    dense: str | Path | None = None,
    imgsz: int | None = None,
    batch: int = 1,
    threads: int = 1,
    images: int = 8,
    repeats: int = 30,
    out: str | Path | None = None,
    safe: bool = True,
    **host_args: Any,
) -> dict[str, Any]:
    """Export a checkpoint through the host, prove the artifact against torch, print a table and write export.json.

    Args:
        model: a YOLOv8 detection checkpoint, pruned or not.
        format: "onnx"; others are not supported by this version.
        data: the data set for mAP and for the images of the comparison; without it mAP is left out and images that the
            host ships, with drawings, are compared.
        dense: the checkpoint it was pruned from, to stand beside it in the table. Its artifact is not kept.
        imgsz: side of the input in pixels; default: the one the model was trained with.
        batch: images a call of the artifact, and of what is timed.
        threads: CPU threads of what is timed, for ONNX Runtime and for torch.
        images: how many images to compare outputs on.
        repeats: timed calls of each model.
        out: folder for the artifact and export.json; default: the model's.
        safe: refuse a checkpoint that holds more than classes of torch and ultralytics; False trusts it.
        host_args: arguments of the host's exporter: dynamic, opset, simplify.

    Returns:
        The content of export.json.

    Raises:
        PruneError: an argument, a checkpoint or the data set is wrong, or the host could not export it.
        VerifyError: an artifact differs from torch. The table is printed and export.json written before.
    """
    formats = _formats(format)
    _check_numbers(imgsz=imgsz, batch=batch, threads=threads, images=images, repeats=repeats)
    _check_host_arguments(host_args)
    _check_runtime(host_args)
    source = Path(model)
    subjects = [_load(source, None, safe)]
    if dense is not None:
        subjects.insert(0, _load(Path(dense), "dense", safe))
    main = subjects[-1]
    folder = _folder(source, out)
    with _host_restrained():  # reading a data set may make the host want to install what unpacks it
        dataset = None if data is None else _dataset(data, subjects)
    side = int(imgsz or (main.ckpt.get("train_args") or {}).get("imgsz") or measure.IMAGE)

    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory(prefix="yolo-prune-") as scratch, _host_restrained():
            for subject in subjects:
                LOGGER.info(f"exporting {subject.path} to {formats[0]} at {side} x {side}")
                _export(subject, Path(scratch) / subject.role, {"imgsz": side, "batch": batch, **host_args})
            _place(main, folder)
            side = _side(main.artifact)
            chosen = _samples(main, dataset, data, side, images)
            for subject in subjects:
                LOGGER.info(
                    f"comparing {subject.artifact.name} of {subject.path} with torch on {len(chosen.names)} images"
                )
                subject.parity = _compare(subject, chosen.images, batch, threads)
            if data is not None:
                for subject in subjects:
                    _validate(subject, str(data), side, Path(scratch))
            LOGGER.info(f"timing {repeats} calls of each, batch {batch}, {threads} thread(s)")
            timings = _time(subjects, chosen.images, batch, threads, repeats)
            rows = _rows(subjects, timings)
    finally:
        torch.set_num_threads(before)  # the host sets it too, when it selects a device

    record = {
        "yolo_prune": __version__,
        "model": str(source),
        "dense": None if dense is None else str(dense),
        "format": formats,
        "artifact": main.artifact.name,
        "sha256": hashlib.sha256(main.artifact.read_bytes()).hexdigest(),
        "imgsz": side,
        "batch": batch,
        "threads": threads,
        "repeats": repeats,
        "host_args": host_args,
        "data": None if data is None else str(data),
        "images": {"source": chosen.source, "names": chosen.names},
        "tolerance": {
            "raw": verify.TOLERANCE,
            "iou": verify.IOU,
            "score": verify.SCORE,
            "map": MAP_TOLERANCE,
        },
        "passed": all(subject.parity.passed for subject in subjects),
        "rows": rows,
        "versions": _versions(),
    }
    _print(rows, chosen, data, batch)
    _write(folder / "export.json", (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
    LOGGER.info(f"saved {main.artifact} and {folder / 'export.json'}")
    failed = [f"{subject.path}: {'; '.join(subject.parity.faults)}" for subject in subjects if subject.parity.faults]
    if failed:
        raise VerifyError(f"{main.artifact} is not proven, do not deploy it. {' | '.join(failed)}")
    return record


# Checks before any work -----------------------------------------------------------------------------------------------


def _formats(given: object) -> list[str]:
    """Read format=: one name, names with commas between them, or a list."""
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, (list, tuple)) or not words or not all(isinstance(word, str) for word in words):
        raise PruneError(f"format={given} is not a format; supported: {', '.join(FORMATS)}")
    names = [word.strip().lower() for word in words]
    others = [name for name in dict.fromkeys(names) if name not in FORMATS]
    if others:
        verb = "is" if len(others) == 1 else "are"
        raise PruneError(
            f"format={','.join(others)} {verb} not supported by this version; supported: {', '.join(FORMATS)}"
        )
    return list(dict.fromkeys(names))


def _check_numbers(**given: object) -> None:
    """Raise unless all are whole numbers of 1 or more (or None: not given)."""
    wrong = [
        f"{name}={value}"
        for name, value in given.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1)
    ]
    if wrong:
        raise PruneError(f"{', '.join(wrong)}: a whole number of 1 or more is needed")


def _check_host_arguments(given: dict[str, Any]) -> None:
    others = [f"{name}={value}" for name, value in given.items() if name not in HOST_ARGUMENTS]
    if others:
        raise PruneError(
            f"{', '.join(others)}: not supported by this version, which proves FP32 artifacts without embedded NMS; "
            f"arguments that are handed to the host's exporter: {', '.join(HOST_ARGUMENTS)}"
        )


def _check_runtime(host_args: dict[str, Any]) -> None:
    """Raise when what exports or runs the artifact cannot be imported; the host would try to install it."""
    missing = []
    for module, package in _RUNTIME.items():
        if module == "onnxslim" and host_args.get("simplify") is False:
            continue
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        raise PruneError(f"format=onnx needs {', '.join(missing)}: pip install {' '.join(missing)}")


def _load(path: Path, role: str | None, safe: bool) -> _Subject:
    network, ckpt = checkpoint.load(path, "model" if role is None else role, safe)
    checkpoint.require_detector(network, str(path))
    own = "pruned" if architecture.SPEC_KEY in getattr(network, "yaml", {}) else "model"
    return _Subject(role or own, path, network, ckpt, measure.size_of(network))


def _folder(model: Path, out: str | Path | None) -> Path:
    """Find the folder to write to."""
    folder = model.parent if out is None else Path(out)
    if not folder.is_dir():
        raise PruneError(f"out={out}: there is no such folder; out= is the folder for the artifact and export.json")
    if not os.access(folder, os.W_OK):
        raise PruneError(f"{folder} cannot be written to; name another folder with out=")
    return folder


def _dataset(data: str | Path, subjects: list[_Subject]) -> dict[str, Any]:
    """Read the data set as the host does, and check that it has the models' classes."""
    try:
        found: dict[str, Any] = check_det_dataset(str(data))
    except Exception as error:  # the host has many for a data set that is not there or not whole
        raise PruneError(f"data={data}: not a data set that ultralytics can read. {first_line(error)}") from error
    for subject in subjects:
        classes = int(subject.network.model[-1].nc)
        if classes != found["nc"] and not _single_class(subject):
            raise PruneError(
                f"data={data} has {found['nc']} classes and {subject.path} {classes}; they must be the same"
            )
    return found


def _single_class(subject: _Subject) -> bool:
    return bool((subject.ckpt.get("train_args") or {}).get("single_cls"))


# The host's exporter --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _host_restrained() -> Iterator[None]:
    """Let the host load checkpoints in its restricted way only, and install nothing (8.4.190, YOLO_AUTOINSTALL)."""
    safe, install = tasks.SAFE_LOAD, checks.AUTOINSTALL
    tasks.SAFE_LOAD, checks.AUTOINSTALL = True, False
    try:
        yield
    finally:
        tasks.SAFE_LOAD, checks.AUTOINSTALL = safe, install


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the host below warnings: while we export it would name files of our temporary folder."""
    level = LOGGER.level
    LOGGER.setLevel("WARNING")
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def _export(subject: _Subject, folder: Path, arguments: dict[str, Any]) -> None:
    """Export a copy of the checkpoint in a folder of ours: the host writes beside the .pt, and may die half-way."""
    folder.mkdir()
    staged = folder / subject.path.name
    shutil.copyfile(subject.path, staged)
    try:
        with _quiet():
            subject.artifact = Path(YOLO(str(staged), task="detect").export(format="onnx", device="cpu", **arguments))
    except Exception as error:  # the host's exporter raises anything, down to AssertionError
        raise PruneError(f"the export of {subject.path} failed in ultralytics. {first_line(error)}") from error


def _place(subject: _Subject, folder: Path) -> None:
    """Put the artifact where the user wants it. An older export.json goes first: it would prove the wrong file."""
    target = folder / subject.artifact.name
    try:
        (folder / "export.json").unlink(missing_ok=True)
    except OSError as error:
        raise PruneError(f"{folder / 'export.json'} cannot be replaced: {error}") from error
    _write(target, subject.artifact.read_bytes())
    subject.artifact = target


def _write(path: Path, content: bytes) -> None:
    try:
        report.replace(path, content)
    except OSError as error:
        raise PruneError(f"{path} cannot be written: {error}") from error


def _side(artifact: Path) -> int:
    """Read the side of the input off the artifact: the host rounds imgsz up to the model's stride."""
    height, width = json.loads(latency.onnx_session(artifact, 1).get_modelmeta().custom_metadata_map["imgsz"])
    if height != width:
        raise PruneError(f"{artifact} takes {height} x {width} images; this version compares square ones")
    return int(height)


# The proof ------------------------------------------------------------------------------------------------------------


def _samples(
    subject: _Subject, dataset: dict[str, Any] | None, data: str | Path | None, side: int, count: int
) -> Samples:
    """Choose the images to compare on."""
    if dataset is None:
        return samples.without_data(int(subject.network.yaml.get("channels", 3)), side, count)
    try:
        return samples.from_data(dataset, side, count)
    except Exception as error:
        raise PruneError(f"data={data}: its val images cannot be read. {first_line(error)}") from error


def _calls(subject: _Subject, images: Tensor, threads: int) -> tuple[Callable[[], Tensor], Callable[[], np.ndarray]]:
    """Return what runs one batch through torch, and what runs it through the artifact.

    Torch runs as in the host's predict: fused, and with the memory layout that the host chooses for this CPU.
    """
    backend = AutoBackend(deepcopy(subject.network), device=torch.device("cpu"), verbose=False).eval()
    session = latency.onnx_session(subject.artifact, threads)
    name, array = session.get_inputs()[0].name, np.ascontiguousarray(images.numpy())

    @torch.inference_mode()
    def torch_call() -> Tensor:
        output = backend(images)
        first: Tensor = output[0] if isinstance(output, (list, tuple)) else output
        return first

    def artifact_call() -> np.ndarray:
        first: np.ndarray = session.run(None, {name: array})[0]
        return first

    return torch_call, artifact_call


def _batches(images: Tensor, batch: int) -> list[Tensor]:
    """Cut images (n, ...) into batches; the last one is filled up with its last image."""
    whole = [images[start : start + batch] for start in range(0, len(images), batch)]
    short = batch - len(whole[-1])
    if short:
        whole[-1] = torch.cat([whole[-1], whole[-1][-1:].expand(short, -1, -1, -1)])
    return whole


def _compare(subject: _Subject, images: Tensor, batch: int, threads: int) -> Parity:
    """Compare raw outputs and final boxes of the artifact with torch's."""
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for part in _batches(images, batch):
        torch_call, artifact_call = _calls(subject, part, threads)
        ours += list(torch_call().clone())
        theirs += list(torch.from_numpy(artifact_call()))
    final = bool(getattr(subject.network.model[-1], "end2end", False))
    return verify.compare(ours[: len(images)], theirs[: len(images)], final=final)


def _validate(subject: _Subject, data: str, side: int, scratch: Path) -> None:
    """Measure mAP of the .pt and of the artifact with the host's val, on the same square letterboxed images."""
    figures = []
    for kind, weights in (("torch", scratch / subject.role / subject.path.name), ("artifact", subject.artifact)):
        LOGGER.info(f"validating {subject.role} {weights.suffix.lstrip('.')} on {data}")
        try:
            metrics = YOLO(str(weights), task="detect").val(
                data=data,
                imgsz=side,
                batch=1,
                rect=False,  # the host's val of a fixed-size artifact does the same; its default for a .pt is True
                device="cpu",
                single_cls=_single_class(subject),
                plots=False,
                verbose=False,
                project=str(scratch / "runs"),  # the host makes a folder for each val
                name=f"{subject.role}-{kind}",
            )
        except Exception as error:
            raise PruneError(f"ultralytics could not validate {weights.name} on {data}. {first_line(error)}") from error
        figures.append((float(metrics.box.map), float(metrics.box.map50)))
    subject.torch_map, subject.artifact_map = figures
    gap = abs(figures[0][0] - figures[1][0])
    if not gap <= MAP_TOLERANCE:
        subject.parity.faults.append(f"mAP50-95 differs by {gap:.4f} from torch (allowed {MAP_TOLERANCE})")


def _time(
    subjects: list[_Subject], images: Tensor, batch: int, threads: int, repeats: int
) -> dict[tuple[str, str], Timing]:
    """Time all models on the same batch, the ones of each runtime in turns; (role, "pt" or "onnx") -> timing."""
    first = _batches(images, batch)[0]
    calls = {subject.role: _calls(subject, first, threads) for subject in subjects}
    torch.set_num_threads(threads)
    timings = {}
    # The runtimes one after the other: torch's idle threads spin, and would slow down the session that comes next.
    for position, kind in enumerate(("pt", "onnx")):
        found = latency.interleaved({role: pair[position] for role, pair in calls.items()}, repeats)
        timings.update({(role, kind): timing for role, timing in found.items()})
    return timings


# What is said ---------------------------------------------------------------------------------------------------------


def _rows(subjects: list[_Subject], timings: dict[tuple[str, str], Timing]) -> list[dict[str, Any]]:
    """Make one row a file: the .pt of each model, then the artifacts. `speedup` is over dense in the same runtime."""
    rows = []
    for kind in ("pt", "onnx"):
        for subject in subjects:
            path = subject.path if kind == "pt" else subject.artifact
            found = subject.torch_map if kind == "pt" else subject.artifact_map
            timing, base = timings[subject.role, kind], timings.get(("dense", kind))
            rows.append(
                {
                    "role": subject.role,
                    "format": kind,
                    "file": path.name,
                    "params": subject.size.params,
                    "gflops": subject.size.gflops,
                    "map50_95": found and found[0],
                    "map50": found and found[1],
                    "latency_ms": {key: round(value, 4) for key, value in asdict(timing).items()},
                    "speedup": base and round(base.median / timing.median, 3),
                    "megabytes": round(file_size(path), 3),
                    "parity": subject.parity.as_dict() if kind == "onnx" else None,
                    "_parity": str(subject.parity) if kind == "onnx" else "-",
                }
            )
    return rows


def _print(rows: list[dict[str, Any]], chosen: Samples, data: str | Path | None, batch: int) -> None:
    """Log the one table, and a line on what it cannot show."""
    ms = "ms (median)" if batch == 1 else f"ms a batch of {batch} (median)"
    cells = []
    for row in rows:
        times = row["latency_ms"]
        cells.append(
            {
                "model": f"{row['role']} {'.pt' if row['format'] == 'pt' else row['format']}",
                "params": f"{row['params']:,}",
                "GFLOPs": f"{row['gflops']:.2f}",
                "mAP50-95": _figure(row["map50_95"], ".4f"),
                "mAP50": _figure(row["map50"], ".4f"),
                ms: f"{times['median']:.2f}",
                "p10-p90": f"{times['p10']:.2f}-{times['p90']:.2f}",
                "speed-up": _figure(row["speedup"], ".2f", "x"),
                "MB": f"{row['megabytes']:.1f}",
                "parity": row.pop("_parity"),
            }
        )
    LOGGER.info(f"\n{text.table(cells)}")
    if data is None:
        LOGGER.info(f"no data= was given: mAP is not measured, and outputs are compared on {chosen.source}")
    if not any(row["parity"] and row["parity"]["boxes"] for row in rows):
        LOGGER.info("no image has a box that survives NMS: only raw outputs could be compared")


def _figure(value: float | None, how: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{how}}{unit}"


def _versions() -> dict[str, str]:
    modules = {name: importlib.import_module(name) for name in ("onnx", "onnxruntime")}
    return {
        "ultralytics": str(ultralytics.__version__),
        "torch": str(torch.__version__),
        **{name: str(module.__version__) for name, module in modules.items()},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
