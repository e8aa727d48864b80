"""Confusion matrices: which classes are confused with which, with an explained picture in each cell.

Two passes over the pictures: the first only predicts, the second explains the pictures that are drawn. So memory holds
a number for each picture, one batch, and one picture for each cell that is drawn.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnviz.drawing.confusion_matrix import Place, draw_confusion_matrix
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.joining import joined
from cnnviz.formulas import terms
from cnnviz.images.batches import READERS, Picture, in_batches
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.writing import picture_suffix, write_pictures
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution, Renderer

CELLS = {
    "typical": "the picture whose score is the median of its cell",
    "surest": "the picture with the highest score of its cell",
    "mean": "the mean of all pictures of the cell, and of their maps",
}
TOWARD = {"prediction": "the predicted class", "truth": "the true class"}


@runtime_checkable
class Answers(Protocol):
    """Explanations that are made already, as a :class:`cnnviz.datasets.Batch` has them."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""

    def __getitem__(self, chosen: Any) -> Any:
        """Of a method's name the explanations by it, of a number that of one item."""

    def table(self) -> Sequence[Mapping[str, Any]]:
        """A row for each item: label, target, score, predicted, predicted_probability, status."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix(InNotebooks):
    """A confusion matrix, and an explanation for each of its cells that is drawn."""

    counts: Mapping[Place, int]
    """The number of pictures of each cell (true class, predicted class) that is not empty."""
    cells: tuple[Place, ...]
    """The cells that are drawn, in the order of ``explanation``."""
    explanation: Explanation
    """One item for each cell: a picture, or the mean of its pictures, with its map."""
    examples: tuple[int, ...]
    """Which picture each cell shows, counted from 0; its first, where it shows their mean."""
    classes: tuple[int, ...]
    """The classes that are drawn."""
    caption: tuple[str, ...] = ()
    """Lines above the matrix: the accuracy, and what the cells show."""

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __repr__(self) -> str:
        shown = ", ".join(self.name_of(index) for index in self.classes[:8])
        more = ", ..." if len(self.classes) > 8 else ""
        return f"ConfusionMatrix({len(self)} pictures, {self.accuracy:.1%} of them named right; {shown}{more})"

    @property
    def accuracy(self) -> float:
        """The accuracy: the share of correctly classified pictures, 0 to 1."""
        return sum(count for (truth, predicted), count in self.counts.items() if truth == predicted) / len(self)

    def name_of(self, index: int) -> str:
        """The class's name, or ``class 7`` where names are not known."""
        return self.explanation.name_of(index)

    def render(self, renderer: str | Renderer | None = None, **settings: Any) -> NDArray[np.uint8]:
        """The matrix as a picture (H, W, 3), uint8; its cells are drawn as :meth:`Explanation.render` draws them."""
        pictures = self.explanation.render(renderer, **settings)
        totals: Counter[int] = Counter()
        for (truth, _), count in self.counts.items():
            totals[truth] += count
        names = {index: self.name_of(index) for index in self.classes}
        return draw_confusion_matrix(
            dict(zip(self.cells, pictures, strict=True)), self.counts, names, totals, self.caption
        )

    def save(self, path: str | Path, renderer: str | Renderer | None = None, **settings: Any) -> None:
        """Write the matrix as a picture, atomically. Raises ValueError for a suffix that is no picture's."""
        picture_suffix(path)
        write_pictures(path, [self.render(renderer, **settings)])

    def table(self) -> str:
        """The counts as CSV, a line for each cell that is not empty: true class, predicted class, count."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["true", "predicted", "count"])
        for (truth, predicted), count in sorted(self.counts.items()):
            writer.writerow([self.name_of(truth), self.name_of(predicted), count])
        return stream.getvalue()


def confusion_matrix(
    model: nn.Module | LoadedModel | Answers,
    pictures: Sequence[tuple[Picture, int]] | None = None,
    attribution: str | Attribution = "grad_cam",
    *,
    cell: Literal["typical", "surest", "mean"] = "typical",
    toward: Literal["prediction", "truth"] = "prediction",
    most: int = 12,
    preprocessing: Preprocessing | Any = None,
    categories: Sequence[str] | None = None,
    batch: int = 8,
    readers: int = READERS,
    seed: int = 0,
    memory: int | None = None,
    before_softmax: bool = False,
    before_sigmoid: bool = False,
    unreadable: Callable[[Picture, Exception], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> ConfusionMatrix:
    """The saliency confusion matrix of many pictures (after prasannals' neural_viz, which has it of one).

    Args:
        model: as for :func:`cnnviz.explain`; or a :class:`cnnviz.datasets.Batch`, which has the predictions and maps
            already: no picture is explained again. Its items need labels, and maps of the class that ``toward`` says.
        pictures: each with the number of its true class: files, PIL images, or inputs (C, *spatial). A batch has its
            own.
        attribution: a method's name, a formula, or any callable of a run; of a batch, the name of one of its methods.
        cell: what a cell shows. "typical": the picture whose score for the predicted class is the median of the cell
            (of an even number the lower one); "surest": the one with the highest score; "mean": the mean of all its
            pictures and of all their maps. What is fine and signed cancels out in a mean, as gradients do.
        toward: which class is explained, the predicted one or the true one.
        most: how many classes are drawn, 2 or more. If more occur, those of the most frequent confusions.
        preprocessing, categories, seed, memory, before_softmax, before_sigmoid: as for :func:`cnnviz.explain`.
        batch: how many pictures are looked at together.
        readers: how many threads read the next pictures meanwhile.
        unreadable: called with each picture that cannot be read, and the error; the picture is left out. None raises
            the error.
        progress: called with how many pictures were looked at, and how many looks there will be: one to predict, and
            one more for each picture that is explained.
        settings: of a method given by name.

    Raises:
        ValueError, TypeError, LookupError: as :func:`cnnviz.explain`; for no readable pictures, for a class that the
            model does not have, for pictures that reach the model in different sizes.
    """
    for name, value, known in (("cell", cell, CELLS), ("toward", toward, TOWARD)):
        if value not in known:
            raise ValueError(f"there is no {name} {value!r}; it is {' or '.join(known)}")
    if most < 2 or batch < 1:
        raise ValueError(f"most={most} is at least 2, for a confusion is of two classes, and batch={batch} at least 1")
    if isinstance(model, Answers):
        from cnnviz.tasks.answered_confusions import confusions_of

        if pictures is not None or settings:
            raise TypeError("a batch has its own pictures, and its maps are made; give neither pictures nor settings")
        return confusions_of(model, attribution, cell, toward, most, progress)
    if pictures is None:
        raise TypeError("confusion_matrix needs pictures, each with the number of its true class; or give a batch")
    if isinstance(model, LoadedModel):
        preprocessing, categories = preprocessing or model.preprocessing, categories or model.categories
        model = model.module
    options = {"seed": seed, "memory": memory, "before_softmax": before_softmax}
    options |= {"before_sigmoid": before_sigmoid}
    preprocessing = None if preprocessing is None else Preprocessing.of(preprocessing)
    ask = partial(explain, model, preprocessing=preprocessing, categories=categories, **options)
    like = next(model.parameters(), None)
    batches = partial(in_batches, like=like, preprocessing=preprocessing, most=batch, readers=readers)
    tell = progress or (lambda done, of: None)
    # a data set may read a picture when it is asked for it, so it is asked once
    numbered = (((number, label), picture) for number, (picture, label) in enumerate(pictures))
    predictions = _predictions(ask, batches(numbered, unreadable=unreadable), lambda done: tell(done, len(pictures)))
    if not predictions:
        raise ValueError("there are no pictures that can be read; name at least one")
    counts, classes, drawn = chosen_cells(predictions, cell, most)
    targets = {number: place[toward == "prediction"] for place, numbers in drawn.items() for number in numbers}
    looks = len(pictures) + len(targets)
    means = _means(
        lambda inputs, numbers: ask(inputs, attribution, target=[targets[number] for number in numbers], **settings),
        batches((number, pictures[number][0]) for number in targets),
        {number: place for place, numbers in drawn.items() for number in numbers},
        lambda done: tell(len(pictures) + done, looks),
    )
    return matrix_of(counts, classes, drawn, means, cell, toward)


def chosen_cells(
    predictions: Mapping[int, Prediction], cell: str, most: int
) -> tuple[dict[Place, int], list[int], dict[Place, list[int]]]:
    """How many pictures each cell has, which classes are drawn, and the numbers of the pictures that cells show."""
    members: dict[Place, list[int]] = {}
    for number, prediction in predictions.items():
        members.setdefault((prediction.label, prediction.predicted), []).append(number)
    counts = {place: len(numbers) for place, numbers in sorted(members.items())}
    classes = most_confused(counts, most)
    drawn = {place: members[place] for place in counts if set(place) <= set(classes)}
    if cell != "mean":
        drawn = {place: [_example(numbers, predictions, cell)] for place, numbers in drawn.items()}
    return counts, classes, drawn


def matrix_of(
    counts: Mapping[Place, int],
    classes: Sequence[int],
    drawn: Mapping[Place, Sequence[int]],
    means: Mapping[Place, Explanation],
    cell: str,
    toward: str,
) -> ConfusionMatrix:
    """The matrix of cells whose explanations are made."""
    explanation = joined([means[place] for place in drawn])
    caption = _summary(counts, classes), f"{explanation.recipe} of {TOWARD[toward]}; each cell: {CELLS[cell]}"
    examples = tuple(numbers[0] for numbers in drawn.values())
    return ConfusionMatrix(counts, tuple(drawn), explanation, examples, tuple(classes), caption)


def most_confused(counts: Mapping[Place, int], most: int) -> list[int]:
    """The classes that occur or, of more than ``most``, those most often confused, then those of most pictures."""
    occurring = sorted({index for place in counts for index in place})
    if len(occurring) <= most:
        return occurring
    classes: set[int] = set()
    for place in sorted(counts, key=lambda place: (place[0] == place[1], -counts[place], place)):
        if len(classes | set(place)) <= most:
            classes |= set(place)
    return sorted(classes)


def _summary(counts: Mapping[Place, int], classes: Sequence[int]) -> str:
    right = sum(count for (truth, predicted), count in counts.items() if truth == predicted)
    pictures, occurring = sum(counts.values()), len({index for place in counts for index in place})
    drawn = f"; {len(classes)} of {occurring} classes drawn, the most confused" if len(classes) < occurring else ""
    return f"{right} of {pictures} pictures named right ({right / pictures:.1%}){drawn}"


@dataclass(frozen=True)
class Prediction:
    """A picture's true class, predicted class, and score of the predicted class."""

    label: int
    predicted: int
    score: float


def _predictions(
    ask: Callable[..., Explanation],
    batches: Iterable[tuple[Sequence[tuple[int, int]], Tensor, Any]],
    tell: Callable[[int], None],
) -> dict[int, Prediction]:
    """The prediction for each readable picture, by the picture's number; batches come with number and label."""
    guess = terms.prediction()
    formula = terms.noted(terms.noted(terms.image(), "guess", guess), "score", terms.toward(terms.score(), guess))
    predictions: dict[int, Prediction] = {}
    for tags, inputs, _ in batches:
        notes = ask(inputs, formula, target=[label for _, label in tags]).notes
        rows = zip(tags, notes["guess"].tolist(), notes["score"].tolist(), strict=True)
        predictions |= {number: Prediction(label, predicted, score) for (number, label), predicted, score in rows}
        tell(tags[-1][0] + 1)
    return predictions


def _means(
    ask: Callable[[Tensor, Sequence[int]], Explanation],
    batches: Iterable[tuple[Sequence[int], Tensor, Any]],
    cell_of: Mapping[int, Place],
    tell: Callable[[int], None],
) -> dict[Place, Explanation]:
    """For each cell the mean explanation of its pictures, which are explained now."""

    def explained() -> Iterator[tuple[Place, Explanation]]:
        done = 0
        for numbers, inputs, _ in batches:
            for number, explanation in zip(numbers, ask(inputs, numbers), strict=True):
                yield cell_of[number], explanation
            tell(done := done + len(numbers))

    return cell_means(explained())


def cell_means(explained: Iterable[tuple[Place, Explanation]]) -> dict[Place, Explanation]:
    """For each cell the mean of its explanations; a single one is kept with its notes."""
    means: dict[Place, Explanation] = {}
    members: Counter[Place] = Counter()
    for place, explanation in explained:
        alone = _in_main_memory(explanation)
        members[place] += 1
        means[place] = _updated(means[place], alone, 1 / members[place]) if place in means else alone
    if max(members.values()) > 1:  # what was noted of one picture has no mean
        means = {place: replace(mean, notes={}) for place, mean in means.items()}
    return means


def _in_main_memory(part: Explanation) -> Explanation:
    """A copy in main memory, since a slice would keep its whole batch alive on the device."""
    values, inputs, score = (tensor.detach().to("cpu", copy=True) for tensor in (part.values, part.inputs, part.score))
    target = None if part.target is None else part.target.cpu()
    notes = {name: note.cpu() for name, note in part.notes.items()}
    return replace(part, values=values, inputs=inputs, target=target, score=score, notes=notes)


def _updated(mean: Explanation, new: Explanation, share: float) -> Explanation:
    """The running mean after one more explanation."""
    if mean.inputs.shape != new.inputs.shape or mean.values.shape != new.values.shape:
        raise ValueError("the pictures reach the model in different sizes, and have no mean; give them one size")
    return replace(
        mean,
        values=mean.values + share * (new.values - mean.values),
        inputs=mean.inputs + share * (new.inputs - mean.inputs),
        score=mean.score + share * (new.score - mean.score),
    )


def _example(numbers: Sequence[int], predictions: Mapping[int, Prediction], cell: str) -> int:
    """The picture of the cell with the highest or, for "typical", the median score."""
    ranked = sorted(numbers, key=lambda number: (predictions[number].score, -number))
    return ranked[-1] if cell == "surest" else ranked[(len(ranked) - 1) // 2]
