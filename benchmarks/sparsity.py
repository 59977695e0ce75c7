# yolo-prune, AGPL-3.0 license
"""What gets faster and what only gets smaller: single zeros and whole channels of one checkpoint, side by side.

    python benchmarks/sparsity.py best.pt [imgsz=320] [formats=onnx,openvino,ncnn] [repeats=40] [threads=1]

Every row is made from the checkpoint at once, without training; what that does to accuracy is not looked at, only time
and size. All rows of one runtime are timed in turns. *Compressed* is the exported file after zlib (level 6), as a zip
or a download compresses it. Prints a markdown table; speed is that of the dense row divided by the row's.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from torch import nn
from ultralytics import YOLO
from ultralytics.utils import LOGGER

import yolo_prune
from yolo_prune.device import runtimes, timing
from yolo_prune.host import checkpoint, exporter
from yolo_prune.recipe.sparsity_pattern import parse
from yolo_prune.surgery import masks

SINGLE = ("0.5", "0.8", "0.9", "2:4")
CHANNELS = (50, 25)


def sparse(pattern: str) -> Callable[[YOLO], None]:
    """Makes single weights of a model zero."""

    def make(yolo: YOLO) -> None:
        masks.apply(yolo.model, masks.choose(yolo.model, parse(pattern)))

    return make


def narrow(left: int) -> Callable[[YOLO], None]:
    """Cuts channels until so many percent of the FLOPs are left."""

    def make(yolo: YOLO) -> None:
        yolo_prune.prune(yolo, flops=f"{left}%", importance="l2", scope="global", max_cut=0.95, reconstruct="none")

    return make


def zeros(model: nn.Module) -> float:
    """The share of the convolution weights that are zero."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def size(artifact: Path) -> tuple[int, int]:
    """Bytes of an artifact with what lies beside it, and the same compressed."""
    files = [artifact] if artifact.suffix == ".onnx" else [artifact, artifact.with_suffix(".bin")]
    content = b"".join(path.read_bytes() for path in files)
    return len(content), len(zlib.compress(content, 6))


def timed(artifacts: dict[str, Path], kind: str, options: dict[str, str]) -> list[str]:
    """How many times as fast as the dense each artifact of one runtime is."""
    threads, repeats = int(options.get("threads", 1)), int(options.get("repeats", 40))
    shape = (1, 3, *[int(options.get("imgsz", 320))] * 2)
    calls = {name: runtimes.load(path, kind, threads, shape=shape) for name, path in artifacts.items()}
    turns = timing.in_turns(calls, repeats)
    ratios = [turns.ratio("dense", name) for name in artifacts]
    return [f"{ratio.median:.2f}" if ratio.steady else f"({ratio.low:.2f}-{ratio.high:.2f})" for ratio in ratios]


def main() -> None:
    weights = sys.argv[1]
    options = dict(word.split("=", 1) for word in sys.argv[2:])
    imgsz = int(options.get("imgsz", 320))
    formats = options.get("formats", "onnx,openvino,ncnn").split(",")
    rows: dict[str, Callable[[YOLO], None]] = {"dense": lambda _: None}
    rows |= {f"single weights, {'half' if pattern == '0.5' else pattern}": sparse(pattern) for pattern in SINGLE}
    rows |= {f"channels, {left}% of the FLOPs left": narrow(left) for left in CHANNELS}
    LOGGER.setLevel(logging.ERROR)
    cells: dict[str, list[str]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as scratch:
        artifacts: dict[str, dict[str, Path]] = {kind: {} for kind in formats}
        for number, (name, make) in enumerate(rows.items()):
            yolo = YOLO(weights)
            yolo.model, _ = checkpoint.load(weights)
            make(yolo)
            for kind in formats:
                folder = Path(scratch, f"{number}-{kind}")
                artifacts[kind][name] = exporter.export(yolo.model, folder, kind, imgsz=imgsz)
            plain, packed = size(artifacts[formats[0]][name])
            cells[name] += [f"{zeros(yolo.model):.0%}", f"{plain / 1e6:.1f}", f"{packed / 1e6:.1f}"]
        for kind in formats:
            for name, cell in zip(rows, timed(artifacts[kind], kind, options), strict=True):
                cells[name].append(cell)
    headings = " | ".join(f"{kind}, times as fast" for kind in formats)
    print(f"| | zeros | {formats[0]}, MB | compressed, MB | {headings} |")
    print(f"| --- | --- | --- | --- | {'--- | ' * len(formats)}")
    for name, row in cells.items():
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
