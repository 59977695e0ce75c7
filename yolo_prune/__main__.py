# yolo-prune, AGPL-3.0 license
"""`python -m yolo_prune`: the same as `yolo-prune`."""

from __future__ import annotations

import sys

from yolo_prune.cli import main

sys.exit(main())
