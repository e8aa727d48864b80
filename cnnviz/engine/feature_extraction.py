"""What one pass through a model shows, with the graph that leads back to the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.forward import PassEnded, forward, layer_tensor, never_ran
from cnnviz.engine.layers import Layer, layer_name


@dataclass(frozen=True, eq=False)
class Seen:
    """A pass through a model. Everything in it carries gradients back to ``inputs``."""

    inputs: Tensor
    """(N, C, *spatial) as the model saw them."""
    output: Any
    """What the model returned; None where the pass ended at the last layer asked for."""
    layers: Mapping[Layer, Tensor]
    """Layers by what they were asked for as."""

    def layer(self, layer: Layer) -> Tensor:
        """What a layer gave, (N, C, *spatial) or (N, F). Raises LookupError for one that did not run."""
        if layer not in self.layers:
            raise never_ran(layer)
        return self.layers[layer]


class View:
    """Passes through a model, one after the other, that show the same layers.

    The first pass counts how often each layer is called; where the output is not asked for, the passes after it end at
    the last of these calls. Without a ``graph`` nothing is kept for gradients. The model is never edited, and its
    parameters get no gradients.
    """

    def __init__(self, model: nn.Module, layers: Iterable[Layer], *, output: bool = True, graph: bool = True):
        self.model = model
        self.asked = tuple(layers)
        self.output = output
        self.graph = graph
        self.names: dict[Layer, str] = {}
        self._calls: dict[str, int] | None = None

    def __call__(self, inputs: Tensor) -> Seen:
        """One pass; ``inputs`` (N, C, *spatial) may have a graph of its own."""
        for layer in self.asked:
            if layer not in self.names:
                self.names[layer] = layer_name(self.model, layer, (inputs.detach(),))
        wanted, left = set(self.names.values()), dict(self._calls or {})
        found: dict[str, Tensor] = {}
        met = dict.fromkeys(wanted, 0)

        def observer(name: str) -> Callable[..., None]:
            def observe(module: nn.Module, args: Any, output: Any) -> None:
                found[name] = layer_tensor(name, output).clone()  # what follows may write in place
                met[name] += 1
                if name in left:
                    left[name] -= 1
                    if not self.output and not any(count > 0 for count in left.values()):
                        raise PassEnded

            return observe

        hooks = [(name, observer(name)) for name in wanted]
        returned = forward(self.model, [inputs], hooks=hooks, grad=self.graph)
        if returned is not None:
            self._calls = {name: count for name, count in met.items() if count}
        shown = {layer: found[name] for layer, name in self.names.items() if name in found}
        return Seen(inputs, returned, shown)


def slopes(total: Tensor, wrt: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a sum at leaves of its graph; zeros where it does not depend on one of them.

    Raises ValueError where it depends on none.
    """
    with torch.inference_mode(False):
        found = torch.autograd.grad(total, wrt, allow_unused=True) if total.requires_grad else [None] * len(wrt)
    if all(each is None for each in found):
        raise ValueError(
            "the objective does not depend on the input by operations that carry gradients; "
            "a detach() or no_grad() in the model cuts them, or the layer sees nothing of the input"
        )
    return [torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, wrt, strict=True)]
