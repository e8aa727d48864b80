"""An explanation laid over the whole picture that its input was cut out of, at the picture's own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnnviz.explanations.evidence_maps import Sign, evidence
from cnnviz.explanations.explanation import Explanation, drawn_by
from cnnviz.images.limits import current_limit
from cnnviz.images.modes import in_mode
from cnnviz.images.originals import Original
from cnnviz.images.preprocessing import MODES
from cnnviz.images.resampling import resize
from cnnviz.registry.configured import name_of

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Renderer


class FigureError(ValueError):
    """A renderer draws a figure, which lies over no picture."""


@dataclass(frozen=True, eq=False)
class OnOriginal(Explanation):
    """What an explanation of one input says of the part of the original that the input shows.

    ``inputs`` is that part in the original's own pixels. Maps of a layer keep their resolution; values of the input's
    own shape are interpolated.
    """

    at_input: Explanation | None = None
    """The explanation of the input itself, for what is decided there: a cut, for one."""
    original: Original | None = None
    whole: Image.Image | None = None
    """The original, with the channels that the network sees."""


def on_original(explanation: Explanation, item: int) -> Explanation:
    """The explanation of one input, over the part of its original that the input shows.

    An input without an original is its own. Raises OSError or ValueError for a file that is gone or has changed.
    """
    part = explanation[item]
    original = part.originals[0] if part.originals is not None else None
    if original is None or part.preprocessing is None:
        return part
    left, top, right, bottom = original.region
    size = bottom - top, right - left
    if size[0] * size[1] > current_limit():  # a file of results may claim any box
        raise ValueError(
            f"the input reaches over {size[1]} x {size[0]} pixels of its original, more than the limit of "
            f"{current_limit():,}; draw at='input' (--at input)"
        )
    whole = in_mode(original.picture(), MODES.get(len(part.preprocessing.mean), "RGB"))
    seen = whole.crop((left, top, right, bottom))  # beyond the picture, black
    inputs = _as_inputs(seen, part)
    values, boxes = part.values, part.boxes
    if values.shape == part.inputs.shape:
        smooth = size[0] < values.shape[2]
        values = resize(values.float(), size, antialias=smooth)
    if boxes is not None:
        rows, columns = (new / old for new, old in zip(size, part.inputs.shape[2:], strict=True))
        boxes = boxes * boxes.new_tensor([columns, rows, columns, rows])
    fields = {name: getattr(part, name) for name in Explanation.__dataclass_fields__}
    fields |= {"inputs": inputs, "values": values, "boxes": boxes, "originals": None}
    return OnOriginal(**fields, at_input=part, original=original, whole=whole)


def drawn_on_originals(explanation: Explanation, draw: Renderer) -> list[NDArray[np.uint8]]:
    """For each input its whole original (H, W, 3), uint8, with what ``draw`` draws where the input lies.

    The rest is the original, or what ``draw`` makes of it where a map is zero. Raises FigureError if the renderer does
    not draw pixel for pixel.
    """
    chosen = getattr(draw, "of", None)  # of the command line, whose renderer chooses one for each explanation
    draw = draw if chosen is None else chosen(explanation)
    canvas_kind, name = getattr(draw, "canvas", "picture"), getattr(draw, "name", None) or name_of(draw)
    if canvas_kind == "figure":
        raise FigureError(
            f"{name} draws a figure of its own, which lies over no picture; draw it at='input' (--at input), "
            "or use a renderer that draws over the picture, such as 'overlay'"
        )
    pictures: list[NDArray[np.uint8]] = []
    for item in range(len(explanation)):
        part = on_original(explanation, item)
        drawn = drawn_by(draw, part)
        if drawn.shape[1:3] != tuple(part.inputs.shape[2:]):
            raise FigureError(
                f"{name} draws a figure of {drawn.shape[2]} x {drawn.shape[1]} pixels with these settings, which lies "
                "over no picture; draw it at='input' (--at input)"
            )
        if not isinstance(part, OnOriginal) or part.original is None or part.whole is None:
            pictures.append(drawn[0])
            continue
        canvas = np.array(in_mode(part.whole, "RGB"))
        if canvas_kind == "map":
            canvas = drawn_by(draw, _without_map(part, part.whole))[0].copy()
        pictures.append(pasted(canvas, drawn[0], part.original))
    return pictures


def evidence_on_originals(explanation: Explanation, sign: Sign = "auto") -> list[NDArray[Any]]:
    """:func:`cnnviz.explanations.evidence` of each input, (H, W) of its original's size; zero beyond the input."""
    parts = [evidence(on_original(explanation, item), sign)[0].cpu().numpy() for item in range(len(explanation))]
    return placed(parts, explanation)


def _without_map(part: OnOriginal, whole: Image.Image) -> Explanation:
    """A map that is zero over the whole original."""
    zero = torch.zeros_like(part.values[..., :1, :1])
    at_input = part.at_input and replace(part.at_input, values=torch.zeros_like(part.at_input.values))
    return replace(part, values=zero, inputs=_as_inputs(whole, part), at_input=at_input)


def _as_inputs(picture: Image.Image, explanation: Explanation) -> Tensor:
    """A picture as an input (1, C, H, W), by the mean and std of the preprocessing alone."""
    assert explanation.preprocessing is not None
    inputs = replace(explanation.preprocessing, resize=None, crop=None)(picture)[None]
    return inputs.to(explanation.values.device)


def pasted(canvas: NDArray[Any], part: NDArray[Any], original: Original) -> NDArray[Any]:
    """``canvas`` (H, W, ...), of the original's size, with ``part`` in the original's region; what is beyond is cut."""
    left, top, right, bottom = original.region
    height, width = original.size
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    canvas[rows, columns] = part[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return canvas


def placed(maps: Sequence[NDArray[Any]], explanation: Explanation) -> list[NDArray[Any]]:
    """Maps (h, w) of the parts that inputs show, each in zeros of its original's size (H, W)."""
    originals = explanation.originals or (None,) * len(maps)
    return [
        part if original is None else pasted(np.zeros(original.size, part.dtype), part, original)
        for part, original in zip(maps, originals, strict=True)
    ]
