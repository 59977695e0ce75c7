# yolo-prune, AGPL-3.0 license
"""The `yolo-prune` command: its words, its faults, its exit codes, and `check` against the truth."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.environments import Environment
from yolo_prune import __version__, cli
from yolo_prune.commands import help_page, help_text
from yolo_prune.errors import BoundError, PruneError, VerifyError
from yolo_prune.export import job
from yolo_prune.recipe.arguments import ARGUMENTS, WITH_NONE, from_arguments


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a stand-in behind `apply` that notes its arguments."""
    noted: list[dict[str, Any]] = []

    def apply(model: str, flops: object = None, imgsz: int = 640, out: str | None = None) -> None:
        """Prune once."""
        noted.append({"model": model, "flops": flops, "imgsz": imgsz, "out": out})

    monkeypatch.setitem(sys.modules, "stand_in", SimpleNamespace(apply=apply))  # type: ignore[arg-type]
    monkeypatch.setitem(cli._COMMANDS, "apply", ("stand_in", "apply"))
    return noted


def _fault(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run words that must fail, and return what stderr says."""
    assert cli.main(list(words)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("yolo-prune: ")
    return captured.err.rstrip("\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("320", 320),
        ("0.5", 0.5),
        ("true", True),
        ("None", None),
        ("[320, 640]", [320, 640]),
        ("50%", "50%"),
        ("4.0G", "4.0G"),
        ("best.pt", "best.pt"),
        ("onnx,ncnn", "onnx,ncnn"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("(", "("),
    ],
)
def test_values(text: str, value: object) -> None:
    assert cli.value(text) == value
    assert type(cli.value(text)) is type(value)


def test_a_command_gets_its_arguments(calls: list[dict[str, Any]]) -> None:
    assert cli.main(["apply", "model=a=b.pt", "flops=50%", "imgsz=320"]) == 0
    assert calls == [{"model": "a=b.pt", "flops": "50%", "imgsz": 320, "out": None}]


def test_none_is_a_value_where_it_is_one() -> None:
    assert {name for name in cli._WITH_NONE if name.startswith("prune_")} == WITH_NONE
    for command in ("apply", "sweep"):
        for name in cli.arguments_of(command):
            legal = f"prune_{name.removeprefix('prune_')}" in WITH_NONE
            assert cli.parse(command, [f"{name}=None"], [name]) == {name: "none" if legal else None}


def test_names_of_a_training_are_understood(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    known = cli.arguments_of("apply")
    assert cli.parse("apply", ["prune_round=4", "prune_flops=50%"], known) == {"round": 4, "flops": "50%"}
    assert "round=8: round is given twice" in _fault(capsys, "apply", "model=a.pt", "prune_round=4", "round=8")
    assert "prune=0.5: of a training alone; say how much of the FLOPs stays" in _fault(capsys, "apply", "prune=0.5")
    assert "prune_nothing=1: no such argument." in _fault(capsys, "apply", "prune_nothing=1")
    assert calls == []


def test_all_faults_of_the_words_at_once(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    text = _fault(
        capsys, "apply", "--model=a.pt", "-m", "x.pt", "-q", "flop=50%", "imgsz", "out=", "flops=1", "flops=2"
    )
    assert "--model=a.pt: arguments have no leading dashes, write model=a.pt" in text
    assert "-m x.pt: arguments have no leading dashes, write model=x.pt" in text
    assert "-q: arguments have no leading dashes, write name=value. There are: model, flops" in text
    assert "flop=50%: no such argument. Did you mean flops?" in text
    assert "imgsz: a value is missing, write imgsz=..." in text
    assert "out=: a value is missing" in text
    assert "flops=2: flops is given twice" in text
    assert calls == []


def test_a_missing_argument_shows_an_example(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert _fault(capsys, "apply", "flops=50%") == (
        "yolo-prune: apply: model= is missing. Try: yolo-prune apply model=best.pt data=my.yaml flops=50%  (all "
        "arguments: yolo-prune help apply)"
    )
    assert "train: model= and data= are missing. Try: yolo-prune train model=best.pt" in _fault(capsys, "train")
    assert "sweep: model= and data= are missing. Try: yolo-prune sweep model=best.pt" in _fault(capsys, "sweep")
    assert _fault(capsys, "apply", "yolov8n.pt") == "yolo-prune: apply: yolov8n.pt: write model=yolov8n.pt"
    assert "best_ncnn_model: write model=best_ncnn_model" in _fault(capsys, "bundle", "best_ncnn_model")
    assert "a.yaml: write data=a.yaml" in _fault(capsys, "sweep", "a.yaml")


def test_a_typing_error_is_answered_without_torch() -> None:
    """To load torch and ultralytics takes seconds, in which nothing is seen."""
    words = [[command, "modle=x.pt"] for command in cli._COMMANDS] + [["apply"], ["sweep"], ["help", "apply"]]
    lines = (
        f"import sys\nfrom yolo_prune import cli\nprint([cli.main(words) for words in {words}], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == f"{[1] * (len(words) - 1) + [0]} False"
    assert done.stderr.count("modle=x.pt: no such argument. Did you mean model?") == len(cli._COMMANDS) - 1  # not demo


def test_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "aply: no such command. Did you mean apply?" in _fault(capsys, "aply")
    assert "verbose=1: no such argument. It takes none." in _fault(capsys, "check", "verbose=1")


@pytest.mark.parametrize(("error", "code"), [(BoundError, 1), (PruneError, 1), (VerifyError, 2)])
def test_exit_codes(
    error: type[PruneError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(model: str) -> None:
        raise error("raw output differs")

    monkeypatch.setitem(sys.modules, "stand_in", SimpleNamespace(export=export))  # type: ignore[arg-type]
    monkeypatch.setitem(cli._COMMANDS, "export", ("stand_in", "export"))
    assert cli.main(["export", "model=best.pt"]) == code
    assert capsys.readouterr().err == "yolo-prune: raw output differs\n"


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"], ["help", "version"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    for command in (*cli._COMMANDS, *cli._OTHERS):
        assert f"yolo-prune {command}" in text


def test_help_of_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[2:5] == [
        "  model=pruned.pt  the pruned checkpoint; needed",
        "  out=pruned.yaml  the file to write; default: beside the model",
        "  safe=False       load a file that holds more than classes of torch and ultralytics; trust it first",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("version", "--version"):
        assert cli.main([word]) == 0
        assert capsys.readouterr().out.strip() == __version__


def test_help_of_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "prune_latency"]) == cli.main(["help", "prune="]) == cli.main(["help", "seconds"]) == 0
    whole = capsys.readouterr().out
    assert whole.startswith(
        "yolo train ...\n`prune_latency=`\n    values: `60%` of the original, or `12ms`\n    meaning: "
    )
    assert "\n`prune=`\n    values: a fraction above 0" in whole
    assert "\nyolo-prune export ... seconds=20\n    of timing for each format" in whole
    assert "prune_params" not in whole
    assert cli.main(["help", "latency"]) == 0
    assert "`prune_latency=`\n" in (of_both := capsys.readouterr().out)
    assert "\nyolo-prune apply ... latency=60%\n" in of_both


def test_help_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "gentle"]) == cli.main(["help", "prune=gentle"]) == 0
    told = capsys.readouterr().out
    assert told.count("yolo train ... prune=gentle\n") == told.count("\n    flops: 70%\n") == 2


def test_help_prints_a_page_that_travels_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "faq"]) == cli.main(["help", "export.md"]) == 0
    said = capsys.readouterr().out
    assert "## 1. Why is my model smaller, but not faster?" in said
    assert "# Export and proof" in said
    assert cli.main(["help", "quickstart"]) == 0
    assert "<picture>" not in capsys.readouterr().out
    assert cli.main(["help", "api"]) == cli.main(["help", "arguments"]) == 0
    said = capsys.readouterr().out
    assert "\nyolo_prune.prune(model" in said
    assert "\nyolo_prune.attach(model" in said
    assert "\nBoundError(PruneError)\n" in said
    assert (
        "\n`prune_max_drop=`\n    values: above 0, below 1, in the unit of fitness\n    meaning: largest drop" in said
    )
    for page in help_page.names():
        text = help_page.of(page)
        assert text is not None
        assert not re.search(r"^:::|\]\((\.\./|decisions/)", text, re.MULTILINE), page
        assert all(len(line) <= 120 for line in text.splitlines() if line.startswith("|")), page
    assert cli.main(["help"]) == 0
    assert "adding-a-block" in capsys.readouterr().out
    assert "help export.md" in cli.HELP
    assert set(help_page.mentions("modelopt").split(", ")) < set(help_page.names()), "a word that no heading has"
    for word, hint in (
        ("quikstart", "; did you mean quickstart?"),
        ("trainin.md", "; did you mean training or train?"),
        ("../README", ""),
        ("prune_latencey", "; did you mean prune_latency or prune_check_latency?"),
        ("qunatize", "; did you mean quantize?"),
        ("faster", "; it stands in faq (1. Why is my model smaller, but not faster?)"),
        (
            "CBAM",
            "; it stands in adding-a-block (CBAM), faq (12. My model has a block of my own (CBAM, ...). What happens?)",
        ),
    ):
        first, *others = _fault(capsys, "help", word).splitlines()
        assert first == f"yolo-prune: no such page, command or argument: {word}{hint}"
        assert " ".join(others).startswith("Pages: adding-a-block, ")


@pytest.mark.parametrize("words", [("check", "--help"), ("help", "check"), ("train", "--help"), ("train", "-h")])
def test_help_of_the_commands_that_take_no_arguments_of_ours(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(list(words)) == 0
    command = next(word for word in words if word in cli._OTHERS and word != "help")
    assert capsys.readouterr().out == f"{help_text.of(command)}\n"
    assert help_text.of(command).startswith(f"yolo-prune {command}: ")


# What `**keywords` of a command's function take: settings of a recipe; arguments of the host's exporter.
HANDED_ON = {"apply": {name.removeprefix("prune_") for name in ARGUMENTS}, "export": set(job.HOST_ARGUMENTS)}


@pytest.mark.parametrize("command", sorted(cli._COMMANDS))
def test_the_help_of_a_command_is_of_its_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """commands/help_text.py says each argument of the function, in one line; its values and examples can be typed."""
    assert cli.main(["help", command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"yolo-prune {command}: ")
    assert max(map(len, lines)) <= 120
    module, name = cli._COMMANDS[command]
    signature = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    parameters = {key: one.default for key, one in signature.items() if one.kind is not one.VAR_KEYWORD}
    told = help_text.COMMANDS[command]
    if told.page or command in help_page.names():
        assert lines[-1] == f"The page: yolo-prune help {told.page}.md"
        assert told.page in help_page.names()
        assert told.page == command or command not in help_page.names()
    assert set(parameters) <= set(told.arguments)
    assert set(told.arguments) - set(parameters) <= HANDED_ON.get(command, set())
    needed = [name for name, default in parameters.items() if default is inspect.Parameter.empty]
    assert told.needed == needed
    known = cli.arguments_of(command)
    assert known[: len(told.arguments)] == list(told.arguments)
    values = cli.parse(command, [f"{name}={value}" for name, (value, _) in told.arguments.items()], known)
    given = {name: default for name, default in parameters.items() if isinstance(default, int | str) and default != ""}
    assert [name for name, default in given.items() if not isinstance(values[name], type(default))] == []
    for example in told.examples:
        program, named, *words = example.split()
        assert (program, named) == ("yolo-prune", command)
        assert set(needed) <= set(cli.parse(command, words, known))


def test_the_values_that_the_help_of_apply_shows_are_legal() -> None:
    files = {"profile", "sensitivity"}
    shown = help_text.COMMANDS["apply"].arguments
    values = {f"prune_{name}": value for name, (value, _) in shown.items() if name not in files}
    assert len(values.keys() & set(ARGUMENTS)) > 5
    for setting in values.keys() & set(ARGUMENTS):
        assert from_arguments({"prune_flops": "50%", setting: cli.value(values[setting])}) is not None


# In environments of their own -----------------------------------------------------------------------------------------


def test_check_where_it_is_installed(wheel_env: Environment) -> None:
    done = wheel_env.run("yolo-prune", "check")
    assert done.code == 0, done.text
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines() if line[:1].strip())
    assert rows["yolo-prune"].startswith(__version__)
    assert "supported: >=" in rows["ultralytics"]
    assert rows["hook"].startswith("live")
    assert "plugin is on" in rows["YOLO_PRUNE"]
    assert {"torch", "torch-pruning", "onnx", "onnxruntime", "openvino", "ncnn", "tensorrt"} <= set(rows)


def test_check_where_it_is_off(wheel_env: Environment) -> None:
    done = wheel_env.run("yolo-prune", "check", env={"YOLO_PRUNE": "0"})
    assert done.code == 1
    assert "0: the plugin is off" in done.out
    assert "off, because of YOLO_PRUNE=0" in done.out


def test_check_where_start_up_files_do_not_run(stock_env: Environment) -> None:
    done = stock_env.run("python", "-m", "yolo_prune", "check", env={"PYTHONPATH": str(ROOT)})
    assert done.code == 1
    assert "start-up files do not run here" in done.out


def test_train_is_the_hosts_with_the_hook(stock_env: Environment) -> None:
    words = ("model=yolov8n.yaml", "data=none.yaml", "epochs=1", "prune=1.5")
    done = stock_env.run("python", "-m", "yolo_prune", "train", *words, env={"PYTHONPATH": str(ROOT)})
    assert done.code == 1, done.text
    assert done.err.splitlines()[-1].startswith("yolo-prune: ")
    assert "prune=1.5" in done.err.splitlines()[-1]
    off = {"PYTHONPATH": str(ROOT), "YOLO_PRUNE": "0"}
    done = stock_env.run("python", "-m", "yolo_prune", "train", *words, env=off)
    assert (done.code, "unset it" in done.err) == (1, True)
