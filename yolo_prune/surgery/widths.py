# yolo-prune, AGPL-3.0 license
"""The widths of a pruned model as data, carried in the yaml that every YOLO checkpoint already holds.

The host rebuilds a model from `model.yaml` at each `train` and `resume` (ultralytics 8.4.190, nn/tasks.py:
`parse_model`); that yaml knows one width factor, so a rebuilt model would be full width again. A stamped one says more:

    yaml["yolo_prune"] = {"widths": {"model.0.conv": [8, 3], ...}, "first_module": "Conv", "scale": "n", "channels": 3,
                          "run": {...}}

With yolo-prune installed, `build` stands in for `parse_model` and gives the stock classes at these widths, and `adopt`
gives them to a full-width model that is about to load pruned weights. Without it, stock `parse_model` must not succeed
in silence: the name of the first module is replaced by a sentence, which the host looks up as a class, fails, and
prints. Predict, val, track and export never read it. `portable` is the same yaml for a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from yolo_prune import log
from yolo_prune.errors import HostError, PruneError
from yolo_prune.graph import blocks, image_shape
from yolo_prune.graph.convolutions import is_depthwise
from yolo_prune.host import trainable_check
from yolo_prune.host.spec_key import SPEC_KEY

REFUSAL = (
    "This model was pruned by yolo-prune. To train it at its pruned width: pip install yolo-prune "
    "(and leave YOLO_PRUNE unset)"
)


def stamp(
    model: nn.Module,
    native: Collection[str],
    run: dict[str, Any] | None = None,
    removed: Sequence[str] = (),
    sparsity: str | None = None,
) -> None:
    """Write the widths of a cut model into its yaml, in place.

    Args:
        model: a stock model with a `yaml` dict.
        native: layers whose output counts are the stock model's (ChannelGraph.native), such as the head's last ones;
            they follow the class count of whatever data the model is trained on next.
        run: what a resumed run needs to know of the pruning so far (plain data), or None when there is no run.
        removed: names of the blocks that were just removed whole.
        sparsity: the pattern of zeros that single weights have now; None leaves what was there.
    """
    yaml: dict[str, Any] = deepcopy(_yaml(model))
    spec: dict[str, Any] = yaml.get(SPEC_KEY, {})
    if not spec:
        spec["first_module"] = yaml["backbone"][0][2]
        spec["scale"] = yaml.get("scale")
        yaml["backbone"][0][2] = REFUSAL
    spec["channels"] = image_shape.channels(model)  # of the image; the host overwrites the yaml's by those of the data
    before = spec.get("widths", {})  # what a width was said of has it, though nothing can be cut of one channel
    native = {name for name in native if before.get(name, [None])[0] is None}
    spec["widths"] = {}
    for name, module in model.named_modules():
        counts = _counts(module)
        if counts:
            spec["widths"][name] = [None, *counts[1:]] if name in native else counts
    spec["vectors"] = {name: len(model.get_parameter(name)) for name in blocks.vectors(model, single=True)}
    spec["sizes"] = deepcopy(blocks.sizes(model))
    spec["removed"] = [*spec.get("removed", []), *removed]
    spec["run"] = deepcopy(run)
    if sparsity is not None:
        spec["sparsity"] = sparsity
    yaml[SPEC_KEY] = spec
    model.yaml = yaml  # type: ignore[assignment]


def _counts(module: nn.Module) -> list[int]:
    """[outputs, inputs] of a convolution or linear layer, [channels] of a BatchNorm, nothing for other modules."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return [module.out_channels, module.in_channels]
    if isinstance(module, nn.Linear):
        return [module.out_features, module.in_features]
    return [module.num_features] if isinstance(module, nn.BatchNorm2d) else []


def _yaml(model: nn.Module) -> dict[str, Any]:
    """The yaml dict of a stock model; empty where a module has none."""
    yaml = getattr(model, "yaml", None)
    return yaml if isinstance(yaml, dict) else {}


def run_of(model: nn.Module) -> dict[str, Any] | None:
    """What `stamp` was given as `run`, or None."""
    return _yaml(model).get(SPEC_KEY, {}).get("run")


def note_run(model: nn.Module, **changes: Any) -> None:
    """Change what `stamp` was given as `run`; nothing where there is none."""
    if run_of(model) is not None:
        yaml = deepcopy(_yaml(model))
        yaml[SPEC_KEY]["run"].update(deepcopy(changes))
        model.yaml = yaml  # type: ignore[assignment]


def removed(model: nn.Module) -> list[str]:
    """Names of the residual blocks that a pruned model has lost whole."""
    return list(_yaml(model).get(SPEC_KEY, {}).get("removed", []))


def sparsity(model: nn.Module) -> str | None:
    """The pattern of zeros that the single weights of a model have, or None."""
    pattern: str | None = _yaml(model).get(SPEC_KEY, {}).get("sparsity")
    return pattern


def exact(model: nn.Module) -> dict[str, Any]:
    """The yaml of a model with every width that it has now: also those that follow a class count, or weights.

    Built of it, a model takes this one's tensors whatever they are.
    """
    own = _yaml(model)
    try:
        stamp(model, (), run_of(model))
        return _yaml(model)
    finally:
        model.yaml = own  # type: ignore[assignment]


def forget_run(model: nn.Module) -> None:
    """Drop what an earlier run left for its own resume; a new run begins at these widths."""
    if is_pruned(model):
        yaml = deepcopy(_yaml(model))
        yaml[SPEC_KEY]["run"] = None
        model.yaml = yaml  # type: ignore[assignment]


def is_pruned(model: nn.Module) -> bool:
    """Whether a model carries pruned widths."""
    return SPEC_KEY in _yaml(model)


def build(
    parse_model: Callable[..., tuple[nn.Sequential, list[int]]], d: dict[str, Any], ch: int, verbose: bool = True
) -> tuple[nn.Sequential, list[int]]:
    """What `parse_model` returns, at the widths that the yaml carries.

    Args:
        parse_model: the host's own function. d: a stamped yaml dict. ch: input channels. verbose: log a line.

    Returns:
        The layers, freshly initialised, and the host's list of layers whose outputs are saved.

    Raises:
        HostError: the yaml names a layer that this host does not build. PruneError: the yaml is damaged.
    """
    try:
        return _build(parse_model, d, ch, verbose)
    except PruneError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        fault = None if error.args[:1] == (REFUSAL,) else trainable_check.unknown_block(error, d, _name(d))
        if fault is not None:
            raise fault from error
        raise PruneError(
            f"the {SPEC_KEY} part of {_name(d)} does not fit its layers ({type(error).__name__}: {error}); write the "
            "file again with: yolo-prune yaml model=pruned.pt"
        ) from error


def _build(
    parse_model: Callable[..., tuple[nn.Sequential, list[int]]], d: dict[str, Any], ch: int, verbose: bool
) -> tuple[nn.Sequential, list[int]]:
    spec = d[SPEC_KEY]
    layers, save = parse_model(_stock(d), ch, False)
    of_image = _readers_of_the_image(parse_model, d, ch, layers)
    narrowed = 0
    holder = nn.Module()
    holder.model = layers  # so that names read as they do in the whole model
    for name in spec.get("removed", ()):
        blocks.remove(holder, name)
    modules = dict(holder.named_modules())
    for name, sizes in spec.get("sizes", {}).items():
        for size, value in sizes.items():
            setattr(modules[name], size, deepcopy(value))
    for name, wanted in spec["widths"].items():
        module = modules.get(name)
        counts = [] if module is None else _counts(module)
        if module is None or len(counts) != len(wanted):
            raise HostError(
                f"the pruned checkpoint has a layer {name} that this ultralytics does not build from its yaml; "
                "install the ultralytics that trained it"
            )
        wanted = [own if given is None else given for given, own in zip(wanted, counts, strict=True)]
        if name in of_image:
            wanted[1] = counts[1]
        if wanted != counts:
            _resize(module, wanted)
            narrowed += isinstance(module, nn.Conv2d)
    for name, size in spec.get("vectors", {}).items():
        block, _, vector = name.rpartition(".")
        parameter = getattr(modules[block], vector)
        setattr(modules[block], vector, nn.Parameter(parameter.detach()[:1].expand(size).clone()))
    blocks.set_sizes(holder)
    if verbose:
        log.say(
            f"built at the pruned widths that the checkpoint carries: {narrowed} of "
            f"{len(spec['widths'])} convolutions differ from {d.get('yaml_file', 'the stock model')}"
        )
    return layers, save


def _readers_of_the_image(
    parse_model: Callable[..., tuple[nn.Sequential, list[int]]], d: dict[str, Any], ch: int, layers: nn.Sequential
) -> set[str]:
    """Layers whose inputs follow the image's channels, where these are others than those of the model that was stamped.

    As the class count does, they follow whatever data the model is trained on next.
    """
    stamped = d[SPEC_KEY].get("channels", 3)
    if stamped == ch:
        return set()
    before = dict(parse_model(_stock(d), stamped, False)[0].named_modules(prefix="model"))
    return {
        name
        for name, module in layers.named_modules(prefix="model")
        if len(_counts(module)) == 2 and _counts(module)[1] != _counts(before[name])[1]
    }


def _stock(d: Mapping[str, Any]) -> dict[str, Any]:
    """The full-width yaml behind a stamped one, as the host's `parse_model` reads it; a plain one as it is.

    The host takes a scale from the file's name (8.4.190, nn/tasks.py: `yaml_model_load`), and my-pruned.yaml has none.
    """
    spec = d.get(SPEC_KEY)
    stock = deepcopy({key: value for key, value in d.items() if key != SPEC_KEY})
    if isinstance(spec, Mapping):
        stock["backbone"][0][2] = spec["first_module"]
        if spec.get("scale"):
            stock["scale"] = spec["scale"]
    return stock


def adopt(model: nn.Module, weights: nn.Module) -> bool:
    """Give a full-width model the pruned widths of the weights that it is about to load, in place.

    The host copies tensors of equal shape (8.4.190, nn/tasks.py: `BaseModel.load`), so a full-width model would take
    little of pruned weights, and say so in one number only.

    Args:
        model: a stock model. weights: a stock model whose tensors it will load.

    Returns:
        Whether `model` has been rebuilt. It is not where the weights are not pruned, where it is pruned itself (its own
        widths stay), and where it is another architecture, which a warning says.
    """
    given, own = _yaml(weights), _yaml(model)
    if SPEC_KEY not in given or SPEC_KEY in own:
        return False
    if type(model) is not type(weights) or _architecture(given) != _architecture(own):
        log.warn(
            f"the pretrained weights are a pruned {_name(given)} and this model is {_name(own)}: "
            "only tensors of equal shape are transferred"
        )
        return False
    yaml = deepcopy(given)
    yaml[SPEC_KEY]["run"] = None
    channels = yaml["channels"] = image_shape.channels(model)
    if "kpt_shape" in own:  # the host gives a pose model that of its data
        yaml["kpt_shape"] = own["kpt_shape"]
    fresh = type(model)(yaml, ch=channels, nc=own.get("nc"), verbose=False)
    fresh.to(next(model.parameters()).device).train(model.training)
    kept = {key: value for key, value in vars(model).items() if key in {"names", "args", "task", "pt_path"}}
    vars(model).update({**vars(fresh), **kept})
    log.say(f"rebuilt at the pruned widths of the pretrained weights ({_name(given)})")
    return True


def same_layers(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two yaml dicts build the same layers but for widths and class count; of files a tuple is a list."""

    def named(d: Mapping[str, Any]) -> Any:
        return _lists([*_architecture(d), d.get("activation")])

    return bool(named(one) == named(other))


def _lists(value: Any) -> Any:
    return [_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


def _architecture(d: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two yaml dicts must share for their layers to be the same but for widths and class count."""
    stock = _stock(d)
    scale = stock.get("scale") or next(iter(stock.get("scales") or {"": None}))
    return stock.get("backbone"), stock.get("head"), (stock.get("scales") or {}).get(scale), stock.get("width_multiple")


def _name(d: Mapping[str, Any]) -> str:
    return str(d.get("yaml_file", "a model without a yaml file")).rpartition("/")[2]


def portable(model: nn.Module) -> dict[str, Any]:
    """The yaml of a pruned model as plain data that a file can hold; the host builds it with fresh weights.

    Raises:
        PruneError: the model is not pruned.
    """
    yaml = deepcopy(_yaml(model))
    if SPEC_KEY not in yaml:
        raise PruneError(f"the model is not pruned; its architecture is the stock {_name(yaml)}")
    for key in ("run", "sparsity"):  # fresh weights have no zeros
        yaml[SPEC_KEY].pop(key, None)
    yaml.pop("yaml_file", None)
    return yaml


def _resize(module: nn.Module, counts: list[int]) -> None:
    """Give a layer new counts and fresh weights (they are loaded afterwards)."""
    if isinstance(module, nn.BatchNorm2d):
        _resize_norm(module, counts[0])
        return
    out, inp = counts
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = out, inp
        shape: tuple[int, ...] = (out, inp)
    elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        deep = is_depthwise(module)
        module.out_channels, module.in_channels = out, inp
        module.groups = out if deep else module.groups
        outer, inner = (inp, out) if isinstance(module, nn.ConvTranspose2d) else (out, inp)
        shape = (outer, inner // module.groups, *module.kernel_size)
    module.weight = nn.Parameter(torch.empty(shape))
    if module.bias is not None:
        module.bias = nn.Parameter(torch.empty(out))
    module.reset_parameters()  # type: ignore[operator]


def _resize_norm(norm: nn.BatchNorm2d, count: int) -> None:
    """The same for a BatchNorm, which may be without scale, shift or running statistics and then stays so."""
    norm.num_features = count
    held: Any
    for held in (norm._parameters, norm._buffers):
        for key, tensor in held.items():
            if tensor is not None and tensor.ndim:  # the number of batches has no dimension
                first = 1.0 if key in ("weight", "running_var") else 0.0
                new = torch.full((count,), first, device=tensor.device, dtype=tensor.dtype)
                held[key] = nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new
