"""A confusion matrix with a picture in each cell: a row for each true class, a column for each predicted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from cnnviz.drawing.fonts import drawable_names
from cnnviz.drawing.montage import Pixels, fitted
from cnnviz.drawing.text import LINE, draw_text, font, lines, text_width

Place = tuple[int, int]  # true class, predicted class
WIDEST = 1500  # pixels: of all columns together
SMALLEST, LARGEST = 96, 320  # pixels: of a picture's longer side
GAP, PAD, LABEL, LETTERS = 4, 6, 150, 13
RIGHT, WRONG = (0.30, 0.62, 0.35), (0.86, 0.36, 0.20)  # tints of cells, stronger the larger their share


def draw_confusion_matrix(
    pictures: Mapping[Place, Pixels],
    counts: Mapping[Place, int],
    names: Mapping[int, str],
    totals: Mapping[int, int],
    heading: Sequence[str] = (),
) -> Pixels:
    """The confusion matrix of the classes in ``names``, in their order, as a picture (H, W, 3), uint8.

    Args:
        pictures: (h, w, 3) for some or all cells.
        counts: the number of pictures in each cell (true class, predicted class).
        names: of classes, by number.
        totals: the number of pictures of each true class, which shares refer to; a class without any has no row.
        heading: lines above the matrix.
    """
    names, classes = drawable_names(names), list(names)
    side = int(np.clip(WIDEST // len(classes) - GAP - 2 * PAD, SMALLEST, LARGEST))
    tiles = {place: Image.fromarray(fitted(picture, side)) for place, picture in pictures.items()}
    width = max([SMALLEST, *(tile.width for tile in tiles.values())]) + 2 * PAD
    height = max([SMALLEST // 2, *(tile.height for tile in tiles.values())]) + 2 * PAD + LINE
    heads = {number: lines([name], width) for number, name in names.items()}
    rows = {
        number: [*lines([name], LABEL), _pictures(totals[number])]
        for number, name in names.items()
        if totals.get(number)
    }
    label = max(int(text_width(line)) + 1 for row in rows.values() for line in row)
    left = GAP + LINE + 2 * GAP + label + 2 * GAP
    whole = left + len(classes) * (width + GAP) + GAP
    above = lines(heading, whole - 4 * GAP)
    top = 5 * GAP + LINE * (len(above) + 1 + max(map(len, heads.values())))
    row_height = max(height, LINE * max(map(len, rows.values())))
    canvas = Image.new("RGB", (whole, top + len(rows) * (row_height + GAP) + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(above):
        draw_text(pen, (2 * GAP, 2 * GAP + LINE * number), line)
    middle = left + (whole - left) / 2
    pen.text((middle, 4 * GAP + LINE * (len(above) + 0.5)), "taken for", fill="dimgray", font=font(), anchor="mm")
    _sideways(canvas, "true class", GAP, top + (canvas.height - top) // 2)
    for column, predicted in enumerate(classes):
        for number, line in enumerate(reversed(heads[predicted])):
            place = left + column * (width + GAP) + width / 2, top - GAP - LINE * (number + 0.5)
            draw_text(pen, place, line, anchor="mm")
    for row, truth in enumerate(rows):
        upper = top + row * (row_height + GAP)
        for number, line in enumerate(rows[truth]):
            place = left - 2 * GAP, upper + row_height / 2 + LINE * (number + 0.5 - len(rows[truth]) / 2)
            last = number == len(rows[truth]) - 1
            draw_text(pen, place, line, "dimgray" if last else "black", anchor="rm")
        for column, predicted in enumerate(classes):
            count, corner = counts.get((truth, predicted), 0), (left + column * (width + GAP), upper)
            share = count / totals[truth]
            opposite = corner[0] + width - 1, upper + row_height - 1
            pen.rectangle((corner, opposite), _tint(RIGHT if truth == predicted else WRONG, share), "gainsboro")
            if count:
                text = f"{count}  ·  {share:.0%}" if count < totals[truth] else str(count)
                at = corner[0] + width / 2, upper + PAD + LINE / 2 - 2
                pen.text(at, text, fill="black", font=font(LETTERS), anchor="mm")
            tile = tiles.get((truth, predicted))
            if tile is not None:
                free = row_height - LINE - PAD - tile.height
                canvas.paste(tile, (corner[0] + (width - tile.width) // 2, upper + LINE + PAD // 2 + free // 2))
    return np.asarray(canvas).copy()


def _tint(color: tuple[float, float, float], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * (1 - (1 - part) * 0.75 * share)) for part in color)
    return red, green, blue


def _sideways(canvas: Image.Image, text: str, left: int, middle: int) -> None:
    """Text that is read from below upwards."""
    wide = int(font().getlength(text)) + 4
    strip = Image.new("RGB", (wide, LINE), "white")
    ImageDraw.Draw(strip).text((wide / 2, LINE / 2), text, fill="dimgray", font=font(), anchor="mm")
    canvas.paste(strip.rotate(90, expand=True), (left, middle - wide // 2))


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
