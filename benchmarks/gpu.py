# yolo-prune, AGPL-3.0 license
"""Everything that only a GPU can show, in one command and at most nine minutes.

    python benchmarks/gpu.py [device=0] [budget=540] [only=amp,latency] [limits=1]
                             [out=benchmarks/results/gpu-....json] [--quick]

Each part is a process of its own with a time limit of its own, so that a fault, a hang or a poisoned CUDA context in
one never stops the next; parts for which no time is left are said to be left out. What was found is written after each
part. `limits=4` makes all limits four times as long, for a card that does other work beside. `device=cpu --quick` runs
the same parts small, which is how the suite knows that this program works; what needs CUDA (AMP, fused AdamW,
channels_last, CUDA latency) is then run without it, and says so.

A part is "ok", "wrong" (it ran, and what it should show does not hold: `faults`), "failed" (an exception: `error`),
"late" (its limit passed), "skipped" (with the reason) or "left out". Exit code 0 where none is wrong, failed or late.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_parts import PARTS, ROOT, Settings, SkipError, shared

for _module in ("gpu_trainings", "gpu_latency"):  # they add their parts, in this order
    importlib.import_module(_module)

CHILD = "part"  # the word that makes this file one part
# What matters most comes first, for the budget may end before the list does; the other parts follow as they stand.
FIRST = ("dense", "amp", "skipped_step", "channels_last", "going_back", "out_of_memory", "nan_recovery", "latency")
SLOW_CPU = 5  # times the limits, where there is no GPU


def attempt(name: str, settings: Settings) -> dict[str, Any]:
    """Run one part here: what it found, with its status."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    try:
        found = PARTS[name][0](settings)
    except SkipError as reason:
        return {"status": "skipped", "reason": str(reason)}
    except Exception as error:  # whatever it is, it is this part's result
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
    return {"status": "wrong" if found["faults"] else "ok", **found}


def child(words: list[str]) -> None:
    """The process of one part."""
    name, out, text = words
    given = json.loads(text)
    import ultralytics.engine.trainer as host
    from ultralytics.utils import WEIGHTS_DIR

    # The host's own check of AMP loads this file, and without a network it can come from nowhere else.
    if not (WEIGHTS_DIR / "yolo26n.pt").is_file():
        host.check_amp = lambda model: next(model.parameters()).device.type == "cuda"
    found = attempt(name, Settings(**{**given, "folder": Path(given["folder"])}))
    Path(out).write_text(json.dumps(found), encoding="utf-8")


def in_its_process(name: str, settings: Settings, limit: float) -> dict[str, Any]:
    """Run one part in a process group of its own, killed whole when its time is over."""
    folder = settings.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "found.json"
    text = json.dumps({**settings._asdict(), "folder": str(folder)})
    environment = {**os.environ, "YOLO_OFFLINE": "True", "PYTHONPATH": os.pathsep.join([str(ROOT), *_own_path()])}
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, CHILD, name, str(out), text],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"status": "late", "limit": round(limit), "log": _end(folder / "log")}
    if not out.is_file():
        return {
            "status": "failed",
            "error": f"the process ended with {process.returncode}",
            "log": _end(folder / "log"),
        }
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {**found, "log": _end(folder / "log")} if found["status"] in ("failed", "wrong") else found


def _own_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


def machine() -> dict[str, Any]:
    """What this runs on."""
    import torch
    import ultralytics

    told = {"python": platform.python_version(), "torch": torch.__version__, "ultralytics": ultralytics.__version__}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        told.update(card=card.name, memory_gib=round(card.total_memory / 2**30), cuda=torch.version.cuda)
    return told


def small_set(folder: Path, quick: bool) -> str:
    """The `data=` file: BCCD where it is at hand, else drawn images."""
    import yaml

    from yolo_prune.demo import dataset

    source = None if quick else shared("datasets/bccd")
    if source is None:
        counts = {"images": 4, "val": 2, "imgsz": 64} if quick else {"images": 256, "val": 64, "imgsz": 320}
        return str(dataset.make(folder / "data", **counts))
    data = yaml.safe_load(next(iter(sorted(source.glob("*.yaml")))).read_text(encoding="utf-8"))
    data.update(path=str(source))
    data.pop("download", None)
    (folder / "bccd.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(folder / "bccd.yaml")


def main(words: list[str]) -> int:
    """Run the parts within the budget; 0 where none is wrong, failed or late."""
    import torch

    quick = any(word.lstrip("-") == "quick" for word in words)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    device = given.get("device", "0")
    names = given["only"].split(",") if "only" in given else [*FIRST, *(name for name in PARTS if name not in FIRST)]
    unknown = [name for name in names if name not in PARTS]
    if unknown or set(given) - {"device", "budget", "only", "limits", "out"}:
        print(f"unknown: {', '.join([*unknown, *set(given)])}; parts are {', '.join(PARTS)}")
        return 2
    if device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device is at hand; try the program itself with: python benchmarks/gpu.py device=cpu --quick")
        return 2
    start, budget = time.monotonic(), float(given.get("budget", 540))
    limits = float(given.get("limits", 1)) * (1 if device != "cpu" else SLOW_CPU)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = Path(given.get("out", ROOT / "benchmarks" / "results" / f"gpu-{stamp}.json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {"device": device, "quick": quick, "machine": machine(), "parts": {}}
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        settings = Settings(device, quick, folder, small_set(folder, quick), "")
        for name in names:
            left = budget - (time.monotonic() - start)
            begun = time.monotonic()
            found = (
                in_its_process(name, settings, min(left, PARTS[name][1] * limits))
                if left > 5
                else {"status": "left out", "reason": f"the {budget:.0f} s are over"}
            )
            told["parts"][name] = {**found, "wall": round(time.monotonic() - begun, 1)}
            told["seconds"] = round(time.monotonic() - start, 1)
            out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            words_of = found.get("faults") or found.get("error") or found.get("reason") or ""
            print(f"{name:24} {found['status']:8} {told['parts'][name]['wall']:6.1f} s  {words_of}", flush=True)
            if (folder / "dense" / "dense.pt").is_file():
                settings = settings._replace(dense=str(folder / "dense" / "dense.pt"))
    print(f"{told['seconds']:.0f} s; {out}")
    bad = [name for name, found in told["parts"].items() if found["status"] in ("wrong", "failed", "late")]
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
