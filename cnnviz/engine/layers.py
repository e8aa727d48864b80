"""Names of layers, from a dotted name, a path of names, the number of a convolution, a module, or None."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from cnnviz.engine.forward import ForwardHook, forward
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.model_inputs import AnyInputs, ModelInputs
from cnnviz.engine.validation import whole_number

Layer: TypeAlias = str | int | Sequence[str] | nn.Module | None
"""None means the last layer with spatial extent."""


class InputPlace(Enum):
    INPUT = "the input"

    def __repr__(self) -> str:
        return "INPUT"


INPUT: Final = InputPlace.INPUT
"""Where a gradient with respect to the model's input is taken."""

# Modules that only shrink or hand on a map: the map before them has the same content at a higher resolution.
_PASSIVE = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_CHANNELS_FIRST = (_ConvNd, _BatchNorm, nn.GroupNorm)  # whatever the sizes look like


def convolutions(model: nn.Module) -> list[str]:
    """The names of the model's convolutions, in order of registration; layer 1 is the first of them."""
    return [name for name, module in model.named_modules() if isinstance(module, _ConvNd)]


def layer_name(model: nn.Module, layer: Layer, inputs: AnyInputs) -> str:
    """The dotted name of a layer. Raises LookupError with the nearest name, or the numbers there are."""
    if layer is None:
        return last_spatial_layer(model, inputs)
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
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
    aliases = dict(model.named_modules(remove_duplicate=False))
    known = dict(model.named_modules())
    if name and name in aliases and name not in known:  # one layer under two names
        return next(str(first) for first, module in known.items() if module is aliases[name])
    for prefix in ("", "module.", "_orig_mod."):
        if name.startswith(prefix) and name != prefix and name.removeprefix(prefix) in known:
            return name.removeprefix(prefix)
    if (number := whole_number(name)) is not None:
        return layer_name(model, number, inputs)
    near = difflib.get_close_matches(name, filter(None, known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it starts with {', '.join(n for n, _ in model.named_children())}"
    raise LookupError(f"{type(model).__name__} has no layer {name!r}; {hint}")


def check_spatial(name: str, module: nn.Module, output: Tensor, inputs: Tensor) -> None:
    """Raises ValueError unless the layer's output is (N, C, *spatial) with some spatial extent."""
    shape = tuple(output.shape)
    if output.ndim == 0:
        raise ValueError(
            f"layer {name!r} gives one number, without a batch; choose a layer that gives (N, C, *spatial)"
        )
    if len(output) != len(inputs):
        raise ValueError(
            f"layer {name!r} gives {len(output)} items for {len(inputs)} inputs; choose one that gives one each"
        )
    if not _is_spatial(output, inputs):
        raise ValueError(
            f"layer {name!r} gives {shape}, which has no spatial extent; choose a layer before it that still has one"
        )
    if _looks_channels_last(module, output, inputs):
        raise ValueError(
            f"layer {name!r} gives {shape}, which looks like channels last; choose a layer that gives (N, C, *spatial)"
        )


def last_spatial_layer(model: nn.Module, inputs: AnyInputs) -> str:
    """The last layer that still has spatial extent, before pooling and before scores are spread over space.

    Costs one forward pass of one input, once for each model and input shape; every time where there are further inputs.
    """
    inputs = ModelInputs.of(inputs)
    if inputs.is_several:
        return _find_last(model, inputs)  # another input may decide which layers run
    facts, key = facts_of(model), ("last spatial layer", inputs[0].shape[1:])
    if key not in facts:
        facts[key] = _find_last(model, inputs)
    return str(facts[key])


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


def _find_last(model: nn.Module, inputs: ModelInputs) -> str:
    outputs: list[tuple[str, Tensor, Tensor]] = []
    passed_on: list[tuple[Tensor, int]] = []

    def observer(name: str) -> ForwardHook:
        def observe(module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or any(
                output is tensor and output._version == version for tensor, version in passed_on
            ):
                return  # a container's output is that of its last part
            if isinstance(module, _PASSIVE):
                passed_on.append((output, output._version))
            elif _is_spatial(output, one[0]) and not _looks_channels_last(module, output, one[0]):
                outputs.append((name, output, output.mean(tuple(range(2, output.ndim)))))

        return observe

    one = inputs.rows(slice(0, 1))
    hooks = [(name, observer(name)) for name, _ in model.named_modules() if name]
    scores = forward(model, one, hooks=hooks, batch=inputs[0], survey=True)
    # a map of the scores themselves is the place of last resort
    outputs = [output for output in outputs if not _is_class_map(output[1], output[2], scores)] or outputs
    if not outputs:
        raise LookupError(
            f"no layer of {type(model).__name__} has spatial extent for an input of {tuple(one[0].shape)}; "
            "class activation maps need one, gradient methods do not"
        )
    # several modules in a row may hand on one tensor; the outermost, called last, has the shortest name
    return outputs[-1][0]


def _is_class_map(output: Tensor, mean: Tensor, scores: Any) -> bool:
    """True if the mean of this map over space is the scores themselves (as in SqueezeNet)."""
    if not isinstance(scores, Tensor) or scores.shape != mean.shape:
        return False
    rectified = output.relu().mean(tuple(range(2, output.ndim)))
    reach = scores.abs().amax()
    distinct = scores.amax() - scores.amin() > 1e-3 * reach  # where all is zero, all is alike
    return bool(distinct) and any(bool((pooled - scores).abs().amax() <= 1e-2 * reach) for pooled in (mean, rectified))


def _is_spatial(output: Tensor, inputs: Tensor) -> bool:
    same_rank = output.ndim == inputs.ndim if inputs.ndim > 2 else output.ndim > 2
    return same_rank and output.is_floating_point() and len(output) == len(inputs) and output[0, 0].numel() > 1


def _looks_channels_last(module: nn.Module, output: Tensor, inputs: Tensor) -> bool:
    """True if the middle sizes shrink alike and the last ones do not, as in (N, 7, 7, 768) of 224 x 224."""
    if output.ndim != inputs.ndim or output.ndim < 4 or isinstance(module, _CHANNELS_FIRST):
        return False

    def uneven(sizes: torch.Size) -> float:
        ratios = [whole / size for whole, size in zip(inputs.shape[2:], sizes, strict=True)]
        return max(ratios) / min(ratios)

    return uneven(output.shape[1:-1]) < 1.3 and uneven(output.shape[2:]) > 2
