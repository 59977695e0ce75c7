# yolo-prune, AGPL-3.0 license
"""What a user types or brings, damaged in every way that chance finds: how many of them end in a traceback?

    python benchmarks/fuzz.py [recipes=5000] [arguments=1000] [commands=500] [profiles=500] [sensitivities=200] [seed=0]
                              [out=benchmarks/results/fuzz.json]

Each case must be taken, or refused by a PruneError; of the command line, with one of its exit codes and a line that
begins with "yolo-prune: ". Anything else is a traceback, printed with the case that caused it. Work that takes minutes
(a measurement, an export, a cut) is where a case counts as taken: what stands before it is tried. A case of
more than ten seconds of the processor hangs and counts as well. Exit code 1 where there was a traceback.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzz_values import (
    NAMES,
    anything,
    garbled,
    json_files,
    made_up_profile,
    made_up_sensitivity,
    misspelt,
    models_in,
    setting,
)
from ultralytics import YOLO
from ultralytics.utils import LOGGER

from yolo_prune import api, cli
from yolo_prune.cost import model_size, profile_file
from yolo_prune.device import machine, measurement, profile
from yolo_prune.errors import PruneError
from yolo_prune.export import job
from yolo_prune.graph import channel_groups
from yolo_prune.host import datasets, yolo_object
from yolo_prune.planning import choice, sensitivity
from yolo_prune.planning.baseline import Baseline
from yolo_prune.recipe import resources
from yolo_prune.recipe.arguments import from_arguments
from yolo_prune.recipe.schedule import step_epochs
from yolo_prune.recipe.settings import Recipe
from yolo_prune.sweeps import local

COUNTS = {"recipes": 5000, "arguments": 1000, "commands": 500, "profiles": 500, "sensitivities": 200}
SLOW = 10.0  # seconds: a case that takes longer hangs, as a user sees it
ALONE = 40  # one command line of so many runs as a user's would, in a process of its own


class Reached(BaseException):
    """The case came through all checks, to work that is not tried here."""


# The five kinds -------------------------------------------------------------------------------------------------------


def recipes(rng: random.Random, count: int, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Recipe files: the shipped ones garbled, and YAML of settings with values of any type."""
    shipped = [path.read_text(encoding="utf-8") for path in sorted(resources.folder("recipes").glob("*.yaml"))]
    target = folder / "r.yaml"

    def read(raw: bytes) -> None:
        target.write_bytes(raw)
        wanted = from_arguments({"prune": str(target), "epochs": 10})
        assert wanted is not None
        assert Recipe(**wanted.as_dict()) == wanted
        step_epochs(wanted, 100_000)

    for _ in range(count):
        if rng.random() < 0.5:
            lines = rng.choice(shipped).splitlines()
            chosen = [line.removeprefix("# ") if rng.random() < 0.5 else line for line in lines if ":" in line]
            raw = "\n".join(chosen).encode()
            raw = garbled(rng, raw) if rng.random() < 0.8 else raw
        else:
            keys = [rng.choice(NAMES) for _ in range(rng.randrange(1, 6))]
            rows = [f"{misspelt(rng, key) if rng.random() < 0.05 else key}: {setting(rng, key)}" for key in keys]
            raw = "\n".join(rows).encode("utf-8", "replace")
        yield repr(raw[:300]), lambda raw=raw: read(raw)  # type: ignore[misc]


def arguments(rng: random.Random, count: int, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Arguments of train(), attach() and prune()."""
    yolo = YOLO("yolov8n.yaml")
    for number in range(count):
        kind = ("train", "attach", "prune")[number % 3]
        given: dict[str, Any] = {}
        for _ in range(rng.randrange(1, 5)):
            name = rng.choice(NAMES)
            given[misspelt(rng, name) or "x" if rng.random() < 0.07 else name] = setting(rng, name)
        if rng.random() < 0.5:
            given["flops"] = "50%"
        if kind == "train":
            own = {"prune": given.pop("recipe", 0.5), "epochs": given.pop("imgsz", 10)}
            named = {**own, **{f"prune_{key}": value for key, value in given.items()}}
            yield f"train {_shown(named)}", lambda named=named: _discard(from_arguments(named))  # type: ignore[misc]
        else:
            call = api.attach if kind == "attach" else api.prune
            yield f"{kind} {_shown(given)}", lambda call=call, given=given: _discard(call(yolo, **given))  # type: ignore[misc]


def commands(rng: random.Random, count: int, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Command lines of `yolo-prune`."""
    models = models_in(folder)
    for number in range(count):
        command = rng.choice([*cli._COMMANDS, *cli._COMMANDS, "help", "version", "train"])
        words = [misspelt(rng, command) if rng.random() < 0.05 else command]
        if command == "train":
            words = ["version"]
        known = cli.arguments_of(command) if command in cli._COMMANDS else ["model"]
        if rng.random() < 0.9 and "model" in known:
            words.append(f"model={rng.choice(models)}")
        for _ in range(rng.randrange(5)):
            name = rng.choice(known)
            name = misspelt(rng, name) if rng.random() < 0.1 else name
            text = rng.choice([str(anything(rng))[:3000], str(setting(rng, name)), rng.choice(models), "50%", "True"])
            words.append(rng.choice([f"{name}={text}"] * 8 + [name, f"{name}=", f"--{name}={text}", text]))
        words = [word.replace("\0", "") for word in words]  # no system hands one on
        alone = number % ALONE == 0
        yield _shown(words), lambda words=words, alone=alone: _command(words, folder, alone)  # type: ignore[misc]


def damaged_profiles(rng: random.Random, count: int, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Device profiles, read and aimed at."""
    network = YOLO("yolov8n.yaml").model
    groups = channel_groups.build(network)
    content = made_up_profile(network)
    wanted = from_arguments({"prune_latency": "60%", "prune_scope": "global", "prune_importance": "l2"})
    assert wanted is not None
    target = folder / "p.json"

    def use(raw: bytes) -> None:
        target.write_bytes(raw)
        found = profile_file.read(target)
        measurement.doubts(dict(found.content))
        json.dumps(found.brief())
        baseline = Baseline.of(network, groups, found)
        choice.plan(network, groups, wanted, baseline, choice.step_bounds(wanted, baseline))

    for raw, shown in json_files(rng, count, content):
        yield shown, lambda raw=raw: use(raw)  # type: ignore[misc]


def damaged_sensitivities(rng: random.Random, count: int, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Sensitivity files, read and held to a model."""
    groups = channel_groups.build(YOLO("yolov8n.yaml").model)
    content = made_up_sensitivity(groups)
    target = folder / "s.json"
    wanted = from_arguments({"prune": 0.5, "prune_sensitivity": str(target), "prune_importance": "l2"})
    assert wanted is not None

    def use(raw: bytes) -> None:
        target.write_bytes(raw)
        assert sensitivity.weights_of_recipe(wanted, groups)

    for raw, shown in json_files(rng, count, content):
        yield shown, lambda raw=raw: use(raw)  # type: ignore[misc]


KINDS = {
    "recipes": recipes,
    "arguments": arguments,
    "commands": commands,
    "profiles": damaged_profiles,
    "sensitivities": damaged_sensitivities,
}


def _discard(_: object) -> None:
    """Values are nobody's business here."""


def _shown(value: object) -> str:
    try:
        return repr(value)[:400]
    except ValueError:  # an int of more digits than Python prints
        return f"a {type(value).__name__} with a huge number"


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, as contextlib.chdir does from Python 3.11 on."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _command(words: list[str], folder: Path, alone: bool) -> None:
    """Run one command line and hold it to what the command promises."""
    out, err = io.StringIO(), io.StringIO()
    if alone:
        line = [sys.executable, "-m", "yolo_prune", *words]
        line = [word.encode("utf-8", "replace").decode() for word in line if len(word) < 100_000]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        code, said = done.returncode, done.stderr
    else:
        with _inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(words)
            except SystemExit as error:
                code = int(error.code or 0)
        said = err.getvalue()
    assert "Traceback" not in said, said[-2000:]
    assert code in (0, 1, 2, 3), code
    lines = [line for line in said.splitlines() if line.startswith("yolo-prune: ")]
    assert (code == 0) == (not lines) or words[0] in ("help", "check"), (code, said[-500:])
    if code:
        raise PruneError(said)


@contextlib.contextmanager
def _no_work() -> Iterator[None]:
    """Put an end where checks are over and minutes of work begin."""

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    places: list[tuple[Any, str]] = [
        *((channel_groups, "build"), (datasets, "read"), (yolo_object, "fitness"), (profile, "of_this_machine")),
        *((profile, "_make"), (job, "_samples"), (model_size, "size_of"), (local, "run")),
        (yolo_object, "of"),  # of the demo, when its images are drawn
    ]
    stock = [(holder, name, getattr(holder, name)) for holder, name in places]
    try:
        for holder, name in places:
            setattr(holder, name, reached)
        yield
    finally:
        for holder, name, function in stock:
            setattr(holder, name, function)


def run(kind: str, count: int, seed: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Try `count` cases of a kind.

    Returns:
        `cases`, `taken`, `refused`, `tracebacks` and the seconds of the slowest case.
    """
    told: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        cases = KINDS[kind](random.Random(f"{kind} {seed}"), count, Path(folder))
        if kind in ("arguments", "commands"):
            first = next(cases)  # models are made before the work has an end
            stack.enter_context(_no_work())
            cases = _with(first, cases)
        for number, (shown, case) in enumerate(cases):
            start = time.process_time()  # not of the clock: others may have the machine
            try:
                case()
                told["taken"] += 1
            except Reached:
                told["taken"] += 1
            except PruneError as error:
                told["refused"] += 1
                if kind in ("profiles", "sensitivities") and "\n" in str(error):
                    told["tracebacks"] += 1
                    say(f"{kind} {number}: not one line: {error}")
            except Exception:
                told["tracebacks"] += 1
                say(f"{kind} {number}: {shown}\n{traceback.format_exc()[-1500:]}")
            slowest = max(slowest, time.process_time() - start)
    told["tracebacks"] += slowest > SLOW and kind != "commands"
    return {
        "cases": count,
        **{key: told[key] for key in ("taken", "refused", "tracebacks")},
        "slowest_s": round(slowest, 2),
    }


def _with(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def main(words: list[str]) -> int:
    """The command."""
    given = dict(word.partition("=")[::2] for word in words)
    seed, out = int(given.pop("seed", 0)), Path(given.pop("out", "benchmarks/results/fuzz.json"))
    if unknown := set(given) - set(COUNTS):
        sys.exit(f"{', '.join(sorted(unknown))}: known are {', '.join(COUNTS)}, seed, out")
    LOGGER.setLevel("ERROR")
    start = time.time()
    counts = {kind: int(given.get(kind, count)) for kind, count in COUNTS.items()}
    rows = {kind: run(kind, count, seed) for kind, count in counts.items() if count}
    for kind, row in rows.items():
        print(f"{kind:14}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    total = sum(row["tracebacks"] for row in rows.values())
    print(f"tracebacks: {total}")
    packages = ("ultralytics", "torch", "pydantic", "PyYAML", "numpy")
    content = {
        "command": " ".join(["python benchmarks/fuzz.py", *words]),
        "seed": seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "processor": machine.this_machine()["name"],
        "seconds": round(time.time() - start, 1),
        "tracebacks": total,
        "kinds": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
