"""Receptive fields, measured on the network: a NaN in the input becomes NaN in every unit that depends on it.

Layers are not known by type, so residual, functional and hand-written networks of any rank are measured alike. The part
of the input that is NaN is halved again and again (binary search), for all units, axes and both ends at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.draws import RandomNumbers
from cnnviz.engine.layers import Layer
from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import check_model, unwrap
from cnnviz.explanations.inputs import called_with
from cnnviz.explanations.read_inputs import read_inputs
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.run.objectives import neuron
from cnnviz.tasks.layer_maps import LayerMaps

AT_ONCE = 8  # variants of the input in one pass
CHANGED = 1e-3  # of a layer's largest magnitude: far above what rounding does

_kernels = threading.Lock()  # torch's choice of kernels is one for all threads


@dataclass(frozen=True)
class Unit:
    """A place in a layer's output, (*spatial), or () where it has no spatial extent; None is all channels together."""

    at: tuple[int, ...]
    channel: int | None = None


def receptive_field(
    model: nn.Module | LoadedModel,
    inputs: Any,
    layer: Layer,
    at: Sequence[int],
    channel: int | None = None,
    *,
    preprocessing: Preprocessing | None = None,
) -> tuple[slice, ...]:
    """The part of the input that a unit can depend on: a slice for each spatial dimension.

    It is the smallest box within the input that holds all those places; it does not reach beyond the border. Weights of
    zero count. ``inputs`` say the size: (N, C, *spatial), or a picture where the ``preprocessing`` is known. ``at`` is
    the unit's place in the layer, (*spatial), or () where the layer has no spatial extent; ``channel`` None is all
    channels together.
    Costs 2 * rank * log2(size) evaluations up to the layer. Raises ValueError for a unit there is not, or one that
    reads nothing of the input, or only through operations that turn NaN into numbers.
    """
    return receptive_fields(model, inputs, layer, [Unit(tuple(at), channel)], preprocessing)[0]


@borrows
def receptive_fields(
    model: nn.Module | LoadedModel,
    inputs: Any,
    layer: Layer,
    units: Sequence[Unit],
    preprocessing: Preprocessing | None = None,
) -> list[tuple[slice, ...]]:
    """The receptive fields of several units of one layer, faster than one by one; see :func:`receptive_field`."""
    if isinstance(model, LoadedModel):
        preprocessing, model = preprocessing or model.preprocessing, model.module
    network = unwrap(model)
    check_model(network)
    inputs = called_with(network, read_inputs(network, inputs, preprocessing)[0])[0].first
    with _direct_kernels(inputs.device):
        return _Probe(LayerMaps(network, layer), inputs[0].detach(), units).fields()


class _Probe:
    """Measures which parts of one input make the units of a layer NaN."""

    def __init__(self, maps: LayerMaps, input: Tensor, units: Sequence[Unit]):
        self.maps, self.layer, self.input, self.units = maps, maps.layer, input, units
        self.size = input.shape[1:]
        seen = maps(input[None])
        for unit in units:
            neuron(self.layer, unit.channel or 0, unit.at)(seen)  # raises for one there is not

    def fields(self) -> list[tuple[slice, ...]]:
        whole = self._reads([torch.ones(self.size, dtype=torch.bool)])
        for unit, read in zip(self.units, whole, strict=True):
            if not read[0]:
                raise ValueError(
                    f"a NaN in the input does not reach the unit at {unit.at} of layer {self.layer!r}: it reads "
                    "nothing of the input, or the model turns NaN into numbers; choose a layer before it does"
                )
        begins, ends = self._ends(last=False), self._ends(last=True)
        fields = [tuple(map(slice, *bounds)) for bounds in zip(begins, ends, strict=True)]
        self._check(fields)
        return fields

    def _ends(self, last: bool) -> list[list[int]]:
        """For each unit the begin of its field along every axis, or with ``last`` its end (exclusive)."""
        # the unit depends on the half of the input before `inside`, and not on that before `outside`; last: on the
        # half that follows
        outside = [[length if last else 0 for length in self.size] for _ in self.units]
        inside = [[0 if last else length for length in self.size] for _ in self.units]
        while True:
            middles = [
                (unit, axis, (outside[unit][axis] + inside[unit][axis]) // 2)
                for unit in range(len(self.units))
                for axis in range(len(self.size))
                if abs(outside[unit][axis] - inside[unit][axis]) > 1
            ]
            if not middles:
                return outside
            halves = list(dict.fromkeys((axis, middle) for _, axis, middle in middles))
            reads = self._reads([self._half(axis, middle, last) for axis, middle in halves])
            for unit, axis, middle in middles:
                (inside if reads[unit][halves.index((axis, middle))] else outside)[unit][axis] = middle

    def _half(self, axis: int, middle: int, last: bool) -> Tensor:
        """The places before the middle of an axis, or with ``last`` from there on."""
        places = torch.zeros(self.size, dtype=torch.bool)
        places.narrow(axis, middle if last else 0, self.size[axis] - middle if last else middle).fill_(True)
        return places

    def _reads(self, masks: Sequence[Tensor]) -> list[list[bool]]:
        """For each unit, True if it depends on the input inside each mask (*spatial)."""
        inputs = [self.input.masked_fill(mask.to(self.input.device), torch.nan) for mask in masks]
        return [values.isnan().any(1).tolist() for values in self._values(inputs)]

    def _check(self, fields: Sequence[tuple[slice, ...]]) -> None:
        """Raises if a unit changes with values outside its field."""
        noise = RandomNumbers(0, device=self.input.device).normal((2, *self.input.shape), self.input.dtype)
        inputs = [noise[0]]
        for field in fields:
            inputs.append(noise[1].clone())
            inputs[-1][:, *field] = noise[0][:, *field]
        largest = float(self.maps(noise[:1]).layer(self.layer).abs().max())
        for number, (unit, values) in enumerate(zip(self.units, self._values(inputs), strict=True), 1):
            if float((values[number] - values[0]).abs().max()) > CHANGED * largest:
                raise ValueError(
                    f"the unit at {unit.at} of layer {self.layer!r} depends on more than a NaN tells of: the model "
                    "turns NaN into numbers, or draws at random; choose a layer before it does"
                )

    def _values(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The activations of each unit, (inputs, channels)."""
        activations: list[list[Tensor]] = [[] for _ in self.units]
        for start in range(0, len(inputs), AT_ONCE):
            output = self.maps(torch.stack(list(inputs[start : start + AT_ONCE]))).layer(self.layer)
            for unit, values in zip(self.units, activations, strict=True):
                channels = slice(None) if unit.channel is None else slice(unit.channel, unit.channel + 1)
                place: tuple[slice | int, ...] = (slice(None), channels, *unit.at)
                values.append(output[place])
        return [torch.cat(values) for values in activations]


@contextmanager
def _direct_kernels(device: torch.device) -> Iterator[None]:
    """Direct convolutions: Fourier and Winograd transforms would spread a NaN beyond the receptive field.

    oneDNN, which computes most of them on CPUs, is asked by torch for direct ones.
    """
    with _kernels:
        nnpack, cudnn = torch._C._get_nnpack_enabled(), torch._C._get_cudnn_enabled()
        try:
            try:
                torch._C._set_nnpack_enabled(False)
                if device.type == "cuda":
                    torch._C._set_cudnn_enabled(False)
                yield
            finally:
                _enable(nnpack, cudnn)
        finally:  # an interruption may have struck in the first one
            _enable(nnpack, cudnn)


def _enable(nnpack: bool, cudnn: bool) -> None:
    torch._C._set_nnpack_enabled(nnpack)
    torch._C._set_cudnn_enabled(cudnn)
