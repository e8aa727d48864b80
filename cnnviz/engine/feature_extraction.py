"""The outputs of some layers in one forward pass, differentiable with respect to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.forward import PassEnded, forward, layer_tensor, never_ran
from cnnviz.engine.layers import Layer, layer_name


@dataclass(frozen=True, eq=False)
class Seen:
    """One forward pass: inputs, output and layer outputs, all differentiable with respect to ``inputs``.

    An objective reads its number for each input from it.
    """

    inputs: Tensor
    """(N, C, *spatial), as they were given to the model."""
    output: Any
    """What the model returned; None if the pass ended at the last requested layer."""
    layers: Mapping[Layer, Tensor]
    """Outputs of layers, each by the layer as it was requested: its name, number or module."""
    names: Mapping[Layer, str] = field(default_factory=dict)
    """The layers' dotted names, as far as they are known."""

    def layer(self, layer: Layer) -> Tensor:
        """A layer's output, (N, C, *spatial) or (N, F). Raises LookupError for a layer that did not run."""
        if layer not in self.layers:
            raise never_ran(layer)
        return self.layers[layer]


class FeatureExtractor:
    """Forward passes of one model that return the outputs of the same layers.

    The first pass counts the calls of each layer; without ``output``, later passes end at the last of these calls.
    Without ``graph`` the results carry no gradients. The model is never edited, and its parameters get no gradients.
    """

    def __init__(self, model: nn.Module, layers: Iterable[Layer], *, output: bool = True, graph: bool = True):
        self.model = model
        self.layers = tuple(layers)
        self.output = output
        self.graph = graph
        self.names: dict[Layer, str] = {}
        self._calls: dict[str, int] | None = None

    def __call__(self, inputs: Tensor) -> Seen:
        """One pass; ``inputs`` (N, C, *spatial) may have a graph of its own."""
        for layer in self.layers:
            if layer not in self.names:
                self.names[layer] = layer_name(self.model, layer, (inputs.detach(),))
        left = dict(self._calls or {})
        outputs: dict[str, Tensor] = {}
        calls = dict.fromkeys(self.names.values(), 0)

        def observer(name: str) -> Callable[..., None]:
            def observe(module: nn.Module, args: Any, output: Any) -> None:
                outputs[name] = layer_tensor(name, output).clone()  # what follows may write in place
                calls[name] += 1
                if name in left:
                    left[name] -= 1
                    if not self.output and not any(count > 0 for count in left.values()):
                        raise PassEnded

            return observe

        hooks = [(name, observer(name)) for name in calls]
        returned = forward(self.model, [inputs], hooks=hooks, grad=self.graph)
        if returned is not None:
            self._calls = {name: count for name, count in calls.items() if count}
        layers = {layer: outputs[name] for layer, name in self.names.items() if name in outputs}
        return Seen(inputs, returned, layers, self.names)


def gradients_of(total: Tensor, wrt: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a number with respect to tensors, in their shapes; zeros for tensors it does not depend on.

    Raises ValueError if it depends on none of them.
    """
    with torch.inference_mode(False):
        gradients = torch.autograd.grad(total, wrt, allow_unused=True) if total.requires_grad else [None] * len(wrt)
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            "the objective does not depend on the input by operations that carry gradients; "
            "a detach() or no_grad() in the model cuts them, or the layer sees nothing of the input"
        )
    pairs = zip(gradients, wrt, strict=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in pairs]
