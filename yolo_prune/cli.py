# yolo-prune, AGPL-3.0 license
"""The `yolo-prune` command: read `key=value` arguments, call the function that answers, print faults as one line.

Exit codes: 0 done, 1 the request cannot be served (one line on stderr says why), 2 an exported file failed its
proof, 3 the machine was too busy to say how fast a model is, and all else was done.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from yolo_prune import __version__, log, scratch
from yolo_prune.errors import HostError, NoisyError, PruneError, VerifyError

HELP = """\
yolo-prune {version}: prune YOLO models while they train.

  yolo train model=yolov8n.pt data=my.yaml epochs=100 prune=0.5     half the FLOPs, with the stock command

  yolo-prune demo                                the whole job offline, from nothing to a verified ONNX file
  yolo-prune check                               what is installed, and whether the hook is live
  yolo-prune inspect model=best.pt               every convolution: prunable, or protected and why; with data=, how
                                                 much the model loses when each group is cut
  yolo-prune apply model=best.pt flops=50%       prune once, without training
  yolo-prune profile model=best.pt format=onnx   measure this device, for prune_profile= and prune_latency=
  yolo-prune yaml model=pruned.pt                its architecture as a file that `yolo train model=` builds from
  yolo-prune export model=best.pt format=onnx,openvino,ncnn    export, then prove parity, mAP and latency
  yolo-prune sweep model=best.pt data=my.yaml flops=70%,50%,35% baselines=yolo11n.pt imgsz=640,512
                                                 what to deploy: mAP over milliseconds of pruned models, other models
                                                 and smaller images; epochs=0 for what each cut leaves, in minutes
  yolo-prune bundle model=best.onnx              what a Raspberry Pi needs to run it, in one folder, without torch
  yolo-prune train ...                           the same as `yolo train ...` where start-up files do not run
  yolo-prune help [command]                      this text, or a command's arguments; help prune_latency: an argument
  yolo-prune help faq                            a page of the documentation, see below; help export.md where a command
                                                 has its name
  yolo-prune version

Arguments are key=value, as in `yolo`. YOLO_PRUNE=0 in the environment turns the plugin off.
{pages}
"""

# Where each command's function lives. What it takes is read in commands/help_text.py, and a test holds the two
# together: to import the function takes seconds, for torch, and a typing error shall be answered at once.
_COMMANDS = {
    "demo": ("yolo_prune.demo.run", "run"),
    "apply": ("yolo_prune.commands.apply", "apply"),
    "inspect": ("yolo_prune.commands.inspect", "inspect"),
    "yaml": ("yolo_prune.commands.write_yaml", "write_yaml"),
    "export": ("yolo_prune.export.job", "export"),
    "sweep": ("yolo_prune.commands.sweep", "command"),
    "bundle": ("yolo_prune.export.bundle", "bundle"),
    "profile": ("yolo_prune.device.profile", "profile"),
}
# What Ctrl-C leaves of a command, and how to go on. Files are written whole, at the end.
_AGAIN = "Give the same command again: it begins anew"
_STOPPED = {
    "export": "Give the same command again: it begins anew. Files of formats that were proven before are in place",
    "sweep": "Give the same command again: it goes on",
    "train": "How to go on stands above, where an epoch had ended",
}
_OTHERS = ("check", "train", "help", "version")
# Arguments that name something, whose text is no Python literal whatever it looks like.
_NAMES = {
    *("model", "out", "kit", "data", "dense", "protect", "profile", "sensitivity", "importance", "scope", "baselines"),
    *("prune_protect", "prune_sensitivity", "prune_scope"),
}
# Arguments of which `none` is a value and not "not given". A test holds them together with the settings of a recipe.
_WITH_NONE = {"reconstruct", "prune_reconstruct", "prune_regularize"}


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `yolo-prune`; those of this process when None.

    Returns:
        The exit code: 0 to 3 (see the module's docstring).
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        return _run(words)
    except BrokenPipeError:  # whoever read our words has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except PruneError as error:
        sys.stderr.write(f"yolo-prune: {error}\n")
        return 2 if isinstance(error, VerifyError) else 3 if isinstance(error, NoisyError) else 1
    except KeyboardInterrupt:
        sys.stderr.write(f"yolo-prune: stopped. {_STOPPED.get(words[0], _AGAIN)}\n")
        return 130


def _run(words: list[str]) -> int:
    """Find the command and do it."""
    if not words or words[0].lstrip("-") in ("help", "h"):
        return _help(words[1:])
    command, rest = words[0], words[1:]
    if command.lstrip("-") in ("version", "V"):
        print(__version__)
        return 0
    if (rest == ["help"] or {"--help", "-h"}.intersection(rest)) and command in (*_COMMANDS, *_OTHERS):
        return _help([command])
    if command == "check":
        parse(command, rest, [])
        from yolo_prune.commands import check

        return check.check()
    if command == "train":
        if not rest:
            raise PruneError(_missing(command, ["model", "data"]))
        return train(rest)
    if command not in _COMMANDS:
        raise PruneError(f"{command}: no such command.{_near(command, [*_COMMANDS, *_OTHERS])} Try: yolo-prune help")
    from yolo_prune.commands import help_text

    arguments = parse(command, rest, arguments_of(command))
    missing = [name for name in help_text.COMMANDS[command].needed if name not in arguments]
    if missing:
        raise PruneError(_missing(command, missing))
    module, name = _COMMANDS[command]
    function = getattr(importlib.import_module(module), name)
    with scratch.unwinding(), log.aloud():
        function(**arguments)
    return 0


def _missing(command: str, names: list[str]) -> str:
    """What to say where a command lacks arguments."""
    from yolo_prune.commands import help_text

    absent = " and ".join(f"{name}=" for name in names)
    return (
        f"{command}: {absent} {'is' if len(names) == 1 else 'are'} missing. Try: "
        f"{help_text.COMMANDS[command].examples[0]}  (all arguments: yolo-prune help {command})"
    )


def arguments_of(command: str) -> list[str]:
    """The names of the arguments that a command takes, without torch."""
    from yolo_prune.commands import help_text

    own = list(help_text.COMMANDS[command].arguments)
    if command != "sweep":
        return own
    from yolo_prune.sweeps.request import PRUNE_ARGUMENTS, TRAIN_ARGUMENTS  # pydantic, which no other command waits for

    return [*own, *TRAIN_ARGUMENTS, *PRUNE_ARGUMENTS]  # too many for the help: it hands them on to trainings


def _help(words: list[str]) -> int:
    """Print the general help, what one command takes, or a page of the documentation.

    Raises:
        PruneError: there is neither a command nor a page of that name.
    """
    from yolo_prune.commands import help_page, help_text

    asked = words[0] if words else "help"
    if asked in help_text.COMMANDS:
        text: str | None = help_text.of(asked)
    else:
        text = help_page.of(asked) or _of_argument(asked) or _of_recipe(asked)
    pages = textwrap.fill(f"Pages: {', '.join(help_page.names())}", 118, break_on_hyphens=False)
    if text is None and asked not in _OTHERS:
        near = _near_to(asked.removesuffix(".md"))
        places = help_page.mentions(asked)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        hint += f"; it stands in {places}" if places else ""
        raise PruneError(
            f"no such page, command or argument: {asked}{hint}\n{pages}\nCommands: {', '.join(help_text.COMMANDS)}"
        )
    print(text or HELP.format(version=__version__, pages=pages).rstrip("\n"))
    return 0


def _near_to(word: str) -> list[str]:
    """Up to two commands or pages of nearly that name, else arguments."""
    from yolo_prune.commands import help_page, help_text

    pages = [*help_text.COMMANDS, *_OTHERS, *help_page.names()]
    own = [name for command in help_text.COMMANDS.values() for name in command.arguments]
    kinds = (pages, [*help_page.arguments(), *own])
    return next(filter(None, (difflib.get_close_matches(word, dict.fromkeys(names), n=2) for names in kinds)), [])


def _of_argument(word: str) -> str | None:
    """What is told of an argument: its row of the page, and what commands say of it; None where none has that name."""
    from yolo_prune.commands import help_page, help_text

    name = word.rstrip("=")
    row = help_page.argument(name)
    told = [f"yolo train ...\n{row}\n    all of them: yolo-prune help arguments"] if row else []
    for command, its in help_text.COMMANDS.items():
        if name in its.arguments:
            value, meaning = its.arguments[name]
            told.append(f"yolo-prune {command} ... {name}={value}\n    {meaning}")
    return "\n".join(told) or None


def _of_recipe(word: str) -> str | None:
    """A shipped recipe, which says in its comments what it is for; None where none has that name."""
    from yolo_prune.recipe import arguments, resources

    name = word.removeprefix("prune=")
    if name not in arguments.shipped():
        return None
    content = (resources.folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    return f"yolo train ... prune={name}\n\n{textwrap.indent(content.strip(), '    ')}\n\nall: yolo-prune help recipes"


def parse(command: str, words: list[str], known: list[str]) -> dict[str, Any]:
    """Read `key=value` words, all faults at once.

    Args:
        command: The command they belong to, for the message.
        words: The words after the command.
        known: Names of the arguments that it takes.

    Returns:
        Name -> value, read by `value`. A name may have the `prune_` that it has in a training.

    Raises:
        PruneError: A word without "=", with leading dashes, with an empty value, given twice, or of an unknown name.
    """
    arguments: dict[str, Any] = {}
    faults: list[str] = []
    for word in _dashes(words, known, faults):
        name, equals, text = word.partition("=")
        if name.startswith("prune_") and name not in known:  # as a training has it, and messages of both say it
            name = name.removeprefix("prune_")
        if name not in known and not equals and (argument := _named_by(name, known)):
            faults.append(f"{word}: write {argument}={word}")
        elif name == "prune" and "flops" in known:
            faults.append(f"{word}: of a training alone; say how much of the FLOPs stays, such as flops=50%")
        elif name not in known:
            faults.append(f"{word}: no such argument.{_near(name, known)}")
        elif not equals or not text.strip():
            faults.append(f"{word}: a value is missing, write {name}=...")
        elif name in arguments:
            faults.append(f"{word}: {name} is given twice")
        else:
            read = named if name in _NAMES else value
            arguments[name] = "none" if name in _WITH_NONE and text.strip().lower() == "none" else read(text.strip())
    if faults:
        raise PruneError(f"{command}: " + "\n  ".join(faults))
    return arguments


def _dashes(words: list[str], known: list[str], faults: list[str]) -> Iterator[str]:
    """The words without those of other programs, `--model=a.pt`, `--model a.pt` and `-m a.pt`, which are faults."""
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            yield word
            continue
        name, equals, text = word.lstrip("-").partition("=")
        if not equals and left and "=" not in left[0] and not left[0].startswith("-"):
            text = left.pop(0)
            word += f" {text}"
        names = [name] if name in known else [one for one in known if name and one.startswith(name)]
        names = names or difflib.get_close_matches(name, known, n=1)
        right = f"write {names[0]}={text or '...'}" if names else f"write name=value.{_near(name, known)}"
        faults.append(f"{word}: arguments have no leading dashes, {right}")


def value(text: str) -> Any:
    """Read one value as the host does: None, True and False in any case, a Python literal, else the text itself.

    Only `ast.literal_eval` is used, which builds numbers, strings, lists and the like, and calls nothing.
    """
    constants = {"none": None, "true": True, "false": False}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def named(text: str) -> Any:
    """Read the value of an argument that names something: as `value`, but a file called 2024 or 1.10 keeps its name."""
    read = value(text)
    return read if read is None or isinstance(read, str) else text


def _named_by(word: str, known: list[str]) -> str:
    """The argument that a bare file name is the value of, by its ending; empty where that is not clear."""
    endings = {"model": (".pt", ".onnx", "_model"), "data": (".yaml", ".yml")}
    return next((name for name, ends in endings.items() if name in known and word.endswith(ends)), "")


def _near(name: str, known: list[str]) -> str:
    """Name the nearest known names, or all of them when none is near and they are few."""
    near = difflib.get_close_matches(name, known, n=2)
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return f" There are: {', '.join(known)}." if known else " It takes none."


# train ----------------------------------------------------------------------------------------------------------------


def train(words: list[str]) -> int:
    """Do what `yolo train ...` does, with the hook put in by this process.

    Args:
        words: The words after `train`, read by the host alone.

    Raises:
        HostError: The hook cannot be put in.
    """
    from yolo_prune import _startup

    _startup.require_on("or use `yolo train`")
    _startup.install()
    sys.argv[:] = ["yolo", "train", *words]  # in place: the host keeps a reference to this list
    from yolo_prune import install
    from yolo_prune.host import console

    run_host = console.host_command()
    install.require_supported()
    if "ultralytics.cfg" not in install.installed:
        raise HostError("the plugin could not be put into ultralytics: run `yolo-prune check`")
    run_host()
    return 0
