"""What was made or found in pictures, in notebooks: syntheses, segmentations, confusion matrices, top activations."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cnnviz.drawing.input_images import as_uint8, draw_inputs, pictures_of
from cnnviz.drawing.montage import Pixels
from cnnviz.explanations.explanation import Explanation
from cnnviz.feature_visualization.result import Synthesized
from cnnviz.pages.notebook.page import Figure, Figures, Page
from cnnviz.tasks.confusion_matrix import ConfusionMatrix
from cnnviz.tasks.object_segmentation import Segmentation
from cnnviz.tasks.top_activations import TopActivation, TopActivations

MOST = 24
"""Pictures that are shown."""
FEW = 8
"""Segmented inputs that are shown, and inputs of each channel."""
DARK = 0.25  # of its brightness is left of what is no object


def of_synthesized(answer: Synthesized) -> Page:
    """The inputs that were made, and how the objective rose."""
    count = len(answer)
    if not count:
        return Page(answer.recipe, ["Nothing was made."])
    pictures = draw_inputs(answer.inputs[:MOST], answer.preprocessing)
    head = "image" if answer.inputs.ndim == 4 else "input"
    wide = answer.inputs.ndim == 3
    groups = [[Figure(f"{head} {n}" if count > 1 else head, each, wide=wide)] for n, each in enumerate(pictures)]
    told = [f"The objective {answer.outcome()}."]
    figures = Figures(groups, count, "image", "save(...) writes all")
    return Page(answer.recipe, told, [figures], picture=(lambda: pictures[0]) if count == 1 else None)


def of_segmentation(answer: Segmentation) -> Page:
    """Each input beside the object that was cut out of it."""
    count = len(answer)
    if not count:
        return Page("Segmentation", ["There is no input, and nothing to see."], code=False)
    groups = []
    cut: list[Pixels] = []
    for number in range(min(count, FEW)):
        part = answer[number]
        mask = part.masks[0].cpu().numpy()
        picture = _picture(part.explanation, mask.shape)
        seen = np.where(mask[..., None], picture, np.round(DARK * picture)).astype(np.uint8)
        left, top, right, bottom = part.boxes[0].tolist()
        found = [f"{_share(mask)} of the picture", f"box {left}, {top} to {right}, {bottom}"]
        titles = part.explanation.titles()
        head = f"input {number}" if count > 1 else "input"
        groups.append(
            [Figure(head, picture, titles), Figure("object", seen, found if mask.any() else ["none is found"])]
        )
        cut.append(np.concatenate([picture, seen], 1))
    told = [f"The object that {answer.explanation.recipe} points at, cut out by its colours."]
    figures = Figures(groups, count, rest="save(...) writes all masks")
    return Page("Segmentation", told, [figures], code=False, picture=(lambda: cut[0]) if count == 1 else None)


def _picture(explanation: Explanation, size: tuple[int, ...]) -> Pixels:
    """The input, or white where a mask of another size lies over the whole original."""
    picture: Pixels = as_uint8(pictures_of(explanation))[0]
    return picture if picture.shape[:2] == size else np.full((*size, 3), 255, np.uint8)


def _share(mask: Pixels) -> str:
    return f"{100 * float(mask.mean()):.1f} %"


def of_confusions(answer: ConfusionMatrix) -> Page:
    """The matrix as a picture, and the accuracy."""
    matrix = answer.render()
    told = [] if answer.caption else [f"Accuracy {answer.accuracy:.1%} of {len(answer):,} pictures."]
    figures = Figures([[Figure("", matrix, wide=True)]], 1)
    return Page("Confusion matrix", told, [figures], code=False, picture=lambda: matrix)


def of_top_activations(answer: TopActivations) -> Page:
    """For each channel the inputs that activate it most."""
    groups = []
    for channel, found in list(answer.items())[:MOST]:
        pictures = [_drawn(each.input, answer) for each in found[:FEW]]
        rows = zip(found, pictures, strict=False)
        groups.append(
            [
                Figure(
                    f"channel {channel}, input {each.number}",
                    picture,
                    [_rank(each), f"at {', '.join(map(str, each.at))}" if each.at else ""],
                    wide=each.input.ndim == 2,
                )
                for each, picture in rows
            ]
            or [Figure(f"channel {channel}", None, ["no input activates it"])]
        )
    count = len(answer)
    told = ["Places are those of the unit in the layer's output: row, column."] if _on_grid(answer) else []
    figures = Figures(groups, count, "channel", "the dict has all of them")
    return Page(f"Top activations of {count:,} channel{'' if count == 1 else 's'}", told, [figures], code=False)


def _rank(each: TopActivation) -> str:
    return f"activation {each.rank:.3g}" if each.relevance is None else f"relevance {each.rank:.3g}"


def _on_grid(answer: TopActivations) -> bool:
    return any(len(each.at) == 2 for found in answer.values() for each in found)


def _drawn(one: Tensor, answer: TopActivations) -> Pixels:
    drawn: Pixels = draw_inputs(one[None], answer.preprocessing)[0]
    return drawn
