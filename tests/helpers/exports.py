# yolo-prune, AGPL-3.0 license
"""The host's ONNX export of a checkpoint, made once: several tests export one and the same."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kept(by_host: Callable[..., Path], folder: Path) -> Callable[..., Path]:
    """`exporter.by_host` that keeps each ONNX file, by the weights and all arguments, and hands out copies.

    What a test puts in place of the host's export is called, for it is another key.
    """
    from ultralytics import YOLO

    made: dict[Any, Path] = {}

    def export(staged: Path, network: Any, kind: str, precision: str, **arguments: Any) -> Path:
        if (kind, precision) != ("onnx", "fp32"):
            return by_host(staged, network, kind, precision, **arguments)
        key = (content_of(network), str(network), repr(sorted(arguments.items())), YOLO.export, staged.stem)
        if key not in made:
            artifact = by_host(staged, network, kind, precision, **arguments)
            made[key] = folder / f"{len(made)}.onnx"
            shutil.copyfile(artifact, made[key])
            return artifact
        return Path(shutil.copyfile(made[key], staged.with_suffix(".onnx")))

    return export


def content_of(network: Any) -> str:
    """A digest of all values of a network, by their names, and of what its checkpoint says of it."""
    digest = hashlib.sha256(repr((network.yaml, network.names)).encode())
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
