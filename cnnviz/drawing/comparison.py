"""Several methods side by side: a row for each input, its picture first, each map under the name of its method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from cnnviz.drawing.fonts import drawable_titles
from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.drawing.montage import PAGE, SHEET, Cell, Page, Pixels, fitted, in_rows, paged, sheet
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.originals import At

LARGEST = 512  # pixels of the longer side of a whole picture
FEW = 8  # inputs that have a row each

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Renderer


def grid(
    results: Mapping[str, Any] | Sequence[Explanation],
    renderer: str | Renderer | None = None,
    columns: int | None = None,
    at: At = "input",
    **settings: Any,
) -> Pixels:
    """One picture (H, W, 3), uint8, of the explanations that ``explain`` gave for several methods or targets.

    The first picture of a row is the input itself if that is an image, titled with the class and its score; a method
    that explained another class says so. Small pictures are enlarged by whole numbers.

    Args:
        results: an explanation of the same inputs for each name, or a list of them for several targets; or such a list.
        renderer: draws all of them, with the ``settings``; None leaves each its own.
        columns: how many pictures stand side by side: an input's row goes on below after so many, and where there is
            place for several inputs they share a row. None keeps an input in one row; of more than 8 inputs several
            share a row, so that the whole is nearly a square.
        at: "original" shows whole pictures, see :meth:`cnnviz.Explanation.render`; their longer side is reduced to at
            most 512 pixels.

    Raises:
        ValueError: for no results, or for results of different batches.
    """
    named = [entry for name, each in _named(results) for entry in _entries(name, each)]
    if not named:
        raise ValueError("there are no results to draw; give explain() at least one method")
    if len({len(each) for _, each in named}) > 1:
        listed = ", ".join(f"{' '.join(name)} {len(each)}" for name, each in named)
        raise ValueError(f"the results are of different numbers of inputs ({listed}); draw what was asked together")
    if columns is not None and columns < 1:
        raise ValueError(f"columns={columns} leaves no place for a picture; use 1 or more")
    rows = _rows(named, renderer, at, settings)
    length = len(rows[0])
    if columns is not None:
        abreast = columns // length
    else:
        abreast = 1 if len(rows) <= FEW else round(math.sqrt(len(rows) / length))
    starts = range(0, len(rows), max(1, abreast))
    shared = [list(chain(*rows[start : start + max(1, abreast)])) for start in starts]
    return sheet([part for row in shared for part in in_rows(row, columns or len(row))])


def _named(results: Mapping[str, Any] | Sequence[Explanation]) -> list[tuple[str, Any]]:
    return list(results.items()) if isinstance(results, Mapping) else [("", results)]


def _entries(name: str, answer: Any) -> list[tuple[list[str], Explanation]]:
    """Each explanation with the lines that name it; of several targets, its title names it in the picture."""
    if isinstance(answer, Explanation):
        return [([name], answer)]
    return [([name] if name else [], each) for each in answer]


def grid_pages(
    results: Mapping[str, Explanation],
    files: Sequence[str],
    renderer: str | Renderer | None = None,
    columns: int | None = None,
    at: At = "input",
) -> list[Page]:
    """What :func:`grid` draws of many inputs, each titled with the name of its file, in one picture or in several.

    Inputs stand side by side too, so that a page is almost square; see :func:`~cnnviz.drawing.montage.paged`.
    """
    rows = _rows([([name], each) for name, each in results.items()], renderer, at, {})
    titled = [[([file, *first[0]], first[1]), *others] for file, (first, *others) in zip(files, rows, strict=True)]
    most = columns or max(1, PAGE // max(picture.shape[1] + SHEET.gap for row in titled for _, picture in row) - 1)
    return paged([in_rows(row, most) for row in titled])


def _rows(
    named: Sequence[tuple[list[str], Explanation]], renderer: str | Renderer | None, at: At, settings: Any
) -> list[list[Cell]]:
    """The cells of each input."""
    first = named[0][1]
    titles = drawable_titles(first)
    images = first.inputs.ndim == 4
    differ = len({name[0] if name else "" for name, _ in named}) < len(named)
    rows: list[list[Cell]] = [[] for _ in titles]
    if images:
        own = [[]] * len(titles) if differ else [[title] for title in titles]
        rows = [[(caption, picture)] for caption, picture in zip(own, _shown(first, at), strict=True)]
    for name, explanation in named:
        pictures = _reduced(explanation.render(renderer, at, **settings), at)
        for row, usual, title, picture in zip(rows, titles, drawable_titles(explanation), pictures, strict=True):
            # figures of signals and volumes have their titles in the picture
            row.append(([*name, title] if images and (differ or title != usual) else name, picture))
    return rows


def _shown(explanation: Explanation, at: At) -> Sequence[Pixels]:
    """The pictures themselves."""
    if at == "input":
        return list(as_uint8(pictures_of(explanation)))
    return _reduced(explanation.render(lambda part: as_uint8(pictures_of(part)), at), at)


def _reduced(pictures: Sequence[Pixels] | Pixels, at: At) -> Sequence[Pixels]:
    if at == "input":
        return list(pictures)
    return [fitted(picture, LARGEST) if max(picture.shape) > LARGEST else picture for picture in pictures]
