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
distributed.barrier()  # one that ends while the other still speaks to it aborts that
distributed.destroy_process_group()
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


def test_what_fails_in_one_process_is_heard_in_both(tmp_path: Path) -> None:
    """Every place where one process alone writes or reads, or where a cut may fail in one."""
    (tmp_path / "run" / "weights").mkdir(parents=True)
    program = [sys.executable, "-m", "tests.helpers.failing_rank"]
    processes = [
        subprocess.Popen([*program, str(rank), str(tmp_path / "meet"), str(tmp_path)], cwd=ROOT) for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    full = "OSError: [Errno 28] No space left on device"
    for rows in (first, second):
        assert "pruning cannot be made, which is to hold the record" in rows["folder"]
        assert rows["begin"] == rows["the host's save"] == rows["save after a step"] == full
        for place in ("dense model", "state to go back to", "record"):
            assert rows[place].startswith("PruneError: the disk is full"), place
        assert rows["as it was"] == [True, 0, True]
    assert second["going back"] == "PruneError: good.pt is damaged"
    assert first["going back"] == "PruneError: process 1 of 2 failed: PruneError: good.pt is damaged"
    assert second["cut"] == "RuntimeError: out of memory"
    assert first["cut"] == "PruneError: process 1 of 2 failed: RuntimeError: out of memory"
    assert first["then"] == second["then"]
    assert first["then"][0] == 1


def test_tensors_are_packed_without_their_device(tmp_path: Path) -> None:
    import io

    import torch

    from yolo_prune.training import ddp

    packed = ddp._packed({"masks": torch.ones(2, dtype=torch.bool)})
    found = torch.load(io.BytesIO(packed), "meta", weights_only=True)  # the reader says where, not the file
    assert found["masks"].device.type == "meta"
