# yolo-prune, AGPL-3.0 license
"""Does a bundle find the same boxes on arm64 as here? Its processor is emulated, so this says nothing about speed.

    python benchmarks/arm64.py bundle=best.onnx-bundle images=folder [root=arm64-root] [suite=bookworm] [conf=0.1]

On a Debian or Ubuntu with the packages debootstrap and qemu-user-static, as root (debootstrap wants that). A Debian for
arm64 with Python is made in root=, or used where one is there, the bundle's requirements are installed by its own pip,
which reads this machine's configuration of pip, and detect.py runs in it and here, each with one thread. Nothing is
mounted, nothing is registered with the kernel: qemu looks up every path in root= first. Exit code 1 where boxes differ.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

QEMU, PROCESSOR = "qemu-aarch64-static", "cortex-a76"  # of a Raspberry Pi 5
# Not the last digit: ncnn computes in fp16 on arm64 and in fp32 on x86, OpenVINO in fp32 there and in bf16 on some x86.
IOU, SCORE = 0.95, 0.02
MOST = 900  # seconds that a command may take

CORTEX_A76 = """\
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    given = {"root": "arm64-root", "suite": "bookworm", "conf": "0.1", **dict(word.split("=", 1) for word in words)}
    if not {"bundle", "images"} <= set(given):
        sys.exit(__doc__)
    for tool in ("debootstrap", QEMU):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install debootstrap qemu-user-static")
    root, bundle = Path(given["root"]).resolve(), Path(given["bundle"]).resolve()
    if not (root / "usr/bin/python3").exists():
        make_root(root, given["suite"])
    with tempfile.TemporaryDirectory(prefix="yolo-prune-arm64-") as scratch:
        packages = Path(scratch) / "packages"
        there = [QEMU, "-cpu", PROCESSOR, "-L", str(root), str(root / "usr/bin/python3")]
        pip = ["-m", "pip", "install", "-q", "--only-binary=:all:", "--target", str(packages)]
        run("pip install on arm64", [*there, *pip, "-r", str(bundle / "requirements.txt")])
        print("installed:", ", ".join(sorted(found.name for found in packages.glob("*.dist-info"))))
        words = [f"source={given['images']}", f"conf={given['conf']}", "threads=1"]
        results = {}
        for name, python, path in (("here", [sys.executable], ""), ("arm64", there, str(packages))):
            out = Path(scratch) / name
            run(f"detect.py, {name}", [*python, str(bundle / "detect.py"), *words, f"save={out}"], PYTHONPATH=path)
            results[name] = json.loads((out / "boxes.json").read_text(encoding="utf-8"))
    return compare(results["here"], results["arm64"])


def make_root(root: Path, suite: str) -> None:
    """Unpack a small Debian for arm64. No package's own scripts run: Python needs none of them."""
    packages = "--include=python3,python3-pip"
    run("debootstrap", ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", packages, suite, str(root)])
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], input=unpacked.stdout, check=True)
    # ONNX Runtime reads which processor it runs on, and dies at its import (1.32) where that file is of an x86 one.
    proc = root / "proc"
    if proc.is_symlink():  # debootstrap's, to this machine's /proc
        proc.unlink()
    proc.mkdir(exist_ok=True)
    processors = (f"processor\t: {number}\n{CORTEX_A76}\n" for number in range(os.cpu_count() or 1))
    (proc / "cpuinfo").write_text("".join(processors), encoding="ascii")


def run(what: str, words: list[str], **environment: str) -> None:
    """Run a command, say how long it took, and stop where it failed."""
    began = time.time()
    try:
        done = subprocess.run(words, env={**os.environ, **environment}, check=False, timeout=MOST)
    except subprocess.TimeoutExpired:
        sys.exit(f"{what}: no end after {MOST} s; qemu hangs now and then, run it again")
    if done.returncode:
        sys.exit(f"{what}: ended with code {done.returncode}")
    print(f"{what}: {time.time() - began:.0f} s", flush=True)


def compare(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> int:
    """Print how far the boxes of two runs are apart; 1 where a box has no partner, or it is too far off."""
    faults, least, most, count = [], 1.0, 0.0, 0
    for left, right in zip(here, there, strict=True):
        rest = list(right["boxes"])
        for box in left["boxes"]:
            same = [other for other in rest if other["class"] == box["class"]]
            partner = max(same, key=lambda other: overlap(box["box"], other["box"]), default=None)
            if partner is None or overlap(box["box"], partner["box"]) < IOU:
                faults.append(f"{left['source']}: {box} is not found on arm64")
                continue
            rest.remove(partner)
            count += 1
            least = min(least, overlap(box["box"], partner["box"]))
            most = max(most, abs(box["score"] - partner["score"]))
        faults.extend(f"{left['source']}: {box} is found on arm64 alone" for box in rest)
    print(f"{count} boxes on {len(here)} pictures, least IoU {least:.4f}, largest difference of a score {most:.4f}")
    print("\n".join(faults) or "the same boxes")
    return 1 if faults or most > SCORE else 0


def overlap(a: list[float], b: list[float]) -> float:
    """Return the IoU of two boxes."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared, 1e-9)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
