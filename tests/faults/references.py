"""A small network, and slow ways to explain it: loops over places and inputs, and passes of one variant at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from quick import quick
from torch import Tensor, nn

from cnnviz import Run
from cnnviz.engine.layers import INPUT

CLASS = 1
WINDOW = 4


class Net(nn.Module):
    """Two convolutions, averaged over space and classified: 3 to 8 channels, then 16 at half of the size."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
            self.conv2 = nn.Conv2d(8, 16, 3, padding=1, stride=2)
            self.late = nn.ReLU()
            self.head = nn.Linear(16, 5)
        self.eval()

    def early(self, x: Tensor) -> Tensor:
        return F.relu(self.conv1(x))

    def maps(self, x: Tensor) -> Tensor:
        return self.behind(self.early(x))

    def behind(self, early: Tensor) -> Tensor:
        return self.late(self.conv2(early))

    def classify(self, maps: Tensor) -> Tensor:
        return self.head(maps.mean((2, 3)))

    def finish(self, early: Tensor) -> Tensor:
        return self.classify(self.behind(early))

    def forward(self, x: Tensor) -> Any:
        return self.classify(self.maps(x))


Forward = Callable[[Any, Tensor], Any]


def net(forward: Forward = Net.forward, **parts: Callable[[], Any]) -> Net:
    """A Net in float64 with a forward of its own, and more parts by name; the weights are always the same."""
    made = type("Net", (Net,), {"forward": forward})()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, make in parts.items():
            setattr(made, name, make())
    return made.double().eval()


def scripted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function in TorchScript, whose operations Python does not see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and in use
        made: Callable[..., Tensor] = torch.jit.script(function)
    return made


def pictures(items: int = 1, size: Sequence[int] = (16, 16), seed: int = 1) -> Tensor:
    """Noise from -1 to 1, (N, 3, *spatial), in float64."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(items, 3, *size, generator=generator) * 2 - 1).double()


def bright() -> Tensor:
    """A picture without negative values."""
    return pictures().abs()


# Slow ways


def loops_score(model: nn.Module, x: Tensor) -> Tensor:
    """Each input's score, (N,), from a pass of its own."""
    with torch.no_grad():
        return torch.stack([model(each[None].clone())[0, CLASS] for each in x])


def loops_occlusion(model: nn.Module, x: Tensor) -> Tensor:
    """The drop of the score where a window is zero, the mean over the windows that cover a place."""
    height, width = x.shape[-2:]
    drops, covers = torch.zeros(len(x), 1, height, width, dtype=x.dtype), torch.zeros(1, 1, height, width)
    score = loops_score(model, x)
    for top in range(0, height - WINDOW + 1, WINDOW):
        for left in range(0, width - WINDOW + 1, WINDOW):
            window = (..., slice(top, top + WINDOW), slice(left, left + WINDOW))
            hidden = x.clone()
            hidden[window] = 0
            drops[window] += (score - loops_score(model, hidden)).view(-1, 1, 1, 1)
            covers[window] += 1
    return drops / covers.clamp(min=1)


def loops_gradient(model: nn.Module, x: Tensor) -> Tensor:
    """The score's gradient, from a graph for each input."""
    gradients = []
    for each in x:
        with torch.enable_grad():
            leaf = each[None].clone().requires_grad_()
            gradients += torch.autograd.grad(model(leaf * 1)[0, CLASS], leaf)
    return torch.cat(gradients)


def loops_integrated_gradients(model: nn.Module, x: Tensor, steps: int) -> Tensor:
    """Gradients at the nodes of a Gauss-Legendre rule between zero and the input."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    gradients = [
        loops_gradient(model, x * (node + 1) / 2) * weight / 2 for node, weight in zip(nodes, weights, strict=True)
    ]
    return x * torch.stack(gradients).sum(0)


def loops_activation(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    """What a layer gives for each input, from a pass of its own."""
    kept: list[Tensor] = []
    with hooked(model, layer, lambda module, args, output: kept.append(output.detach().clone())):
        loops_score(model, x)
    return torch.cat(kept)


def loops_layer_gradient(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    """The score's gradient at a layer, from a graph for each input."""
    gradients = []
    for each in x:
        kept: list[Tensor] = []
        with hooked(model, layer, lambda module, args, output, kept=kept: kept.append(output)), torch.enable_grad():
            score = model(each[None].clone().requires_grad_() * 1)[0, CLASS]
            gradients += torch.autograd.grad(score, kept[-1])
    return torch.cat(gradients)


def loops_ablation_cam(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    """Channels weighted by the drop of the score without them, over the score."""
    activation, score = loops_activation(model, x, layer), loops_score(model, x)
    drops = []
    for number in range(activation.shape[1]):

        def without(module: nn.Module, args: Any, output: Tensor, number: int = number) -> Tensor:
            output = output.clone()
            output[:, number] = 0
            return output

        with hooked(model, layer, without):
            drops.append((score - loops_score(model, x)) / score.abs())
    return (activation * torch.stack(drops, 1)[:, :, None, None]).sum(1, keepdim=True)


@contextmanager
def hooked(model: nn.Module, layer: str, hook: Callable[..., Any]) -> Iterator[None]:
    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


Turn = Callable[[Tensor], Tensor]


def unturned(maps: Tensor) -> Tensor:
    """The maps of a model that neither mirrors nor turns its input."""
    return maps


def by_loops(
    name: str, model: nn.Module, x: Tensor, layer: str, chosen: Mapping[str, Any], back: Turn = unturned
) -> Tensor | None:
    """What a few attributions give, written out here; None for the others. ``back`` turns maps to how inputs lie."""
    steps = {**quick(name), **chosen}.get("steps", 0)
    match name:
        case "occlusion":
            return loops_occlusion(model, x)
        case "gradient":
            return loops_gradient(model, x)
        case "input_x_gradient":
            return x * loops_gradient(model, x)
        case "integrated_gradients":
            return loops_integrated_gradients(model, x, steps)
        case "ablation_cam":
            return back(loops_ablation_cam(model, x, layer))
        case "activation":
            return back(loops_activation(model, x, layer))
        case "grad_cam" | "hires_cam" | "layer_cam":
            activation, slope = loops_activation(model, x, layer), loops_layer_gradient(model, x, layer)
            weight = {"grad_cam": slope.mean((2, 3), keepdim=True), "layer_cam": slope.relu()}.get(name, slope)
            return back((weight * activation).sum(1, keepdim=True))
    return None


@contextmanager
def one_variant_at_a_time() -> Iterator[None]:
    """Runs score each variant of each input by itself, in a whole pass: no chunks, and nothing is replayed."""

    def alone(run: Run, x: Tensor, item: int) -> Tensor:
        target = run.target[item : item + 1] if run.target is not None else run.question.target
        return Run(run.model, x, target, options=run.options).score[0]

    def scores_of(run: Run, count: int, draw: Callable[[int, int], Tensor]) -> Tensor:
        scores = run.score.new_empty(count, len(run.inputs))
        for number in range(count):
            for item in range(len(run.inputs)):
                scores[number, item] = alone(run, draw(number, number + 1)[0, item : item + 1], item)
        return scores

    def changed(run: Run, layer: Any, count: int, change: Callable[[Tensor, int, int], None]) -> Tensor:
        if layer is INPUT:

            def draw(start: int, stop: int) -> Tensor:
                variant = run.inputs.clone()
                for item in range(len(variant)):
                    change(variant[item], start, item)
                return variant[None]

            return scores_of(run, count, draw)
        scores = run.score.new_empty(count, len(run.inputs))
        for number in range(count):
            for item in range(len(run.inputs)):

                def replaced(module: Any, args: Any, output: Tensor, number: int = number, item: int = item) -> Tensor:
                    output = output.clone()
                    change(output[0], number, item)
                    return output

                with hooked(run.model, run.layer_name(layer), replaced):
                    scores[number, item] = alone(run, run.inputs[item : item + 1], item)
        return scores

    def scores_of_boxes(run: Run, boxes: Tensor, inside: Callable[[int, int], Tensor], layer: Any = INPUT) -> Tensor:
        def change(output: Tensor, number: int, item: int) -> None:
            output[(slice(None), *(slice(*side) for side in boxes[number].tolist()))] = inside(number, item)

        return changed(run, layer, len(boxes), change)

    def scores_from(run: Run, layer: Any, count: int, new: Callable[[int, int, int], Tensor]) -> Tensor:
        return changed(run, layer, count, lambda output, number, item: output.copy_(new(number, number + 1, item)[0]))

    with pytest.MonkeyPatch.context() as patch:
        for slow in (scores_of, scores_of_boxes, scores_from):
            patch.setattr(Run, slow.__name__, slow)
        yield


class Alone(nn.Module):
    """A model that is given its inputs one by one, so that they can't change each other's scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.model(each[None]) for each in x])
