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
from cnnviz.drawing.montage import Cell, Pixels, sheet, tiled
from cnnviz.engine.layers import Layer
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.resampling import blurred
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Renderer
from cnnviz.registry.registry import attributions
from cnnviz.run.targets import Target
from cnnviz.tasks.activation_crops import GAP, TILE, check_images, fields_of, tile
from cnnviz.tasks.top_activations import TopActivation
from cnnviz.tasks.top_channels import top_channels

BLUR = 3.2 / 224  # the standard deviation, of the shorter side
SEEN = 0.1  # of the highest relevance: what has less is darkened
DARK = 0.3  # of its brightness is left
FITS = {"preprocessing", "categories", "seed", "memory", "before_softmax", "before_sigmoid", "precision", "arguments"}
"""Options of ``explain`` among the settings."""


def concept_sheet(
    model: nn.Module | LoadedModel,
    layer: Layer,
    references: Mapping[int, Sequence[TopActivation]],
    picture: Any = None,
    *,
    target: Target = None,
    reference_target: Target = None,
    renderer: str | Renderer = "overlay",
    **settings: Any,
) -> Pixels:
    """Draw channels of a layer beside reference inputs, as Achtibat et al. do (2023, arXiv:2206.03208, figure 1).

    One picture, uint8 (H, W, 3), with a row for each channel: on the left where the channel finds its part of the score
    in the ``picture``, with its share of the relevance; on the right the ``references``, which
    :func:`cnnviz.top_activations` gives, cropped to the receptive field of the unit that was found. Of these only the
    parts that are relevant on the way through the channel keep their brightness. Without a picture there is no left
    side. ``target`` is the class explained in the picture, ``reference_target`` that in the references; None takes the
    predicted ones. ``settings`` are those of the method ``conditional_relevance``, and options of ``explain``. Raises
    ValueError for inputs that are no images.
    """
    check_images(references)
    options = {name: settings.pop(name) for name in [*settings] if name in FITS}
    shares: dict[int, float] = {}
    if picture is not None:
        own = {name: value for name, value in settings.items() if name in attributions["layer_relevance"].settings}
        (ranked,) = top_channels(model, picture, layer, 2**31, target=target, **own, **options)
        shares = {each.channel: each.share for each in ranked}
    fields = fields_of(model, layer, references)
    rows: list[list[Cell]] = []
    for channel, found in references.items():
        method = attributions["conditional_relevance"](layer=layer, channels=channel, **settings)
        ask = partial(explain, model, attribution=method, **options)
        row: list[Cell] = []
        if picture is not None:
            heat = _smooth(ask(picture, target=target))
            row.append(([f"f:{channel}", f"{shares[channel]:.1%} of the relevance"], heat.render(renderer)[0]))
        if found:
            crops = [_lit(_smooth(ask(one.input[None], target=reference_target))) for one in found]
            parts = [crop[field] for crop, field in zip(crops, fields[channel], strict=True)]
            size = (max(len(part) for part in parts), max(part.shape[1] for part in parts))
            tiles = [tile(part, field, size) for part, field in zip(parts, fields[channel], strict=True)]
            kind = "activation" if found[0].relevance is None else "relevance"
            caption = f"{kind} {found[0].rank:.3g} to {found[-1].rank:.3g}"
            row.append(([f"f:{channel}", caption], tiled(tiles, len(tiles), GAP)))
        else:
            row.append(([f"f:{channel}", "nothing excites it"], np.full((1, TILE, 3), 255, np.uint8)))
        rows.append(row)
    return sheet(rows)


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
