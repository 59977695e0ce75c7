# yolo-prune, AGPL-3.0 license
"""Write the demo set: `python datasets/make_demo.py out=my-demo [images= val= imgsz= seed=]`."""

from __future__ import annotations

import sys

from yolo_prune.cli import parse
from yolo_prune.demo.dataset import make
from yolo_prune.errors import PruneError

if __name__ == "__main__":
    try:
        asked = parse("make_demo.py", sys.argv[1:], ["out", "images", "val", "imgsz", "seed"])
        if "out" not in asked:
            raise PruneError("make_demo.py: out= is missing. Try: python datasets/make_demo.py out=my-demo")
        print(make(str(asked.pop("out")), **asked))
    except PruneError as error:
        sys.exit(f"yolo-prune: {error}")
