# yolo-prune, AGPL-3.0 license
"""Do the tests hold the algorithm? Change one thing at a time in a copy of the tree, and see the tests turn red.

    python benchmarks/mutations.py [only=gates,roll_back] [out=benchmarks/results/mutations.json] [baseline=no]

Each mutation (mutation_list.py) is a fault that a reader of the diff could overlook: a constant, a sign, a line that is
gone. It names the tests that must fail for it. First these run on the tree as it is, where all must pass (`baseline=no`
leaves that out). Exit code 0 only where every mutation is killed. A text that stands in its file no more, or more than
once, is a fault of that list and said at once, before anything runs. Results are written after each mutation; those of
listed mutations that did not run now stay as the file has them, and each tells the tree that it is of.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mutation_list import MUTATIONS
from mutation_places import FILES, TESTS, Mutation

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600  # seconds for the tests of one mutation


def path_of(test: str) -> str:
    """What pytest takes for a test of a mutation."""
    key, _, name = test.partition("::")
    return TESTS[key] + (f"::{name}" if name else "")


def mutated(mutation: Mutation, root: Path) -> str:
    """The text of a mutation's file with the fault in it.

    Raises:
        ValueError: what is to be changed does not stand there, or more than once.
    """
    path = root / FILES[mutation.file]
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    count = text.count(mutation.old)
    if count != 1:
        what = "anchor not found" if count == 0 else f"anchor stands {count} times"
        raise ValueError(f"{FILES[mutation.file]}: {what}: {mutation.old!r}")
    return text.replace(mutation.old, mutation.new)


def check(mutations: tuple[Mutation, ...]) -> list[str]:
    """What is wrong with the list itself: anchors, and tests that are not there."""
    faults = []
    for mutation in mutations:
        try:
            compile(mutated(mutation, ROOT), FILES[mutation.file], "exec")
        except (ValueError, SyntaxError) as error:
            faults.append(str(error))
        if mutation.old == mutation.new:
            faults.append(f"{FILES[mutation.file]}: changes nothing: {mutation.old!r}")
        for test in mutation.tests:
            key, _, name = test.partition("::")
            file = ROOT / TESTS.get(key, "")
            if (
                key not in TESTS
                or not file.is_file()
                or (name and f"def {name.partition('[')[0]}(" not in file.read_text("utf-8"))
            ):
                faults.append(f"{FILES[mutation.file]}: no such test: {test}")
    return faults


def run(tests: list[str], root: Path, first: bool) -> tuple[int, str]:
    """Run tests of a tree: (exit code of pytest, its last line that says something)."""
    words = ["-n", "0", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *(["-x"] if first else []), *tests]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT if first else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"more than {LIMIT} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (lines or (done.stdout + done.stderr).strip().splitlines() or [""])[-1]


def copy_of(root: Path, folder: Path) -> Path:
    """The tree without its history and its caches."""
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", ".*_cache", "runs", "build", "dist", ".hypothesis", "shared"
    )
    return Path(shutil.copytree(root, folder / "tree", ignore=ignored))


def tree_of(root: Path) -> str:
    """The commit that a tree is of, "+" where files of it are changed; "" where git does not know."""
    try:
        words = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write results; of listed mutations that they have not, what the file has stays. In the order of the list."""
    before = json.loads(out.read_text(encoding="utf-8"))["mutations"] if out.is_file() else []
    last = {(row["file"], row["old"], row["new"]): row for row in [*before, *rows]}
    listed = [(FILES[m.file], m.old, m.new) for m in MUTATIONS]
    content = {"python": platform.python_version(), "mutations": [last[one] for one in listed if one in last]}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(words: list[str]) -> int:
    """Apply all mutations, or those of some files; 0 where all are killed."""
    given = dict(word.split("=", 1) for word in words)
    only = [name for name in given.get("only", "").split(",") if name]
    chosen = tuple(m for m in MUTATIONS if not only or m.file in only)
    out = Path(given.get("out", ROOT / "benchmarks" / "results" / "mutations.json"))
    faults = check(chosen)
    if faults or not chosen:
        print("\n".join(faults or [f"only={only}: known are {', '.join(FILES)}"]))
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    commit = tree_of(ROOT)
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        tree = copy_of(ROOT, Path(scratch))
        if given.get("baseline") != "no":
            code, said = run(sorted({path_of(test) for m in chosen for test in m.tests}), tree, first=False)
            if code:
                print(f"the tests do not pass on the tree as it is: {said}")
                return 2
        for mutation in chosen:
            path = tree / FILES[mutation.file]
            before, start = path.read_text(encoding="utf-8"), time.monotonic()
            path.write_text(mutated(mutation, tree), encoding="utf-8")
            code, said = run([path_of(test) for test in mutation.tests], tree, first=True)
            path.write_text(before, encoding="utf-8")
            # 1: tests failed. Anything else (2: not even collected, 124: too slow, 5: nothing ran) shows nothing.
            rows.append(
                {
                    "file": FILES[mutation.file],
                    "old": mutation.old,
                    "new": mutation.new,
                    "killed": code == 1,
                    "exit": code,
                    "by": said,
                    "tree": commit,
                    "seconds": round(time.monotonic() - start, 1),
                }
            )
            print(
                f"{'killed' if code == 1 else 'SURVIVED'} {mutation.file}: {mutation.new[:60]!r} <- {said}", flush=True
            )
            write(out, rows)
    alive = [row for row in rows if not row["killed"]]
    print(f"{len(rows) - len(alive)} of {len(rows)} mutations are killed; {out}")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
