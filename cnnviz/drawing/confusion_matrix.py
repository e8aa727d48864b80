"""A confusion matrix with a picture in each cell: a row for each true class, a column for what it was taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnviz.drawing.text import LINE, font, lines

if TYPE_CHECKING:
    from PIL.Image import Image

Place = tuple[int, int]  # true class, predicted class
SPREAD = 1500  # pixels that all columns together may take
SMALLEST, LARGEST = 96, 320  # pixels: of a picture's longer side
GAP, PAD, LABEL, LETTERS = 4, 6, 150, 13
RIGHT, WRONG = (0.30, 0.62, 0.35), (0.86, 0.36, 0.20)  # what cells are tinted with, the more the larger their share


def matrix(
    pictures: Mapping[Place, NDArray[np.uint8]],
    counts: Mapping[Place, int],
    names: Mapping[int, str],
    totals: Mapping[int, int],
    says: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """The matrix of the classes in ``names``, in their order, as a picture (H, W, 3).

    ``pictures`` (h, w, 3) may lack for cells; ``counts`` are of all cells there are, ``totals`` of all pictures of each
    true class, which shares are of; a class without any has no row. ``says`` are lines above it all.
    """
    from PIL import Image, ImageDraw

    classes = list(names)
    side = int(np.clip(SPREAD // len(classes) - GAP - 2 * PAD, SMALLEST, LARGEST))
    shown = {place: _fitted(picture, side) for place, picture in pictures.items()}
    width = max([SMALLEST, *(picture.width for picture in shown.values())]) + 2 * PAD
    height = max([SMALLEST // 2, *(picture.height for picture in shown.values())]) + 2 * PAD + LINE
    heads = {each: lines([name], width) for each, name in names.items()}
    rows = {each: [*lines([name], LABEL), _pictures(totals[each])] for each, name in names.items() if totals.get(each)}
    label = max(int(font().getlength(line)) + 1 for row in rows.values() for line in row)
    left = GAP + LINE + 2 * GAP + label + 2 * GAP
    whole = left + len(classes) * (width + GAP) + GAP
    above = lines(says, whole - 4 * GAP)
    top = 5 * GAP + LINE * (len(above) + 1 + max(map(len, heads.values())))
    row_height = max(height, LINE * max(map(len, rows.values())))
    sheet = Image.new("RGB", (whole, top + len(rows) * (row_height + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(above):
        pen.text((2 * GAP, 2 * GAP + LINE * number), line, fill="black", font=font())
    middle = left + (whole - left) / 2
    pen.text((middle, 4 * GAP + LINE * (len(above) + 0.5)), "taken for", fill="dimgray", font=font(), anchor="mm")
    _sideways(sheet, "true class", GAP, top + (sheet.height - top) // 2)
    for column, each in enumerate(classes):
        for number, line in enumerate(reversed(heads[each])):
            place = left + column * (width + GAP) + width / 2, top - GAP - LINE * (number + 0.5)
            pen.text(place, line, fill="black", font=font(), anchor="mm")
    for row, truth in enumerate(rows):
        upper = top + row * (row_height + GAP)
        for number, line in enumerate(rows[truth]):
            place = left - 2 * GAP, upper + row_height / 2 + LINE * (number + 0.5 - len(rows[truth]) / 2)
            last = number == len(rows[truth]) - 1
            pen.text(place, line, fill="dimgray" if last else "black", font=font(), anchor="rm")
        for column, guess in enumerate(classes):
            count, corner = counts.get((truth, guess), 0), (left + column * (width + GAP), upper)
            share = count / totals[truth]
            opposite = corner[0] + width - 1, upper + row_height - 1
            pen.rectangle((corner, opposite), _tint(RIGHT if truth == guess else WRONG, share), "gainsboro")
            if count:
                text = f"{count}  ·  {share:.0%}" if count < totals[truth] else str(count)
                at = corner[0] + width / 2, upper + PAD + LINE / 2 - 2
                pen.text(at, text, fill="black", font=font(LETTERS), anchor="mm")
            picture = shown.get((truth, guess))
            if picture is not None:
                free = row_height - LINE - PAD - picture.height
                sheet.paste(picture, (corner[0] + (width - picture.width) // 2, upper + LINE + PAD // 2 + free // 2))
    return np.asarray(sheet).copy()


def _fitted(picture: NDArray[np.uint8], side: int) -> Image:
    """Small pictures in whole multiples, so that no pixel is smeared, large ones reduced."""
    from PIL import Image

    longest = max(picture.shape[:2])
    if longest <= side:
        return Image.fromarray(picture.repeat(side // longest, 0).repeat(side // longest, 1))
    height, width = (max(1, round(length * side / longest)) for length in picture.shape[:2])
    return Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)


def _tint(color: tuple[float, float, float], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * (1 - (1 - part) * 0.75 * share)) for part in color)
    return red, green, blue


def _sideways(sheet: Image, text: str, left: int, middle: int) -> None:
    """Text that is read from below upwards."""
    from PIL import Image, ImageDraw

    wide = int(font().getlength(text)) + 4
    strip = Image.new("RGB", (wide, LINE), "white")
    ImageDraw.Draw(strip).text((wide / 2, LINE / 2), text, fill="dimgray", font=font(), anchor="mm")
    sheet.paste(strip.rotate(90, expand=True), (left, middle - wide // 2))


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
