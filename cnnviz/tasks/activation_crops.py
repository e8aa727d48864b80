"""Top activations as image patches: inputs cropped to receptive fields, beside attributions for the same units.

Crops of one channel have one size: where a receptive field reaches beyond the picture's border, gray is put.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.drawing.montage import Cell, Pixels, fitted, sheet, tiled
from cnnviz.engine.layers import Layer
from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import unwrap
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution, Renderer
from cnnviz.run.objectives import strongest
from cnnviz.tasks.layer_maps import LayerMaps
from cnnviz.tasks.receptive_fields import Unit, receptive_fields
from cnnviz.tasks.top_activations import TopActivation

Field = tuple[slice, ...]
TILE, GAP = 112, 4  # pixels: of a crop's longer side, between crops
GRAY = 128


@borrows
def patch_sheet(
    model: nn.Module | LoadedModel,
    layer: Layer,
    activations: Mapping[int, Sequence[TopActivation]],
    method: str | Attribution = "deconvnet",
    *,
    preprocessing: Preprocessing | None = None,
    renderer: str | Renderer | None = None,
    seed: int = 0,
    memory: int | None = None,
) -> Pixels:
    """Draw :func:`~cnnviz.top_activations` as Zeiler & Fergus do (2014, arXiv:1311.2901, figure 2).

    One picture, uint8 (H, W, 3), with a row for each channel: on the left the inputs, cropped to the receptive field of
    their most active unit, the most active first; on the right, cropped alike, what ``method`` gives of the input for
    that unit. ``renderer`` draws that; None leaves it to the method. Raises ValueError for inputs that are no images,
    or a method that gives a coarser map, which can't be cropped.
    """
    check_images(activations)
    fields = fields_of(model, layer, activations)
    network = unwrap(model.module if isinstance(model, LoadedModel) else model)
    ask = partial(explain, model, attribution=method, preprocessing=preprocessing, seed=seed, memory=memory)
    rows: list[list[Cell]] = []
    for channel, row in activations.items():
        if not row:
            rows.append([([f"f:{channel}", "nothing excites it"], np.full((1, TILE, 3), 255, np.uint8))])
            continue
        if LayerMaps(network, layer).is_moved(row[0].input[None]):
            raise ValueError(
                f"layer {layer!r} does not give (N, C, *spatial), and single units are projected of such layers only; "
                "draw a concept_sheet, or choose another layer"
            )
        explanations: list[Explanation] = [ask(top.input[None], target=strongest(layer, channel)) for top in row]
        crops = [cropped(*pair) for pair in zip(explanations, fields[channel], strict=True)]
        inputs = [as_uint8(pictures_of(crop))[0] for crop in crops]
        size = (max(len(crop) for crop in inputs), max(crop.shape[1] for crop in inputs))
        columns = math.ceil(math.sqrt(len(row)))
        blocks = [
            tiled([tile(*pair, size) for pair in zip(pictures, fields[channel], strict=True)], columns, GAP)
            for pictures in (inputs, [crop.render(renderer)[0] for crop in crops])
        ]
        caption = f"f:{channel}   {row[0].activation:.4g} to {row[-1].activation:.4g}"
        rows.append([([caption], blocks[0]), ([explanations[0].recipe.removesuffix("()")], blocks[1])])
    return sheet(rows)


def check_images(activations: Mapping[int, Sequence[TopActivation]]) -> None:
    """Raises ValueError for inputs that can't be drawn as patches, and for none of any channel."""
    if not activations:
        raise ValueError("no channels are given to be drawn; top_activations(...) gives them")
    for top in (top for row in activations.values() for top in row):
        if top.input.ndim != 3:
            raise ValueError(
                f"patch_sheet draws images, and the inputs are {tuple(top.input.shape)}; crop signals and volumes "
                "by receptive_field(), and draw what explain() gives for strongest(layer, channel)"
            )


def fields_of(
    model: nn.Module | LoadedModel, layer: Layer, activations: Mapping[int, Sequence[TopActivation]]
) -> dict[int, list[Field]]:
    """For each channel the receptive fields of its units; fields for inputs of one size are computed together."""
    examples: dict[torch.Size, Tensor] = {}
    units: dict[torch.Size, list[Unit]] = {}
    for channel, row in activations.items():
        for top in row:
            examples[top.input.shape] = top.input
            units.setdefault(top.input.shape, []).append(Unit(top.at, channel))
    fields = {size: iter(receptive_fields(model, examples[size][None], layer, units[size])) for size in units}
    return {channel: [next(fields[top.input.shape]) for top in row] for channel, row in activations.items()}


def cropped(explanation: Explanation, field: Field) -> Explanation:
    """The part of an explanation of one input. Raises ValueError for a map that is coarser than the input."""
    if explanation.values.shape[2:] != explanation.inputs.shape[2:]:
        raise ValueError(
            f"{explanation.recipe} gives a map of {tuple(explanation.values.shape[2:])} for "
            f"{tuple(explanation.inputs.shape[2:])}, too coarse to be cropped; use a method that gives a value for "
            "each pixel, such as the default"
        )
    part = (slice(None), slice(None), *field)
    return replace(explanation, values=explanation.values[part], inputs=explanation.inputs[part])


def tile(crop: Pixels, field: Field, size: tuple[int, int]) -> Pixels:
    """A crop filled up to the size with gray where it touches the border, enlarged or reduced to a tile."""
    missing = np.subtract(size, crop.shape[:2])
    # it is before the crop, if that begins where the picture does, and else behind it
    margins = [(gap, 0) if part.start == 0 else (0, gap) for gap, part in zip(missing, field, strict=True)]
    return fitted(np.pad(crop, [*margins, (0, 0)], constant_values=GRAY), TILE)
