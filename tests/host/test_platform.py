# yolo-prune, AGPL-3.0 license
"""What Ultralytics Platform gets of a run: the host's own callback against a local stand-in of its HTTP API.

The stand-in takes what ultralytics-platform 0.1.99 documents (resources/training.py: `metrics`; resources/models.py:
`upload_checkpoint`; types.py: their answers) and refuses the rest. The real service is not asked.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ultralytics

from tests.helpers.environments import Environment
from tests.helpers.runs import record_of
from tests.helpers.small_models import SMALL_MODEL
from tests.test_wheel import yolo_train

if sys.version_info < (3, 11) or not hasattr(ultralytics, "PLATFORM_EXPORTS"):
    pytest.skip(
        "the host reports to the Platform on Python 3.11 or newer, and one before its SDK would ask the real service",
        allow_module_level=True,
    )
pytest.importorskip("httpx")
pytest.importorskip("ultralytics_platform")

KEY = "ul_" + 8 * "01234"
IMAGE = 64  # pixels: imgsz of the runs here, at which the host counts the GFLOPs that it sends

Json = dict[str, Any]
EVENTS: dict[str, dict[str, Any]] = {  # what the data of each must have
    "training_started": {"trainArgs": dict, "epochs": int, "device": str, "environment": dict},
    "epoch_end": {"epoch": int, "metrics": dict, "fitness": (int, float), "system": dict},
    "console_output": {"chunkId": int, "content": str, "lineCount": int},
    "checkpoint_saved": {"runId": int, "modelPath": str, "uploadPath": str},
    "training_complete": {"runId": int, "results": dict, "classNames": list, "plots": list},
}


class StandIn(ThreadingHTTPServer):
    """The part of the Platform that a training run talks to. It keeps what it took, and says what it refused."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.events: list[tuple[str, Json]] = []
        self.files: dict[str, bytes | None] = {}  # path of an address to upload to -> what was put there
        self.refused: list[str] = []

    def of(self, event: str) -> list[Json]:
        """The data of every such event."""
        return [data for name, data in self.events if name == event]

    def metrics(self, body: Json) -> Json:
        """POST /api/webhooks/training/metrics."""
        event, data = body["event"], body["data"]
        who = {"project", "name"} if event == "training_started" else {"modelId"}
        assert set(body) == {"event", "data"} | who, f"{event} with {sorted(body)}"
        assert body.get("modelId", "model-1") == "model-1", body["modelId"]
        for key, kind in EVENTS[event].items():
            assert isinstance(data[key], kind), f"{event} with {key} {data[key]!r}"
        assert data.get("runId", 7) == 7, data["runId"]
        size = data.get("modelInfo", {"parameters": 1, "gflops": 1.0})
        assert set(size) - {"speedMs"} == {"parameters", "gflops"}, size
        assert isinstance(size["parameters"], int), size
        assert min(size.values()) > 0, size
        if event == "checkpoint_saved":
            assert self.files[f"/{data['uploadPath']}"], "checkpoint_saved before its bytes"
            assert data["modelPath"] == f"gs://models/{data['uploadPath']}", data["modelPath"]
        self.events.append((event, data))
        started = {
            "modelId": "model-1",
            "runId": 7,
            "modelSlug": "run",
            "modelUrl": f"{self.url}/someone/something/run",
        }
        return {"received": True, "event": event, "mode": "remote", **(started if event == "training_started" else {})}

    def upload(self, body: Json) -> Json:
        """POST /api/webhooks/models/upload."""
        path = f"staged/{len(self.files)}/{body.pop('filename')}"
        assert body == {"modelId": "model-1", "runId": 7}, f"upload with {body}"
        self.files[f"/{path}"] = None
        where = {"uploadUrl": f"{self.url}/{path}", "gcsPath": f"gs://models/{path}", "uploadPath": path}
        return {"modelId": "model-1", **where}


class Handler(BaseHTTPRequestHandler):
    """Checks method, path and headers, and answers in JSON."""

    server: StandIn

    def _take(self, content: bytes) -> Json:
        kind = self.headers["Content-Type"]
        if self.command == "PUT":
            assert self.server.files[self.path] is None, "an address takes one upload"
            assert kind == "application/octet-stream", kind
            self.server.files[self.path] = content
            return {}
        routes = {"training/metrics": self.server.metrics, "models/upload": self.server.upload}
        call = {f"POST /api/webhooks/{path}": call for path, call in routes.items()}[f"{self.command} {self.path}"]
        assert self.headers["Authorization"] == f"Bearer {KEY}", self.headers["Authorization"]
        assert kind == "application/json", kind
        return call(json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")))

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            status, answer = 200, self._take(content)
        except (Exception, pytest.fail.Exception) as error:  # whatever is wrong with it, it is not taken
            self.server.refused.append(f"{self.command} {self.path}: {error!r}")
            status, answer = 400, {"error": str(error)}
        sent = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names are http.server's

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A stand-in that answers while the block runs."""
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class Run(NamedTuple):
    """A finished run: its folder, and what the Platform got of it."""

    folder: Path
    platform: StandIn

    def sizes(self) -> dict[int, Json]:
        """Epoch, from 0 -> the size that its report carries, of the reports that carry one."""
        return {data["epoch"]: data["modelInfo"] for data in self.platform.of("epoch_end") if "modelInfo" in data}


def train(environment: Environment, data: Path, folder: Path, *words: str) -> Run:
    """`yolo train project=someone/something`, reported to a stand-in that must take every request."""
    variables = {"ULTRALYTICS_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "GITHUB_ACTIONS": None}
    with stand_in() as platform:  # in GitHub's CI the host's callback does nothing, so the run must not know of it
        variables["ULTRALYTICS_PLATFORM_URL"] = platform.url
        words = (f"model={SMALL_MODEL}", *words)
        done = yolo_train(environment, data, Path("someone/something"), *words, cwd=folder, env=variables)
    assert done.code == 0, done.text[-3000:]
    assert platform.refused == []
    names = [name for name, _ in platform.events]
    assert names[0] == "training_started", names
    assert names.count("training_complete") == 1, names
    late = names[names.index("training_complete") + 1 :]  # on a busy machine a thread of the host's sends after it
    assert set(late) <= {"epoch_end", "console_output"}, names
    assert set(names) == set(EVENTS)
    reports = platform.of("epoch_end")
    assert sorted(report["epoch"] for report in reports) == list(range(len(reports)))
    return Run(next(folder.rglob("args.yaml")).parent, platform)


@pytest.fixture(scope="module")
def pruned(wheel_env: Environment, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four epochs with a step in the second and in the third."""
    words = ("epochs=4", "prune=0.5", "prune_steps=2", "prune_start=0.25", "prune_end=0.5")
    return train(wheel_env, tiny_data, tmp_path_factory.mktemp("reported"), *words)


def gflops_at(pixels: int, gflops: float) -> float:
    """GFLOPs at 640 x 640 -> those of an image of so many pixels, rounded as the host does."""
    return round(gflops * (pixels / 640) ** 2, 3)


def test_the_platform_is_told_the_size_of_each_step(pruned: Run) -> None:
    record, told = record_of(pruned.folder), pruned.sizes()
    assert [row["epoch"] for row in record["steps"]] == [2, 3]
    assert len(pruned.platform.of("epoch_end")) == 5  # the fifth is the host's validation of best.pt
    assert sorted(told) == [0, 1, 2]
    dense = {"parameters": record["baseline"]["params"], "gflops": gflops_at(IMAGE, record["baseline"]["gflops"])}
    assert {key: told[0][key] for key in dense} == dense
    for row in record["steps"]:
        info = told[row["epoch"] - 1]
        assert (info["parameters"], info["gflops"]) == (row["params"], gflops_at(IMAGE, row["gflops"]))
    assert told[2]["parameters"] == record["final"]["params"] < told[1]["parameters"] < told[0]["parameters"]


OPEN = """
import importlib.util, json, sys
from ultralytics import YOLO
yolo = YOLO(sys.argv[1])
found = {
    "plugin": importlib.util.find_spec("yolo_prune") is not None,
    "packages": sorted({type(module).__module__.partition(".")[0] for module in yolo.model.modules()}),
    "params": sum(p.numel() for p in yolo.model.parameters()),
}
(result,) = yolo.predict(sys.argv[2], imgsz=64, device="cpu", conf=0.0, save=False, verbose=False)
print(json.dumps({**found, "boxes": len(result.boxes) > 0, "finite": bool(result.boxes.data.isfinite().all())}))
"""


def test_what_is_uploaded_is_best_pt_and_opens_without_yolo_prune(
    pruned: Run, stock_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    ((path, content),) = pruned.platform.files.items()
    best = (pruned.folder / "weights" / "best.pt").read_bytes()
    assert path.endswith("/best.pt")
    assert hashlib.sha256(content or b"").hexdigest() == hashlib.sha256(best).hexdigest()
    results = pruned.platform.of("training_complete")[0]["results"]
    assert (results["modelPath"], results["modelSize"]) == (f"gs://models{path}", len(best))
    (tmp_path / "arrived.pt").write_bytes(content or b"")
    image = tiny_data.parent / "images" / "val" / "0.png"
    safe = {"ULTRALYTICS_SAFE_LOAD": "1"}
    opened = stock_env.run("python", "-c", OPEN, tmp_path / "arrived.pt", image, env=safe)
    assert opened.code == 0, opened.text[-3000:]
    params = record_of(pruned.folder)["final"]["params"]
    stock = {"plugin": False, "packages": ["torch", "ultralytics"], "params": params, "boxes": True, "finite": True}
    assert json.loads(opened.out.splitlines()[-1]) == stock


def told_of(run: Run) -> list[tuple[str, Json]]:
    """Every event but the console's, by name and epoch, without the values that are of the moment or the machine."""
    blank: dict[str, Any] = {
        "environment": sorted,
        "system": sorted,
        "trainArgs": lambda part: {**part, "save_dir": None},
        "modelInfo": lambda part: {**part, "speedMs": None},
        "results": lambda part: {**part, "modelSize": None},
    }
    events = [
        (name, {key: blank[key](part) if key in blank else part for key, part in data.items()})
        for name, data in run.platform.events
        if name != "console_output"
    ]
    return sorted(events, key=lambda event: (event[0], event[1].get("epoch", 0)))


def test_a_plain_run_sends_what_stock_sends(
    wheel_env: Environment, stock_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    plain = train(wheel_env, tiny_data, tmp_path / "with", "epochs=2")
    assert list(plain.sizes()) == [0]
    assert told_of(plain) == told_of(train(stock_env, tiny_data, tmp_path / "without", "epochs=2"))
