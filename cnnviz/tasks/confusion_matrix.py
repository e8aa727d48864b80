"""Which classes are taken for which, and what the network looked at in each cell of that matrix.

Two passes over the pictures: the first asks only for predictions, the second explains what is drawn. So memory holds
a number for each picture, one batch, and one picture for each cell that is drawn.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnviz.drawing.confusion_matrix import Place, matrix
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation, joined
from cnnviz.formulas import terms
from cnnviz.images.batches import Picture, in_batches
from cnnviz.images.files import picture_suffix, write_pictures
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Renderer

CELLS = {
    "typical": "the picture whose score is the median of its cell",
    "surest": "the picture with the highest score of its cell",
    "mean": "the mean of all pictures of the cell, and of their maps",
}
TOWARD = {"prediction": "the predicted class", "truth": "the true class"}


@dataclass(frozen=True, eq=False)
class Confusions:
    """A confusion matrix, and an explanation for each of its cells that is drawn."""

    counts: Mapping[Place, int]
    """How many pictures each cell (true class, predicted class) holds; of all classes, those that occur."""
    places: tuple[Place, ...]
    """The cells that are drawn, in the order of ``explanation``."""
    explanation: Explanation
    """One item for each cell: a picture, or the mean of its pictures, with its map."""
    examples: tuple[int, ...]
    """Which picture each cell shows, counted from 0; its first, where it shows their mean."""
    classes: tuple[int, ...]
    """The classes that are drawn."""
    says: tuple[str, ...] = ()
    """What the matrix is told to be, in lines."""

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def accuracy(self) -> float:
        """Which share of the pictures was named right."""
        return sum(count for (truth, guess), count in self.counts.items() if truth == guess) / len(self)

    def name_of(self, index: int) -> str:
        """The class's name, or ``class 7`` where names are not known."""
        return self.explanation.name_of(index)

    def render(self, renderer: str | Renderer | None = None, **settings: Any) -> NDArray[np.uint8]:
        """The matrix as a picture (H, W, 3), uint8; its cells are drawn as :meth:`Explanation.render` draws them."""
        pictures = self.explanation.render(renderer, **settings)
        totals: Counter[int] = Counter()
        for (truth, _), count in self.counts.items():
            totals[truth] += count
        names = {each: self.name_of(each) for each in self.classes}
        return matrix(dict(zip(self.places, pictures, strict=True)), self.counts, names, totals, self.says)

    def save(self, path: str | Path, renderer: str | Renderer | None = None, **settings: Any) -> None:
        """Write the matrix as a picture, whole or not at all. Raises ValueError for a suffix that is none."""
        picture_suffix(path)
        write_pictures(path, [self.render(renderer, **settings)])

    def table(self) -> str:
        """The counts as CSV, a line for each cell that occurs: true class, predicted class, count."""
        stream = io.StringIO()
        write = csv.writer(stream, lineterminator="\n")
        write.writerow(["true", "predicted", "count"])
        for (truth, guess), count in sorted(self.counts.items()):
            write.writerow([self.name_of(truth), self.name_of(guess), count])
        return stream.getvalue()


def find_confusions(
    model: nn.Module | LoadedModel,
    pictures: Sequence[tuple[Picture, int]],
    attribution: str | Attribution = "grad_cam",
    *,
    cell: Literal["typical", "surest", "mean"] = "typical",
    toward: Literal["prediction", "truth"] = "prediction",
    most: int = 12,
    preprocessing: Preprocessing | None = None,
    categories: Sequence[str] | None = None,
    batch: int = 8,
    seed: int = 0,
    memory: int | None = None,
    before_softmax: bool = False,
    unreadable: Callable[[Picture, Exception], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Confusions:
    """The saliency confusion matrix of many pictures (after prasannals' neural_viz, which has it of one).

    Args:
        model: as for :func:`cnnviz.explain`.
        pictures: each with the number of its true class: files, PIL images, or inputs (C, *spatial).
        attribution: a method's name, a formula, or any callable of a run.
        cell: what a cell shows. "typical": the picture whose score for the predicted class is the median of the cell
            (of an even number the lower one); "surest": the one with the highest score; "mean": the mean of all its
            pictures and of all their maps. What is fine and signed cancels out in a mean, as gradients do.
        toward: which class is explained, the predicted one or the true one.
        most: how many classes are drawn, 2 or more. If more occur, those of the most frequent confusions.
        preprocessing, categories, seed, memory, before_softmax: as for :func:`cnnviz.explain`.
        batch: how many pictures are looked at together.
        unreadable: told each file that cannot be read, which is then left out; None raises its error.
        progress: told how many looks at a picture are done, of how many.
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
    if isinstance(model, LoadedModel):
        preprocessing, categories = preprocessing or model.preprocessing, categories or model.categories
        model = model.module
    how = {"seed": seed, "memory": memory, "before_softmax": before_softmax}
    ask = _Asking(model, pictures, preprocessing, categories, batch, how)
    tell = progress or (lambda done, of: None)
    judged = _judged(ask, unreadable, lambda done: tell(done, len(pictures)))
    if not judged:
        raise ValueError("there are no pictures that can be read; name at least one")
    cells: dict[Place, list[int]] = {}
    for number, each in judged.items():
        cells.setdefault((each.label, each.guess), []).append(number)
    counts = {place: len(numbers) for place, numbers in sorted(cells.items())}
    classes = _drawn(counts, most)
    shown = {place: cells[place] for place in counts if set(place) <= set(classes)}
    if cell != "mean":
        shown = {place: [_chosen(numbers, judged, cell)] for place, numbers in shown.items()}
    targets = {number: place[toward == "prediction"] for place, numbers in shown.items() for number in numbers}
    every = len(pictures) + len(targets)
    means = _means(ask, shown, targets, attribution, settings, lambda done: tell(len(pictures) + done, every))
    explanation = joined([means[place] for place in shown])
    says = _told(counts, classes), f"{explanation.recipe} of {TOWARD[toward]}; each cell: {CELLS[cell]}"
    examples = tuple(numbers[0] for numbers in shown.values())
    return Confusions(counts, tuple(shown), explanation, examples, tuple(classes), says)


def _told(counts: Mapping[Place, int], classes: Sequence[int]) -> str:
    right = sum(count for (truth, guess), count in counts.items() if truth == guess)
    every, occurring = sum(counts.values()), len({each for place in counts for each in place})
    drawn = f"; {len(classes)} of {occurring} classes drawn, the most confused" if len(classes) < occurring else ""
    return f"{right} of {every} pictures named right ({right / every:.1%}){drawn}"


@dataclass(frozen=True, eq=False)
class _Asking:
    """How pictures are read and asked about, batch by batch."""

    model: nn.Module
    pictures: Sequence[tuple[Picture, int]]
    preprocessing: Preprocessing | None
    categories: Sequence[str] | None
    batch: int
    how: Mapping[str, Any]
    """What else ``explain`` is told: seed, memory, before_softmax."""

    def __call__(self, inputs: Tensor, attribution: Any, target: list[int], settings: Any) -> Explanation:
        told: Any = {"preprocessing": self.preprocessing, "categories": self.categories, **self.how, **settings}
        weight = next(self.model.parameters(), None)
        inputs = inputs if weight is None else inputs.to(weight.device, weight.dtype)
        found: Explanation = explain(self.model, inputs, attribution, target=target, **told)
        return found


@dataclass(frozen=True)
class _Judged:
    """What a picture is, what it is taken for, and the score of that."""

    label: int
    guess: int
    score: float


def _judged(
    ask: _Asking, unreadable: Callable[[Picture, Exception], None] | None, tell: Callable[[int], None]
) -> dict[int, _Judged]:
    """Of each picture that can be read."""
    guess = terms.prediction()
    asked = terms.noted(terms.image(), "guess", guess)
    asked = terms.noted(asked, "score", terms.toward(terms.score(), guess))
    judged: dict[int, _Judged] = {}
    # a data set may read a picture when it is asked for it, so it is asked once
    labelled = (((number, label), picture) for number, (picture, label) in enumerate(ask.pictures))
    for tags, inputs in in_batches(labelled, ask.preprocessing, ask.batch, unreadable):
        numbers, labels = zip(*tags, strict=True)
        notes = ask(inputs, asked, list(labels), {}).notes
        each = zip(labels, notes["guess"].tolist(), notes["score"].tolist(), strict=True)
        judged.update(zip(numbers, (_Judged(*found) for found in each), strict=True))
        tell(numbers[-1] + 1)
    return judged


def _means(
    ask: _Asking,
    shown: Mapping[Place, Sequence[int]],
    targets: Mapping[int, int],
    attribution: str | Attribution,
    settings: Mapping[str, Any],
    tell: Callable[[int], None],
) -> dict[Place, Explanation]:
    """For each cell the mean of the pictures it shows; of a single one itself, with all that was noted of it."""
    cell_of = {number: place for place, numbers in shown.items() for number in numbers}
    means: dict[Place, Explanation] = {}
    met: Counter[Place] = Counter()
    chosen = ((number, ask.pictures[number][0]) for number in targets)
    for numbers, inputs in in_batches(chosen, ask.preprocessing, ask.batch):
        answer = ask(inputs, attribution, [targets[number] for number in numbers], settings)
        for number, each in zip(numbers, answer, strict=True):
            place = cell_of[number]
            met[place] += 1
            means[place] = _moved(means[place], each, 1 / met[place]) if place in means else _alone(each)
        tell(met.total())
    if max(met.values()) > 1:  # what was noted of one picture has no mean
        means = {place: replace(mean, notes={}) for place, mean in means.items()}
    return means


def _alone(each: Explanation) -> Explanation:
    """A copy, for a part of a batch keeps the whole of it; in main memory, which is larger."""
    values, inputs = (tensor.detach().to("cpu", copy=True) for tensor in (each.values, each.inputs))
    target = None if each.target is None else each.target.cpu()
    notes = {name: note.cpu() for name, note in each.notes.items()}
    return replace(each, values=values, inputs=inputs, target=target, score=each.score.cpu(), notes=notes)


def _moved(mean: Explanation, each: Explanation, share: float) -> Explanation:
    """The mean with one more in it."""
    if mean.inputs.shape != each.inputs.shape or mean.values.shape != each.values.shape:
        raise ValueError("the pictures reach the model in different sizes, and have no mean; give them one size")
    return replace(
        mean,
        values=mean.values + share * (each.values.cpu() - mean.values),
        inputs=mean.inputs + share * (each.inputs.cpu() - mean.inputs),
        score=mean.score + share * (each.score.cpu() - mean.score),
    )


def _chosen(numbers: Sequence[int], judged: Mapping[int, _Judged], cell: str) -> int:
    ranked = sorted(numbers, key=lambda number: (judged[number].score, -number))
    return ranked[-1] if cell == "surest" else ranked[(len(ranked) - 1) // 2]


def _drawn(counts: Mapping[Place, int], most: int) -> list[int]:
    """The classes that occur or, of more than so many, those of the most frequent confusions, then of most pictures."""
    occurring = sorted({each for place in counts for each in place})
    if len(occurring) <= most:
        return occurring
    found: set[int] = set()
    wrong = [place for place in counts if place[0] != place[1]]
    right = [place for place in counts if place[0] == place[1]]
    for places in (wrong, right):
        for place in sorted(places, key=lambda place: (-counts[place], place)):
            if len(found | set(place)) <= most:
                found |= set(place)
    return sorted(found)
