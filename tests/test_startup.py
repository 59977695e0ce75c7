# yolo-prune, AGPL-3.0 license
"""The start-up files, in fresh interpreters: live, off, absent, cheap, and harmless when something is broken."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.environments import Done, Environment, make_environment
from yolo_prune import _startup

SHOW = "import ultralytics.cfg as c; print('prune' in c.DEFAULT_CFG_DICT, hasattr(c.DEFAULT_CFG, 'prune'))"
IMPORT_US = 5000  # what our line may cost a plain python, in microseconds
SHOW_AND_VERSION = f"""
import sys
sys.argv = ["yolo", "version"]
{SHOW}
c.entrypoint()
"""


# Live, off, absent ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def absent(stock_env: Environment) -> Done:
    """What a fresh interpreter says without the wheel: of the arguments, then `yolo version`."""
    return stock_env.run("python", "-c", SHOW_AND_VERSION)


@pytest.fixture(scope="module")
def off(wheel_env: Environment) -> Done:
    """The same with the wheel and YOLO_PRUNE=0."""
    return wheel_env.run("python", "-c", SHOW_AND_VERSION, env={"YOLO_PRUNE": "0"})


def test_off_with_yolo_prune_0(off: Done) -> None:
    assert off.out.split()[-3:-1] == ["False", "False"], off.text


def test_absent_without_the_wheel(absent: Done) -> None:
    assert absent.out.split()[-3:-1] == ["False", "False"], absent.text


def test_plain_yolo_goes_on(wheel_env: Environment, absent: Done, off: Done) -> None:
    assert absent.out.split()[-1].count(".") == 2, absent.text
    for done in (off, wheel_env.run("yolo", "version")):
        assert (done.code, done.out.split()[-1], done.err) == (0, absent.out.split()[-1], absent.err)


@pytest.mark.parametrize("when", ["before", "after"])
def test_import_by_hand_installs_it_too(stock_env: Environment, when: str) -> None:
    words = ["import yolo_prune", "import ultralytics.cfg"]
    code = "; ".join(words if when == "before" else reversed(words))
    done = stock_env.run("python", "-c", f"{code}; {SHOW}", env={"PYTHONPATH": str(ROOT)})
    assert done.out.split()[-2:] == ["True", "True"], done.text


def test_import_by_hand_honours_yolo_prune_0(stock_env: Environment) -> None:
    done = stock_env.run("python", "-c", f"import yolo_prune; {SHOW}", env={"PYTHONPATH": str(ROOT), "YOLO_PRUNE": "0"})
    assert done.out.split()[-2:] == ["False", "False"], done.text


def test_live_in_a_fresh_interpreter_and_the_finder_leaves_when_all_is_served(wheel_env: Environment) -> None:
    code = (
        f"{SHOW}\n"
        """
import sys
from yolo_prune import _startup, install
count = lambda: sum(isinstance(f, _startup._Finder) for f in sys.meta_path)
before = count()
from ultralytics import YOLO
import ultralytics.engine.trainer, ultralytics.cfg, ultralytics.nn.tasks
assert count() == 1, 'what a training run alone imports is still waited for'
import ultralytics.utils.callbacks.platform
from importlib.machinery import SourceFileLoader
assert type(ultralytics.cfg.__spec__.loader) is type(ultralytics.cfg.__loader__) is SourceFileLoader
assert install.installed == set(_startup.WAITED) and not install.faults, (install.installed, install.faults)
print(before, count())
"""
    )
    done = wheel_env.run("python", "-c", code)
    assert done.out.split()[-4:] == ["True", "True", "1", "0"], done.text
    assert "yolo-prune" not in done.err


# Cheap and harmless ---------------------------------------------------------------------------------------------------


def _imports(environment: Environment, off: str | None) -> dict[str, int]:
    """Return what `python -c pass` imports: module -> its own import time in microseconds."""
    done = environment.run("python", "-X", "importtime", "-c", "pass", env={"YOLO_PRUNE": off})
    rows = [line.split("|") for line in done.err.splitlines() if line.startswith("import time:") and "self" not in line]
    return {name.strip(): int(own.removeprefix("import time:")) for own, _, name in rows}


def test_a_plain_python_pays_little(wheel_env: Environment) -> None:
    without = _imports(wheel_env, "0")
    runs = [_imports(wheel_env, None) for _ in range(5)]
    ours = set(runs[0]) - set(without)
    assert ours - {"__future__"} == {"yolo_prune", "yolo_prune._startup"}
    assert min(sum(run[name] for name in ours) for run in runs) < IMPORT_US


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which a plugin is to be broken."""
    return make_environment(tmp_path_factory.mktemp("broken") / "venv")


@pytest.mark.parametrize("broken", ["gone", "init", "startup", "install"])
def test_a_broken_plugin_is_one_line_and_no_more(broken: str, environment: Environment) -> None:
    package = environment.site / "yolo_prune"
    shutil.copy(ROOT / "yolo_prune.pth", environment.site)
    shutil.rmtree(package, ignore_errors=True)
    if broken != "gone":
        shutil.copytree(ROOT / "yolo_prune", package)
        module = {"init": "__init__", "startup": "_startup", "install": "install"}[broken]
        (package / f"{module}.py").write_text("raise RuntimeError('no good')\n", encoding="utf-8")
    # `install` is imported with the host; the others fail when the interpreter starts, whatever it is to run.
    words = ("yolo", "version") if broken == "install" else ("python", "-c", "print('8.4.0')")
    done = environment.run(*words)
    assert (done.code, done.out.split()[-1].count(".")) == (0, 2), done.text
    warnings = [line for line in done.err.splitlines() if "yolo-prune is off" in line]
    assert len(warnings) == 1
    assert "Traceback" not in done.err
    assert "No module named" in warnings[0] if broken == "gone" else "no good" in warnings[0]


# The finder and the files themselves ----------------------------------------------------------------------------------


def test_install_twice_is_install_once(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [finder for finder in sys.meta_path if not isinstance(finder, _startup._Finder)]
    monkeypatch.setattr(sys, "meta_path", list(others))
    monkeypatch.delitem(sys.modules, _startup.WAITED[-1], raising=False)  # as if it were still to be imported
    _startup.install()
    _startup.install()
    added = [finder for finder in sys.meta_path if finder not in others]
    assert [type(finder) for finder in added] == [_startup._Finder]


def test_start_file_names_a_callable() -> None:
    (line,) = (ROOT / "yolo_prune.start").read_text(encoding="utf-8").split()
    module, _, name = line.partition(":")
    assert getattr(importlib.import_module(module), name) is _startup.install


def test_pth_is_one_import_line() -> None:
    (line,) = (ROOT / "yolo_prune.pth").read_text(encoding="utf-8").splitlines()
    assert line.startswith("import ")  # `site` runs such lines and takes every other one for a path


def test_the_loader_is_the_modules_own_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waited_for.py").write_text("'''text'''\nvalue = __spec__.loader\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    served: list[str] = []
    monkeypatch.setattr(_startup, "_serve", served.append)
    monkeypatch.setattr(_startup, "_remove", lambda: served.append("removed"))
    finder = _startup._Finder(["waited_for", "never_imported"])
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    spec = importlib.util.find_spec("waited_for")
    assert spec is not None
    assert spec.loader is not None
    assert spec.loader.get_data(str(tmp_path / "waited_for.py")).startswith(b"'''text'''")  # type: ignore[attr-defined]
    assert not spec.loader.is_package("waited_for")  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(spec.loader)).loader.path == spec.loader.path  # type: ignore[attr-defined]

    module = importlib.import_module("waited_for")
    monkeypatch.delitem(sys.modules, "waited_for")
    assert served == ["waited_for"]
    assert not isinstance(module.value, _startup._Loader)
    assert module.__loader__ is module.value is module.__spec__.loader
    assert finder.names == {"never_imported"}


def test_other_modules_are_not_touched() -> None:
    assert _startup._Finder(["waited_for"]).find_spec("json") is None
