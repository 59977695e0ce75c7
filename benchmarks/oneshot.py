# yolo-prune, AGPL-3.0 license
"""How much one cut leaves, before any training: importances, scopes and what makes up for the cut, on one checkpoint.

    python benchmarks/oneshot.py best.pt data.yaml [imgsz=320] [left=0.7,0.5,0.25] [importance=l2,fpgm,obdc]
                                 [scope=uniform,global] [part=none,bias,bn,weights]

The images that gradients, statistics and weights are fitted on are of the training split, as `yolo-prune apply data=`
takes them; mAP50-95 is that of the validation split. Prints a markdown table.
"""

from __future__ import annotations

import logging
import sys
import time
from copy import deepcopy
from typing import Any

from ultralytics import YOLO
from ultralytics.utils import LOGGER

import yolo_prune
from yolo_prune.host import checkpoint

PARTS = "none,bias,bn,weights"


def main() -> None:
    weights, data = sys.argv[1:3]
    options = dict(word.split("=", 1) for word in sys.argv[3:])
    imgsz = int(options.get("imgsz", 320))
    parts = options.get("part", PARTS).split(",")
    LOGGER.setLevel(logging.ERROR)
    dense, _ = checkpoint.load(weights)
    print(f"| FLOPs left | importance | scope | {' | '.join(parts)} | seconds |")
    print(f"| --- | --- | --- | {'--- | ' * len(parts)}--- |")
    for left in map(float, options.get("left", "0.7,0.5,0.25").split(",")):
        for importance in options.get("importance", "l2,fpgm,obdc").split(","):
            for scope in options.get("scope", "uniform,global").split(","):
                found = []
                for part in parts:
                    yolo = YOLO(weights)
                    yolo.model = deepcopy(dense)
                    yolo.val = lambda **_: type("Result", (), {"fitness": 0.0})()  # prune's own, before and after
                    start = time.perf_counter()
                    settings: dict[str, Any] = {"importance": importance, "scope": scope, "reconstruct": part}
                    yolo_prune.prune(yolo, flops=f"{100 * left:g}%", data=data, imgsz=imgsz, **settings)
                    seconds = time.perf_counter() - start
                    del yolo.val
                    result = yolo.val(data=data, imgsz=imgsz, plots=False, verbose=False, workers=0)
                    found.append(f"{result.box.map:.3f}")
                print(f"| {left:.0%} | {importance} | {scope} | {' | '.join(found)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
