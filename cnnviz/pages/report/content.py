"""What a report holds: pictures, their classes, and a map for each picture, method, class and layer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnviz.explanations.evidence_maps import input_pictures
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.modes import in_mode
from cnnviz.images.originals import Original
from cnnviz.pages.report.maps import DEEPER_SIDE, Map, StoredMap, has_both_signs, reduced_maps, stored
from cnnviz.pages.shared.texts import shown

LONGEST = 384
"""The most pixels of a picture on a side."""
SMALL_PART = 0.3
"""Where the network saw less of a picture than this share, that part is shown alone."""
CLASS_NAME = 80
"""The most letters of a class's name."""

Answers = Mapping[str, Sequence[Explanation]]
"""By method one explanation of the inputs for each class that is explained."""
Deeper = Mapping[str, Sequence[tuple[str, Sequence[Explanation]]]]
"""By method for each further layer its name and the explanations there."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the page shows it."""

    name: str
    pixels: NDArray[np.uint8]
    """(H, W, 3), with at most 384 on a side."""
    box: tuple[float, float, float, float]
    """What the network saw of it: left, top, right, bottom in its pixels; it may reach beyond it."""
    note: str = ""

    @property
    def is_whole(self) -> bool:
        """True if the network saw just what is shown."""
        height, width = self.pixels.shape[:2]
        return all(abs(side - edge) < 1 for side, edge in zip(self.box, (0, 0, width, height), strict=True))

    def jpeg(self) -> bytes:
        """In the format that pages hold."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, "JPEG", quality=85)
        return stream.getvalue()


@dataclass(frozen=True)
class Explained:
    """A class or another target of one picture."""

    name: str
    score: float
    probability: float | None
    boxes: tuple[tuple[float, ...], ...] = ()
    """The detections explained, in pixels of the picture."""


@dataclass(frozen=True, eq=False)
class Tile:
    """What one method says of one picture."""

    maps: Sequence[Sequence[Map]] = ()
    """For each class the map at the method's own layer, then those at the further ones."""
    drawn: Sequence[NDArray[np.uint8]] = ()
    """For each class what its renderer draws, (H, W, 3), where it is no map over a picture."""

    def stored(self, signed: Sequence[bool]) -> list[list[StoredMap]]:
        """The maps in 8 bits; ``signed`` says of each layer whether they have both signs."""
        return [[stored(*pair) for pair in zip(of_class, signed, strict=True)] for of_class in self.maps]


@dataclass(frozen=True)
class Row:
    """A picture with all that is said of it."""

    picture: Picture
    classes: Sequence[Explained]
    tiles: Mapping[str, Tile]


@dataclass
class Content:
    """What a report holds, filled batch by batch."""

    rows: list[Row] = field(default_factory=list)
    recipes: dict[str, str] = field(default_factory=dict)
    """By method."""
    layers: dict[str, list[str]] = field(default_factory=dict)
    """By method the further layers."""
    fine: set[str] = field(default_factory=set)
    """The methods whose values have the input's own shape."""
    computed_in: dict[str, None] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Pictures without an explanation, and why."""

    def add(self, answers: Answers, names: Sequence[str], deeper: Deeper | None = None) -> None:
        """Take the explanations of a batch of inputs, which have these names."""
        deeper = deeper or {}
        first = next(iter(answers.values()))
        classes = [_explained(each) for each in first]
        tiles = {method: _tiles(each, deeper.get(method, ())) for method, each in answers.items()}
        rows = []
        for number, name in enumerate(names):
            picture = picture_of(first[0], number, name)
            explained = [
                _with_boxes(of_class[number], of, number, picture) for of_class, of in zip(classes, first, strict=True)
            ]
            rows.append(Row(picture, explained, {method: each[number] for method, each in tiles.items()}))
        self.rows += rows  # all of them, or none where one fails
        for method, each in answers.items():
            self.recipes.setdefault(method, each[0].recipe)
            self.layers.setdefault(method, [layer for layer, _ in deeper.get(method, ())])
            if each[0].fine:
                self.fine.add(method)
            if each[0].computed_in is not None:
                self.computed_in.setdefault(each[0].computed_in)
        self.options |= vars(first[0].options)

    @property
    def methods(self) -> list[str]:
        """In their order."""
        return list(self.recipes)

    def signed(self) -> dict[str, list[bool]]:
        """By method whether its maps, of any picture and class, have both signs: at its own layer, then at each other.

        Before a rectifier, say, maps have both where they have one behind it.
        """
        return {
            method: [
                has_both_signs([of_class[place] for row in self.rows for of_class in row.tiles[method].maps])
                for place in range(1 + len(layers))
            ]
            for method, layers in self.layers.items()
        }


def picture_of(explanation: Explanation, number: int, name: str) -> Picture:
    """The picture that an input was made of, small, and where the input lies in it; else what the network saw."""
    original = explanation.originals[number] if explanation.originals is not None else None
    note = ""
    if original is not None:
        try:
            return _shown_part(in_mode(original.picture(), "RGB"), original, name)
        except (OSError, ValueError):
            note = "The file is gone or has changed since; this is what the network saw."
    image = _input_image(explanation[number])
    small = _small(image)
    return Picture(shown(name), np.asarray(small), (0.0, 0.0, float(small.width), float(small.height)), note)


def _shown_part(image: Image.Image, original: Original, name: str) -> Picture:
    """The picture, or of a large one the part that the network saw, if that is small."""
    left, top, right, bottom = original.box
    inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    share = (inside[2] - inside[0]) * (inside[3] - inside[1]) / (image.width * image.height)
    note = ""
    if share < SMALL_PART:
        region = int(inside[0]), int(inside[1]), int(np.ceil(inside[2])), int(np.ceil(inside[3]))
        image = image.crop(region)
        left, right, top, bottom = left - region[0], right - region[0], top - region[1], bottom - region[1]
        note = f"The network saw {share:.0%} of the picture; that part is shown."
    small = _small(image)
    across, down = small.width / image.width, small.height / image.height
    return Picture(shown(name), np.asarray(small), (left * across, top * down, right * across, bottom * down), note)


def _small(image: Image.Image) -> Image.Image:
    scale = LONGEST / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)


def _input_image(one: Explanation) -> Image.Image:
    """What the network saw; of signals and volumes, which are no picture, a gray place."""
    if one.inputs.ndim != 4:
        return Image.new("RGB", (8, 8), "gray")
    pixels = input_pictures(one)[0].clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


def _explained(explanation: Explanation) -> list[Explained]:
    probability = explanation.told_probability
    shares = [None] * len(explanation) if probability is None else probability.tolist()
    return [
        Explained(shown(name, CLASS_NAME), score, share)
        for name, score, share in zip(explanation.names(), explanation.score.tolist(), shares, strict=True)
    ]


def _with_boxes(known: Explained, explanation: Explanation, number: int, picture: Picture) -> Explained:
    if explanation.boxes is None or explanation.inputs.ndim != 4:
        return known
    height, width = explanation.inputs.shape[2:]
    left, top, right, bottom = picture.box
    across, down = (right - left) / width, (bottom - top) / height
    boxes = tuple(
        (left + x1 * across, top + y1 * down, left + x2 * across, top + y2 * down)
        for x1, y1, x2, y2 in explanation.boxes[number].tolist()
    )
    return Explained(known.name, known.score, known.probability, boxes)


def _tiles(of_classes: Sequence[Explanation], further: Sequence[tuple[str, Sequence[Explanation]]]) -> list[Tile]:
    """A tile for each input."""
    count = len(of_classes[0])
    if of_classes[0].inputs.ndim != 4 or not all(map(_is_one_map, of_classes)):
        drawn = [each.render() for each in of_classes]
        return [Tile(drawn=[pictures[number] for pictures in drawn]) for number in range(count)]
    own = [reduced_maps(each) for each in of_classes]
    deep = [[reduced_maps(each, DEEPER_SIDE) for each in there] for _, there in further]
    return [
        Tile([[maps[number], *(there[rank][number] for there in deep)] for rank, maps in enumerate(own)])
        for number in range(count)
    ]


def _is_one_map(explanation: Explanation) -> bool:
    """True if there is one map for each input, or one for each of its channels."""
    values, inputs = explanation.values, explanation.inputs
    return values.ndim == inputs.ndim and values.shape[1] in (1, inputs.shape[1])
