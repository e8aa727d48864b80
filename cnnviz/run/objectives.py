"""Objectives: one number for each input, read from a forward pass, that a synthesis maximizes.

They can be added, subtracted, multiplied and divided, and ``explain(target=...)`` explains them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.layers import Layer
from cnnviz.run.plain_pass import PlainPass
from cnnviz.run.targets import class_scores
from cnnviz.run.written import written


class Objective:
    """One number for each input, (N,), read from a forward pass; supports + - * / with objectives and numbers."""

    def __post_init__(self) -> None:
        if isinstance(getattr(self, "layer", None), list):
            object.__setattr__(self, "layer", tuple(self.layer))  # type: ignore[attr-defined]  # asked for just above

    def __call__(self, seen: Seen, /) -> Tensor:
        raise NotImplementedError

    def bound(self, plain: PlainPass) -> Objective | Tensor:
        """The same number with what the plain pass decides held fixed for all variants, such as which box is meant.

        A tensor, (N,) int64, where the plain pass shows that a class is meant for each input.
        """
        return self

    @property
    def layers(self) -> frozenset[Layer]:
        """The layers whose outputs it needs."""
        layer = getattr(self, "layer", _NONE)
        return frozenset() if layer is _NONE else frozenset({layer})

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return False

    def __repr__(self) -> str:
        """As a call; a tensor is told by its shape alone, and a function by its name."""
        parts: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        told = (f"{part.name}={written(getattr(self, part.name))}" for part in parts)
        return f"{type(self).__name__}({', '.join(told)})"

    def __add__(self, other: Objective | float) -> Objective:
        return Combined("+", self, other)

    def __radd__(self, other: float) -> Objective:
        return Combined("+", other, self)

    def __sub__(self, other: Objective | float) -> Objective:
        return Combined("-", self, other)

    def __rsub__(self, other: float) -> Objective:
        return Combined("-", other, self)

    def __mul__(self, other: Objective | float) -> Objective:
        return Combined("*", self, other)

    def __rmul__(self, other: float) -> Objective:
        return Combined("*", other, self)

    def __truediv__(self, other: Objective | float) -> Objective:
        return Combined("/", self, other)

    def __neg__(self) -> Objective:
        return Combined("*", -1, self)


_NONE: Any = object()
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
}


@dataclass(frozen=True, repr=False)
class Combined(Objective):
    """Two objectives, or one and a number."""

    sign: str
    left: Objective | float
    right: Objective | float

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            if not isinstance(side, Objective | int | float):
                raise TypeError(f"an objective is combined with objectives and numbers, not with {side!r}")

    def __call__(self, seen: Seen, /) -> Tensor:
        left, right = (side(seen) if isinstance(side, Objective) else side for side in (self.left, self.right))
        total: Tensor = _SIGNS[self.sign](left, right)
        return total

    def bound(self, plain: PlainPass) -> Objective:
        return Combined(self.sign, _bound(self.left, plain), _bound(self.right, plain))

    @property
    def _sides(self) -> list[Objective]:
        return [side for side in (self.left, self.right) if isinstance(side, Objective)]

    @property
    def layers(self) -> frozenset[Layer]:
        return frozenset[Layer]().union(*(side.layers for side in self._sides))

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return any(side.reads_output for side in self._sides)

    def __repr__(self) -> str:
        if (self.sign, self.left) == ("*", -1):
            return f"-{_bracketed(self.right, '+-')}"
        left = _bracketed(self.left, "+-" if self.sign in "*/" else "")
        return f"{left} {self.sign} {_bracketed(self.right, '+-' if self.sign in '+-' else '+-*/')}"


@dataclass(frozen=True, repr=False)
class channel(Objective):
    """A channel's mean over space (Olah et al., 2017); of a layer without spatial extent, the feature."""

    layer: Layer
    index: int

    def __call__(self, seen: Seen, /) -> Tensor:
        return channel_units(seen, self.layer, self.index).mean(1)


@dataclass(frozen=True, repr=False)
class neuron(Objective):
    """One unit of a channel, ``at`` its place in space; None is the middle."""

    layer: Layer
    index: int
    at: tuple[int, ...] | None = None

    def __call__(self, seen: Seen, /) -> Tensor:
        activation = seen.layer(self.layer)
        size = activation.shape[2:]
        at = tuple(length // 2 for length in size) if self.at is None else self.at
        if len(at) != len(size) or not all(0 <= place < length for place, length in zip(at, size, strict=True)):
            raise ValueError(f"layer {self.layer!r} is {tuple(size)} in space; there is no unit at {tuple(at)}")
        flat = sum(place * math.prod(size[dim + 1 :]) for dim, place in enumerate(at))
        return channel_units(seen, self.layer, self.index)[:, flat]


@dataclass(frozen=True, repr=False)
class strongest(Objective):
    """The strongest unit of a channel, wherever it is (Zeiler & Fergus, 2014, arXiv:1311.2901)."""

    layer: Layer
    index: int

    def __call__(self, seen: Seen, /) -> Tensor:
        return channel_units(seen, self.layer, self.index).max(1).values


@dataclass(frozen=True, repr=False)
class feature_map(Objective):
    """Half the sum of a channel's squares: its gradient at the layer is the map itself, where a DeconvNet begins."""

    layer: Layer
    index: int

    def __call__(self, seen: Seen, /) -> Tensor:
        return channel_units(seen, self.layer, self.index).square().sum(1) / 2


@dataclass(frozen=True, eq=False, repr=False)
class direction(Objective):
    """A layer's mean over space along a direction (C,); ``power`` > 0 prefers small angles to large activations.

    The dot product times the cosine to that power (Olah et al., 2017; Carter et al., 2019).
    """

    layer: Layer
    vector: Tensor
    power: float = 0.0

    def __call__(self, seen: Seen, /) -> Tensor:
        activation = seen.layer(self.layer)
        if self.vector.shape != activation.shape[1:2]:
            raise ValueError(
                f"layer {self.layer!r} has {activation.shape[1]} channels; a direction of {tuple(self.vector.shape)} "
                "does not fit"
            )
        mean = activation.flatten(2).mean(2) if activation.ndim > 2 else activation
        vector = self.vector.to(mean)
        along = mean @ vector
        if not self.power:
            return along
        cosine = along / (mean.norm(dim=1) * vector.norm()).clamp(min=torch.finfo(mean.dtype).tiny)
        preferred: Tensor = along * cosine.clamp(min=0.1) ** self.power
        return preferred


@dataclass(frozen=True, repr=False)
class layer_energy(Objective):
    """The mean square of a whole layer: whatever it sees, more of it (DeepDream; Mordvintsev et al., 2015)."""

    layer: Layer

    def __call__(self, seen: Seen, /) -> Tensor:
        return seen.layer(self.layer).flatten(1).square().mean(1)


@dataclass(frozen=True, repr=False)
class class_score(Objective):
    """A class's score, before any softmax where the model has none (Simonyan et al., 2014, arXiv:1312.6034)."""

    index: int

    def __call__(self, seen: Seen, /) -> Tensor:
        scores = class_scores(seen.output, len(seen.inputs), objective=True)
        if not 0 <= self.index < scores.shape[1]:
            raise ValueError(
                f"there is no class {self.index}; the model has {scores.shape[1]}, numbered 0 to {scores.shape[1] - 1}"
            )
        return scores[:, self.index]

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return True


@dataclass(frozen=True, repr=False)
class closeness(Objective):
    """How near the model's output is to given values: minus the mean squared error, for regression.

    ``values`` is one for all, or one for each number of the output.
    """

    values: float | tuple[float, ...]

    def __call__(self, seen: Seen, /) -> Tensor:
        output = seen.output
        if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(seen.inputs):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the model gives {shape}; values are compared with an output of (N, ...)")
        flat = output.reshape(len(output), -1)
        values = flat.new_tensor(self.values)
        if values.ndim and len(values) not in (1, flat.shape[1]):
            raise ValueError(f"there are {len(values)} values for an output of {flat.shape[1]}; give one, or one each")
        return -(flat - values).square().mean(1)

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return True


@dataclass(frozen=True, eq=False, repr=False)
class output_of(Objective):
    """Any function of the model's output, to one number for each input, (N,)."""

    read: Callable[[Any], Tensor]

    def __call__(self, seen: Seen, /) -> Tensor:
        return self.read(seen.output)

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return True


@dataclass(frozen=True, repr=False)
class diversity(Objective):
    """How unlike the inputs of one batch are at a layer: minus the mean cosine of their channels' correlations.

    The Gram matrices of the layer, as for style (Olah et al., 2017). Zero for a single input.
    """

    layer: Layer

    def __call__(self, seen: Seen, /) -> Tensor:
        activation = seen.layer(self.layer)
        maps = activation.reshape(*activation.shape[:2], -1)
        grams = torch.nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        others = len(grams) - 1
        if not others:
            return grams.sum(1) * 0
        return -((grams @ grams.T).sum(1) - grams.square().sum(1)) / others


@dataclass(frozen=True, eq=False, repr=False)
class feature_distance(Objective):
    """How far a layer is from given features: the squared distance over the features' squared norm.

    Mahendran and Vedaldi, 2014, arXiv:1412.0035. ``features`` is (1 or N, C, *spatial).
    """

    layer: Layer
    features: Tensor

    def __call__(self, seen: Seen, /) -> Tensor:
        activation = seen.layer(self.layer)
        features = self.features.to(activation)
        if features.shape[1:] != activation.shape[1:] or len(features) not in (1, len(activation)):
            raise ValueError(
                f"layer {self.layer!r} gives {tuple(activation.shape)}, the features are {tuple(features.shape)}; "
                "they are compared for inputs of one size"
            )
        norm = features.flatten(1).square().sum(1).clamp(min=torch.finfo(activation.dtype).tiny)
        return (activation - features).flatten(1).square().sum(1) / norm


def channel_units(seen: Seen, layer: Layer, index: int) -> Tensor:
    """A channel's units, (N, places)."""
    activation = seen.layer(layer)
    if activation.ndim < 2 or len(activation) != len(seen.inputs):
        raise ValueError(
            f"layer {layer!r} gives {tuple(activation.shape)} for {len(seen.inputs)} inputs; "
            "choose a layer that gives (N, C, *spatial)"
        )
    if not 0 <= index < activation.shape[1]:
        name = seen.names.get(layer, layer)
        raise ValueError(
            f"there is no channel {index} in layer {name!r}; it has {activation.shape[1]}, numbered 0 to "
            f"{activation.shape[1] - 1}"
        )
    return activation[:, index].reshape(len(activation), -1)


def _bound(side: Objective | float, plain: PlainPass) -> Objective | float:
    bound = side.bound(plain) if isinstance(side, Objective) else side
    if isinstance(bound, Tensor):
        raise TypeError(f"{side!r} means classes here, which are not combined; give class_score(...)")
    return bound


def _bracketed(side: Objective | float, weaker: str) -> str:
    text = repr(side) if isinstance(side, Objective) else written(side)
    return f"({text})" if isinstance(side, Combined) and side.sign in weaker else text
