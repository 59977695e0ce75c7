# yolo-prune, AGPL-3.0 license
"""The settings of a recipe: what each means, its legal values and its default; and Recipe, whose settings agree.

Pure: pydantic, no torch.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from yolo_prune.recipe.bounds import BOUNDS, EXAMPLES, Bound, fault, is_figure, read_bound
from yolo_prune.recipe.disagreements import disagreements
from yolo_prune.recipe.formats import FORMATS
from yolo_prune.recipe.schedule import ALONE, FIRST, SCHEDULES
from yolo_prune.recipe.setting_values import format_name, one_of, pattern, patterns

# Of a training, which one cut has no use for. A recipe may have them; asked for by name of one cut they are refused.
OF_TRAINING = (
    *("start", "end", "steps", "schedule", "warmup", "restart_lr", "regularize", "regularize_strength"),
    *("nbs", "ema", "frames", "distill_outputs", "deploy", "qat"),
)
_STEPS, _END = 5, 0.6  # where there are several steps: how many, and when the last one is
# Lists in a recipe file; as an argument, words with commas between them.
LISTS = {"protect": "model.0,model.22.*", "deploy": "onnx,openvino"}
# Also what registry.py registers. The functions are in allocation/scopes.py, which needs numpy; this file does not.
SCOPE_NAMES = {"uniform", "global", "isomorphic", "latency"}


# Types of single values


def _setting(default: Any, meaning: str, values: str, right: str) -> Any:
    """A field of `Settings`: what it means and takes (for the table), and what would be right (for the errors)."""
    return Field(default, description=meaning, json_schema_extra={"values": values, "right": right})


_BOUND_RIGHT = "must be a percentage of the original or a figure with its unit, for example 50% or "
_Flops = Annotated[Bound | None, BeforeValidator(partial(read_bound, "flops"))]
_Params = Annotated[Bound | None, BeforeValidator(partial(read_bound, "params"))]
_Latency = Annotated[Bound | None, BeforeValidator(partial(read_bound, "latency"))]
_Size = Annotated[Bound | None, BeforeValidator(partial(read_bound, "size"))]
_Scope = Annotated[str, BeforeValidator(partial(one_of, SCOPE_NAMES))]
_Schedule = Annotated[str, BeforeValidator(partial(one_of, SCHEDULES))]
_Format = Annotated[Literal["onnx", "openvino", "ncnn", "engine"] | None, BeforeValidator(format_name)]
_Precision = Literal["fp32", "fp16", "int8"] | None
_Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
_Drop = Annotated[float | None, Field(gt=0, lt=1, allow_inf_nan=False)]
_Sparsity = Annotated[str | None, BeforeValidator(pattern)]
_AverageAge = Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)]
_Images = Annotated[int | None, Field(ge=1, le=65_536)]
_Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_File = Annotated[str | None, Field(min_length=1, max_length=4096)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
_Proven = Annotated[str, BeforeValidator(partial(one_of, FORMATS)), BeforeValidator(format_name)]  # read from the right
_Formats = Annotated[tuple[_Proven, ...], BeforeValidator(patterns)]
_Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=500)], ...],
    BeforeValidator(patterns),
]
_Epochs = Annotated[int | None, Field(ge=1, le=10_000)]
_Steps = Annotated[int, Field(ge=1, le=10_000)]
_Count = Annotated[int, Field(ge=1, le=4096)]


# The schema


class Settings(BaseModel):
    """All that a recipe file may say, each with the default it has when the file leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    flops: _Flops = _setting(
        None,
        "upper bound on the FLOPs of the final model",
        "`50%` of the original, or `4.0G`",
        f"{_BOUND_RIGHT}{EXAMPLES['flops']}",
    )
    params: _Params = _setting(
        None,
        "upper bound on its parameters; with several bounds all hold",
        "`60%` of the original, or `1.5M`",
        f"{_BOUND_RIGHT}{EXAMPLES['params']}",
    )
    latency: _Latency = _setting(
        None,
        "upper bound on its latency on the measured device (`prune_profile`; without one, this machine is measured)",
        "`60%` of the original, or `12ms`",
        f"{_BOUND_RIGHT}{EXAMPLES['latency']}",
    )
    size: _Size = _setting(
        None,
        "upper bound on the bytes of its exported file (`prune_format`: ONNX, or ncnn) at `prune_precision`; 1 MB is "
        "1,000,000 bytes",
        "`30%` of the original, or `1.5MB`, `800kB`, `900000B`",
        f"{_BOUND_RIGHT}{EXAMPLES['size']}",
    )
    importance: _Name = _setting(
        "obdc",
        "how channels are scored; those of low score are cut: by weights, or by gradients (`obdc`, `fisher`, `taylor`) "
        "or activations (`activation`) of the training between steps",
        "`l1`, `l2`, `bn`, `lamp`, `fpgm`, `obdc`, `fisher`, `taylor`, `activation`, `random`, or a registered name",
        "must be the name of an importance: l1, l2, bn, lamp, fpgm, obdc, fisher, taylor, activation, random or a "
        "registered one",
    )
    scope: _Scope = _setting(
        "global",
        "how the cut is spread: the same share of every layer; more where it loses least for what it saves of the "
        "bound, or of milliseconds; the same share of each kind of layers",
        "`uniform`, `global`, `latency`, `isomorphic`, or a registered name",
        "must be uniform, global, latency or isomorphic",
    )
    schedule: _Schedule = _setting(
        "oneshot",
        "all in one step, equal steps, or large steps first; left out, `cubic` where `prune_steps`, `prune_end` or "
        "`prune_max_drop` ask for several steps",
        "`oneshot`, `linear`, `cubic`, or a registered name",
        "must be oneshot, linear or cubic",
    )
    start: _Fraction | None = _setting(
        None,
        "when the first step happens, as a fraction of the epochs; left out, a single step is before the first epoch "
        f"where the model was trained on the classes of the data, else at {ALONE}; {FIRST} where there are several",
        "0 to 1",
        "must be a fraction of the epochs, a number from 0 to 1, for example 0.05",
    )
    end: _Fraction | None = _setting(
        None,
        f"when the last step happens, as a fraction of the epochs; the rest fine-tunes; left out, {_END} where there "
        "are several",
        "0 to 1, not before the start",
        "must be a fraction of the epochs, a number from 0 to 1, for example 0.6",
    )
    steps: _Steps = _setting(
        1,
        f"how many pruning steps, at most one an epoch; left out, {_STEPS} where `prune_schedule`, `prune_end` or "
        "`prune_max_drop` ask for several",
        "1 to 10000",
        "must be a whole number from 1 to 10000, for example 5",
    )
    round: Annotated[int | None, Field(ge=1, le=4096)] = _setting(
        None,
        "channel counts that change become multiples of this; left out, of what `prune_profile` found, `prune_format` "
        "is known for, or a look of seconds at this machine finds",
        "1 to 4096",
        "must be a whole number from 1 to 4096, for example 8",
    )
    min_channels: _Count | None = _setting(
        None,
        "no layer is cut below this many channels; left out, 8",
        "1 to 4096",
        "must be a whole number from 1 to 4096, for example 16",
    )
    max_cut: _Share = _setting(
        0.8,
        "largest share of the channels of one layer that may be cut in all",
        "above 0, up to 1",
        "must be a number above 0 and up to 1, for example 0.8",
    )
    depth: _Fraction = _setting(
        0.0,
        "largest share of the residual blocks that may be removed whole, where that loses less than cutting channels",
        "0 to 1",
        "must be a share of the residual blocks, a number from 0 (none) to 1, for example 0.25",
    )
    heads: _Fraction = _setting(
        0.0,
        "largest share of the heads of each attention that may be removed whole; the widths of heads are cut anyway",
        "0 to 1; one head always stays",
        "must be a share of the heads, a number from 0 (none) to 1, for example 0.5",
    )
    max_drop: _Drop = _setting(
        None,
        "largest drop of fitness allowed; the first step after which more is missing is undone and is the last; with "
        "no bound it cuts as far as that goes",
        "above 0, below 1, in the unit of fitness",
        "must be a drop of fitness, a number above 0 and below 1, for example 0.01",
    )
    reconstruct: Literal["none", "bias", "bn", "weights"] = _setting(
        "weights",
        "what makes up for a cut at once, on a few training images: nothing; the means of what goes, added to the "
        "biases; BatchNorm statistics moved by what the cut changed, too; and weights fitted anew, so that layers put "
        "out what they did before",
        "`none`, `bias`, `bn`, `weights`",
        "must be none, bias, bn or weights",
    )
    warmup: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = _setting(
        0.0,
        "over how many epochs the learning rate comes back after each step, from low; 0 leaves it as it is",
        "0 to 100, also 0.5",
        "must be a number of epochs from 0 to 100, for example 1",
    )
    restart_lr: bool = _setting(
        False,
        "whether the learning rate goes through its whole schedule once more after the last step",
        "`True`, `False`",
        "must be True or False",
    )
    nbs: _Images = _setting(
        None,
        "images to a step of the optimizer after the last step, in place of the host's `nbs`; weight decay follows; "
        "left out, so few that Adam and its kin have about 1000 steps left, the host's at most, and of an end-to-end "
        "head (YOLO26, YOLOv10) from the first epoch on",
        "1 to 65536; the host's own is 64",
        "must be a number of images from 1 to 65536, for example 16",
    )
    ema: _AverageAge = _setting(
        0.1,
        "mean age of the averaged weights (EMA) after a step, as a share of the optimizer's steps since, where that is "
        "longer than the host's average, which over some hundred steps is none; 0: the host's",
        "0 to 0.5",
        "must be a share of the steps from 0 (the host's average) to 0.5, for example 0.1",
    )
    frames: bool = _setting(
        True,
        "after the first step, lay every second batch of training in the grey frame that the host validates in, where "
        "images are square, so that the model is as good with it as without",
        "`True`, `False`",
        "must be True or False",
    )
    distill_outputs: _Weight = _setting(
        0.0,
        "after the first step, learn scores and boxes that the model put out before, with this weight beside labels",
        "0 to 1000; with 1 it counts as much as the labels",
        "must be a weight from 0 (none) to 1000, for example 1",
    )
    regularize: Literal["none", "bn", "group", "growing"] = _setting(
        "none",
        "a penalty until the last step that drives channels to zero: L1 on BatchNorm scales, group lasso on whole "
        "groups, or one that grows on what the next step will take",
        "`none`, `bn`, `group`, `growing`",
        "must be none, bn, group or growing",
    )
    regularize_strength: Annotated[float | None, Field(gt=0, le=1e6, allow_inf_nan=False)] = _setting(
        None,
        "its strength: the share that a typical channel shrinks by in a step at a learning rate of 1; left out, what "
        "suits its kind",
        "above 0",
        "must be a number above 0, for example 0.5",
    )
    sparsity: _Sparsity = _setting(
        None,
        "single weights that become zero and stay so, reached with the last step: a share of all, or n of every m "
        "along the input channels; smaller files, and faster only where a runtime knows sparse weights",
        "`0.5` (half go), `2:4` (two of four stay)",
        "must be a share above 0 and below 1, for example 0.5, or n:m, for example 2:4",
    )
    profile: _File = _setting(
        None,
        "device profile that latencies are of, as `yolo-prune profile` writes it",
        "a file",
        "must be a file that yolo-prune profile wrote, for example device.json",
    )
    check_latency: bool = _setting(
        True,
        "whether the plan for a bound on latency is timed beside the dense model before it is cut, where the profile "
        "is of this machine, and chosen again until the bound holds as measured",
        "`True`, `False`",
        "must be True or False",
    )
    format: _Format = _setting(
        None,
        "the runtime that it will be deployed with; left out, the profile's, or `onnx`",
        "`onnx`, `openvino`, `ncnn`, `engine`",
        "must be onnx, openvino, ncnn or engine",
    )
    precision: _Precision = _setting(
        None,
        "the precision that it will be deployed in; left out, the profile's, or `fp32`",
        "`fp32`, `fp16`, `int8`",
        "must be fp32, fp16 or int8",
    )
    sensitivity: _File = _setting(
        None,
        "measured sensitivity of the channel groups, as `yolo-prune inspect data=... out=` writes it; the scopes "
        "global and latency then spare what is sensitive",
        "a file",
        "must be a file that yolo-prune inspect wrote, for example sensitivity.json",
    )
    protect: _Patterns = _setting(
        (),
        "modules whose channels are never cut, as patterns of their names; `backbone`, `neck` and `head` mean these "
        "parts of the model",
        "names with commas between them, such as `backbone,model.22.*`; in a file a list",
        "must be a list of module names or patterns, for example [model.0, model.22.*]",
    )
    deploy: _Formats = _setting(
        (),
        "formats that the trained model is exported to at the end, each proven as by `yolo-prune export`",
        "names with commas between them, such as `onnx,openvino`; in a file a list",
        f"must be a list of formats, of {', '.join(FORMATS)}; for example [onnx, openvino]",
    )

    qat: _Epochs = _setting(
        None,
        "epochs of quantization-aware training (the host's `quantize=8`) after the pruned run, in its folder `qat`",
        "a whole number",
        "must be a whole number of epochs, 1 or more, for example 5",
    )

    @model_validator(mode="before")
    @classmethod
    def _timing(cls, data: Any) -> Any:
        """What is left out of schedule, start, end and steps follows from what is given of them.

        A single step has no end of its own: it is the start, and open where that is, for the model then says it.
        """
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if key not in ("start", "end") or value is not None}
        start, end = data.get("start"), data.get("end")
        several = end not in (None, start) or data.get("max_drop") is not None or data.get("steps", 1) != 1
        schedule = data.get("schedule", "cubic" if several else "oneshot")
        if schedule != "oneshot":
            first = min(FIRST, end) if is_figure(end) and 0 <= end <= 1 else FIRST
            return {"schedule": schedule, "steps": _STEPS, "start": first, "end": _END, **data}
        fraction = is_figure(start) and 0 <= start <= 1
        return {"schedule": schedule, "steps": 1, **({"end": start} if fraction else {}), **data}


class Recipe(Settings):
    """What is asked for, checked: every field has a legal value, and they agree with one another.

    Attributes:
        name: "balanced", or the file's stem.

    Raises:
        pydantic.ValidationError: from the constructor. `load` and `from_arguments` raise RecipeError instead.
    """

    name: str

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        values = {key: getattr(self, key) for key in type(self).model_fields}
        faults = [one.words for one in disagreements(values, lambda key: f"{key}={values[key]}")]
        if faults:
            raise fault("; ".join(faults))
        return self

    def bounds_in_words(self) -> list[str]:
        """The bounds that are set, such as "flops=50%"."""
        return [f"{key}={getattr(self, key)}" for key in BOUNDS if getattr(self, key) is not None]

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain values for the record; bounds as written. `Recipe(**…)` reads it back."""
        plain = {key: getattr(self, key) for key in type(self).model_fields}
        plain.update({key: str(plain[key]) for key in BOUNDS if plain[key] is not None})
        plain.update({key: list(plain[key]) for key in LISTS})
        return {"name": plain.pop("name"), **plain}
