"""Top activations: which inputs of many activate a channel most, and where. One pass over them keeps only the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.layers import Layer
from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import check_finite, check_model, unwrap
from cnnviz.explanations.explain import explain
from cnnviz.explanations.inputs import called_with
from cnnviz.explanations.read_inputs import read_inputs
from cnnviz.formulas.terms import activation, procedure
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.registry import attributions
from cnnviz.run.objectives import channel_units
from cnnviz.run.resolve_target import check_single
from cnnviz.run.run import Run
from cnnviz.run.targets import Target
from cnnviz.tasks.channel_relevance import separated, whole_numbers
from cnnviz.tasks.layer_maps import LayerMaps

RELEVANCE: Layer = ("", "relevance")  # no layer has that name


@dataclass(frozen=True, eq=False, repr=False)
class TopActivation:
    """An input, and the unit of a channel with the largest activation for it."""

    number: int
    """The number of the input, counted from 0."""
    input: Tensor
    """(C, *spatial), as it was given to the model."""
    at: tuple[int, ...]
    """The unit's place in the layer's output, (*spatial); () where that has no spatial extent."""
    activation: float
    """The unit's activation; above 0, where inputs were found by it."""
    relevance: float | None = None
    """The channel's part of the score, above 0, where inputs were found by it; the unit is the most relevant one."""

    @property
    def rank(self) -> float:
        """What the inputs are sorted by, the largest first."""
        return self.activation if self.relevance is None else self.relevance

    def __repr__(self) -> str:
        return f"<input {self.number} at {self.at}: {self.rank:.3g}>"


class TopActivations(InNotebooks, dict[int, list[TopActivation]]):
    """What :func:`cnnviz.top_activations` gives: for each channel the inputs, the most active first."""

    preprocessing: Preprocessing | None = None
    """Turns the inputs back into pictures."""


@borrows
def top_activations(
    model: nn.Module | LoadedModel,
    batches: Iterable[Any],
    layer: Layer,
    channels: Sequence[int],
    count: int = 9,
    *,
    by: Literal["activation", "relevance"] = "activation",
    target: Target = None,
    preprocessing: Preprocessing | Any = None,
    **settings: Any,
) -> TopActivations:
    """For each channel the inputs in which one of its units is most active, the most active first.

    The top image patches of Zeiler & Fergus (2014, arXiv:1311.2901, figure 2). ``batches`` are read one after the
    other. Each is what :func:`cnnviz.explain` takes as inputs: (N, C, *spatial) of any size, or pictures where the
    ``preprocessing`` is known. At most ``count`` inputs of each channel are kept. Inputs that leave the channel at zero
    or below are left out, so there may be fewer. Passes end at the layer.

    With ``by="relevance"`` they are the inputs in which the channel has most of the score of the ``target``, as
    :func:`cnnviz.explain` takes it, summed over space (Achtibat et al., 2023, arXiv:2206.03208); ``settings`` are those
    of the method ``layer_relevance``, and options of ``explain``. Each input is passed forward and back then.

    Raises ValueError for a channel there is not, for no channels, a count below one, or a target by activation.
    """
    channels, (count,) = whole_numbers("channels", channels), whole_numbers("count", [count])
    if count < 1 or not channels:
        raise ValueError(f"{count} inputs of {len(channels)} channels are asked for; ask for one or more of each")
    if by not in ("activation", "relevance"):
        raise ValueError(f"there is no by={by!r}; it is 'activation' or 'relevance'")
    if by == "activation" and (target is not None or settings):
        setting = next(iter(settings), "target")
        raise ValueError(f"{setting} is about relevance, and inputs are sought by activation; add by='relevance'")
    asked = model
    if isinstance(model, LoadedModel):
        preprocessing, model = preprocessing or model.preprocessing, model.module
    preprocessing = None if preprocessing is None else Preprocessing.of(preprocessing)
    if isinstance(batches, Tensor | str | Path):
        batches = [batches]  # one batch
    network = unwrap(model)
    check_model(network)
    best = TopActivations((channel, []) for channel in channels)
    best.preprocessing = preprocessing
    seen_in = _by_relevance(asked, layer, target, settings) if by == "relevance" else LayerMaps(network, layer)
    passed = 0
    for batch in batches:
        inputs = called_with(network, read_inputs(network, batch, preprocessing)[0])[0].first
        seen = seen_in(inputs.detach())
        for channel, top in best.items():
            for item, one in enumerate(_units(seen, layer, channel)):
                if one.rank > 0 and (len(top) < count or one.rank > top[-1].rank):
                    top.append(replace(one, number=passed + item, input=inputs[item].detach().clone()))
                    top.sort(key=lambda entry: -entry.rank)  # keeps the order of equal ones
                    del top[count:]
        passed += len(inputs)
    return best


def _units(seen: Seen, layer: Layer, channel: int) -> Iterator[TopActivation]:
    """The channel's most active unit in each input, or the most relevant one, where relevance is known."""
    active = channel_units(seen, layer, channel)
    check_finite(active, f"channel {channel} of layer {layer!r}")
    parts = channel_units(seen, RELEVANCE, channel) if RELEVANCE in seen.layers else None
    places = (active if parts is None else parts).argmax(1)
    sums = [None] * len(active) if parts is None else parts.double().sum(1).tolist()
    strengths, size = active.gather(1, places[:, None])[:, 0].tolist(), seen.layer(layer).shape[2:]
    for place, strength, total in zip(places, strengths, sums, strict=True):
        yield TopActivation(0, seen.inputs[:0], _at(place, size), strength, total)


def _by_relevance(
    model: nn.Module | LoadedModel, layer: Layer, target: Target, settings: Mapping[str, Any]
) -> Callable[[Tensor], Seen]:
    """What the layer gives, and how much of the target's score it has."""
    check_single(target)
    own, options = separated(attributions["layer_relevance"], settings)
    values = activation(layer, spatial=None)

    def seen_in(inputs: Tensor) -> Seen:
        shape: list[int] = []
        names: dict[Layer, str] = {}

        def of_rank(run: Run) -> Tensor:
            given = values(run)
            shape[:], names[layer] = given.shape, run.layer_name(layer)
            return given.reshape(*given.shape, *(1,) * (inputs.ndim - given.ndim))  # as relevance is

        methods = [attributions["layer_relevance"](layer=layer, **own), procedure(of_rank, (values,))]
        relevance, active = (each.values for each in explain(model, inputs, methods, target=target, **options).values())
        return Seen(inputs, None, {layer: active.reshape(len(active), *shape[1:]), RELEVANCE: relevance}, names)

    return seen_in


def _at(place: Tensor, size: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(index) for index in torch.unravel_index(place, tuple(size)))
