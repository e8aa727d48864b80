"""The saliency confusion matrix of one input: what speaks against and for two classes, on one scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    GAP,
    LEGEND_WIDTH,
    LINE_HEIGHT,
    Floats,
    Legend,
    Normalization,
    PixelFigure,
    Scale,
    check_rank,
    check_share,
    colormap_named,
    colors_of,
    display_size,
    drawable_names,
    drawable_titles,
    legends,
    mixed,
    pictures_of,
    resized,
    values_of,
    wrapped,
)
from cnnviz_plugins.renderers.signals import curve, frame

Cell = Callable[[PixelFigure, float, float], None]  # draws itself at a place, left and top
NARROWEST = 150  # pixels, so that a title has room
LABEL = 160
CURVE, CURVES = 400, 200  # pixels: how wide a signal is, and how high all its channels are


@renderer(ranks=(1, 2, 3), canvas="figure")
def confusion_matrix(
    colormap: str | Colormap = "turbo",
    opacity: float = 0.7,
    normalize: Normalization = "percentile",
    percentile: float = 99.5,
) -> Renderer:
    """What speaks against and for the true class, and the predicted one: four maps on one scale, over the input.

    The maps are those of ``saliency_confusion``, (N, 4, *spatial): against and for the ground truth, then against and
    for the prediction. The bar tells their values. Signals are curves in the map's colours, volumes are seen through
    in depth, the brightest and the strongest of it. Raises ValueError for other values.
    """
    check_share("opacity", opacity)
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "confusion_matrix", 1, 2, 3)
        values = values_of(explanation, channels=4)
        if values.shape[1] != 4 or values.min() < 0:
            what = f"{values.shape[1]} maps" if values.shape[1] != 4 else "maps with negative values"
            raise ValueError(
                f"confusion_matrix draws 4 maps without negative values for each input and got {what}; "
                "explain with 'saliency_confusion', which makes them"
            )
        size = explanation.inputs.shape[2:]
        maps = resized(values, size)
        if len(size) == 1:
            place, cells = _curves(explanation, scale(maps), colors)
        else:
            place, cells = _pictures(explanation, scale(maps), colors, opacity)
        labels = list(_row_labels(explanation))
        tallest = max(len(label) for pair in labels for label in pair)
        figures = zip(cells, labels, legends(colors, maps, scale.peaks(maps)), strict=True)
        return np.stack([_matrix(place, *figure, tallest * LINE_HEIGHT) for figure in figures])

    return draw


def _pictures(
    explanation: Explanation, strengths: Floats, colors: Colormap, opacity: float
) -> tuple[tuple[int, int], list[list[Cell]]]:
    """The size of a cell (height, width), and the four cells of each input."""
    pictures = pictures_of(explanation)
    if strengths.ndim == 5:
        pictures, strengths = pictures.max(1), strengths.max(2)  # along depth
    drawn = mixed(pictures[:, None], colors_of(colors, strengths), opacity * strengths)
    size = display_size(*pictures.shape[1:3])

    def cell(picture: Floats) -> Cell:
        return lambda figure, left, top: figure.picture(picture, left, top, size)

    return size, [[cell(picture) for picture in four] for four in drawn]


def _curves(explanation: Explanation, strengths: Floats, colors: Colormap) -> tuple[tuple[int, int], list[list[Cell]]]:
    """As :func:`_pictures`, for signals: a row for each channel in the colours of the map."""
    signals: Floats = explanation.inputs.detach().cpu().double().numpy()
    row = max(24, (CURVES - GAP // 2 * (signals.shape[1] - 1)) // signals.shape[1])
    height = signals.shape[1] * (row + GAP // 2) - GAP // 2

    def cell(signal: Floats, strong: Floats) -> Cell:
        def draw(figure: PixelFigure, left: float, top: float) -> None:
            for channel, points in enumerate(signal):
                axes = figure.axes(left, top + channel * (row + GAP // 2), CURVE, row)
                curve(axes, points, strong, colors)
                frame(axes, points, len(points))

        return draw

    return (height, CURVE), [
        [cell(signal, strong) for strong in four] for signal, four in zip(signals, strengths, strict=True)
    ]


def _row_labels(explanation: Explanation) -> Iterator[tuple[list[str], list[str]]]:
    """For each input the labels of the two rows of its matrix, in lines."""
    predictions, scores = explanation.notes.get("prediction"), explanation.notes.get("prediction_score")
    for number, title in enumerate(drawable_titles(explanation)):
        truth = "" if explanation.target is None else title
        predicted = None if predictions is None else int(predictions[number])
        guess = "" if predicted is None else drawable_names({predicted: explanation.name_of(predicted)})[predicted]
        guess += f" {float(scores[number]):.2f}" if guess and scores is not None else ""
        yield ["Ground truth:", *wrapped(truth, LABEL)], ["Prediction:", *wrapped(guess, LABEL)]


def _matrix(
    size: tuple[int, int],
    cells: Sequence[Cell],
    labels: tuple[list[str], list[str]],
    legend: Legend,
    label_height: int,
) -> NDArray[np.uint8]:
    room, row = max(size[1], NARROWEST), max(size[0], label_height, 3 * LINE_HEIGHT)
    lefts = [LABEL + 2 * GAP + column * (room + GAP) for column in (0, 1)]
    tops = [GAP + LINE_HEIGHT + 6 + row_number * (row + GAP) for row_number in (0, 1)]
    figure = PixelFigure(lefts[1] + room + GAP + LEGEND_WIDTH, tops[1] + row + GAP)
    for column, name in enumerate(("Negative", "Positive")):
        figure.text([name], lefts[column] + room / 2, GAP)
    for number, label in enumerate(labels):
        figure.text(label, GAP + LABEL, tops[number] + (row - LINE_HEIGHT * len(label)) / 2, "right")
    for number, cell in enumerate(cells):
        cell(figure, lefts[number % 2] + (room - size[1]) / 2, tops[number // 2] + (row - size[0]) / 2)
    figure.legend(legend, lefts[1] + room + GAP, tops[0], 2 * row + GAP)
    return figure.drawn()
