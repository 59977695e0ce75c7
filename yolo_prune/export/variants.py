# yolo-prune, AGPL-3.0 license
"""Which artifacts an export makes here, as (format, precision), and why others that were asked for are left out."""

from __future__ import annotations

from pathlib import Path

import torch

from yolo_prune.errors import PruneError
from yolo_prune.recipe import formats, value_checks

Variant = tuple[str, str]  # a name in formats.FORMATS, and "fp32", "fp16" or "int8"


def formats_of(given: object) -> list[str]:
    """Read format=: one name, names with commas between them, or a list."""
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, (list, tuple)) or not words or not all(isinstance(word, str) for word in words):
        raise PruneError(f"format={value_checks.shown(given)} is not a format; supported: {', '.join(formats.FORMATS)}")
    names = [formats.name_of(word) for word in words]
    others = [name for name in dict.fromkeys(names) if name not in formats.FORMATS]
    if others:
        verb = "is" if len(others) == 1 else "are"
        raise PruneError(
            f"format={','.join(others)} {verb} not proven by this version; supported: {', '.join(formats.FORMATS)}"
        )
    return list(dict.fromkeys(names))


def precisions_of(quantize: object, data: object) -> list[str]:
    """Read quantize=: the precisions that are asked for; FP32 is always the reference."""
    if quantize is None or quantize == 32:
        return ["fp32"]
    if isinstance(quantize, bool) or not isinstance(quantize, int) or quantize not in formats.QUANTIZE:
        raise PruneError(f"quantize={value_checks.shown(quantize)}: 8 (INT8) or 16 (FP16) is needed")
    if quantize == 8 and data is None:
        raise PruneError("quantize=8 is calibrated on images: name a data set with data=")
    return ["fp32", formats.QUANTIZE[int(str(quantize))]]


def elsewhere(kind: str) -> str | None:
    """Why an engine is not built on this machine; None where it is, and for formats that need no GPU."""
    if not formats.FORMATS[kind].gpu:
        return None
    if not torch.cuda.is_available():
        return "an engine is built on the NVIDIA GPU that it will run on"
    packages = formats.missing(kind)
    return f"it needs {', '.join(packages)} (pip install {' '.join(packages)})" if packages else None


def possible(kinds: list[str], precisions: list[str], trained: bool = False) -> tuple[list[Variant], dict[str, str]]:
    """What can be made here, as (format, precision), and of what cannot, why.

    Args:
        kinds: names in formats.FORMATS. precisions: of `precisions_of`. trained: whether INT8 is what a training with
            quantize=8 learned, which the ONNX file of an engine carries.

    Raises:
        PruneError: nothing can.
    """
    variants: list[Variant] = []
    skipped: dict[str, str] = {}
    for kind in kinds:
        reason = elsewhere(kind)
        if reason is not None:
            skipped[kind] = (
                f"format={kind} is not made here: {reason}. ONNX is exported, and a program beside it that builds and "
                "times the engine on the device"
            )
            if "int8" in precisions and not trained:
                skipped[f"{kind} int8"] = (
                    f"format={kind} has no INT8 here: that program builds FP16. On the device the host calibrates it, "
                    f"yolo export model=best.pt format={kind} quantize=8 data=my.yaml, or train it in: prune_qat=5"
                )
            continue
        for precision in precisions:
            packages = formats.missing(kind, precision)
            if precision not in formats.FORMATS[kind].precisions:
                skipped[f"{kind} {precision}"] = f"format={kind} has no {precision.upper()} in ultralytics: left out"
            elif packages:
                shown = kind if precision == "fp32" else f"{kind} in {precision.upper()}"
                skipped[f"{kind} {precision}"] = (
                    f"format={shown} needs {', '.join(packages)}, so it is left out: pip install {' '.join(packages)}"
                )
            else:
                variants.append((kind, precision))
    if not variants and ("engine" not in skipped or formats.missing("onnx")):
        raise PruneError(" | ".join(skipped.values()))
    return variants, skipped


def possible_of_trained(
    kinds: list[str], model: Path, with_fp32: bool, quantize: int | None, data: object
) -> tuple[list[Variant], dict[str, str]]:
    """The same for a model that was trained with quantize=8, which is exported in INT8 alone.

    Args:
        kinds: the formats that were asked for. model: its file. with_fp32: whether FP32 is made as well, of a dense
            model that was trained without. quantize, data: as of `job.export`.

    Raises:
        PruneError: nothing can be made, or the arguments do not fit such a model.
    """
    if quantize not in (None, 8):
        raise PruneError(
            f"quantize={quantize}: {model} was trained with quantize=8 and is exported in INT8 alone; leave it out"
        )
    if data is None:
        raise PruneError(f"{model} was trained with quantize=8, and INT8 is proven by its metric: name data=")
    able = [kind for kind in kinds if formats.FORMATS[kind].trained]
    if not able:
        names = " and ".join(name for name, one in formats.FORMATS.items() if one.trained)
        raise PruneError(f"format={','.join(kinds)}: {model} was trained with quantize=8, which only {names} can hold")
    variants, skipped = possible(able, ["fp32", "int8"] if with_fp32 else ["int8"], trained=True)
    for kind in kinds:
        if kind not in able:
            skipped[kind] = f"format={kind} cannot hold what a training with quantize=8 learned: left out"
    return variants, skipped
