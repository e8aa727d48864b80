"""Names of layers, from a dotted name, a path of names, the number of a convolution, a module, or None."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cnnviz.engine.forward import forward
from cnnviz.engine.layer_flow import LayerFlow, layer_flow
from cnnviz.engine.model_facts import named_modules_of
from cnnviz.engine.model_inputs import AnyInputs, ModelInputs
from cnnviz.engine.nested import tensors
from cnnviz.engine.validation import whole_number

Layer: TypeAlias = "str | int | Sequence[str] | nn.Module | LayerAt | Site | None"
"""None means the last layer that is a place for a map."""


class InputPlace(Enum):
    INPUT = "the input"

    def __repr__(self) -> str:
        return "INPUT"


INPUT: Final = InputPlace.INPUT
"""Where a gradient with respect to the model's input is taken."""


@dataclass(frozen=True)
class LayerAt:
    """A layer, and how its output is read as a map: which call of it, and where its batch, channels and places lie."""

    layer: Layer = None
    call: int | None = None
    """Which of its calls, from 1, or from -1 backwards; None: the one that the score depends on."""
    layout: Literal["auto", "tokens", "channels_last", "channels_first", "raw"] = "auto"
    """"auto" follows the axes of the input. Said by hand: "tokens" (N, T, C), "channels_last" (N, *grid, C),
    "channels_first" (N, C, *grid), or "raw", the output as it is."""
    grid: Sequence[int] | str | None = None
    """The sizes of a grid of tokens; None: a square."""
    extra: int = 0
    """How many tokens before the grid belong to no place; behind it, if negative."""

    def __post_init__(self) -> None:
        layer = tuple(self.layer) if isinstance(self.layer, list) else self.layer
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "grid", _sizes(self.grid))
        if self.call is not None and (isinstance(self.call, bool) or not isinstance(self.call, int) or not self.call):
            raise ValueError(f"call={self.call!r} is no call; they are numbered from 1, and from -1 backwards")
        layouts = ("auto", "tokens", "channels_last", "channels_first", "raw")
        if self.layout not in layouts:
            raise ValueError(f"there is no layout {self.layout!r}; it is {', '.join(map(repr, layouts[:-1]))}")
        if self.layout in ("auto", "raw") and (self.grid is not None or self.extra):
            raise ValueError('grid= and extra= are of a layout that is said by hand; add layout="tokens"')

    def __repr__(self) -> str:
        """As a call without what is the default; a module is told by its type alone."""
        told = {part.name: getattr(self, part.name) for part in fields(self)}
        texts = {part.name: repr(told[part.name]) for part in fields(self) if told[part.name] != part.default}
        if isinstance(self.layer, nn.Module):
            texts["layer"] = f"<{type(self.layer).__name__}>"
        return f"LayerAt({', '.join(f'{name}={text}' for name, text in texts.items())})"


def _sizes(grid: Sequence[int] | str | None) -> tuple[int, ...] | None:
    if grid is None:
        return None
    try:
        sizes = tuple(int(size) for size in (grid.split("x") if isinstance(grid, str) else grid))
    except (TypeError, ValueError):
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ValueError(f"grid={grid!r} is no size of a grid; say (14, 14) or '14x14'")
    return sizes


class Site(NamedTuple):
    """One call of a layer."""

    name: str
    call: int
    """From 1; 0 is the last one, whatever its number is."""


def convolutions(model: nn.Module) -> list[str]:
    """The names of the model's convolutions, in order of registration; layer 1 is the first of them."""
    return [name for name, module in model.named_modules() if isinstance(module, _ConvNd)]


def layer_name(model: nn.Module, layer: Layer, inputs: AnyInputs) -> str:
    """The dotted name of a layer. Raises LookupError with the nearest name, or the numbers there are."""
    if isinstance(layer, LayerAt | Site):
        return layer_name(model, layer[0] if isinstance(layer, Site) else layer.layer, inputs)
    if layer is None:
        return automatic_layer(model, inputs)
    if isinstance(layer, nn.Module):
        for name, module in named_modules_of(model).items():
            if module is layer:
                return str(name)
        raise LookupError(f"the layer {type(layer).__name__} is no part of {type(model).__name__}")
    if isinstance(layer, int) and not isinstance(layer, bool):
        names = convolutions(model)
        if layer == 0 or abs(layer) > len(names):
            raise LookupError(f"there is no convolution {layer}; {type(model).__name__} has 1 to {len(names)}")
        return names[layer - 1 if layer > 0 else layer]
    if not isinstance(layer, str | Sequence) or isinstance(layer, bytes | bytearray):
        raise TypeError(f"{layer!r} is no layer; give a name, a path of names, a convolution's number, or a module")
    name = layer if isinstance(layer, str) else ".".join(map(str, layer))
    known = named_modules_of(model)
    if name and name in known:
        return name
    aliases = dict(model.named_modules(remove_duplicate=False))
    if name and name in aliases:  # one layer under two names
        return next(str(first) for first, module in known.items() if module is aliases[name])
    for prefix in ("", "module.", "_orig_mod."):
        if name.startswith(prefix) and name != prefix and name.removeprefix(prefix) in known:
            return name.removeprefix(prefix)
    if (number := whole_number(name)) is not None:
        return layer_name(model, number, inputs)
    near = difflib.get_close_matches(name, filter(None, known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it starts with {', '.join(n for n, _ in model.named_children())}"
    raise LookupError(f"{type(model).__name__} has no layer {name!r}; {hint}")


def execution_order(model: nn.Module, inputs: AnyInputs) -> list[str]:
    """The modules with weights of their own, by name, in the order in which they first run."""
    order: dict[str, None] = {}
    hooks = [
        (name, lambda module, args, name=name: order.setdefault(name))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    forward(model, inputs, pre_hooks=hooks, survey=True)
    return list(order)


def last_rectifiers(model: nn.Module, inputs: AnyInputs) -> list[str]:
    """The ReLU modules, by name, that run behind all modules with weights and never before."""
    calls: list[tuple[str, bool]] = []
    watched = {
        name: isinstance(module, nn.ReLU | nn.ReLU6)
        for name, module in model.named_modules()
        if isinstance(module, nn.ReLU | nn.ReLU6) or any(True for _ in module.parameters(recurse=False))
    }
    hooks = [(name, lambda module, args, name=name, it=it: calls.append((name, it))) for name, it in watched.items()]
    forward(model, inputs, pre_hooks=hooks, survey=True)
    behind = next((place for place, (_, rectifier) in enumerate(reversed(calls)) if not rectifier), len(calls))
    names = [name for name, _ in calls]
    return [name for name in dict.fromkeys(names[len(calls) - behind :]) if name not in names[: len(calls) - behind]]


def is_automatic(layer: Any) -> bool:
    """True for a layer that is not named, so that one is chosen."""
    return layer is None or (isinstance(layer, LayerAt) and layer.layer is None)


def automatic_layer(model: nn.Module, inputs: AnyInputs) -> str:
    """The last layer that is a place for a map of whatever the model gives. Costs a pass forward and backward.

    Raises LookupError where there is none.
    """
    first = ModelInputs.of(inputs).rows(slice(0, 1))

    def everything(output: Any, layers: Any) -> Tensor:
        found = [tensor.sum() for tensor in tensors(output) if tensor.is_floating_point()]
        return torch.stack(found) if found else torch.zeros(1)

    return chosen(layer_flow(model, first, everything), model, first)


def chosen(flow: LayerFlow, model: nn.Module, inputs: AnyInputs) -> str:
    """The name of the automatic layer. Raises LookupError where there is none."""
    name = flow.automatic()
    if name is None and any(call.descends and call.reading and not call.passive for call in flow.calls):
        raise LookupError(
            f"no layer of {type(model).__name__} that has spatial extent changes the score; a score that is "
            "constant, as where a detector finds nothing, has no class activation map"
        )
    lost = [call for call in flow.calls if call.usable_by_hand]
    if name is None and lost:
        last = lost[-1]
        raise LookupError(
            f"no layer of {type(model).__name__} is found to have spatial extent, as {last.name!r} can't be followed "
            f"through {last.lost}; name a layer and say how it is laid out, such as layer={last.name!r}, "
            'layout="channels_first"'
        )
    if name is None:
        raise LookupError(
            f"no layer of {type(model).__name__} has spatial extent for an input of {tuple(inputs[0][:1].shape)}; "
            "class activation maps need one, gradient methods do not"
        )
    return name
