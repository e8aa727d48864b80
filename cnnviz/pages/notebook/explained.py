"""Explanations in notebooks: each input beside its maps, which are drawn as ``render`` draws them, with their scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnviz.drawing.comparison import grid
from cnnviz.drawing.figure import Legend
from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.drawing.montage import Pixels
from cnnviz.drawing.telling import legends_of
from cnnviz.explanations.explanation import Explanation, percent
from cnnviz.images.reading import one_line
from cnnviz.images.resampling import resize
from cnnviz.pages.notebook.page import Figure, Figures, Page
from cnnviz.registry.registry import renderers

Named = tuple[str, Explanation]
FEW = 8
"""Inputs that are shown; a notebook is no place for more."""
PICTURES = 40
"""Pictures that are shown, if there are several inputs."""
POINTS = 4_000_000
"""Of all maps as they are drawn, if there are several inputs: more take seconds."""
LARGE = 448
"""Pixels of the longer side above which an input is drawn smaller."""
REST = "[8:16] shows others, and save(...) writes all"


def of_one(answer: Explanation) -> Page:
    """An explanation by one method."""
    return _page(answer.recipe, [("", answer)], answer)


def of_methods(answer: Mapping[str, Any]) -> Page:
    """Explanations of several methods, by name; of several targets each."""
    entries = [entry for name, each in answer.items() for entry in _entries(str(name), each)]
    title = f"{len(answer)} method{'' if len(answer) == 1 else 's'}"
    return _page(title, entries, answer, code=False, rest="grid(...) draws, and save(...) writes all of them")


def of_targets(answer: Sequence[Explanation]) -> Page:
    """Explanations of several targets."""
    title = answer[0].recipe if answer else "no targets"
    return _page(title, [("", each) for each in answer], answer)


def of_inputs(answer: Sequence[Explanation]) -> Page:
    """Explanations of several inputs of one model."""
    names = [f"input {each.of}" if isinstance(each.of, int) else each.of for each in answer]
    entries = list(zip(names, answer, strict=True))
    title = answer[0].recipe if answer else "no inputs"
    return _page(title, entries, None, told=["The inputs of the model were explained together."], together=False)


def _entries(name: str, answer: Any) -> list[Named]:
    if isinstance(answer, Explanation):
        return [(name, answer)]
    return [(name, each) for each in answer]


def _page(
    title: str,
    entries: Sequence[Named],
    whole: Any,
    *,
    code: bool = True,
    rest: str = REST,
    told: Sequence[str] = (),
    together: bool = True,
) -> Page:
    """``together``: the entries are of the same inputs, which are shown once."""
    count = max((len(each) for _, each in entries), default=0)
    if not count:
        return Page(title, [*told, "There is no input, and nothing to see."], code=code)
    points = sum(_points(each) for _, each in entries)
    shown = max(1, min(count, FEW, PICTURES // (len(entries) + 1), POINTS // max(1, points)))
    groups: list[list[Figure]] = [[] for _ in range(shown)]
    titles = {tuple(each.titles()) for _, each in entries}
    for number, (name, each) in enumerate(entries):
        part = _reduced(each[:shown] if len(each) > shown else each)
        if part.inputs.ndim == 4 and (not number or not together):
            inputs = _inputs(part, "" if together else name, len(titles) == 1, count > 1)
            for group, figure in zip(groups, inputs, strict=False):
                group.append(figure)
        alone = part.inputs.ndim == 4 and len(titles) == 1 and together
        for group, figure in zip(groups, _maps(name, part, not alone, len(entries) > 1), strict=False):
            group.append(figure)
    one = whole is not None and count == 1
    results = {title: whole} if isinstance(whole, Explanation) else whole
    return Page(title, told, [Figures(groups, count, rest=rest)], code, (lambda: grid(results)) if one else None)


def _points(explanation: Explanation) -> int:
    """Of one map, as it is drawn."""
    size = _size(explanation)
    return math.prod(explanation.inputs.shape[2:] if size is None else size)


def _size(explanation: Explanation) -> tuple[int, int] | None:
    """The smaller size at which a large input is drawn, if its map is coarser than that; else None.

    Values of the input's own shape are drawn as they are: averaged, those of opposite signs would be lost.
    """
    shape, values = explanation.inputs.shape, explanation.values.shape
    if len(shape) != 4 or len(values) != 4 or max(shape[2:]) <= LARGE:
        return None
    height, width = (max(1, round(length * LARGE / max(shape[2:]))) for length in shape[2:])
    return (height, width) if values[2] < height and values[3] < width else None


def _reduced(explanation: Explanation) -> Explanation:
    """The explanation with inputs of at most that size, which is faster to draw. The map is what it was."""
    size = _size(explanation)
    if size is None or explanation.inputs.is_meta:
        return explanation
    old, inputs = explanation.inputs.shape[2:], resize(explanation.inputs.detach().float(), size, antialias=True)
    boxes = explanation.boxes
    if boxes is not None:
        rows, columns = (new / length for new, length in zip(size, old, strict=True))
        boxes = boxes * boxes.new_tensor([columns, rows, columns, rows])
    return replace(explanation, inputs=inputs, boxes=boxes, fine_values=explanation.fine)


def _about(explanation: Explanation) -> list[tuple[str, str]]:
    """For each input the class explained, and its score with its probability where that is known."""
    shares = explanation.told_probability
    rows = zip(explanation.names(), explanation.score.tolist(), strict=True)
    told = [(_named(name, explanation), f"score {score:.2f}") for name, score in rows]
    if shares is not None:
        likely = [f", probability {percent(share)}" for share in shares.tolist()]
        told = [(name, score + share) for (name, score), share in zip(told, likely, strict=True)]
    return told


def _named(name: str, explanation: Explanation) -> str:
    """The class as it is told; objectives tell what they are."""
    known = explanation.target is not None and explanation.categories is not None
    return f"class {name}" if known and not name.startswith(("class ", "not ")) else name


def _inputs(explanation: Explanation, name: str, titled: bool, numbered: bool) -> list[Figure]:
    """The pictures themselves, ``titled`` with the class explained, its score and its probability."""
    reason = ""
    pictures: Sequence[Pixels | None] = [None] * len(explanation)
    try:
        pictures = list(as_uint8(pictures_of(explanation)))
    except Exception as error:  # the picture of a batch may be gone, and the inputs of a file left out
        reason = _why(error)
    figures = []
    for number, (picture, about) in enumerate(zip(pictures, _about(explanation), strict=True)):
        head = name or (f"input {number}" if numbered else "input")
        lines = [_file(explanation, number), *(about if titled else []), reason]
        figures.append(Figure(head, picture, [line for line in lines if line]))
    return figures


def _maps(name: str, explanation: Explanation, titled: bool, several: bool) -> list[Figure]:
    """What the usual renderer draws of each input, with the scale of its colours."""
    reason, wide = "", explanation.inputs.ndim != 4
    pictures: Sequence[Pixels | None] = [None] * len(explanation)
    legends: Sequence[Legend | None] = [None] * len(explanation)
    try:
        draw = renderers[explanation.usual_renderer]()
        pictures = list(explanation.render(draw))
        legends = legends_of(draw, explanation) or legends
        wide = wide or draw.canvas == "figure"
    except Exception as error:  # one that can't be drawn hides no other
        reason = _why(error)
    figures = []
    for picture, legend, (known, score) in zip(pictures, legends, _about(explanation), strict=True):
        blank = "the map is blank" if legend is not None and legend.peak == 0 else ""
        head = name or (known if several else "map")
        about = (score,) if head == known else (known, score)
        lines = [line for line in (*(about if titled or (several and not name) else ()), blank, reason) if line]
        figures.append(Figure(head, picture, lines, legend, wide))
    return figures


def _why(error: Exception) -> str:
    return f"not drawn: {one_line(error)}"


def _file(explanation: Explanation, number: int) -> str:
    """The name of the file that the input was read from."""
    original = explanation.originals[number] if explanation.originals is not None else None
    return Path(original.path).name if original is not None and original.path else ""
