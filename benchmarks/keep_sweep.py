# yolo-prune, AGPL-3.0 license
"""Keep what a sweep found as one small JSON of benchmarks/results, which the pictures of the docs are drawn from.

    python benchmarks/keep_sweep.py runs/sweep demo [from=PATH,to=WORD ...]

It writes results/sweep-NAME.json: front.json of the sweep, without the files of its points; the processor and the
versions beside it. `from=…,to=…` replaces a folder of this machine in the commands, such as that of the data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matrix_files

ROOT = Path(__file__).resolve().parents[1]
_FILES = ("weights", "artifact")  # of a row: they stay where they are


def kept(record: dict[str, Any], replaced: list[tuple[str, str]]) -> dict[str, Any]:
    """What front.json says, without what belongs to this machine."""
    content = {**record, "versions": matrix_files.versions(), "processor": matrix_files.processor()}
    for part in ("front", "rows"):
        content[part] = [{key: value for key, value in row.items() if key not in _FILES} for row in record[part]]
    text = json.dumps(content)
    for old, new in replaced:
        text = text.replace(json.dumps(old)[1:-1], new)
    return dict(json.loads(text))


def main(words: list[str]) -> None:
    """The command."""
    if len(words) < 2:
        raise SystemExit(__doc__)
    pairs = [word.removeprefix("from=").split(",to=", 1) for word in words[2:]]
    if any(len(pair) != 2 for pair in pairs):
        raise SystemExit("from=FOLDER,to=WORD: give both")
    record = json.loads((Path(words[0]) / "front.json").read_text(encoding="utf-8"))
    path = ROOT / "benchmarks" / "results" / f"sweep-{words[1]}.json"
    matrix_files.write(path, kept(record, [(old, new) for old, new in pairs]))
    print(f"written {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
