# yolo-prune, AGPL-3.0 license
"""Two real processes over gloo: what the first decides, and what fails in one of them, reaches both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.checkout import ROOT

CODE = """
import json, sys
import torch
from torch import distributed
from yolo_prune.training import ddp as ranks

rank, file, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class NoPickleError(Exception):
    def __init__(self, text, more):
        super().__init__(text)
        self.more = more


def fails():
    raise NoPickleError("a reason", lambda: None)


def fails_on_second():
    if rank:
        raise ValueError("the second one's reason")
    return "done"


def said(work):
    try:
        return str(work())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
given = torch.arange(3)
# A tensor of a device that only the first process has: what pickles with its device would not load in the second.
rows = {
    "tensor": ranks.from_first(lambda: {"a": given})["a"].tolist(),
    "device": str(ranks.from_first(lambda: given).device),
    "no pickle": said(lambda: ranks.from_first(fails)),
    "no pickle of a result": said(lambda: ranks.from_first(lambda: (lambda: None))),
    "each": said(lambda: ranks.each(fails_on_second)),
    "after": ranks.from_first(lambda: f"rank {rank}"),
}
with open(out, "w") as stream:
    json.dump(rows, stream)
"""


def test_no_process_waits_for_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(CODE)
    outs = [tmp_path / f"{rank}.json" for rank in (0, 1)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "two.py"), str(rank), str(tmp_path / "meet"), str(out)], cwd=ROOT
        )
        for rank, out in enumerate(outs)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (json.loads(out.read_text()) for out in outs)
    for rows in (first, second):
        assert rows["tensor"] == [0, 1, 2]
        assert rows["device"] == "cpu"
        assert rows["after"] == "rank 0"
        assert "a reason" in rows["no pickle"]
        assert "pickle" in rows["no pickle of a result"]
    assert second["no pickle"] == "PruneError: process 0 failed: NoPickleError: a reason"
    assert second["each"] == "ValueError: the second one's reason"
    assert first["each"] == "PruneError: process 1 of 2 failed: ValueError: the second one's reason"


def test_tensors_are_packed_without_their_device(tmp_path: Path) -> None:
    import io

    import torch

    from yolo_prune.training import ddp

    packed = ddp._packed({"masks": torch.ones(2, dtype=torch.bool)})
    found = torch.load(io.BytesIO(packed), "meta", weights_only=True)  # the reader says where, not the file
    assert found["masks"].device.type == "meta"
