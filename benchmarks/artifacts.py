# yolo-prune, AGPL-3.0 license
"""FP32 artifacts of every supported family and task, pruned, in every runtime that is installed, compared with torch.

    python benchmarks/artifacts.py [formats=onnx,openvino,ncnn,mnn,torchscript,litert] [imgsz=160] [yolov8n.yaml ...]

Random weights, cut to 60% of the FLOPs, BatchNorms calibrated, a process for each model; the smallest scale of each
row of the support table. A cell is the largest difference of raw outputs as a share of their range, and how many of
torch's final boxes (classes, pixels) the artifact has: what `yolo-prune export` compares. Prints a markdown table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FORMATS = "onnx,openvino,ncnn,mnn,torchscript,litert"
LARGE = ("yolov3u.yaml", "rtdetr-l.yaml")  # their families have a smaller row
LIMIT = 600  # seconds that one model may take


def calibrate(network: Any, images: Any) -> None:
    """Give BatchNorms the statistics of these images, and classes that differ: a fresh head puts out a constant."""
    import torch
    from torch import nn

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        network(images)
    network.eval()
    for norm, was in zip(norms, momentum, strict=True):
        norm.momentum = was
    head = network.model[-1]
    for tower in [*(getattr(head, "cv3", None) or ()), *(getattr(head, "one2one_cv3", None) or ())]:
        nn.init.normal_(tower[-1].weight, std=0.3)
        nn.init.constant_(tower[-1].bias, -1.0)


def one(name: str, formats: str, imgsz: int) -> dict[str, str]:
    """Format -> what came of one model."""
    import torch
    from ultralytics import RTDETR, YOLO

    import yolo_prune
    from yolo_prune.errors import VerifyError
    from yolo_prune.export import job
    from yolo_prune.host import samples

    torch.manual_seed(0)
    network = (RTDETR if "rtdetr" in name else YOLO)(name).model
    network.names = {index: f"class {index}" for index in range(len(network.names))}
    yolo_prune.prune(network, flops="60%")
    calibrate(network, samples.without_data(3, imgsz, 8).images)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "best.pt")
        torch.save({"model": network.half(), "train_args": {"imgsz": imgsz}}, path)
        try:
            told = job.export(path, format=formats, imgsz=imgsz, images=4, repeats=2)
        except VerifyError:
            told = json.loads(path.with_name("export.json").read_text())
    cells = {key.partition(" ")[0]: "-" for key in told["skipped"]}
    cells |= {key.partition(" ")[0]: words.replace("|", "/") for key, words in told["failed"].items()}
    for row in told["rows"]:
        if row["parity"] is None:
            continue
        found = row["parity"]
        worst = max(found[key] or 0.0 for key in ("box_relative", "score_relative", "rest_relative"))
        edge = f" + {found['borderline']}" if found["borderline"] else ""
        same = f", {found['matched']}{edge} of {found['boxes']} {found['what']}" if found["boxes"] else ""
        cells[row["format"]] = f"{worst:.0e}{same}" if found["passed"] else f"**{'; '.join(found['faults'])}**"
    return cells


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    formats, imgsz = options.get("formats", FORMATS), int(options.get("imgsz", 160))
    names = [word for word in sys.argv[1:] if "=" not in word]
    if "--one" in names:
        (name,) = (word for word in names if word != "--one")
        print("CELLS " + json.dumps(one(name, formats, imgsz)))
        return
    if not names:
        from yolo_prune.recipe import support

        names = [row.file for row in support.ROWS if row.file not in LARGE]
    kinds = formats.split(",")
    print(f"| model | {' | '.join(kinds)} |\n| --- | {' | '.join('---' for _ in kinds)} |", flush=True)
    for name in names:
        words = [sys.executable, __file__, "--one", name, f"formats={formats}", f"imgsz={imgsz}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT)
        lines = [line for line in done.stdout.splitlines() if line.startswith("CELLS ")]
        if not lines:
            print(f"| {name.removesuffix('.yaml')} | {done.stderr.strip().splitlines()[-1]} |", flush=True)
            continue
        cells = json.loads(lines[-1].removeprefix("CELLS "))
        print(f"| {name.removesuffix('.yaml')} | {' | '.join(cells.get(kind, '') for kind in kinds)} |", flush=True)


if __name__ == "__main__":
    main()
