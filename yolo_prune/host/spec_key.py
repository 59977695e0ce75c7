# yolo-prune, AGPL-3.0 license
"""Where a model's yaml holds pruned widths. A file of its own: every plain `yolo train` reads it."""

from typing import Any

SPEC_KEY = "yolo_prune"


def noted(model: Any) -> dict[str, Any]:
    """What the yaml of a model says of its pruning; empty where it says nothing, or the model has no yaml."""
    yaml = getattr(model, "yaml", None)
    spec = yaml.get(SPEC_KEY) if isinstance(yaml, dict) else None
    return spec if isinstance(spec, dict) else {}
