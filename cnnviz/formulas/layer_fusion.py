"""Maps of layers: of one that runs several times, and of several layers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cnnviz.engine.deferred import tell_if
from cnnviz.engine.layers import LayerAt
from cnnviz.formulas.expr import Expr, plan
from cnnviz.images.resampling import resize
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run, at_call

Fuse = Literal["mean", "sum", "max", "product"]


class MapWarning(UserWarning):
    """A map was computed, and says nothing, or not what it seems to say."""


@dataclass(frozen=True, repr=False)
class layer_maps(Expr):
    """The map of a layer, (N, C, *spatial), or of several layers fused to one.

    All calls of a layer count that the score depends on. One is used at its size, several of one size are added up, and
    several of different sizes at the input's size. So are several layers fused.
    """

    called: ClassVar[str] = "layer_maps"

    maps: tuple[Expr, ...]
    """For each layer the formula of its map."""
    layers: tuple[LayerAt, ...]
    fuse: Fuse = "mean"

    def __post_init__(self) -> None:
        if self.fuse not in _FUSES:
            raise ValueError(f"there is no way {self.fuse!r} to fuse layers; it is {', '.join(map(repr, _FUSES))}")
        if not self.layers:
            raise ValueError("there are no layers; give at least one, or None for the automatic one")

    def compute(self, run: Run) -> Tensor:
        pairs = zip(self.maps, self.layers, strict=True)
        maps = _of_one_size([_over_calls(run, of, layer) for of, layer in pairs], run)
        fused = maps[0] if len(maps) == 1 else _FUSES[self.fuse](maps)
        self._warn(run, fused)
        return fused

    def plan(self) -> Plan:
        return plan(*self.maps)

    def parts(self) -> Iterator[Expr]:
        yield from self.maps

    def automatic(self) -> bool:
        return any(layer.layer is None for layer in self.layers)

    def _warn(self, run: Run, fused: Tensor) -> None:
        if run.copies > 1:  # of variants nobody looks at the map
            return
        names = " and ".join(repr(run.layer_name(layer)) for layer in self.layers)
        zero, score = ~fused.any(), run.score
        tell_if(zero, lambda: f"the map of layer {names} is zero everywhere: {_reason(score)}", MapWarning)
        if any(run.layers.holds_scores(layer) for layer in self.layers):
            of_scores = (
                f"layer {names} holds the scores themselves, so that its map explains a class by itself; "
                "choose a layer before it, or none, which finds one"
            )
            tell_if(~zero, lambda: of_scores, MapWarning)


def _reason(score: Tensor) -> str:
    if bool(((score.double() - 1).abs() <= 1e-6).all()):
        return (
            "the score is 1, where a sigmoid or a softmax is saturated and has no gradient; explain what goes into it "
            "by before_sigmoid=True or before_softmax=True, or drop the last activation of the model"
        )
    return (
        "nothing that the layer gives raises the score; choose another layer or target, or grad_cam, which is negative "
        "where a layer lowers the score"
    )


def _over_calls(run: Run, of: Expr, layer: LayerAt) -> Tensor:
    calls = run.layers.calls(layer)
    if len(calls) == 1:
        return _as_input(of(run), run)
    runs = [at_call(run, layer, call) for call in calls]
    maps = [of(each) for each in runs]
    run.layers.own_grid = next(
        (each.layers.own_grid for each in runs if each.layers.own_grid is not None), run.layers.own_grid
    )
    return _as_input(reduce(torch.add, _of_one_size(maps, run)), run)


def _as_input(values: Tensor, run: Run) -> Tensor:
    """Maps of frames that the model folded into its batch, (N, T, 1, h, w) where the input is (N, T, C, H, W)."""
    frames = run.layers.own_grid is not None and values.ndim == run.inputs.ndim > 3
    return (
        values.transpose(1, 2) if frames and values.shape[1] == 1 and values.shape[2] == run.inputs.shape[1] else values
    )


def _of_one_size(maps: Sequence[Tensor], run: Run) -> list[Tensor]:
    if len({values.shape for values in maps}) == 1:
        return list(maps)
    run.layers.check_over_input()
    size = run.inputs.shape[2:]
    return [resize(values, size) for values in maps]


_FUSES: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "mean": lambda maps: reduce(torch.add, maps) / len(maps),
    "sum": lambda maps: reduce(torch.add, maps),
    "max": lambda maps: reduce(torch.maximum, maps),
    "product": lambda maps: reduce(torch.mul, maps),
}
