"""What excites channels most, cropped to what the units see, beside what of it comes through (Zeiler & Fergus, fig. 2).

Crops of one channel have one size: where a unit sees beyond the picture's border, gray is put.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.drawing.montage import Cell, fitted, sheet, tiled
from cnnviz.engine.layers import Layer
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution
from cnnviz.run.objectives import strongest
from cnnviz.tasks.receptive_fields import Unit, receptive_fields
from cnnviz.tasks.top_activations import Excited

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Renderer

Picture = NDArray[np.uint8]
TILE, GAP = 112, 4  # pixels: of a crop's longer side, between crops
GRAY = 128


def patch_sheet(
    model: nn.Module | LoadedModel,
    layer: Layer,
    found: Mapping[int, Sequence[Excited]],
    method: str | Attribution = "deconvnet",
    *,
    preprocessing: Preprocessing | None = None,
    renderer: str | Renderer | None = None,
    seed: int = 0,
    memory: int | None = None,
) -> Picture:
    """One picture (H, W, 3) of what :func:`~cnnviz.find_exciting` found, a row for each channel.

    On the left the inputs, cropped to the receptive field of the unit that they excite, the strongest first; on the
    right, cropped alike, what ``method`` gives of the input for that unit. ``renderer`` draws that; None leaves it to
    the method. Raises ValueError for inputs that are no images, or a method that gives a coarser map, which can't be
    cropped.
    """
    for excited in (each for row in found.values() for each in row):
        if excited.input.ndim != 3:
            raise ValueError(
                f"patch_sheet draws images, and the inputs are {tuple(excited.input.shape)}; crop signals and volumes "
                "by receptive_field(), and draw what explain() gives for strongest(layer, channel)"
            )
    fields = _fields(model, layer, found)
    rows: list[list[Cell]] = []
    for channel, row in found.items():
        ask = partial(explain, model, attribution=method, preprocessing=preprocessing, seed=seed, memory=memory)
        answers: list[Explanation] = [ask(each.input[None], target=strongest(layer, channel)) for each in row]
        crops = [_cropped(answer, field) for answer, field in zip(answers, fields[channel], strict=True)]
        if not row:
            rows.append([([f"f:{channel}", "nothing excites it"], np.full((1, TILE, 3), 255, np.uint8))])
            continue
        seen = [as_uint8(pictures_of(crop))[0] for crop in crops]
        size = (max(len(each) for each in seen), max(each.shape[1] for each in seen))
        columns = math.ceil(math.sqrt(len(row)))
        blocks = [
            tiled([_tile(*each, size) for each in zip(pictures, fields[channel], strict=True)], columns, GAP)
            for pictures in (seen, [crop.render(renderer)[0] for crop in crops])
        ]
        strengths = f"f:{channel}   {row[0].strength:.4g} to {row[-1].strength:.4g}"
        rows.append([([strengths], blocks[0]), ([answers[0].recipe.removesuffix("()")], blocks[1])])
    return sheet(rows)


def _fields(
    model: nn.Module | LoadedModel, layer: Layer, found: Mapping[int, Sequence[Excited]]
) -> dict[int, list[tuple[slice, ...]]]:
    """For each channel the receptive fields of its units; those of inputs of one size are asked for together."""
    sizes: dict[torch.Size, dict[Unit, Tensor]] = {}
    for channel, row in found.items():
        for each in row:
            sizes.setdefault(each.input.shape, {})[Unit(each.at, channel)] = each.input
    known: dict[tuple[torch.Size, Unit], tuple[slice, ...]] = {}
    for shape, units in sizes.items():
        inputs = next(iter(units.values()))[None]
        fields = receptive_fields(model, inputs, layer, list(units))
        known |= {(shape, unit): field for unit, field in zip(units, fields, strict=True)}
    return {
        channel: [known[each.input.shape, Unit(each.at, channel)] for each in row] for channel, row in found.items()
    }


def _cropped(answer: Explanation, field: tuple[slice, ...]) -> Explanation:
    if answer.values.shape[2:] != answer.inputs.shape[2:]:
        raise ValueError(
            f"{answer.recipe} gives a map of {tuple(answer.values.shape[2:])} for {tuple(answer.inputs.shape[2:])}, "
            "too coarse to be cropped; use a method that gives a value for each pixel, such as the default"
        )
    part = (slice(None), slice(None), *field)
    return replace(answer, values=answer.values[part], inputs=answer.inputs[part])


def _tile(picture: Picture, field: tuple[slice, ...], size: tuple[int, int]) -> Picture:
    """A crop filled up to the size with gray where it touches the border, enlarged or reduced to a tile."""
    # what is missing is before the crop, if that begins where the picture does, and else behind it
    top, left = (
        room - length if part.start == 0 else 0 for room, length, part in zip(size, picture.shape, field, strict=False)
    )
    whole = np.full((*size, 3), GRAY, np.uint8)
    whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return fitted(whole, TILE)
