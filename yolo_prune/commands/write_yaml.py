# yolo-prune, AGPL-3.0 license
"""`yolo-prune yaml`: the architecture of a pruned checkpoint as a file that `yolo train model=` builds from."""

from __future__ import annotations

from pathlib import Path

import yaml

from yolo_prune import files, log
from yolo_prune.errors import PruneError
from yolo_prune.host import checkpoint
from yolo_prune.recipe import value_checks
from yolo_prune.report import text
from yolo_prune.surgery import widths

_HEAD = """\
# A pruned YOLO as data. With yolo-prune installed: yolo train model=<this file> data=...
# yolo_prune: widths: [output, input] channels of every convolution; null follows the class count of the data.
"""


def write_yaml(model: str, out: str | None = None, safe: bool = True) -> Path:
    """`yolo-prune yaml`: the architecture of a pruned checkpoint as a file, for `yolo train model=that.yaml`.

    Args:
        model: the pruned checkpoint. out: the file to write; default: beside it, ending in .yaml. safe: as in `apply`.

    Returns:
        The file.

    Raises:
        PruneError: the model is not pruned, or `out` is no .yaml file that can be written, or, without it, another file
            than one of this command is there, such as a data set's. Folders are made.
    """
    source = value_checks.path("model", model, "pruned.pt")
    target = None if out is None else value_checks.path("out", out, "pruned.yaml", (".yaml", ".yml"))
    value_checks.switch(safe=safe)
    network, _ = checkpoint.load(source, safe=safe)
    if target is None:
        target = source.with_suffix(".yaml")
        _require_own(target)
    files.require_place("out", target, "pruned.yaml")
    try:
        content = widths.portable(network)
    except PruneError as error:
        raise PruneError(f"model={model}: {error}") from None
    files.replace(target, _HEAD + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120))
    train = text.command(["yolo", "train", f"model={target}", f"pretrained={source}", "data=..."])
    log.show(f"saved {target}; build it: {train}")
    return target


def _require_own(target: Path) -> None:
    """Raise PruneError where a file is there that another command, or the user, has written."""
    first = _HEAD.partition("\n")[0].encode()
    if target.is_file() and not target.read_bytes().startswith(first):
        raise PruneError(
            f"{target} is there already, and is no model that this command wrote: give another place, out=pruned.yaml"
        )
