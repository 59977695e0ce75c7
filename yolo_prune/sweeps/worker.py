# yolo-prune, AGPL-3.0 license
"""A process of a sweep that does the work of points: `python -m yolo_prune.sweeps.worker`, started by local.py.

It reads jobs as JSON, one a line, from its standard input. That is its life line too: where the sweep dies, however
it dies, the stream ends, and this process ends at once, so that no training goes on that nobody waits for. What a
point came to is the last thing that is written (folder.py).
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_prune import files, folder_lock
from yolo_prune.errors import PruneError, first_line
from yolo_prune.host.model_facts import task_of, train_arguments

_WAIT = 60.0  # seconds for a process of a killed sweep to be gone


def main() -> None:
    """Do one job after the other until there is none."""
    jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while (job := jobs.get()) is not None:
        _do(job)


def _listen(jobs: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin.buffer:
        if line.strip() == b"end":
            jobs.put(None)
            return
        jobs.put(json.loads(line))
    os._exit(1)  # the sweep is gone


def _do(job: Mapping[str, Any]) -> None:
    """Do a job and write down what came of it; an error is a line of the point, and not the end of the sweep."""
    from yolo_prune.sweeps import folder as folders

    folder, name, stage = Path(job["folder"]), job["name"], job["stage"]
    (folder / name).mkdir(parents=True, exist_ok=True)
    _speak_into(folder / name / f"{'train' if stage == 'trained' else stage}.log")
    _alone_in(folder / name)
    for place in (folder / name, folder / name / "weights"):
        files.sweep(place)  # what a killed part left half-written
    start = time.perf_counter()
    try:
        outcome = (_train if stage == "trained" else _cut)(job)
    except (SystemExit, KeyboardInterrupt) as error:
        outcome = {"failed": f"it was ended ({first_line(error)})"}
    except Exception as error:  # of the host, of torch, of a data set: any
        import traceback

        traceback.print_exc()
        outcome = {"failed": first_line(error)[:300]}
    outcome |= {"point": job["point"], "command": job["command"]}
    outcome["seconds"] = round(time.perf_counter() - start, 2)
    sys.stdout.flush()
    folders.finish(folder, name, stage, outcome)
    folder_lock.let_go(folder / name / ".point")


def _speak_into(path: Path) -> None:
    """Let what the host says go into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _alone_in(run: Path) -> None:
    """Wait until no process of a killed sweep is at work in a run's folder: it ends as soon as it can."""
    end = time.monotonic() + _WAIT
    while not folder_lock.try_to_hold(run / ".point"):
        if time.monotonic() > end:
            raise PruneError(f"another process is at work in {run}")
        time.sleep(0.1)


# The stages -----------------------------------------------------------------------------------------------------------


def _cut(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a point is after the cut alone: its model in cut.pt, where it is not a file of the user's as it is."""
    from yolo_prune import api
    from yolo_prune.graph.model_state import copy_of
    from yolo_prune.host import checkpoint, yolo_object
    from yolo_prune.recipe.arguments import from_arguments

    weights = Path(job["model"])
    ckpt: dict[str, Any] = {}
    target = Path(job["folder"]) / job["name"] / "cut.pt"
    if weights.suffix == ".pt":
        network, ckpt = checkpoint.load(weights, safe=job["safe"])
        ckpt.pop("modelopt", None)
    else:  # a yaml: an architecture whose weights are random
        network = yolo_object.of(weights).model
    if job["cut"] is not None:
        wanted = from_arguments(job["cut"])
        assert wanted is not None
        if wanted.max_drop is not None:  # how far it goes shows in the training alone
            return {**_figures(job, weights, network, ckpt, False), "note": "cut in its training"}
        model = yolo_object.open_with(weights, network)
        api.prune(model, recipe=wanted, data=job["data"], imgsz=job["imgsz"], measure=False)
    if job["cut"] is not None or weights.suffix != ".pt":
        checkpoint.write(target, copy_of(network), {**ckpt, "train_args": _train_args(ckpt, job, network)})
        weights = target
    return _figures(job, weights, network, ckpt, job["measured"])


def _train(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train a point with the host's own command, or go on where it was killed."""
    from yolo_prune import _startup, install
    from yolo_prune.host import atomic_saving, canvases, checkpoint, console
    from yolo_prune.recipe.arguments import from_arguments
    from yolo_prune.training import dense_alike, deployment, latency_of_run

    run = Path(job["folder"]) / job["name"]
    words = _words(job, run)
    if words:
        if job["device"] is not None:  # of this part: another one may have had another
            words.append(f"device={job['device']}")
        _startup.install()
        sys.argv[:] = ["yolo", "train", *words]  # in place: the host keeps a reference to this list
        host = console.host_command()
        install.require_supported()
        atomic_saving.protect_all()  # as those of the points that prune are
        canvases.mix_in_all()  # as the points that prune do, or these would be chosen by luck with a frame
        recipe = from_arguments(job["trained_as"] or {})
        if recipe is not None:
            dense_alike.train_all_as(recipe)  # with as many steps, as long an average, and in frames
        deployment.leave_out()
        latency_of_run.leave_timing("the models of a sweep are timed, or predicted, together at its end")
        print(f"yolo {' '.join(sys.argv[1:])}", flush=True)
        host()
    best = run / "weights" / "best.pt"
    network, ckpt = checkpoint.load(best, safe=_safe(job))
    return _figures(job, best, network, ckpt, True)


def _words(job: Mapping[str, Any], run: Path) -> list[str]:
    """The words after `yolo train`: from the beginning, or from last.pt on; none where all epochs are done."""
    from yolo_prune.host import atomic_saving, checkpoint

    last, best = (run / "weights" / name for name in ("last.pt", "best.pt"))
    if not last.exists():
        return list(job["words"])
    try:
        _, ckpt = checkpoint.load(last, safe=_safe(job))
        epochs = train_arguments(ckpt).get("epochs")
        epoch = int(ckpt.get("epoch", -1))  # -1 where the host has stripped it, when all epochs were done
        if epoch >= 0 and (epochs is None or epoch + 1 < int(epochs)):
            return ["resume", f"model={last}"] if _lies_where_it_was(run, ckpt) else list(job["words"])
        if not best.exists():
            return list(job["words"])
        _, of_best = checkpoint.load(best, safe=_safe(job))
    except PruneError as error:  # the host wrote it when it was killed
        print(f"{error}; the training begins anew", flush=True)
        return list(job["words"])
    if max(epoch, int(of_best.get("epoch", -1))) >= 0:  # killed before both were stripped; the host would not resume it
        atomic_saving.strip_of_killed(last, best)
    return []


def _lies_where_it_was(run: Path, ckpt: Mapping[str, Any]) -> bool:
    """Whether a run was trained in this folder: the host would go on where it was, and not here."""
    was = train_arguments(ckpt).get("save_dir")
    if was is None or Path(was).resolve() == run.resolve():
        return True
    print(f"{run} was moved, and was {was}: its training, which had not ended, begins anew", flush=True)
    return False


def _figures(
    job: Mapping[str, Any], weights: Path, network: Any, ckpt: Mapping[str, Any], measured: bool
) -> dict[str, Any]:
    """What a model is: its size, and on the data set its metrics, at the point's image size.

    Args:
        weights: its file. network, ckpt: what that holds. measured: whether it knows the classes of the data set.
    """
    from yolo_prune import scratch
    from yolo_prune.cost import model_size
    from yolo_prune.host import exporter, validation

    size = model_size.size_of(network)
    metrics = None
    if measured:
        more: dict[str, Any] = {**job["val"], "device": job["device"]}
        if train_arguments(ckpt).get("single_cls"):
            more["single_cls"] = True
        with scratch.folder() as place, exporter.restrained(_safe(job)):
            metrics = validation.figures(weights, network, job["data"], job["imgsz"], place, **more)
    return {
        "params": size.params,
        "gflops": round(size.gflops * (job["imgsz"] / model_size.IMAGE) ** 2, 4),
        "metrics": metrics,
        "weights": str(weights),
    }


def _safe(job: Mapping[str, Any]) -> bool:
    """Whether what this sweep wrote is loaded with restriction: an older host has none, and it is our own."""
    from yolo_prune.host import checkpoint

    return bool(job["safe"]) and checkpoint.restricted()


def _train_args(ckpt: Mapping[str, Any], job: Mapping[str, Any], network: Any) -> dict[str, Any]:
    own = ckpt.get("train_args")
    return dict(own) if isinstance(own, dict) else {"imgsz": job["imgsz"], "task": task_of(network)}


if __name__ == "__main__":
    main()
