# yolo-prune, AGPL-3.0 license
"""Stopped by SIGTERM or Ctrl-C, a command leaves no scratch folder and nothing half written."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.untrained import save
from yolo_prune import scratch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}

# command -> its arguments, and the place where it stops until it is signalled.
COMMANDS = {
    "export": ("model=best.pt imgsz=64 images=1 repeats=1", "yolo_prune.export.prove.compare"),
    "profile": ("model=best.pt imgsz=64", "yolo_prune.device.measurement.measure"),
    "profile kit": ("model=best.pt imgsz=64 kit=kit.pyz", "yolo_prune.device.probe_kit.zipfile.ZipFile.writestr"),
    "bundle": ("model=best.onnx", "yolo_prune.export.bundle._fill"),
    "demo": ("out=demo", "yolo_prune.demo.dataset.cv2.imencode"),
}
# It imports once what the commands do, and for each line that comes in forks a process that runs code in a folder.
SERVER = """\
import os, signal, sys, tempfile
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what is said at an import is no answer
import onnx, onnxruntime, torch, ultralytics, ultralytics.data.build
from yolo_prune.export import job
for line in sys.stdin:
    folder, code = eval(line)
    child = os.fork()
    if not child:
        break
    print(child, file=answers, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
else:
    sys.exit()
signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored
os.chdir(folder)
os.environ["TMPDIR"], tempfile.tempdir = folder + "/tmp", None
said = os.open("said", os.O_WRONLY | os.O_CREAT)
os.dup2(said, 1)
os.dup2(said, 2)
try:
    exec(code)
except SystemExit as end:
    sys.stdout.flush()
    os._exit(end.code)  # threads of the libraries are not in a fork, so their own ends would fail
"""
CODE = """\
import importlib, sys, time
from yolo_prune import cli
from yolo_prune.device import probe_kit
probe_kit._NETWORKS = ()
parts = {place!r}.split(".")
owner = importlib.import_module(".".join(parts[:3]))
for name in parts[3:-1]:
    owner = getattr(owner, name)
stock = getattr(owner, parts[-1])
def stop(*given, **more):
    open("there", "w").close()
    time.sleep(120)
setattr(owner, parts[-1], stop)
sys.exit(cli.main({words!r}))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and an ONNX file of it."""
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("made")
    save(folder / "best.pt", 0)
    YOLO(folder / "best.pt").export(format="onnx", imgsz=64, verbose=False)
    return folder


def start(folder: Path, code: str) -> subprocess.Popen[bytes]:
    """Start Python in a folder whose subfolder `tmp` is for temporary files."""
    (folder / "tmp").mkdir()
    (folder / "settings").mkdir()
    env = {**os.environ, "TMPDIR": str(folder / "tmp"), "YOLO_CONFIG_DIR": str(folder / "settings")}
    env["PYTHONPATH"] = str(ROOT)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=env, stdin=pipe, stdout=pipe, bufsize=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A process that starts others."""
    process = start(tmp_path_factory.mktemp("server"), SERVER)
    yield process
    process.communicate(timeout=60)


def left(folder: Path) -> list[str]:
    """What lies there and was not there before the command, but for what the host keeps and what the demo draws.

    export.log is what exporters had said until then, and whole at any moment.
    """
    known = {"tmp", "settings", "there", "said", "best.pt", "best.onnx", "demo", "export.log"}
    found = [path.name for path in folder.iterdir() if path.name not in known]
    found += [path.name for path in (folder / "tmp").glob("yolo-prune-*")]
    return found + [str(path) for path in folder.rglob(".yolo-prune-*")]


# All commands clean up by the same handler (scratch.py), so one of them shows that it is there for Ctrl-C, too.
@pytest.mark.parametrize(
    ("command", "number"), [*((command, signal.SIGTERM) for command in COMMANDS), ("export", signal.SIGINT)]
)
def test_a_stopped_command_leaves_nothing(
    command: str, number: signal.Signals, made: Path, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    for name in ("best.pt", "best.onnx"):
        shutil.copy(made / name, tmp_path / name)
    (tmp_path / "tmp").mkdir()
    words, place = COMMANDS[command]
    code = CODE.format(place=place, words=[command.split()[0], *words.split()])
    server.stdin.write(f"{(str(tmp_path), code)!r}\n".encode())
    process = int(server.stdout.readline())
    alarm = threading.Timer(150, os.kill, (process, signal.SIGKILL))
    alarm.start()
    try:
        while not (tmp_path / "there").exists():
            over, _, _ = select.select([server.stdout], [], [], 0.05)
            assert not over, f"it never came there: {(tmp_path / 'said').read_text()}"
        if command != "demo":  # which has drawn nothing yet
            assert left(tmp_path) != [], "nothing to be cleaned up"
        os.kill(process, number)
        ended = int(server.stdout.readline())
    finally:
        alarm.cancel()
    text = (tmp_path / "said").read_text()
    assert ended == CODES[number], text
    assert left(tmp_path) == []
    assert "Traceback" not in text


def test_a_second_signal_does_not_stop_the_cleaning(tmp_path: Path) -> None:
    code = (
        "import os, shutil, signal, time\n"
        "from yolo_prune import scratch\n"
        "stock = shutil.rmtree\n"
        "def slow(*given, **more):\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\n"
        "    stock(*given, **more)\n"
        "shutil.rmtree = slow\n"
        "with scratch.folder() as folder:\n"
        "    (folder / 'a').write_text('a')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    process = start(tmp_path, code)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert left(tmp_path) == []


def test_handlers_of_the_program_come_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with scratch.folder() as folder:
        assert folder.is_dir()
        assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert not folder.exists()
    assert {number: signal.getsignal(number) for number in before} == before

    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with scratch.folder():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert seen == [signal.SIGTERM]  # a program that has its own is left to it


@pytest.mark.parametrize("threaded", [False, True], ids=["forked", "forked by a thread"])
def test_a_fork_has_no_handlers_of_ours(threaded: bool) -> None:
    """What NNCF forks to report its use waits in native code where there is no network: a handler would never run."""
    ends: list[int] = []

    def fork() -> None:
        child = os.fork()
        if not child:
            os._exit(sum(signal.getsignal(number) is not signal.SIG_DFL for number in CODES if number != signal.SIGINT))
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with scratch.unwinding(), scratch.folder():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if threaded:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        else:
            fork()
    assert ends == [0]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
