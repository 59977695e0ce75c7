# yolo-prune, AGPL-3.0 license
"""What fuzz.py makes its cases of: values, misspelt words, garbled bytes, damaged JSON, files to begin with."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO

from yolo_prune.cost import layer_shapes, profile_format
from yolo_prune.graph import channel_groups
from yolo_prune.planning import sensitivity
from yolo_prune.recipe.settings import Settings

# Values that programs stumble over, of every type that YAML, JSON, Python and a command line bring.
TEXTS = [
    *("", " ", "\t", "\n", "50%", "0%", "100%", "1e3%", "4.0G", "-1G", "1e999G", "12ms", "2:4", "4:2", "0:0", "1:30"),
    *("010", "0x1F", "0o17", "1_000", "yes", "no", "on", "off", "~", "null", ".inf", "-.inf", ".nan", "1e1", "NaN"),
    *("2024-01-01", "2024-13-45", "a.yaml", ".", "..", "/", "~", "balanced", "balance", "auto", "l2", "obdc", "global"),
    *("é", "\u2028", "\U0001f600", "\x00", "\x1b[31m", "x" * 5000, "9" * 400, "9" * 5000, "{0}", "[", "%", ":", "#"),
    *("!!int abc", "!!python/object:os.system x", "*a", "&a b", "{a: b}", "[model.0]", "<<", "- x", "? x", "|", "'"),
]
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 8, 0.5, -0.5, 1.0, 0.999999999, 1e-320, 1e300, -1e300, float("inf"), float("nan"), 2**31, 2**63),
    *(10**400, -(10**400), 5, 100, 4096, 10_000, 1.5, True, False, None),
]
NAMES = [*("recipe", "data", "imgsz", "out", "safe", "prune"), *Settings.model_fields]
# What is legal by itself, so that values meet that do not go together.
LEGAL: dict[str, list[Any]] = {
    "flops": ["50%", "4.0G", "99.9%", "1k", "50% and 4.0G", "1e-5%"],
    "params": ["60%", "1.5M", ".5M"],
    "latency": ["60%", "12ms", "1us", "1s"],
    "size": ["60%", "1.5MB", "900kB", "1B"],
    "importance": ["l1", "l2", "taylor", "obdc", "mine"],
    "scope": ["uniform", "global", "latency", "isomorphic"],
    "schedule": ["oneshot", "linear", "cubic"],
    **{key: [0, 0.0, 0.1, 0.5, 1, 1.0] for key in ("start", "end", "depth", "heads", "max_cut", "max_drop")},
    **{key: [1, 2, 8, 4096, 10_000] for key in ("steps", "round", "min_channels")},
    "reconstruct": ["none", "bias", "bn", "weights"],
    **{key: [0, 0.5, 1, 100] for key in ("warmup", "distill_outputs", "regularize_strength")},
    "regularize": ["none", "bn", "group", "growing"],
    "sparsity": ["2:4", "0.5", 0.5, 0.999999999, 5e-324, "1:64"],
    "restart_lr": [True, False],
    "check_latency": [True, False],
    "nbs": [1, 16, 64],
    "ema": [0, 0.1, 0.5],
    **{key: ["a.json", "none"] for key in ("profile", "sensitivity")},
    "format": ["onnx", "ncnn"],
    "precision": ["fp32", "fp16"],
    "protect": [[], ["model.0"], ["model.*", "x"]],
    "qat": [1, 3],
    "deploy": [[], ["onnx"], ["onnx", "ncnn"]],
    "recipe": ["auto", "balanced", "oneshot", "gentle", 0.5, 1e-9, 1 - 1e-12],
    "imgsz": [1, 64, 320],
}


SIGNS = [b"[", b"{", b"- ", b"&a ", b"*a", b"!!", b'"\\U', b"? ", b": ", b"\r", b"\t"]


def anything(rng: random.Random, depth: int = 0) -> Any:
    """A value of any type."""
    kinds = ("text", "number", "number", *(() if depth > 2 else ("list", "dict")))
    kind = rng.choice(kinds)
    if kind == "text":
        return rng.choice(TEXTS)
    if kind == "number":
        return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.uniform(-2, 2)
    if kind == "list":
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(anything(rng, 3)): anything(rng, depth + 1) for _ in range(rng.randrange(3))}


def setting(rng: random.Random, name: str) -> Any:
    """A value for a setting, mostly one that is legal by itself."""
    return rng.choice(LEGAL[name]) if name in LEGAL and rng.random() < 0.8 else anything(rng)


def misspelt(rng: random.Random, word: str) -> str:
    """A word with a letter more, less, or another one."""
    at = rng.randrange(len(word) + 1)
    return word[:at] + rng.choice(["", "x", "_", "-", "É"]) + word[at + rng.randrange(2) :]


def garbled(rng: random.Random, raw: bytes) -> bytes:
    """Bytes with some lost, doubled, changed, cut off, or of another encoding."""
    for _ in range(rng.randrange(1, 6)):
        at, size = rng.randrange(len(raw) + 1), rng.randrange(1, 40)
        raw = rng.choice(
            [
                raw[:at],
                raw[:at] + raw[at + size :],
                raw[:at] + raw[at : at + size] * 3 + raw[at + size :],
                raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :],
                raw[:at] + rng.choice(TEXTS).encode("utf-8", "replace") + raw[at:],
                raw[:at] + rng.choice(SIGNS) * rng.choice([1, 50, 2000]) + raw[at:],
            ]
        )
    return rng.choice([raw] * 8 + [b"\xef\xbb\xbf" + raw, raw.decode("utf-8", "replace").encode("utf-16")])


def damaged(rng: random.Random, content: Any) -> Any:
    """JSON content with values replaced, removed, or moved, at any depth."""
    content = copy.deepcopy(content)
    for _ in range(rng.randrange(1, 4)):
        inner, key = content, None
        while isinstance(inner, (dict, list)) and inner and (key is None or rng.random() < 0.75):
            parent, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            inner = parent[key]
        if key is None:
            return anything(rng)
        if rng.random() < 0.2:
            del parent[key]
        elif isinstance(parent, dict) and rng.random() < 0.1:
            parent[misspelt(rng, str(key))] = parent.pop(key)
        else:
            numeric = isinstance(inner, (int, float)) and rng.random() < 0.8
            near = [*NUMBERS, *(inner * 10.0**power for power in range(-12, 13))] if numeric else []
            parent[key] = rng.choice(near) if numeric else anything(rng)
    return content


def made_up_profile(network: Any) -> dict[str, Any]:
    """The content of a profile of a device that nobody has, for the layers of a model."""
    rows = [layer.row for layer in layer_shapes.layers_of(network, 320, False)]
    error = {"mean": 1.0, "largest": 2.0, "count": 4}
    return {
        "kind": profile_format.KIND,
        "version": profile_format.VERSION,
        "yolo_prune": "0",
        "model": "yolov8n",
        "format": "onnx",
        "precision": "fp32",
        "imgsz": 320,
        "batch": 1,
        "threads": 1,
        "end2end": False,
        "dense_ms": 12.0,
        "dense_ms_between": [11.0, 13.0],
        "steps": {"out": 8, "inp": 1, "tail": 0.1},
        "kinds": {row.kind: [1e-6 * row.area / 1e3, 1e-4, 1e-4, 1e-2] for row in rows},
        "network": [1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.2],
        "error": {"shapes": error, "networks": error},
        "machine": {"name": "made up", "cores": 4},
        "versions": {"onnxruntime": "1"},
        "when": "2024-01-01 00:00:00 UTC",
        "measured": {"networks": [{"rows": [], "held_out": False, "ms": 12.0}]},
    }


def made_up_sensitivity(groups: channel_groups.ChannelGraph) -> dict[str, Any]:
    """The content of a sensitivity file for the groups of a model."""
    own: dict[str, Any] = {}
    for group in groups.groups:
        own.setdefault(group.tie or group.name, group)
    rows = {g.name: {"size": g.size // g.times, "losses": [0.1, 0.5], "weight": 1.0} for g in own.values()}
    return {"kind": sensitivity.KIND, "loss": 3.0, "shares": [0.25, 0.5], "groups": rows, "images": 16}


def json_files(rng: random.Random, count: int, content: Any) -> Iterator[tuple[bytes, str]]:
    whole = json.dumps(content, indent=1).encode()
    for _ in range(count):
        raw = garbled(rng, whole) if rng.random() < 0.25 else dumped(damaged(rng, content))
        yield raw, f"{len(raw)} bytes: {raw[:120]!r} ... {raw[-60:]!r}"


def dumped(content: Any) -> bytes:
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(content).encode("utf-8", "replace")
    finally:
        sys.set_int_max_str_digits(4300)


def models_in(folder: Path) -> list[str]:
    """Names of files that are models, or say so."""
    yolo = YOLO("yolov8n.yaml")
    yolo.save(folder / "best.pt")
    whole = (folder / "best.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 3])
    (folder / "flipped.pt").write_bytes(whole[:5000] + b"\xff" * 64 + whole[5064:])
    (folder / "empty.pt").touch()
    (folder / "text.pt").write_text("not a model\n" * 40)
    (folder / "folder.pt").mkdir()
    held = {"list": [1], "tensor": torch.zeros(3), "dict": {"a": 1}, "odd": {"model": torch.zeros(3), "ema": [1]}}
    for name, content in {**held, "state": yolo.model.state_dict(), "layer": {"model": torch.nn.Linear(1, 1)}}.items():
        torch.save(content, folder / f"{name}.pt")
    (folder / "best.onnx").write_bytes(b"\x08\x07" + bytes(40))
    for name, files in {"best_ncnn_model": ("a.param", "a.bin"), "best_openvino_model": ("a.xml", "a.bin")}.items():
        (folder / name).mkdir()
        for file in (*files, "metadata.yaml"):
            (folder / name / file).write_text("task: detect\nnames: {0: a}\nimgsz: 2024-99-99\n")
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".yaml")
    return [str(folder / name) for name in names] + ["best.pt", "missing.pt", ".", "2024", "None", "0", "yolov8n.yaml"]
