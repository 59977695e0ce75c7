# yolo-prune, AGPL-3.0 license
"""How fast is the network beside this file on this device? Alone, and with all that detect.py does to a picture.

    python benchmark.py [threads=4] [repeats=50] [image=photo.jpg]

It needs what detect.py needs. Without image= a picture of noise is measured, on which next to nothing is found.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

# The file beside this one, which also says how to install numpy where it is missing.
from detect import Detector, arguments, guarded, image, np, timed  # type: ignore[import-not-found]

WARM_UP = 5  # rounds that are not counted
CONF, IOU = 0.25, 0.7  # detect.py's defaults

# Bits of `vcgencmd get_throttled`; each once more 16 bits higher, for what has happened since the start.
THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def main(words: list[str]) -> int:
    """Measure and print; returns the exit code."""
    given = arguments(words, {"threads": None, "repeats": 50, "image": ""})
    detector = Detector(Path(__file__).resolve().parent, given["threads"])
    if given["image"]:
        picture, what = image(Path(given["image"])), given["image"]
    else:
        picture, what = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8), "noise"
    times = measure(detector, picture, given["repeats"])
    print(f"machine     {machine()}")
    print(f"network     {detector.artifact} ({detector.format}), {detector.width} x {detector.height}")
    print(f"measured    {given['repeats']} times after {WARM_UP}, {detector.threads} thread(s), picture: {what}")
    print(f"{'ms':12}{'median':>9}{'p10':>9}{'p90':>9}")
    for name, part in (("inference", times[:, 1]), ("whole", times.sum(1))):
        print(f"{name:12}" + "".join(f"{value:9.2f}" for value in np.percentile(part, (50, 10, 90))))
    print(f"{1e3 / np.median(times.sum(1)):.1f} frames per second")
    for line in board_state():
        print(line)
    return 0


def measure(detector: Detector, picture: Any, repeats: int) -> Any:
    """Time pictures one after the other: (repeats, 3), milliseconds before, in and after the network."""
    rows = [timed(detector, picture, CONF, IOU)[1] for _ in range(WARM_UP + repeats)]
    return np.array(rows[WARM_UP:])


def machine() -> str:
    """What this machine says of itself; cores are those that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _board() or _processor() or platform.processor() or "unknown"
    return f"{name}, {cores} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _board() -> str:
    """A single-board computer's own name, such as "Raspberry Pi 5 Model B Rev 1.0"."""
    try:
        return Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def board_state() -> list[str]:
    """Temperature, and whether the board slowed itself down; nothing where it is no Raspberry Pi."""
    lines = []
    temperature, throttled = _vcgencmd("measure_temp"), _vcgencmd("get_throttled")
    if temperature:
        lines.append(f"temperature {temperature}")
    if throttled.startswith("0x"):
        bits = int(throttled, 16)
        now = [words for bit, words in THROTTLED.items() if bits >> bit & 1]
        before = [words for bit, words in THROTTLED.items() if bits >> (bit + 16) & 1]
        lines.append(f"throttling  now: {', '.join(now) or 'none'}; since the start: {', '.join(before) or 'none'}")
        if now:
            lines.append("THE BOARD SLOWED ITSELF DOWN: the figures above are lower than what it can do")
    return lines


def _vcgencmd(word: str) -> str:
    """What the Raspberry Pi's firmware answers, behind the equals sign; empty where there is none."""
    if shutil.which("vcgencmd") is None:
        return ""
    try:
        done = subprocess.run(["vcgencmd", word], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("=")[2].strip()


if __name__ == "__main__":
    guarded("benchmark", main)
