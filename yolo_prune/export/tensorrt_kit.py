# yolo-prune, AGPL-3.0 license
"""What measures ONNX files in TensorRT on a device: a program beside them.

The program is on_device/tensorrt_compare.py; its copy knows the files, the precision, and whether weights are sparse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from yolo_prune import files
from yolo_prune.errors import PruneError

ROLES = ("dense", "pruned")
PRECISIONS = ("fp16", "fp32", "int8")
_LINE = "DEFAULTS = "  # how the line begins that a copy has its own of


def write(
    folder: Path, onnx_files: Mapping[str, Path], *, precision: str, sparse: bool, workspace: float | None = None
) -> Path:
    """Write the program that builds, times and compares ONNX files, beside them.

    With `sparse` TensorRT may use the sparse tensor cores of a layer if of every four neighbouring weights along its
    input channels, for each output and place of the kernel, at least two are 0, as `prune_sparsity=2:4` makes them; if
    the GPU has such cores (Ampere and newer: Jetson Orin, not Nano, TX2 or Xavier); and if that is faster there.
    Other layers are built as ever, so the switch does no harm to a dense file.

    Args:
        folder: where the files lie. onnx_files: role ("dense", "pruned") -> file; one of them is enough.
        precision: "fp16", "fp32" or "int8"; "int8" is for files with symmetric Q/DQ nodes. sparse: see above.
        workspace: GiB that a build may take; None: the program's own default.

    Returns:
        The program, named as the pruned file (or else the dense one) with -tensorrt.py instead of its ending.

    Raises:
        PruneError: a role or the precision is unknown, a file lies elsewhere, or the program cannot be written.
    """
    unknown = [role for role in onnx_files if role not in ROLES]
    if unknown or not onnx_files:
        raise PruneError(f"files for TensorRT are {' and '.join(ROLES)}, or one of them, and not {unknown or 'none'}")
    _check(precision)
    names = {role: _name(folder, path) for role, path in onnx_files.items()}
    defaults = {role: names.get(role, "") for role in ROLES}
    more = {} if workspace is None else {"workspace": workspace}
    values = json.dumps({**defaults, "precision": precision, "sparse": bool(sparse), **more})
    source = (Path(__file__).parent / "on_device" / "tensorrt_compare.py").read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    (at,) = [index for index, line in enumerate(lines) if line.startswith(_LINE)]
    # JSON has no line breaks and nothing but ASCII, and repr closes it safely: no file name ends the literal.
    lines[at] = f"{_LINE}json.loads({values!r})\n"
    last = onnx_files.get("pruned") or onnx_files["dense"]
    out = folder / f"{last.stem}-tensorrt.py"
    files.replace(out, "".join(lines))
    return out


def _check(precision: str) -> None:
    if precision not in PRECISIONS:
        raise PruneError(f"precision={precision} is unknown for TensorRT; supported: {', '.join(PRECISIONS)}")


def _name(folder: Path, path: Path) -> str:
    """The name of a file as seen from the program."""
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(folder)).as_posix()
    except ValueError:
        raise PruneError(f"{path} lies outside {folder}, where the program for TensorRT looks for it") from None
