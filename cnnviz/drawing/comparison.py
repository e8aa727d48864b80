"""Several methods side by side: a row for each input, its picture first, each map under the name of its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.drawing.montage import Cell, Pixels, fitted, in_rows, sheet
from cnnviz.images.originals import At

LARGEST = 512  # pixels of the longer side of a whole picture

if TYPE_CHECKING:
    from cnnviz.explanations.explanation import Explanation
    from cnnviz.registry.protocols import Renderer


def grid(
    results: Mapping[str, Explanation],
    renderer: str | Renderer | None = None,
    columns: int | None = None,
    at: At = "input",
    **settings: Any,
) -> Pixels:
    """One picture (H, W, 3), uint8, of the explanations that ``explain`` gave for several methods.

    The first picture of a row is the input itself if that is an image, titled with the class and its score; a method
    that explained another class says so. Small pictures are enlarged by whole numbers.

    Args:
        results: an explanation of the same inputs for each name.
        renderer: draws all of them, with the ``settings``; None leaves each its own.
        columns: how many pictures stand side by side before a row goes on below; None keeps an input in one row.
        at: "original" shows whole pictures, see :meth:`cnnviz.Explanation.render`; their longer side is reduced to at
            most 512 pixels.

    Raises:
        ValueError: for no results, or for results of different batches.
    """
    if not results:
        raise ValueError("there are no results to draw; give explain() at least one method")
    counts = {name: len(explanation) for name, explanation in results.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"the results are of different numbers of inputs ({listed}); draw what was asked together")
    if columns is not None and columns < 1:
        raise ValueError(f"columns={columns} leaves no place for a picture; use 1 or more")
    rows = _rows(results, renderer, at, settings)
    return sheet([part for row in rows for part in in_rows(row, columns or len(row))])


def _rows(
    results: Mapping[str, Explanation], renderer: str | Renderer | None, at: At, settings: Any
) -> list[list[Cell]]:
    """The cells of each input."""
    first = next(iter(results.values()))
    titles = first.titles()
    images = first.inputs.ndim == 4
    rows: list[list[Cell]] = [[] for _ in titles]
    if images:
        rows = [[([title], picture)] for title, picture in zip(titles, _shown(first, at), strict=True)]
    for name, explanation in results.items():
        pictures = _reduced(explanation.render(renderer, at, **settings), at)
        for row, usual, title, picture in zip(rows, titles, explanation.titles(), pictures, strict=True):
            # figures of signals and volumes have their titles in the picture
            row.append(([name, title] if images and title != usual else [name], picture))
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
