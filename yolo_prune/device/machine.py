# yolo-prune, AGPL-3.0 license
"""What the machine is that something is measured on. Runs on the device too (probe_kit.py packs it): Python 3.8."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def this_machine() -> dict[str, Any]:
    """What this machine says of itself; cores are those that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "name": _board() or _processor() or _apple() or platform.processor() or "unknown",
        "cores": cores,
    }


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


@functools.lru_cache(maxsize=1)
def _apple() -> str:
    """What macOS calls its processor, such as "Apple M2 Pro"; `platform.processor` says "arm" there."""
    if platform.system() != "Darwin":
        return ""
    asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
