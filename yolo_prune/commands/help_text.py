# yolo-prune, AGPL-3.0 license
"""`yolo-prune help COMMAND`: one line an argument, with a value that is legal, and commands to copy.

docs/commands.md holds the same texts (docs/site/generate.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Help(NamedTuple):
    """What is told of a command.

    Attributes:
        purpose: one line. arguments: name -> (a value, what it means), those that are needed first; `cli` takes these
            and no others.
        examples: whole commands. more: a line on arguments that are handed on. page: of the documentation, on it.
    """

    purpose: str
    arguments: Mapping[str, tuple[str, str]]
    examples: tuple[str, ...]
    more: str = ""
    page: str = ""

    @property
    def needed(self) -> list[str]:
        """The arguments that have no default: what they mean ends with that word."""
        return [name for name, (_, meaning) in self.arguments.items() if meaning.endswith("; needed")]


_SAFE = ("False", "load a file that holds more than classes of torch and ultralytics; trust it first")
_MODEL = ("best.pt", "the checkpoint; needed")
_IMGSZ = ("640", "side of the input in pixels; default: what the model was trained with")

_APPLY = Help(
    "cut a checkpoint once, without training, and write it",
    {
        "model": _MODEL,
        "flops": ("50%", "upper bound on the FLOPs: a share of the model, or 4.0G"),
        "params": ("60%", "upper bound on the parameters: a share, or 1.5M"),
        "latency": ("60%", "upper bound on the milliseconds: a share, or 12ms; of profile=, or of this machine"),
        "size": ("1.5MB", "upper bound on the bytes of the exported file: also 800kB, or a share, 30%"),
        "recipe": ("gentle", "a shipped recipe, or a .yaml file"),
        "data": ("my.yaml", "data it was trained on: a better cut, and accuracy before and after"),
        "out": ("pruned.pt", "the file to write; default: beside the model, with -pruned in its name"),
        "imgsz": _IMGSZ,
        "profile": ("device.json", "what latency= is of, as yolo-prune profile writes it"),
        "check_latency": ("False", "do not time the plan for latency= on this machine, and choose again by that"),
        "format": ("onnx", "the runtime that it is for: onnx, openvino, ncnn, engine"),
        "precision": ("fp16", "fp32, fp16 or int8"),
        "importance": ("obdc", "l1, l2, bn, lamp, fpgm, random; with data= also obdc, fisher, taylor, activation"),
        "scope": ("global", "how the cut is spread: uniform, global, latency, isomorphic"),
        "reconstruct": ("none", "with data=, what makes up for the cut: none, bias, bn, or weights, the default"),
        "sensitivity": ("sensitivity.json", "measured sensitivity, as yolo-prune inspect data=... writes it"),
        "round": ("16", "channel counts become multiples of this; default: what the device wants, or 8"),
        "min_channels": ("16", "no layer falls below so many; default 8"),
        "max_cut": ("0.8", "largest share of a layer's channels that may go"),
        "depth": ("0.25", "largest share of the residual blocks that may go whole"),
        "heads": ("0.5", "largest share of the heads of each attention that may go whole"),
        "protect": ("backbone,model.22.*", "modules that stay as they are; also neck, head"),
        "safe": _SAFE,
    },
    (
        "yolo-prune apply model=best.pt data=my.yaml flops=50%",
        "yolo-prune apply model=best.pt data=my.yaml size=70% protect=backbone out=small.pt",
    ),
    page="how-much",
)

_EXPORT = Help(
    "export a checkpoint, prove that each file does what the model does, and time it",
    {
        "model": ("pruned.pt", "the checkpoint, pruned or not; needed"),
        "format": ("onnx,openvino", "onnx, openvino, ncnn, mnn, litert, torchscript, engine; default onnx"),
        "dense": ("best.pt", "the model it was pruned from, to stand beside it in the table"),
        "data": ("my.yaml", "for mAP, for the images that outputs are compared on, and to calibrate INT8"),
        "quantize": ("8", "8 adds INT8 files, 16 adds FP16"),
        "imgsz": _IMGSZ,
        "batch": ("1", "images a call"),
        "threads": ("1", "CPU threads of what is timed"),
        "images": ("8", "how many images outputs are compared on"),
        "repeats": ("30", "timed calls of each model, at least"),
        "seconds": ("20", "of timing for each format, at most; it ends when the speed-up is known to 3%"),
        "out": ("exported", "folder for the files, export.json, export.png and export.log; default: the model's"),
        "dynamic": ("True", "of the host's exporter: any image size"),
        "fraction": ("0.5", "of the host's exporter: share of data= that INT8 is calibrated on"),
        "opset": ("17", "of the host's exporter: of ONNX"),
        "simplify": ("True", "of the host's exporter: simplify the ONNX graph"),
        "workspace": ("4", "of the host's exporter: GiB for TensorRT"),
        "safe": _SAFE,
    },
    (
        "yolo-prune export model=pruned.pt dense=best.pt data=my.yaml format=onnx,ncnn",
        "yolo-prune export model=pruned.pt dense=best.pt data=my.yaml format=openvino quantize=8",
    ),
    page="export",
)

_PROFILE = Help(
    "measure what each layer of a model costs, on this machine or, with kit=, on another one",
    {
        "model": _MODEL,
        "format": ("ncnn", "the runtime: onnx, openvino, ncnn, engine (TensorRT); default onnx"),
        "imgsz": _IMGSZ,
        "out": ("device.json", "the file to write"),
        "kit": ("profile.pyz", "write a program that measures another device: python3 profile.pyz out=device.json"),
        "threads": ("4", "CPU threads; default 1"),
        "precision": ("fp16", "fp32, fp16 or int8; default fp32"),
        "safe": _SAFE,
    },
    (
        "yolo-prune profile model=best.pt format=onnx imgsz=640 out=device.json",
        "yolo-prune profile model=best.pt format=ncnn imgsz=640 kit=profile.pyz",
    ),
    page="profiles",
)

_INSPECT = Help(
    "list every convolution, as prunable or protected and why; with data=, how sensitive each group is",
    {
        "model": _MODEL,
        "data": ("my.yaml", "measure what the loss rises by when each group is cut alone"),
        "out": ("sensitivity.json", "the file for prune_sensitivity=; default: beside the model"),
        "images": ("16", "how many training images that is measured on"),
        "imgsz": _IMGSZ,
        "importance": ("l2", "how channels are scored for it: l1, l2, bn, lamp, fpgm, random"),
        "protect": ("backbone,model.22.*", "what a recipe would protect"),
        "safe": _SAFE,
    },
    (
        "yolo-prune inspect model=best.pt",
        "yolo-prune inspect model=best.pt data=my.yaml out=sensitivity.json",
    ),
)

_SWEEP = Help(
    "what to deploy: pruned models, other models and smaller images, trained alike and timed together",
    {
        "model": ("best.pt", "the trained model; needed"),
        "data": ("my.yaml", "the data that it was trained on; needed"),
        "epochs": ("60", "of every training, default 100; 0 shows what each cut leaves before any, in minutes"),
        "flops": ("70%,50%,35%", "bounds on the FLOPs: a pruned model for each"),
        "params": ("60%", "bounds on the parameters, likewise"),
        "latency": ("50%,12ms", "bounds on the milliseconds; within the first, the most accurate is recommended"),
        "size": ("1.5MB", "bounds on the bytes of the exported file"),
        "recipe": ("gentle,mine.yaml", "recipes that the cuts are made by, each with each bound"),
        "importance": ("obdc,l2", "importances, each with each bound"),
        "baselines": ("yolo11n.pt", "other models, trained for as long: a .pt, published weights, or a yaml"),
        "teacher": ("True", "train each of these a second time with the model as teacher"),
        "imgsz": ("640,512", "image sizes, each for every model; all is compared with the model at its own"),
        "quantize": ("8", "8 adds INT8 of everything, 16 adds FP16"),
        "format": ("onnx", "the runtime of all, default onnx: openvino, ncnn, mnn, litert, torchscript, engine"),
        "profile": ("device.json", "of another device, one for each image size: milliseconds are predicted"),
        "threads": ("1", "CPU threads of what is timed"),
        "seconds": ("5", "of timing for each model, at most"),
        "max_drop": ("0.01", "what the fastest recommended model may lose"),
        "train": ("all", "all: also cuts that another one of their size beats clearly; default promising"),
        "jobs": ("2", "trainings at a time; default one, or one a device"),
        "devices": ("0,1", "of the host; each training gets one"),
        "engine": (
            "ray",
            "local (default): processes on this machine; ray: trials on a Ray cluster",
        ),
        "cpus": ("4", "CPUs of a trial on Ray; default 1 beside a GPU, else up to 8"),
        "gpus": ("0.5", "the part of a GPU that a trial on Ray gets; default 1 where there is one"),
        "out": ("runs/sweep", "the folder; the same command goes on in it"),
        "safe": _SAFE,
    },
    (
        "yolo-prune sweep model=best.pt data=my.yaml epochs=60 flops=70%,50%,35% baselines=yolo11n.pt imgsz=640,512",
        "yolo-prune sweep model=best.pt data=my.yaml epochs=0 flops=70%,50%,35%",
    ),
    "All others are arguments of yolo train, for every training: batch=8, seed=1, prune_scope=global.",
    page="sweep",
)

COMMANDS: Mapping[str, Help] = {
    "demo": Help(
        "do the whole job offline, from nothing to a verified ONNX file",
        {
            "out": ("yolo-prune-demo", "a folder for all of it; the next demo uses it again"),
            "seed": ("0", "of the data and of the trainings"),
        },
        ("yolo-prune demo",),
        page="quickstart",
    ),
    "check": Help(
        "what is installed, and whether `yolo train prune=0.5` works in this environment",
        {},
        ("yolo-prune check",),
        "It takes no arguments. Exit code 0: pruning works here; 1: it does not, and a line says why.",
        page="faq",
    ),
    "apply": _APPLY,
    "inspect": _INSPECT,
    "yaml": Help(
        "write the architecture of a pruned checkpoint to a file that yolo train model= builds from",
        {
            "model": ("pruned.pt", "the pruned checkpoint; needed"),
            "out": ("pruned.yaml", "the file to write; default: beside the model"),
            "safe": _SAFE,
        },
        ("yolo-prune yaml model=pruned.pt",),
    ),
    "export": _EXPORT,
    "bundle": Help(
        "make a folder of an exported detector, its labels and scripts that needs no torch and no ultralytics",
        {
            "model": ("pruned_ncnn_model", "pruned.onnx, pruned_openvino_model or pruned_ncnn_model; needed"),
            "out": ("pruned-bundle", "the folder to write; default: the file's name with -bundle behind it"),
        },
        ("yolo-prune bundle model=pruned_ncnn_model",),
    ),
    "profile": _PROFILE,
    "sweep": _SWEEP,
    "train": Help(
        "the same as `yolo train` with the plugin, where start-up files do not run",
        {
            "model": ("best.pt", "the model to train and to prune"),
            "data": ("my.yaml", "the data that it is trained on"),
            "epochs": ("100", "of the training, in which it is pruned"),
            "prune": ("0.5", "the fraction of the FLOPs that goes, or a recipe"),
        },
        ("yolo-prune train model=best.pt data=my.yaml epochs=100 prune=0.5",),
        "All others are arguments of yolo train, and those of pruning: yolo-prune help arguments",
        page="training",
    ),
}


def of(command: str) -> str:
    """The text of one command: what it does, its arguments, a line each, and examples."""
    told = COMMANDS[command]
    rows = [(f"{name}={value}", meaning) for name, (value, meaning) in told.arguments.items()]
    width = max((len(word) for word, _ in rows), default=0)
    lines = [f"yolo-prune {command}: {told.purpose}"]
    lines += ["", *(f"  {word:{width}}  {meaning}" for word, meaning in rows)] if rows else []
    lines += ["", told.more] if told.more else []
    lines += ["", "Examples:", *(f"  {example}" for example in told.examples)]
    lines += ["", f"The page: yolo-prune help {told.page}.md"] if told.page else []
    return "\n".join(lines)
