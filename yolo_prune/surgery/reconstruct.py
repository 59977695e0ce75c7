# yolo-prune, AGPL-3.0 license
"""Reconstruction: what a cut took is made up for in what stays, on a few images, without labels or gradients.

    bias      channels that go were not 0: their mean, as their readers saw it, is added to the readers' bias, or taken
              off the running mean of the BatchNorm that follows
    bn        the running mean and variance of every BatchNorm are moved by what the cut changed in what it reads, in
              the order of the layers (norm_statistics.py)
    weights   before that, each layer's weights move to where its outputs are again those of the model before the cut,
              by least squares with a ridge (He et al., arXiv 1707.06168; ZipLM, arXiv 2302.04089, goes further)

Each includes those above it. `weights` takes two passes over the images. The first notes what each layer of the whole
model puts out at some places of each image. The second runs the cut model on all images at once: a layer is solved when
its inputs arrive, which come of layers that are solved already, so that it also mends what those could not. Its targets
are the outputs of the model before the cut, its start the weights that are left, and the ridge holds it there where the
images do not say.

With n places, o outputs and d weights an output, a layer takes about n * d * min(n, d) + 7 / 3 * min(n, d) ** 3
operations. n is at most `_PLACES`, which bounds time and memory with the number of images (host/datasets.py).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from yolo_prune import log
from yolo_prune.allocation.allocate import PrunePlan
from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.graph.model_state import given, removed_after, undisturbed
from yolo_prune.host.memory import give_back, is_out_of_memory
from yolo_prune.surgery import cut_channels, least_squares, norm_statistics
from yolo_prune.surgery.norm_statistics import Standing

_PLACES = 18432  # at which a layer is fitted, in all images together
_FEW = 8  # images by which running statistics are judged

KeptPositions = Mapping[str, tuple["np.ndarray | None", "np.ndarray | None"]]  # of cut_channels.kept_positions
Made = dict[int, tuple[str, "weakref.ref[torch.Tensor]"]]  # by the identity of an output: the layer, and the output


@dataclass
class DenseOutputs:
    """What a model put out before its cut.

    Attributes:
        kept: layer -> the positions that stay along its outputs and its inputs, None for all.
        places: layer -> (p,) flat places of its output, the same in every image.
        outputs: layer -> (n, p, rows that stay).
        removed: layer -> (out,) what the inputs that go added to its outputs, on average.
        norms: BatchNorm -> how its running statistics stand to those of these images, of the rows that stay.
        followed: layer -> the BatchNorm that reads its output.
        true: whether the running statistics were worth keeping.
    """

    kept: KeptPositions
    places: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    removed: dict[str, torch.Tensor] = field(default_factory=dict)
    norms: dict[str, Standing] = field(default_factory=dict)
    followed: dict[str, str] = field(default_factory=dict)
    true: bool = False


def observe(model: nn.Module, graph: ChannelGraph, plan: PrunePlan, images: torch.Tensor, method: str) -> DenseOutputs:
    """Note what a model does before it is cut; it comes back as it was.

    Args:
        model: a stock model. graph, plan: its groups and what the cut will keep of them.
        images: (n, channels, height, width), 0..1.
        method: a recipe's `reconstruct`, but none; what a lesser one needs not is not noted.
    """
    kept = cut_channels.kept_positions(graph, plan)
    before = DenseOutputs(kept)
    merged = {block.consumer for block in graph.blocks if block.name in plan.blocks}  # their columns add up: not lost
    layers = {name: module for name, module in model.named_modules() if name in kept and _plain(module)}
    calls = dict.fromkeys(layers, 0)
    means: dict[str, torch.Tensor] = {}
    made: Made = {}
    fitted = layers.keys() - _behind_a_choice(model, layers)
    count = max(1, _PLACES // len(images))

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> None:
            x = given(args, kwargs).detach()
            calls[name] += 1 if x.ndim > 1 else 2  # one vector is of one image: as a layer that is run twice
            if x.ndim < 2:
                return
            y = _rows(module, output.detach())
            made[id(output)] = (name, weakref.ref(output))
            if kept[name][1] is not None and name not in merged:
                means[name] = _mean_of_inputs(module, x.float())
            if method == "weights" and name in fitted:
                order = torch.Generator().manual_seed(len(before.places))
                before.places[name] = torch.randperm(y.shape[1], generator=order)[:count].to(y.device)
                noted = y[:, before.places[name]].float()
                rows = kept[name][0]
                before.outputs[name] = noted if rows is None else noted[..., torch.as_tensor(rows, device=y.device)]

        return look

    with undisturbed(model), torch.no_grad():
        model.eval()
        untrue = norm_statistics.untrue(model, images[:_FEW])
        before.true = not untrue
        handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in layers.items()]
        norms = norm_statistics.norms_of(model).items()
        if untrue:  # early in a training: outputs by them would be of no use
            _say_untrue(untrue, len(norms))
            norm_statistics.be_of_images(model, momentum=0.0)
        noted = before.true and method != "bias"
        for name, module in norms:
            look = _norm_hook(name, before, made, calls, noted)
            handles.append(module.register_forward_pre_hook(look, with_kwargs=True))
        with removed_after(handles):
            model(images)
    for name in [name for name, number in calls.items() if number != 1]:  # run twice, or by other means than a call
        before.outputs.pop(name, None)
        before.norms.pop(name, None)
        means.pop(name, None)
        before.followed = {layer: norm for layer, norm in before.followed.items() if norm != name}
    for name, mean in means.items():
        before.removed[name] = _output_of_removed_inputs(layers[name], kept[name][1], mean)
    return before


def _say_untrue(names: list[str], of: int) -> None:
    """In the model's order, for what is wrong in one shows in those behind it."""
    more = f" (and {len(names) - 1} more, of {of})" if len(names) > 1 else ""
    log.say(
        f"the running statistics of {names[0]}{more} are far from those of the images, as they are early in a "
        "training: after this cut all norms take those of the images"
    )


def _norm_hook(name: str, before: DenseOutputs, made: Made, calls: dict[str, int], noted: bool) -> Callable[..., None]:
    """A hook of a norm that counts its calls, notes whose output it reads and, if asked, how its statistics stand."""

    def look(module: nn.Module, args: Any, kwargs: Any) -> None:
        x = given(args, kwargs)
        layer, output = made.get(id(x), ("", None))
        if output is not None and output() is x:
            before.followed[layer] = name
        calls[name] = calls.get(name, 0) + 1
        if noted:
            rows, _ = before.kept.get(name, (None, None))
            before.norms[name] = norm_statistics.standing(module, x).of_rows(rows)

    return look


def restore(
    model: nn.Module, before: DenseOutputs, images: torch.Tensor, method: str, frozen: Collection[str] = ()
) -> None:
    """Make up for a cut, in place.

    Args:
        model: the model that was observed, cut. before: of `observe` with the same images and method.
        frozen: names of parameters that are not trained: their layers and norms stay as they are.
    """
    modules = dict(model.named_modules())
    held = {name.rpartition(".")[0] for name in frozen}
    for name, removed in before.removed.items():
        if name in modules and name not in held:
            rows = before.kept[name][0]
            staying = removed if rows is None else removed[torch.as_tensor(rows, device=removed.device)]
            followed = before.followed.get(name, "")
            _shift(modules[name], None if followed in held else modules.get(followed), staying)
    if method != "bias":
        _on_device_or_cpu(lambda some: _fit_weights(model, before, some, held), model, images)


def _fit_weights(model: nn.Module, before: DenseOutputs, images: torch.Tensor, held: Collection[str]) -> None:
    """One pass over all images: statistics of norms moved, and the layers that were noted solved for what they gave."""
    modules = dict(model.named_modules())
    solving = {name: modules[name] for name in before.outputs if name in modules and name not in held}
    progress = log.Progress("fitting layers", len(solving))

    def hook(name: str) -> Callable[..., None]:
        def solve(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = given(args, kwargs).detach()
            read, wanted = _read(module, x, before.places[name].to(x.device)), before.outputs[name].to(x.device)
            settled = name in before.followed and before.followed[name] not in held  # by the norm behind it
            centred = getattr(module, "bias", None) is not None or settled
            least_squares.fit(module, read, wanted, centred=centred)
            progress.one()

        return solve

    def follow(before: Standing) -> Callable[..., None]:
        return lambda module, args, kwargs: norm_statistics.follow(module, given(args, kwargs), before)

    with undisturbed(model), torch.no_grad():
        handles = [module.register_forward_pre_hook(hook(name), with_kwargs=True) for name, module in solving.items()]
        with removed_after(handles):
            if before.true:  # a norm that is run more than once keeps what it has
                model.eval()
            else:
                norm_statistics.be_of_images(model, momentum=1.0, held=held)
            for name in before.norms.keys() & modules.keys() - held:
                modules[name].eval()
                handles.append(modules[name].register_forward_pre_hook(follow(before.norms[name]), with_kwargs=True))
            model(images)


@contextlib.contextmanager
def reconstructed(
    model: nn.Module,
    graph: ChannelGraph,
    plan: PrunePlan,
    images: torch.Tensor | None,
    method: str,
    frozen: Collection[str] = (),
) -> Iterator[None]:
    """Make up for the cut that is done inside; see `observe` and `restore`. Without images nothing is done."""
    if images is None or method == "none":
        yield
        return
    before = _on_device_or_cpu(lambda some: observe(model, graph, plan, some, method), model, images)
    yield
    restore(model, before, images, method, frozen)


def _on_device_or_cpu(act: Callable[[torch.Tensor], Any], model: nn.Module, images: torch.Tensor) -> Any:
    """Do this on the model's device, or, where a training has filled that, with the model on the CPU for the time."""
    device = next(model.parameters()).device
    try:
        return act(images.to(device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        log.warn(f"no memory left on {device} to make up for the cut; the CPU does it")
    give_back(device)
    model.cpu()
    try:
        return act(images.cpu())
    finally:
        model.to(device)


def _plain(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _behind_a_choice(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Layers whose places are the best queries in their order: after a cut these are others, in another one.

    Of RT-DETR's decoder all but what reads every place of the maps (8.4.190, nn/modules/head.py: `RTDETRDecoder`).
    """
    chosen = set()
    for decoder in (name for name, module in model.named_modules() if hasattr(module, "num_queries")):
        before = tuple(f"{decoder}.{part}" for part in ("input_proj.", "enc_output.", "enc_score_head"))
        chosen |= {name for name in names if name.startswith(f"{decoder}.") and not name.startswith(before)}
    return chosen


def _rows(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """(n, places, out) of a layer's output."""
    if isinstance(module, nn.Conv2d):
        return output.flatten(2).transpose(1, 2)
    return output.reshape(len(output), -1, output.shape[-1])


def _mean_of_inputs(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(inputs,) over images and places."""
    return x.mean((0, 2, 3)) if isinstance(module, nn.Conv2d) else x.flatten(0, -2).mean(0)


def _output_of_removed_inputs(module: Any, columns: np.ndarray | None, mean: torch.Tensor) -> torch.Tensor:
    """(out,) what the inputs that are not in `columns` add to a layer's outputs when they are at their mean."""
    gone = mean.clone()
    gone[torch.as_tensor(columns, device=mean.device)] = 0
    weight = module.weight.detach().float()
    output: torch.Tensor = weight.reshape(*weight.shape[:2], -1).sum(2) @ gone
    return output


def _shift(layer: nn.Module, norm: nn.Module | None, constant: torch.Tensor) -> None:
    """Add a constant to a layer's outputs: in its bias, or in the running mean of the norm that reads them."""
    bias = getattr(layer, "bias", None)
    if bias is not None:
        bias.data += constant.to(bias.device, bias.dtype)
    elif isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
        norm.running_mean -= constant.to(norm.running_mean.device, norm.running_mean.dtype)


def _read(module: Any, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(n * places, d) what each of a layer's weights reads, in the order of weight[o].flatten()."""
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1])[:, places].flatten(0, 1)
    (kh, kw), sw, (dh, dw) = module.kernel_size, module.stride[1], module.dilation
    borders = module._reversed_padding_repeated_twice  # left, right, top, bottom, as its own forward has them
    x = functional.pad(x, borders)
    wide = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    rows, columns = places // wide * module.stride[0], places % wide * sw
    y = rows[:, None, None] + torch.arange(kh, device=x.device)[None, :, None] * dh
    z = columns[:, None, None] + torch.arange(kw, device=x.device)[None, None, :] * dw
    patches: torch.Tensor = x[:, :, y, z].permute(0, 2, 1, 3, 4).flatten(2).flatten(0, 1)
    return patches
