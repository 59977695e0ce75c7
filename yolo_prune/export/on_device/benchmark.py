# yolo-prune, AGPL-3.0 license
"""How fast is the network beside this file on this device? Alone, and with all that detect.py does to a picture.

    python benchmark.py [threads=4] [repeats=50] [seconds=60] [image=photo.jpg] [beside=../dense-bundle]

It needs what detect.py needs. Without image= a picture of noise is measured, on which next to nothing is found.
beside= is the bundle of another network, of the dense one for example: the two take turns (a b b a), and the median of
the ratios says how many times as fast this one is. Rounds go on until that, or without beside= the median, is known to
3%, for seconds= at most; where it is not known by then, that is said, and the exit code is 3.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

# The file beside this one, which also says how to install numpy where it is missing.
from detect import Detector, arguments, boxes_and_times, guarded, image, np  # type: ignore[import-not-found]

WARM_UP = 5  # rounds that are not counted
NARROW = 0.03  # half-width of an interval, as a share of its median, below which a figure is known
TELL = 15  # seconds between two lines that say how far it is
OUTSIDE = 0.01  # how often the true median lies outside of its interval
CONF, IOU = 0.25, 0.7  # detect.py's defaults

# Bits of `vcgencmd get_throttled`; each once more 16 bits higher, for what has happened since the start.
THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def main(words: list[str]) -> int:
    """Measure and print; returns the exit code."""
    given = arguments(words, {"threads": None, "repeats": 50, "seconds": 60, "image": "", "beside": ""})
    detectors = [Detector(Path(__file__).resolve().parent, given["threads"])]
    if given["beside"]:
        detectors.append(Detector(Path(given["beside"]), given["threads"]))
    if given["image"]:
        picture, what = image(Path(given["image"])), given["image"]
    else:
        picture, what = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8), "noise"
    differ = other_size(detectors)
    if differ:
        print(differ, flush=True)
    times = measure(detectors, picture, given["repeats"], given["seconds"])
    print(f"machine     {machine()}")
    for number, detector in enumerate(detectors):
        name = "beside" if number else "network"
        print(f"{name:12}{detector.artifact} ({detector.format}), {detector.width} x {detector.height}")
    print(f"measured    {times.shape[1]} times after {WARM_UP}, {detectors[0].threads} thread(s), picture: {what}")
    print(f"{'ms':12}{'median':>9}{'p10':>9}{'p90':>9}")
    for number in range(len(detectors)):
        for name, part in (("inference", times[number, :, 1]), ("whole", times[number].sum(1))):
            figures = "".join(f"{value:9.2f}" for value in np.percentile(part, (50, 10, 90)))
            print(f"{name:12}{figures}{'  beside' * number}")
    print(f"{1e3 / np.median(times[0].sum(1)):.1f} frames per second")
    good = verdict(times)
    if differ:
        print(differ)
    for line in board_state():
        print(line)
    return 0 if good else 3


def other_size(detectors: list[Detector]) -> str:
    """What to be told of two networks whose images are of two sizes; empty of others."""
    sizes = [f"{detector.width} x {detector.height}" for detector in detectors]
    if len(set(sizes)) < 2:
        return ""
    return (
        f"THE IMAGES ARE NOT OF ONE SIZE: this network takes {sizes[0]} pixels, the one beside it {sizes[1]}. The "
        "ratio is of networks and sizes together; for the networks alone export both with one imgsz="
    )


def verdict(times: Any) -> bool:
    """Say how many times as fast the first network is, or that it is not known; whether it is known."""
    low, median, high = figure(times)
    good = known(low, median, high)
    if len(times) > 1:
        words = f"{median:.2f} times as fast as beside" if good else "too noisy to tell which is faster"
        print(f"inference   {words} (99% interval {low:.2f} to {high:.2f})")
    if not good:
        print("THE MACHINE WAS TOO BUSY: stop what else runs, or give more seconds=")
    return good


def figure(times: Any) -> tuple[float, float, float]:
    """What is to be known, with its interval: low, median, high.

    Args:
        times: of `measure`. Of one network its milliseconds of inference, of two how many times as fast the first is.
    """
    inference = times[:, :, 1]
    if len(times) == 1:
        return interval(inference[0])
    whole = inference.shape[1] // 2 * 2  # two turns, the second in the reverse order, are one ratio
    sums = inference[:, :whole].reshape(2, -1, 2).sum(2)
    return interval(sums[1] / np.maximum(sums[0], 1e-12)) if whole else (0.0, 1.0, float("inf"))


def measure(detectors: list[Detector], picture: Any, repeats: int, seconds: float) -> Any:
    """Time networks in turns, every second turn in the reverse order.

    Returns:
        (networks, turns, 3) milliseconds before, in and after the network.
    """
    rows: list[list[list[float]]] = [[] for _ in detectors]
    turn, look, began = 0, WARM_UP + repeats, time.monotonic()
    said = began
    while turn < look:
        order = range(len(detectors))
        for at in order if turn % 2 == 0 else reversed(order):
            took = boxes_and_times(detectors[at], picture, CONF, IOU)[1]
            if turn >= WARM_UP:
                rows[at].append(took)
        turn += 1
        now = time.monotonic()
        if turn == WARM_UP:
            first = (now - began) / WARM_UP * repeats
            print(f"measuring   about {first:.0f} s; at most {max(first, seconds):.0f} s, where not quiet", flush=True)
        elif now - said >= TELL:
            said = now
            print(f"measuring   {turn - WARM_UP} turns in {now - began:.0f} s", flush=True)
        if turn == look and not known(*figure(np.array(rows))) and time.monotonic() - began < seconds:
            look += 10
    return np.array(rows)


def interval(values: Any) -> tuple[float, float, float]:
    """The median of values (n,) and the interval that holds the true one with 99%: low, median, high.

    By the binomial law, whatever the law of the values; with fewer than 8 nothing is known: 0 and infinity.
    """
    ordered, median = np.sort(values), float(np.median(values))
    n, below, outside, one = len(ordered), 0, 0, 1
    most = 2**n // round(1 / OUTSIDE)  # in whole numbers: no float is as large as 2**1024
    while 2 * (outside + one) <= most and below < n // 2:
        outside += one
        one = one * (n - below) // (below + 1)
        below += 1
    if not below:
        return 0.0, median, float("inf")
    return float(ordered[below - 1]), median, float(ordered[n - below])


def known(low: float, median: float, high: float) -> bool:
    """Whether an interval is so narrow that its median counts as known."""
    return (high - low) / 2 <= NARROW * median


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
