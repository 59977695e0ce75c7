# yolo-prune, AGPL-3.0 license
"""The model before its first cut, which a recipe's bounds are shares of: in a training, in `apply`, in the record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from yolo_prune.cost import model_size
from yolo_prune.cost.channel_steps import OPEN, ChannelMultiple
from yolo_prune.cost.file_size import DEFAULT, Deployment
from yolo_prune.cost.model_size import UNKNOWN, DeployedSize, Size
from yolo_prune.cost.profile_file import Profile
from yolo_prune.graph import channel_groups
from yolo_prune.recipe.settings import Recipe


@dataclass(frozen=True)
class Baseline:
    """The model before its first cut.

    Attributes:
        size: params and GFLOPs. channels: group name -> channels; the bounds of a recipe are shares of these.
        layers: name of each convolution and linear layer -> output channels.
        blocks: how many residual blocks can be removed whole. heads: attention -> its heads.
        profile: the measured device that latencies are of, or None. latency: ms that it predicts, or None.
        weights: group name -> how sensitive the model is to its loss; empty where that was not measured.
        deployment: what it is exported as. deployed: GFLOPs and bytes of it then, each None where that is not known.
        multiple: what counts that change become multiples of, where neither a recipe nor a profile says it.
        fixed: layers whose channels no plan may change, for the model puts them out.
        least: FLOPs of the narrowest legal model, where a recipe has `max_drop` and no bound: it goes that far at most.
    """

    size: Size
    channels: dict[str, int]
    layers: dict[str, int]
    blocks: int = 0
    heads: dict[str, int] = field(default_factory=dict)
    profile: Profile | None = None
    latency: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    least: float | None = None
    deployment: Deployment = DEFAULT
    deployed: DeployedSize = UNKNOWN
    multiple: ChannelMultiple = OPEN
    fixed: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        graph: channel_groups.ChannelGraph,
        profile: Profile | None = None,
        weights: Mapping[str, float] | None = None,
        deployment: Deployment = DEFAULT,
        multiple: ChannelMultiple = OPEN,
    ) -> Baseline:
        """Measure a model. Arguments are as the attributes.

        Raises:
            PruneError: the profile does not fit the model.
        """
        return cls(
            model_size.size_of(model),
            {group.name: group.size for group in graph.groups},
            {layer.name: layer.out for layer in graph.layers if layer.makes},
            len(graph.blocks),
            dict(graph.heads),
            profile,
            None if profile is None else model_size.latency_of(model, profile),
            weights or {},
            deployment=deployment,
            deployed=model_size.deployed_size(model, deployment),
            multiple=multiple,
            fixed=graph.native,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint; what the recipe and the model say again when it is resumed is not in it."""
        kept = {key: getattr(self, key) for key in _KEPT}
        figures = {"size": asdict(self.size), "deployed": asdict(self.deployed), "multiple": self.multiple.as_dict()}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in kept.items()} | figures

    @classmethod
    def from_dict(
        cls, kept: Mapping[str, Any], profile: Profile | None, deployment: Deployment, fixed: frozenset[str]
    ) -> Baseline:
        """The baseline that `as_dict` gave, with what is not in it. Arguments are as the attributes.

        What an earlier version kept beside is left.
        """
        kept = {**kept, "latency": None if profile is None else kept["latency"]}
        plain: dict[str, Any] = {key: dict(kept[key]) if isinstance(kept[key], Mapping) else kept[key] for key in _KEPT}
        return cls(
            **plain,
            size=Size(**kept["size"]),
            deployed=DeployedSize(**kept["deployed"]),
            multiple=ChannelMultiple(**kept["multiple"]),
            profile=profile,
            deployment=deployment,
            fixed=fixed,
        )

    def first_names(self, graph: channel_groups.ChannelGraph) -> dict[str, str]:
        """Group name -> what it was called before the first cut, the name that `channels` and the like have.

        With fewer heads the parts of an attention's layer are counted anew: of `qkv.conv[3/8]` of four heads, the keys
        of the second, two heads later `qkv.conv[3/4]` is left. Heads are alike, so that it stands for any of them.

        Args:
            graph: the groups as they are now.
        """
        names = {group.name: group.name for group in graph.groups}
        for group in graph.groups:
            attention = "" if group.head is None else group.head.attention
            now, first = graph.heads.get(attention), self.heads.get(attention)
            named = _PART.fullmatch(group.name)
            if named is not None and now and first and now != first:
                layer, part, count = named.groups()
                names[group.name] = f"{layer}[{part}/{int(count) // now * first}]"
        return names

    def figures(self) -> dict[str, float]:
        """What bounds are shares of: "flops", "params", with a profile "latency" in ms, "size" in bytes of the file."""
        figures = {"flops": self.size.flops, "params": float(self.size.params)}
        if self.latency is not None:
            figures["latency"] = self.latency
        if self.deployed.bytes is not None:
            figures["size"] = float(self.deployed.bytes)
        return figures

    def meets(self, bounds: Mapping[str, float]) -> bool:
        """Whether every bound (as of `step_bounds`) holds before any cut."""
        figures = self.figures()
        return all(value >= figures[key] for key, value in bounds.items())


_PART = re.compile(r"(.*)\[(\d+)/(\d+)\]")  # of a layer's outputs: see ChannelGroup.name
_KEPT = ("channels", "layers", "blocks", "heads", "latency", "weights", "least")  # plain as they are


def deployment_of(recipe: Recipe, profile: Profile | None, imgsz: int) -> Deployment:
    """What a recipe's model is to be exported as; what the recipe leaves out is the profile's, or ONNX and FP32.

    Args:
        imgsz: pixels that it is used at, where no profile says another size.
    """
    kind, precision = ("onnx", "fp32") if profile is None else (profile.format, profile.precision)
    return Deployment(recipe.format or kind, recipe.precision or precision, imgsz if profile is None else profile.imgsz)
