# yolo-prune, AGPL-3.0 license
"""What is put into ultralytics: arguments, callbacks, parse_model, refusals. And plain runs, which must not notice."""

from __future__ import annotations

import copy
import linecache
import pickle
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics import YOLO

import yolo_prune.training
from tests.helpers.checkout import ROOT
from tests.helpers.environments import Done, Environment
from tests.helpers.small_models import SMALL_MODEL
from yolo_prune import callbacks, install
from yolo_prune.errors import HostError, RecipeError
from yolo_prune.host import arguments, releases
from yolo_prune.host.spec_key import SPEC_KEY
from yolo_prune.recipe.arguments import ARGUMENTS, WITH_NONE, from_arguments, load

cfg = pytest.importorskip("ultralytics.cfg")


def _trainer(**settings: Any) -> SimpleNamespace:
    """Make a stand-in for the host's trainer, with all of its arguments."""
    arguments = SimpleNamespace(**{**cfg.DEFAULT_CFG_DICT, **settings})
    return SimpleNamespace(args=arguments, model=None, callbacks={}, resume=False)


# Installing -----------------------------------------------------------------------------------------------------------


def test_arguments_are_known_everywhere_and_unset() -> None:
    from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, DEFAULT_CFG_KEYS

    assert len(ARGUMENTS) > 20
    for name in ARGUMENTS:
        assert DEFAULT_CFG_DICT[name] is None
        assert getattr(DEFAULT_CFG, name) is None
        assert name in DEFAULT_CFG_KEYS


def test_installing_twice_changes_nothing() -> None:
    import ultralytics.engine.model
    import ultralytics.engine.trainer
    import ultralytics.nn.tasks
    import ultralytics.utils.callbacks.platform
    from ultralytics.utils.callbacks import default_callbacks

    def state() -> tuple[object, ...]:
        return (
            dict(cfg.DEFAULT_CFG_DICT),
            cfg.check_cfg,
            cfg.parse_key_value_pair,
            copy.deepcopy(default_callbacks),
            ultralytics.nn.tasks.parse_model,
            ultralytics.engine.trainer.generate_ddp_command,
            ultralytics.nn.tasks.BaseModel.load,
            ultralytics.utils.callbacks.platform._send,
            ultralytics.engine.model.Model.export,
            ultralytics.engine.model.Model.train,
            ultralytics.engine.model.Model.benchmark,
            ultralytics.engine.model.Model.track,
            sys.excepthook,
        )

    before = state()
    assert {"ultralytics.engine.trainer", "ultralytics.nn.tasks"} <= install.installed
    for name in tuple(install.installed):
        install.install(name, sys.modules[name])
    assert state() == before
    assert not install.faults


def test_a_changed_host_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "faults", [])
    platform = SimpleNamespace(_send=lambda event, payload: None)
    with pytest.raises(HostError, match=r"platform\._send takes \(event, payload\)"):
        install.install("ultralytics.utils.callbacks.platform", platform)  # type: ignore[arg-type]
    with pytest.raises(HostError, match=r"ultralytics 8\.\d+\.\d+ changed: parse_model takes \(cfg, ch\), not"):
        install.install("ultralytics.nn.tasks", SimpleNamespace(parse_model=lambda cfg, ch: None))  # type: ignore[arg-type]
    with pytest.raises(HostError, match=r"no event on_pretrain_routine_start, .*on_train_end any more"):
        install.install("ultralytics.utils.callbacks.base", SimpleNamespace(default_callbacks={}))  # type: ignore[arg-type]
    with pytest.raises(HostError, match="generate_ddp_command"):
        install.install("ultralytics.engine.trainer", SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(HostError, match=r"could not be installed into 8.*parse_model takes.*pip install"):
        install.check_arguments({"prune": 0.5, "mode": "train", "epochs": 100})


def test_an_argument_of_the_hosts_own_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "faults", [])
    module = SimpleNamespace(DEFAULT_CFG_DICT={"prune": 0.3}, DEFAULT_CFG=SimpleNamespace(), check_cfg=lambda c: None)
    with pytest.raises(HostError, match="arguments of its own called prune"):
        install.install("ultralytics.cfg", module)  # type: ignore[arg-type]
    assert module.DEFAULT_CFG_DICT == {"prune": 0.3}


def test_none_on_the_command_line_is_a_value_where_it_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The host's own command, up to the call of `train`; what it is given there is what a recipe is read from."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("flops: 50%\nregularize: group\nlatency: 60%\n")
    given: dict[str, Any] = {}
    monkeypatch.setattr(YOLO, "train", lambda self, **settings: given.update(settings))
    words = f"prune={recipe} prune_regularize=none prune_reconstruct=None prune_latency=none"
    cfg.entrypoint(f"yolo train model={SMALL_MODEL} data=coco8.yaml {words}")
    wanted = from_arguments(given)
    assert wanted is not None
    assert (wanted.regularize, wanted.reconstruct, str(wanted.latency)) == ("none", "none", "60%")
    said = [
        line.getMessage() for line in caplog.records if "prune_latency=none is read as not given" in line.getMessage()
    ]
    assert len(said) == 1
    assert {name for name in ARGUMENTS if cfg.parse_key_value_pair(f"{name}=none")[1] == "none"} == WITH_NONE


# The version ----------------------------------------------------------------------------------------------------------


def test_the_range_is_the_one_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"ultralytics>={releases.LOWEST},<{releases.BELOW}"' in text


@pytest.mark.parametrize(
    ("version", "good"),
    [("8.4.0", True), ("8.4.190", True), ("8.4.999", True), ("8.3.250", False), ("8.5.0", False), ("9.0.0rc1", False)],
)
def test_supported(version: str, good: bool) -> None:
    assert releases.supported(version) is good


def test_an_unsupported_host_is_refused_only_when_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "version", lambda: "8.5.3")
    install.check_arguments(cfg.DEFAULT_CFG_DICT)
    with pytest.raises(HostError) as caught:
        install.check_arguments({**cfg.DEFAULT_CFG_DICT, "prune": 0.5})
    message = str(caught.value)
    assert "\n" not in message
    assert "8.5.3" in message
    assert yolo_prune.__version__ in message


# The arguments --------------------------------------------------------------------------------------------------------


def test_unset_arguments_pass() -> None:
    for unset in (None, False):
        for mode in ("train", "predict", "export"):
            assert cfg.get_cfg(overrides={"prune": unset, "mode": mode}).mode == mode


ARGUMENTS_OF_A_RUN = "from ultralytics.cfg import get_cfg; print(sorted(vars(get_cfg(overrides={'epochs': 3}))))"
PLAIN = f"""
import sys
from types import SimpleNamespace
from ultralytics.utils.callbacks import default_callbacks
import ultralytics.cfg as cfg
from yolo_prune import callbacks
trainer = SimpleNamespace(args=cfg.DEFAULT_CFG, model=None)
for callback in callbacks.CALLBACKS:
    assert callback in default_callbacks[callback.__name__]
    callback(trainer)
print(sorted(name for name in sys.modules if name.startswith("yolo_prune")))
print("torch_pruning" in sys.modules)
{ARGUMENTS_OF_A_RUN}
"""


@pytest.fixture(scope="module")
def plain(wheel_env: Environment) -> Done:
    """What a fresh interpreter imports in a plain run, and the arguments of the run."""
    return wheel_env.run("python", "-c", PLAIN)


def test_a_plain_run_has_the_arguments_of_the_host_alone(plain: Done, stock_env: Environment) -> None:
    without = stock_env.run("python", "-c", ARGUMENTS_OF_A_RUN)
    assert without.code == 0, without.text
    assert plain.out.splitlines()[-1] == without.out.splitlines()[-1], plain.text


def test_the_hosts_defaults_keep_the_arguments() -> None:
    cfg.get_cfg()
    cfg.get_cfg(cfg.DEFAULT_CFG)
    assert set(ARGUMENTS) <= set(cfg.DEFAULT_CFG_DICT)
    assert set(ARGUMENTS) <= set(vars(cfg.DEFAULT_CFG))


def test_a_good_request_passes() -> None:
    assert cfg.get_cfg(overrides={"prune": 0.5, "prune_flops": "40%"}).prune == 0.5


@pytest.mark.parametrize("mode", ["predict", "val", "track", "export"])
def test_outside_train_it_is_refused(mode: str) -> None:
    with pytest.raises(HostError) as caught:
        cfg.get_cfg(overrides={"prune": 0.5, "prune_flops": "40%", "mode": mode})
    message = str(caught.value)
    assert message.startswith(f"prune=0.5 prune_flops=40%: pruning happens in `yolo train`, not in `yolo {mode}`")
    assert "\n" not in message


def test_the_same_argument_twice_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "yolo train prune=0.5 prune_steps=2 imgsz=64 imgsz=96 prune_steps=2 prune=0.3"
    monkeypatch.setattr(sys, "argv", words.split())
    monkeypatch.setattr(arguments, "_repeated", set())
    with caplog.at_level("WARNING", logger="ultralytics"):
        for _ in range(2):
            assert cfg.get_cfg(overrides={"prune": 0.3, "prune_steps": 2}).prune == 0.3
    (line,) = [line for line in caplog.messages if "given" in line]
    assert "prune is given 2 times (0.5, 0.3): the last one counts, 0.3" in line


def test_wrong_values_are_refused_by_get_cfg() -> None:
    with pytest.raises(RecipeError, match=r"prune=1\.5"):
        cfg.get_cfg(overrides={"prune": 1.5})
    with pytest.raises(RecipeError, match=r"prune_steps=9 .*epochs=4"):
        cfg.get_cfg(overrides={"prune": 0.5, "prune_steps": 9, "epochs": 4})
    with pytest.raises(HostError, match=r"compile=True .*time=1\.0 .*"):
        cfg.get_cfg(overrides={"prune": 0.5, "prune_steps": 9, "epochs": 4, "time": 1.0, "compile": True})


def test_a_run_past_its_start_does_not_read_the_recipe_again() -> None:
    settings = {"prune": "a-recipe-file-that-has-moved.yaml"}
    with pytest.raises(RecipeError):
        cfg.get_cfg(overrides=settings)
    assert cfg.get_cfg({**cfg.DEFAULT_CFG_DICT, **settings, "save_dir": "runs/x"}).save_dir == "runs/x"


@pytest.mark.parametrize("mode", ["benchmark", "export", "track"])
def test_some_modes_refuse_before_they_start(mode: str) -> None:
    from ultralytics import YOLO

    model = YOLO("yolov8n.yaml")
    with pytest.raises(HostError, match=f"not in `yolo {mode}`"):
        getattr(model, mode)(prune=0.5)


# The callbacks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a session in place that notes its events."""
    events: list[str] = []
    names = [callback.__name__ for callback in callbacks.CALLBACKS]
    session = SimpleNamespace(HANDLERS={name: (lambda _, name=name: events.append(name)) for name in names})
    monkeypatch.setitem(sys.modules, "yolo_prune.training.session", session)
    monkeypatch.setattr(yolo_prune.training, "session", session, raising=False)
    return events


def test_a_plain_run_does_not_reach_the_session(seen: list[str]) -> None:
    for callback in callbacks.CALLBACKS:
        callback(_trainer())
    assert seen == []


def test_a_plain_run_does_not_even_import_it(plain: Done) -> None:
    modules, pruning = plain.out.splitlines()[-3:-1]
    assert pruning == "False", plain.text
    assert "yolo_prune.training" not in modules
    assert "yolo_prune.surgery" not in modules


def test_a_pruning_run_reaches_it(seen: list[str]) -> None:
    for callback in callbacks.CALLBACKS:
        callback(_trainer(prune=0.5))
    assert seen == [callback.__name__ for callback in callbacks.CALLBACKS]


def test_callbacks_survive_what_the_host_does_to_them() -> None:
    from ultralytics.utils.callbacks import get_default_callbacks

    assert get_default_callbacks() == get_default_callbacks()
    for callback in callbacks.CALLBACKS:
        assert copy.deepcopy(callback) is callback
        assert pickle.loads(pickle.dumps(callback)) is callback
        assert callback in get_default_callbacks()[callback.__name__]


def test_callbacks_survive_cloudpickle() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    from ultralytics.utils.callbacks import get_default_callbacks

    data = cloudpickle.dumps(dict(get_default_callbacks()))
    code = "import pickle, sys; from yolo_prune import callbacks; c = pickle.loads(sys.stdin.buffer.read())"
    check = "print(sum(f in c[f.__name__] for f in callbacks.CALLBACKS))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {check}"], input=data, check=True, cwd=ROOT, capture_output=True
    )
    assert int(done.stdout.split()[-1]) == len(callbacks.CALLBACKS) > 5


# parse_model and the workers ------------------------------------------------------------------------------------------


def test_parse_model_leaves_plain_yaml_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from yolo_prune.surgery import widths

    calls: list[tuple[Any, ...]] = []

    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> str:
        calls.append((d, ch, verbose))
        return "stock"

    module = SimpleNamespace(parse_model=parse_model, BaseModel=SimpleNamespace(load=lambda self, weights: "loaded"))
    install.install("ultralytics.nn.tasks", module)  # type: ignore[arg-type]
    assert module.BaseModel.load(None, {"model": SimpleNamespace(yaml={"nc": 2})}) == "loaded"
    assert module.parse_model({"nc": 2}, ch=3, verbose=False) == "stock"
    assert calls == [({"nc": 2}, 3, False)]

    monkeypatch.setattr(widths, "build", lambda stock, d, ch, verbose: (stock, d, ch, verbose))
    pruned = {SPEC_KEY: {}}
    assert module.parse_model(pruned, 3) == (parse_model, pruned, 3, True)


def _base_trainer() -> SimpleNamespace:
    """A stand-in of the host's BaseTrainer: what of it is wrapped."""
    return SimpleNamespace(run_callbacks=lambda self, event: None, train=lambda self: None)


def test_a_plain_ddp_run_is_the_hosts_own() -> None:
    started: list[object] = []
    module = SimpleNamespace(generate_ddp_command=started.append, BaseTrainer=_base_trainer())
    install.install("ultralytics.engine.trainer", module)  # type: ignore[arg-type]
    module.generate_ddp_command(plain := _trainer(device="0,1"))
    assert started == [plain]
    with pytest.raises(RecipeError):
        module.generate_ddp_command(_trainer(prune=1.5, device="0,1"))
    assert started == [plain]


def test_attach_with_several_gpus_needs_a_host_that_gives_workers_its_callbacks(tmp_path: Path) -> None:
    """The hosts before 8.4.140 write a script for the workers that has the arguments alone."""
    code = "def generate_ddp_file(trainer): ...\ndef generate_ddp_command(trainer): started.append(trainer)\n"
    old = types.ModuleType("an_old_dist")
    old.started = []  # type: ignore[attr-defined]
    sys.modules["an_old_dist"] = old
    exec(compile(code, "an_old_dist.py", "exec"), vars(old))
    command = old.generate_ddp_command  # type: ignore[attr-defined]
    module = SimpleNamespace(generate_ddp_command=command, BaseTrainer=_base_trainer())
    linecache.cache["an_old_dist.py"] = (len(code), None, code.splitlines(keepends=True), "an_old_dist.py")
    install.install("ultralytics.engine.trainer", module)  # type: ignore[arg-type]
    trainer = _trainer(device="0,1", model="yolov8n.yaml")
    trainer.save_dir = tmp_path
    trainer.epochs, trainer.resume, trainer.model = 10, False, YOLO("yolov8n.yaml").model
    trainer.callbacks = {"on_pretrain_routine_start": [lambda trainer: None]}
    trainer.callbacks["on_pretrain_routine_start"][0].yolo_prune_recipe = load("balanced")
    trainer.callbacks["on_pretrain_routine_start"][0].yolo_prune_taken = []
    with pytest.raises(HostError, match=r"attach\(\) with device=0,1: ultralytics .* gives its workers no callbacks"):
        module.generate_ddp_command(trainer)
    assert old.started == []  # type: ignore[attr-defined]
