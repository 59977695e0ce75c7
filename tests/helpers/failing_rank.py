# yolo-prune, AGPL-3.0 license
"""One of two real processes over gloo that go through a run's work on files and models, which fails in one of them.

    python failing_rank.py RANK MEETING_FILE FOLDER

Writes FOLDER/RANK.json: place -> what this process heard there. No process may wait for one that failed.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

RANK, MEETING, FOLDER = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
os.environ["RANK"] = str(RANK)  # the host reads it when it is imported

import torch  # noqa: E402
from torch import distributed  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils.torch_utils import ModelEMA, get_num_params  # noqa: E402

from yolo_prune import files  # noqa: E402
from yolo_prune.errors import PruneError  # noqa: E402
from yolo_prune.host.run import Run  # noqa: E402
from yolo_prune.recipe.arguments import from_arguments  # noqa: E402
from yolo_prune.training import begin, ddp, deployment, optimizer_state, plain_data_file, roll_back, step  # noqa: E402
from yolo_prune.training import session as sessions  # noqa: E402

FULL = OSError(errno.ENOSPC, "No space left on device")


def heard(work: Callable[[], object]) -> str:
    """What this process is told of some work of all, and that the next word of the first still arrives."""
    said = "nothing"
    try:
        work()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    assert ddp.from_first(lambda: "here") == "here"
    return said


@contextmanager
def failing(rank: int, owner: Any, name: str, error: Exception) -> Iterator[None]:
    """Let a function fail in one of the processes."""
    if rank != RANK:
        yield
        return
    with patch.object(owner, name, side_effect=error):
        yield


def trainer_in(folder: Path) -> Any:
    """What a run reads of the host's trainer after its set-up."""
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=2, verbose=False).train()

    def save_model() -> None:
        if RANK == 0:
            (trainer.wdir / "last.pt").write_bytes(b"as the host has it")

    arguments = {
        "model": "yolov8n.yaml",
        "pretrained": True,
        "save": True,
        "val": False,
        "nbs": 4,
        "freeze": None,
        "epochs": 4,
        "task": "detect",
        "rect": False,
    }
    arguments["imgsz"] = 64
    trainer = SimpleNamespace(
        model=model,
        ema=ModelEMA(model),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        args=SimpleNamespace(**arguments),
        resume=False,
        device=torch.device("cpu"),
        epochs=4,
        epoch=1,
        start_epoch=0,
        fitness=None,
        best_fitness=None,
        save_period=-1,
        save_dir=folder,
        wdir=folder / "weights",
        batch_size=4,
        train_loader=[0, 1],
        stride=32,
        preprocess_batch=lambda batch: batch,
        accumulate=1,
        last=folder / "weights" / "last.pt",
        best=folder / "weights" / "best.pt",
        csv=folder / "a.csv",
        save_model=save_model,
        final_eval=lambda: None,
        optimizer_step=lambda: None,
        add_callback=lambda *_: None,
        stopper=SimpleNamespace(best_fitness=0.0, best_epoch=0, possible_stop=False),
        get_model=lambda cfg, weights, verbose: DetectionModel(cfg, nc=2, verbose=verbose),
    )
    return trainer


def rows() -> dict[str, Any]:
    """Go through the places."""
    words = {"prune": 0.5, "prune_importance": "l2", "prune_reconstruct": "none", "prune_deploy": "onnx"}
    recipe = from_arguments(words)
    assert recipe is not None
    told: dict[str, Any] = {}
    blocked = FOLDER / "blocked"
    if RANK == 0:
        blocked.mkdir()
        (blocked / "pruning").write_text("in the way")
    distributed.barrier()
    told["folder"] = heard(lambda: begin.session_of(Run(trainer_in(blocked)), recipe))
    trainer = trainer_in(FOLDER / "run")
    run = Run(trainer)
    session, graph = begin.session_of(run, recipe)
    setattr(trainer, sessions._ATTRIBUTE, session)
    with failing(0, files, "sweep", FULL):
        told["begin"] = heard(lambda: begin.start(run, session, graph))
    begin.start(run, session, graph)
    with failing(0, files, "replace", PruneError("the disk is full")):
        told["dense model"] = heard(lambda: deployment.keep_dense(run, recipe))
        told["state to go back to"] = heard(lambda: roll_back.keep(run))
        session.epoch = run.epoch
        told["record"] = heard(lambda: sessions.on_fit_epoch_end(trainer))
    with failing(0, files, "put", FULL):
        if RANK == 0:
            assert trainer.save_model() is False  # the host saves in the first process alone
        session.epoch = run.epoch
        told["the host's save"] = heard(lambda: sessions.on_fit_epoch_end(trainer))
        session.failed = None
        told["save after a step"] = heard(lambda: session.save_now(run))
        session.failed = None
    roll_back.keep(run)
    with failing(1, plain_data_file, "read", PruneError("good.pt is damaged")):
        told["going back"] = heard(lambda: roll_back.go_back(run))
    before = get_num_params(run.model)
    with failing(1, optimizer_state, "carry_optimizer", RuntimeError("out of memory")):
        told["cut"] = heard(lambda: step.take(run, session))
    told["as it was"] = [get_num_params(run.model) == before, session.done, get_num_params(run.average) == before]
    step.take(run, session)
    told["then"] = [session.done, get_num_params(run.model)]
    return told


if __name__ == "__main__":
    distributed.init_process_group("gloo", init_method=f"file://{MEETING}", rank=RANK, world_size=2)
    (FOLDER / f"{RANK}.json").write_text(json.dumps(rows()))
    distributed.barrier()  # one that ends while the other still speaks to it aborts that
    distributed.destroy_process_group()
