"""Class activation maps through the depth of a network: at which layers, and what they are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.layer_flow import LayerFlow
from cnnviz.engine.layers import layer_name
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.validation import as_network
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.formulas.attribution import ConfiguredAttribution
from cnnviz.formulas.written_parts import Several
from cnnviz.models.loading import LoadedModel
from cnnviz.pages.report.content import Answers, Deeper
from cnnviz.registry.registry import attributions
from cnnviz.run.plan import Plan
from cnnviz.run.resolve_target import several
from cnnviz.run.run import Run

STEPS = (_ConvNd, _NormBase, nn.LayerNorm, nn.GroupNorm)
"""Modules whose map is not yet what the next block takes."""
MOST = 5
"""Layers beside the method's own, unless they are named."""


def deeper_maps(model: Any, answers: Answers, layers: Sequence[Any] | None = None) -> Deeper:
    """The maps of those methods that are made of one layer and need no more than a gradient, at other layers.

    One forward pass and one backward pass for each class serve all of them. Empty where there is no such method, where
    the targets are no classes, and of a black box.

    Args:
        model: what gave the answers.
        answers: the explanations of one batch, by method.
        layers: where; None chooses some through the network.

    Raises:
        LookupError, ValueError: for a layer that is named and does not exist, or is no place for a map; and where no
            method can be shown at it.
    """
    moved = {method: _movable(each[0]) for method, each in answers.items()}
    movable = {method: each for method, each in moved.items() if each is not None}
    first = next(iter(answers.values()))
    targets = [each.target for each in first]
    network = as_network(model.module if isinstance(model, LoadedModel) else model)
    inputs = first[0].inputs
    named = [layer_name(network, layer, [inputs[:1]]) for layer in layers or ()]
    if not movable or isinstance(network, BlackBox) or first[0].of != 0 or any(target is None for target in targets):
        if named:
            raise ValueError(
                f"nothing can be shown at {', '.join(named)}: maps at further layers are class activation maps, such "
                "as grad_cam, of classes, by a network whose layers can be seen; leave depth out"
            )
        return {}
    names = named if layers is not None else chosen_layers(network, inputs, targets[0])
    own = {method: _layer_of(answers[method][0].recipe) for method in movable}
    asked = {
        (method, layer): _at(attribution, layer)
        for method, attribution in movable.items()
        for layer in names
        if layer != own[method]
    }
    if not asked:
        return {}
    of_layers = explain(model, inputs, [*asked.values()], target=several(*targets), **vars(first[0].options))
    by_key = dict(zip(asked, of_layers.values(), strict=True))
    deeper: dict[str, list[tuple[str, Sequence[Explanation]]]] = {method: [] for method in movable}
    for (method, layer), each in by_key.items():
        deeper[method].append((str(layer), each))
    return deeper


def chosen_layers(network: nn.Module, inputs: Tensor, target: Tensor | None) -> list[str]:
    """Some layers through the network, in the order in which they run: the last of each size, and others between."""
    with torch.inference_mode(False), torch.no_grad():
        run = Run(network, ModelInputs.of([inputs[:1]]), None if target is None else target[:1], plan=Plan(again=True))
        flow: LayerFlow = run.layers.choice.flow
    return thinned(flow, network)


def thinned(flow: LayerFlow, network: nn.Module) -> list[str]:
    """At most five layers of a network that are places for a map, up to the automatic one, without it.

    Convolutions and norms are left out where something of their size follows, such as a rectifier.
    """
    last = flow.automatic()
    places = [call for call in flow.calls if call.usable and not call.passive and not call.is_score]
    sizes: dict[str, tuple[int, ...]] = {}
    for call in places:
        if call.reading is not None and not call.reading.own:
            sizes[call.name] = tuple(call.shape[2:])
        if call.name == last:
            break
    sizes.pop(last or "", None)
    if sizes and last and (ends_it := [*sizes][-1]).startswith(f"{last}."):  # the end of the last layer, the same map
        del sizes[ends_it]
    modules = dict(network.named_modules())
    steps = [name for name, after in itertools.pairwise(sizes) if sizes[name] == sizes[after]]
    inner = {name for name in steps if isinstance(modules.get(name), STEPS)}
    names = _whole_blocks([name for name in sizes if name not in inner])
    ends = list({sizes[name]: name for name in names}.values())[-MOST:]
    while len(ends) < MOST:
        taken = sorted([-1, *(names.index(name) for name in ends), len(names)])
        start, stop = max(itertools.pairwise(taken), key=lambda gap: gap[1] - gap[0])
        if stop - start < 2:
            break
        ends.append(names[(start + stop) // 2])
    return sorted(ends, key=names.index)


def _whole_blocks(names: Sequence[str]) -> list[str]:
    """The layers of the least depth at which there are some: blocks rather than their parts."""
    for depth in range(max((name.count(".") for name in names), default=0) + 1):
        outer = [name for name in names if name.count(".") <= depth]
        if len(outer) >= min(4, len(names)):
            return outer
    return list(names)


def _movable(explanation: Explanation) -> ConfiguredAttribution | None:
    """What computed it, if that is a class activation map of one layer by at most a gradient."""
    of = explanation.attribution
    if isinstance(of, str):
        of = attributions[of]()
    if not isinstance(of, ConfiguredAttribution) or not of.takes_layer or explanation.fine:
        return None
    settings, plan = dict(of.method.settings), of.plan()
    costly = plan.variants or plan.again or plan.elsewhere or plan.references
    fused = isinstance(settings.get("layer"), Several)
    return None if costly or fused or explanation.values.ndim != 4 or explanation.values.shape[1] != 1 else of


def _at(attribution: ConfiguredAttribution, layer: Any) -> ConfiguredAttribution:
    settings: Mapping[str, Any] = {**dict(attribution.method.settings), "layer": layer}
    kept = {name: value for name, value in settings.items() if name != "call"}
    made = attributions[attribution.method.name](**kept)
    return replace(made, renderer=attribution.renderer)


def _layer_of(recipe: str) -> str | None:
    _, found, rest = recipe.partition("layer='")
    return rest.partition("'")[0] if found else None
