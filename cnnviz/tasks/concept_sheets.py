"""Channels of a layer beside the inputs that show what they see: a picture of concepts.

What is shown of an input is its relevance on the way through the channel, blurred, so that parts are seen and not dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.drawing.montage import Cell, Pixels, enlarged, fitted, sheet, tiled
from cnnviz.engine.layers import Layer
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.resampling import blurred
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Renderer
from cnnviz.registry.registry import attributions
from cnnviz.run.resolve_target import check_single
from cnnviz.run.targets import Target
from cnnviz.tasks.activation_crops import GAP, TILE, Field, check_images, fields_of, tile
from cnnviz.tasks.channel_relevance import ALL, of_layer_relevance, separated, top_channels
from cnnviz.tasks.top_activations import TopActivation

BLUR = 3.2 / 224  # the standard deviation, of the shorter side
SEEN = 0.1  # of the highest relevance: what has less is darkened
DARK = 0.3  # of its brightness is left
ROWS = 2  # of references
HEIGHT = ROWS * TILE + (ROWS - 1) * GAP


def concept_sheet(
    model: nn.Module | LoadedModel,
    layer: Layer,
    references: Mapping[int, Sequence[TopActivation]],
    picture: Any = None,
    *,
    target: Target = None,
    renderer: str | Renderer = "overlay",
    **settings: Any,
) -> Pixels:
    """Draw channels of a layer beside reference inputs, as Achtibat et al. do (2023, arXiv:2206.03208, figure 1).

    One picture, uint8 (H, W, 3), with a row for each channel: on the left where the channel finds its part of the score
    in the ``picture``, with its share of the relevance; on the right the ``references``, which
    :func:`cnnviz.top_activations` gives, cropped to the receptive field of the unit that was found. Of these only the
    parts that are relevant on the way through the channel keep their brightness. Without a picture there is no left
    side. ``target`` is the class explained, in the picture and in the references; None takes the class that is
    predicted for each. ``settings`` are those of the method ``conditional_relevance``, and options of ``explain``.
    Raises ValueError for inputs that are no images, several in the place of the picture, or a layer without a name.
    """
    if layer is None:
        raise ValueError("without a name, the layer may be another one for each input; give top_channels(...).layer")
    check_images(references)
    check_single(target)
    conditional = attributions["conditional_relevance"]
    own, options = separated(conditional, settings)
    methods = {channel: conditional(layer=layer, channels=channel, **own) for channel in references}
    fields = fields_of(model, layer, references)
    rows: list[list[Cell]] = [[] for _ in methods]
    if picture is not None:
        ranked = top_channels(model, picture, layer, ALL, target=target, **of_layer_relevance(own), **options)
        if len(ranked) != 1:
            raise ValueError(f"channels are explained in one picture, and {len(ranked)} are given; give one of them")
        shares = {each.channel: each.share for each in ranked[0]}
        explanations = explain(model, picture, list(methods.values()), target=target, **options).values()
        for row, channel, one in zip(rows, methods, explanations, strict=True):
            caption = [f"f:{channel}: {shares[channel]:.1%} of the relevance", f"for {one.names()[0]}"]
            row.append((caption, fitted(enlarged(_smooth(one).render(renderer)[0], HEIGHT), HEIGHT)))
    for row, (channel, found) in zip(rows, references.items(), strict=True):
        ask = partial(explain, model, attribution=methods[channel], target=target, **options)
        told, tiles = _references(found, [_lit(_smooth(ask(one.input[None]))) for one in found], fields[channel])
        row.append(([told] if row else [f"f:{channel}", told], tiles))
    return sheet(rows)


def _references(found: Sequence[TopActivation], lit: Sequence[Pixels], fields: Sequence[Field]) -> tuple[str, Pixels]:
    """What is told of a channel's references, and these side by side, of one size whatever the pictures' are."""
    if not found:
        return "nothing excites it", np.full((1, TILE, 3), 255, np.uint8)
    crops = [picture[field] for picture, field in zip(lit, fields, strict=True)]
    size = (max(len(crop) for crop in crops), max(crop.shape[1] for crop in crops))
    tiles = [fitted(enlarged(tile(*pair, size), TILE), TILE) for pair in zip(crops, fields, strict=True)]
    kind = "activation" if found[0].relevance is None else "relevance"
    ranks = dict.fromkeys(f"{found[place].rank:.3g}" for place in (0, -1))
    return f"{kind} {' to '.join(ranks)}", tiled(tiles, -(-len(tiles) // ROWS), GAP)


def _smooth(explanation: Explanation) -> Explanation:
    """Its positive relevance, of all colours together, blurred."""
    values: Tensor = explanation.values.sum(1, keepdim=True)
    return replace(explanation, values=blurred(values, BLUR * min(values.shape[2:])).clamp(min=0))


def _lit(explanation: Explanation) -> Pixels:
    """The input, (H, W, 3), dark where it has no relevance."""
    values = explanation.values[0, 0].cpu().numpy()
    seen = (values > SEEN * values.max())[..., None]
    picture = pictures_of(explanation)[0]
    lit: Pixels = as_uint8(np.where(seen, picture, DARK * picture))
    return lit
